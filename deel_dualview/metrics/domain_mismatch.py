"""Whether attributions name the marked training examples that taught a model a shortcut."""

from __future__ import annotations

from typing import Any

import numpy as np

from deel_dualview._checks import require
from deel_dualview.metrics.base import (
    MeanMetric,
    MetricResult,
    checked_classes,
    checked_vector,
    row_blocks,
    shape_of,
)
from deel_dualview.metrics.flags import checked_flags


class DomainMismatch(MeanMetric):
    """Share of misled test examples whose first proponent is a marked training example.

    A mark is put on training images of one class m. A test example counts when it bears the mark, is
    predicted m, and is not of class m: the mark must have decided. Random attributions score the share of
    marked training examples.

    Args:
        is_marked: of every training example, shape (n,), boolean.
        marked_class: m.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Attributes:
        num_seen: test examples given, also those that do not count.

    Source: DualView, section 5; the area under the precision-recall curve is DualXDA's.
    """

    def __init__(
        self,
        is_marked: Any,
        marked_class: int,
        *,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.is_marked = checked_flags("is_marked", is_marked)
        self.marked_class = int(checked_classes("marked_class", [marked_class], 1)[0])
        require(
            bool(self.is_marked.any()), "No training example is marked.", {"num_train": len(self.is_marked)}
        )

    def reset_state(self) -> None:
        """Forget all examples."""
        super().reset_state()
        self._precisions: list[float] = []
        self.num_seen = self._num_of_class = self._num_predicted_otherwise = 0

    def update_state(self, influence_values: Any, test_labels: Any, predictions: Any) -> None:
        """Count those of a batch of marked test examples that were misled.

        Args:
            influence_values: shape (m, n), of the predictions.
            test_labels: true classes, shape (m,).
            predictions: the model's classes, shape (m,).

        Raises:
            ValueError: shapes do not fit, values are not finite, or classes are no integers.
        """
        num_test, num_train = shape_of(influence_values)
        checked_vector("is_marked", self.is_marked, num_train)
        is_other = checked_classes("test_labels", test_labels, num_test) != self.marked_class
        is_misled = checked_classes("predictions", predictions, num_test) == self.marked_class
        self.num_seen += num_test
        self._num_of_class += int(np.sum(~is_other))
        self._num_predicted_otherwise += int(np.sum(is_other & ~is_misled))
        for rows, block in row_blocks(influence_values):
            eligible = block[(is_other & is_misled)[rows]]
            self._append(self.is_marked[np.argmax(eligible, axis=1)])
            self._precisions += [_average_precision(row, self.is_marked) for row in eligible]

    def result(self) -> MetricResult:
        """Return the share.

        Raises:
            ValueError: no test example was misled by the mark; the message says how many of each kind came.
        """
        self._check_any()
        return super().result()

    @property
    def average_precision(self) -> float:
        """Mean area under the precision-recall curve of finding marked examples by their influence."""
        self._check_any()
        return float(np.mean(self._precisions))

    def _check_any(self) -> None:
        require(
            len(self.scores) > 0,
            f"No test example was misled by the mark of class {self.marked_class}.",
            {
                "seen": self.num_seen,
                "of that class": self._num_of_class,
                "predicted otherwise": self._num_predicted_otherwise,
            },
        )


def _average_precision(values: np.ndarray, is_wanted: np.ndarray) -> float:
    """Return scikit-learn's average precision in a tenth of its time: thresholds at wanted examples are enough."""
    thresholds, counts = np.unique(values[is_wanted], return_counts=True)
    num_found = np.cumsum(counts[::-1])[::-1]
    num_above = len(values) - np.searchsorted(np.sort(values), thresholds)
    return float(np.sum(counts * num_found / num_above) / counts.sum())
