"""The tempered kernel's power and default penalty, from how far apart the classes are."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse

from deel_dualview.calculators.feature_maps import TEMPERED_POWER, fit_feature_map
from deel_dualview.linalg.rows import LazyRows

TEMPERED_TOTAL_PENALTY = 30.0
"""Largest default of K n under the tempered kernel."""

_SHARE_OF_MEDIAN_MARGIN = 0.9
"""Half of the examples would just reach the margin at 1; where classes have collapsed, nearly all of them together."""
_BLOCK_SIZE = 8192


class Tempering(NamedTuple):
    """Settings of the tempered kernel.

    Attributes:
        power: of the length of the features.
        total_penalty: default of K n.
    """

    power: float
    total_penalty: float


def fit_tempering(
    features: np.ndarray | LazyRows, labels: np.ndarray, num_classes: int, weights: np.ndarray | None = None
) -> Tempering:
    """Choose the settings under which most training examples keep their influence.

    As long as no example reaches the margin, all have coefficients of the same size, and those most alike come first.
    The surrogate is then given by the sums of the classes, and margins are K n times those at K n = 1. The total
    penalty is the one at which their median is 0.9, at most `TEMPERED_TOTAL_PENALTY`. A small one means classes far
    apart, whose examples are nearly parallel: a difference in length would outweigh every difference in angle, so
    the power shrinks with the square of the penalty.

    Args:
        features: of the training set, shape (n, d).
        labels: shape (n,).
        num_classes: c.
        weights: of the examples, shape (n,), which K is multiplied by; 1 by default.
    """
    sums = np.zeros((num_classes, features.shape[1]))
    for rows, units in _unit_blocks(features):
        own = np.ones(len(rows), np.float32) if weights is None else weights[rows]
        members = (own, (labels[rows], np.arange(len(rows))))
        sums += scipy.sparse.csr_array(members, shape=(num_classes, len(rows))) @ units
    means = sums / len(features)
    layer = means - (means.sum(axis=0) - means) / (num_classes - 1)
    margins = np.empty(len(features))
    for rows, units in _unit_blocks(features):
        logits = units @ layer.T.astype(np.float32)
        own = logits[np.arange(len(rows)), labels[rows]]
        logits[np.arange(len(rows)), labels[rows]] = -np.inf
        margins[rows] = own - logits.max(axis=1)
    median = float(np.median(margins)) if weights is None else _weighted_median(margins, weights)
    total = (
        min(_SHARE_OF_MEDIAN_MARGIN / median, TEMPERED_TOTAL_PENALTY)
        if median > 0
        else TEMPERED_TOTAL_PENALTY
    )
    return Tempering(TEMPERED_POWER * (total / TEMPERED_TOTAL_PENALTY) ** 2, total)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the median of values of which each counts as often as its weight says."""
    order = np.argsort(values)
    reached = weights[order].cumsum(dtype=np.float64)
    first, last = (
        np.searchsorted(reached, reached[-1] / 2, side="left"),
        np.searchsorted(reached, reached[-1] / 2, side="right"),
    )
    return float(values[order][[first, min(last, len(values) - 1)]].mean())


def _unit_blocks(features: np.ndarray | LazyRows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions (b,) and features at unit length (b, d)."""
    to_unit = fit_feature_map(features, "cosine", bias=False)
    for rows in np.array_split(np.arange(len(features)), -(-len(features) // _BLOCK_SIZE)):
        yield rows, to_unit(features[rows]).numpy()
