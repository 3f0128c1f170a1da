"""Metrics of how often the first proponents belong to the class that is explained."""

from __future__ import annotations

from typing import Any

import numpy as np

from deel_dualview._checks import check_count, check_k
from deel_dualview.metrics.base import MeanMetric, checked_classes, checked_positions, row_blocks, shape_of
from deel_dualview.search import block_top_k


class TopKClass(MeanMetric):
    """Share of the k first proponents whose label is the reference of the test example.

    The score of a test example is a share of 1; random attributions score 1 / c with balanced classes.

    Args:
        k: number of proponents.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Hanawa et al. (2021); DualXDA.
    """

    def __init__(
        self, k: int = 5, *, confidence_level: float = 0.95, num_resamples: int = 1000, seed: int = 0
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.k = check_count("k", k)

    def update_state(self, influence_values: Any, training_labels: Any, explained_classes: Any) -> None:
        """Count a batch of test examples.

        Args:
            influence_values: shape (m, n), dense, sparse or a tensor.
            training_labels: classes, shape (n,).
            explained_classes: reference class of each test example, shape (m,): the predictions (as in the
                papers) or the labels.

        Raises:
            ValueError: shapes do not fit, values are not finite, or classes are no integers.
        """
        num_test, num_train = shape_of(influence_values)
        check_k(self.k, num_train)
        labels = checked_classes("training_labels", training_labels, num_train)
        references = checked_classes("explained_classes", explained_classes, num_test)
        for rows, block in row_blocks(influence_values):
            _, first = block_top_k(block, np.arange(num_train), self.k)
            self._append(np.mean(labels[first] == references[rows][:, None], axis=1))

    def update_top_k(self, training_indices: Any, training_labels: Any, explained_classes: Any) -> None:
        """Count a batch of test examples by their first proponents alone, as `top_k_indices` gives them.

        Args:
            training_indices: positions of the first proponents, the first k of them count, shape (m, at least k).
            training_labels: classes, shape (n,).
            explained_classes: reference class of each test example, shape (m,).

        Raises:
            ValueError: shapes do not fit, a position is not in the training set, or classes are no integers.
        """
        labels = checked_classes("training_labels", training_labels, len(training_labels))
        first = checked_positions(training_indices, self.k, len(labels))
        references = checked_classes("explained_classes", explained_classes, len(first))
        self._append(np.mean(labels[first] == references[:, None], axis=1))


class IdenticalClass(TopKClass):
    """Share of test examples whose first proponent has the explained class: `TopKClass(k=1)`.

    Source: Hanawa et al. (2021); DualView, section 5.
    """

    def __init__(self, *, confidence_level: float = 0.95, num_resamples: int = 1000, seed: int = 0):
        super().__init__(1, confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)


class IdenticalSubclass(MeanMetric):
    """Share of test examples whose first proponent has their subclass, for a model trained on superclasses.

    Source: Hanawa et al. (2021); DualView, section 5.
    """

    def update_state(self, influence_values: Any, training_subclasses: Any, test_subclasses: Any) -> None:
        """Count a batch of test examples.

        Args:
            influence_values: shape (m, n), of a model that never saw the subclasses.
            training_subclasses: shape (n,).
            test_subclasses: shape (m,).

        Raises:
            ValueError: shapes do not fit, values are not finite, or classes are no integers.
        """
        num_test, num_train = shape_of(influence_values)
        training = checked_classes("training_subclasses", training_subclasses, num_train)
        test = checked_classes("test_subclasses", test_subclasses, num_test)
        for rows, block in row_blocks(influence_values):
            self._append(training[np.argmax(block, axis=1)] == test[rows])

    def update_top_k(self, training_indices: Any, training_subclasses: Any, test_subclasses: Any) -> None:
        """Count a batch of test examples by their first proponents alone, as `top_k_indices` gives them.

        Args:
            training_indices: positions of the first proponents, shape (m, at least 1).
            training_subclasses: shape (n,).
            test_subclasses: shape (m,).

        Raises:
            ValueError: shapes do not fit, a position is not in the training set, or classes are no integers.
        """
        training = checked_classes("training_subclasses", training_subclasses, len(training_subclasses))
        first = checked_positions(training_indices, 1, len(training))[:, 0]
        self._append(training[first] == checked_classes("test_subclasses", test_subclasses, len(first)))
