"""Metrics that correlate attributions with what retraining, or another attribution, gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

from deel_dualview._checks import require
from deel_dualview.data import to_array
from deel_dualview.metrics.base import MeanMetric, row_blocks, shape_of, to_reals
from deel_dualview.metrics.flags import checked_flags


def _row_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (m, n) with the same row of another matrix; nan for constant rows."""
    first, second = _scaled_and_centred(first), _scaled_and_centred(second)
    scale = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.sum(first * second, axis=1)
    return np.divide(products, scale, out=np.full(len(scale), np.nan), where=scale > 0)


def _scaled_and_centred(rows: np.ndarray) -> np.ndarray:
    """Return rows less their means, at a scale whose squares neither vanish nor overflow."""
    sizes = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows / np.where(sizes > 0, sizes, 1)
    return scaled - scaled.mean(axis=1, keepdims=True)


def _rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row with the same row of another matrix; 0 where a row is constant."""
    ranks = (scipy.stats.rankdata(values, axis=1) for values in (first, second))
    return np.clip(np.nan_to_num(_row_correlations(*ranks), nan=0.0), -1.0, 1.0)


class LinearDatamodelingScore(MeanMetric):
    """Spearman correlation of summed influence with the output of models trained on subsets.

    For a test example t and subsets S_j, sum_{i in S_j} tau_ti is compared, over j, with the log-probability
    that a model trained on S_j gives the explained class of t. Random attributions score 0; constant ones too.

    Args:
        subsets: which training examples each subset has, shape (s, n), boolean.
        confidence_level: of the bootstrap interval over test examples.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Ilyas et al. (2022); Park et al. (2023), definition 2.4.
    """

    def __init__(
        self, subsets: Any, *, confidence_level: float = 0.95, num_resamples: int = 1000, seed: int = 0
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.subsets = checked_flags("subsets", subsets)
        require(
            self.subsets.ndim == 2 and len(self.subsets) >= 2,
            "`subsets` must be a boolean matrix (num_subsets, num_train) of at least two subsets.",
            {"shape": self.subsets.shape},
        )

    def update_state(self, influence_values: Any, outputs: Any) -> None:
        """Score a batch of test examples.

        Args:
            influence_values: shape (m, n).
            outputs: log-probability of each test example's explained class by every subset's model, (m, s).

        Raises:
            ValueError: shapes do not fit, or values are not finite.
        """
        num_test, num_train = shape_of(influence_values)
        require(
            num_train == self.subsets.shape[1],
            "Influence values must be of the training set that `subsets` were drawn from.",
            {"num_train": num_train, "subsets": self.subsets.shape},
        )
        outputs = _checked_outputs(outputs, (num_test, len(self.subsets)))
        for rows, block in row_blocks(influence_values):
            self._append(_rank_correlations(block @ self.subsets.T.astype(np.float64), outputs[rows]))

    def noise_ceiling(self, outputs: Any, repeated_outputs: Any) -> float:
        """Return the mean score that outputs of other runs on the same subsets reach: what noise leaves.

        Args:
            outputs: shape (m, s).
            repeated_outputs: of models trained again on the same subsets with other seeds, shape (m, s).

        Raises:
            ValueError: shapes do not fit, values are not finite, or there is no test example.
        """
        shape = (len(to_array(outputs)), len(self.subsets))
        require(shape[0] > 0, "At least one test example is needed.", {"shape": shape})
        pair = _checked_outputs(outputs, shape), _checked_outputs(repeated_outputs, shape)
        return float(_rank_correlations(*pair).mean())


class LeaveOneOut(MeanMetric):
    """Pearson correlation of influence with the change that retraining without an example makes.

    One score for each test example, over the removed training examples.

    Source: Koh and Liang (2017), section 4.1.
    """

    def update_state(self, influence_values: Any, changes: Any) -> None:
        """Score a batch of test examples.

        Args:
            influence_values: of the removed examples alone, shape (m, r).
            changes: f_t(all) - f_t(all but i), f the explained output; for influence on a loss, the increase
                of the loss. Shape (m, r).

        Raises:
            ValueError: shapes do not fit, fewer than two examples were removed, or values are not finite.
        """
        shape = shape_of(influence_values)
        require(shape[1] >= 2, "At least two removed examples are needed.", {"shape": shape})
        changes = _checked_outputs(changes, shape)
        for rows, block in row_blocks(influence_values):
            self._append(np.nan_to_num(_row_correlations(block, changes[rows]), nan=0.0))


class ModelRandomisation(MeanMetric):
    """Spearman correlation of attributions with those of the same network with random weights.

    Near 0 where attributions depend on what the network has learned.

    Source: Hanawa et al. (2021); Adebayo et al. (2018).
    """

    def update_state(self, influence_values: Any, values_of_random_model: Any) -> None:
        """Score a batch of test examples; both matrices have the shape (m, n).

        Raises:
            ValueError: shapes do not fit, or values are not finite.
        """
        shape = shape_of(influence_values)
        require(
            shape_of(values_of_random_model) == shape,
            "Both models must be asked about the same examples.",
            {"shapes": (shape, shape_of(values_of_random_model))},
        )
        blocks = zip(row_blocks(influence_values), row_blocks(values_of_random_model), strict=True)
        for (_, block), (_, other) in blocks:
            self._append(_rank_correlations(block, other))


def _checked_outputs(outputs: Any, shape: tuple[int, int]) -> np.ndarray:
    array = to_reals("Outputs", outputs)
    require(array.shape == shape, f"Outputs must have the shape {shape}.", {"shape": array.shape})
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    require(len(bad) == 0, "Outputs must be finite.", {"rows": bad.tolist()})
    return array
