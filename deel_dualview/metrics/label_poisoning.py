"""Whether a global value of training examples finds those with a wrong label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics

from deel_dualview._checks import is_number, require
from deel_dualview.metrics.base import Metric, MetricResult, checked_vector, row_blocks, shape_of, to_reals
from deel_dualview.metrics.flags import checked_flags


class DetectionCurve(NamedTuple):
    """How many wrong labels are found by inspecting examples in the order of their value.

    Attributes:
        inspected: shares of the training set, rising, shape (n + 1,).
        found: share of the wrong labels among them, shape (n + 1,).
        best: the same for a perfect order; with `worst` it makes the parallelogram of the figures.
        worst: the same for the reverse of a perfect order.
    """

    inspected: np.ndarray
    found: np.ndarray
    best: np.ndarray
    worst: np.ndarray


class LabelErrorDetection(Metric):
    """Area under the ROC curve of a global value of every training example against wrong labels.

    The value may be self-influence, the slack of a surrogate, a loss. A random one scores 0.5. The interval
    resamples training examples.

    Args:
        is_poisoned: whether a training example's label is wrong, shape (n,), boolean.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Koh and Liang (2017), section 5.4; DualXDA.
    """

    def __init__(
        self, is_poisoned: Any, *, confidence_level: float = 0.95, num_resamples: int = 200, seed: int = 0
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.is_poisoned = checked_flags("is_poisoned", is_poisoned)
        require(
            self.is_poisoned.ndim == 1 and 0 < self.is_poisoned.sum() < self.is_poisoned.size,
            "`is_poisoned` must say of every training example whether its label is wrong, with some of either "
            "kind.",
            {"shape": self.is_poisoned.shape, "num_poisoned": int(self.is_poisoned.sum())},
        )

    def reset_state(self) -> None:
        """Forget all values."""
        self._parts: list[np.ndarray] = []

    def update_state(self, values: Any) -> None:
        """Take the values of the next training examples, in their order, shape (b,).

        Raises:
            ValueError: the values are no vector, or not finite.
        """
        part = to_reals("Global values", values)
        require(part.ndim == 1, "Global values must be a vector.", {"shape": part.shape})
        bad = np.flatnonzero(~np.isfinite(part))
        require(len(bad) == 0, "Global values must be finite.", {"positions": bad.tolist()})
        self._parts.append(part)

    @property
    def values(self) -> np.ndarray:
        """The global value of every training example, shape (n,)."""
        values = np.concatenate([np.empty(0), *self._parts])
        return checked_vector("values", values, len(self.is_poisoned))

    def result(self) -> MetricResult:
        """Return the area under the ROC curve.

        Raises:
            ValueError: not every training example has a value.
        """
        values, truth = self.values, self.is_poisoned
        # Sorted once: a resample then counts both kinds at each value.
        _, ranks = np.unique(values, return_inverse=True)

        def area(rows: np.ndarray) -> float:
            wrong, right = (np.bincount(ranks[rows[truth[rows] == kind]]) for kind in (True, False))
            num_pairs = wrong.sum() * right.sum()
            size = max(len(wrong), len(right))
            wrong, right = (np.pad(counts, (0, size - len(counts))) for counts in (wrong, right))
            in_order = wrong @ (np.cumsum(right) - right / 2)
            return float(in_order / num_pairs) if num_pairs else 0.5

        value = float(sklearn.metrics.roc_auc_score(truth, values))
        return MetricResult(value, len(values), self._interval(area, len(values)))

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve."""
        return float(sklearn.metrics.average_precision_score(self.is_poisoned, self.values))

    def recall_at(self, share: float) -> float:
        """Return the share of wrong labels among this share of the training set, highest values first.

        Raises:
            ValueError: the share does not lie between 0 and 1, or not every training example has a value.
        """
        require(is_number(share) and 0 <= share <= 1, "`share` must lie between 0 and 1.", {"share": share})
        curve = self.curve()
        return float(curve.found[int(np.floor(share * len(self.is_poisoned) + 1e-9))])

    def curve(self) -> DetectionCurve:
        """Return the detection curve; examples of equal value are inspected in the order of the training set."""
        truth = self.is_poisoned
        orders = np.argsort(-self.values, kind="stable"), np.argsort(~truth, kind="stable")
        found = [np.concatenate([[0.0], np.cumsum(truth[order]) / truth.sum()]) for order in orders]
        return DetectionCurve(np.linspace(0, 1, len(truth) + 1), found[0], found[1], 1 - found[1][::-1])


class LabelPoisoning(LabelErrorDetection):
    """The DualView paper's score: area under the ROC curve of how much an example influences all tests.

    The global value of example i is sum_t |tau_ti| / max_j |tau_tj|, fed a batch of test examples at a time.

    Source: DualView, section 5.
    """

    def reset_state(self) -> None:
        """Forget all values."""
        self._total: np.ndarray | None = None

    def update_state(self, influence_values: Any) -> None:
        """Add a batch of test examples, shape (m, n), dense, sparse or a tensor.

        Raises:
            ValueError: shapes do not fit, or values are not finite.
        """
        checked_vector("is_poisoned", self.is_poisoned, shape_of(influence_values)[1])
        for _, block in row_blocks(influence_values):
            sizes = np.abs(block)
            largest = sizes.max(axis=1, keepdims=True)
            shares = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0).sum(axis=0)
            self._total = shares if self._total is None else self._total + shares

    @property
    def values(self) -> np.ndarray:
        """The global value of every training example, shape (n,)."""
        require(self._total is not None, "LabelPoisoning has seen no example: call `update_state`.", {})
        return np.asarray(self._total)
