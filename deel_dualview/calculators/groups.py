"""The influence of groups of training examples as a whole."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.calculators.represented import RepresentedExamples, training_batch
from deel_dualview.gradients import check_finite
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks

if TYPE_CHECKING:
    from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator


# Only a type checker sees a subclass: what calculators have beside their one line of parents is no other parent.
if TYPE_CHECKING:
    _Calculator = InverseHessianCalculator
else:
    _Calculator = object


class InfluenceOfGroups(_Calculator):
    """The influence of groups, for calculators with an inverse Hessian."""

    @abstractmethod
    def _group_vector(self, group: tf.data.Dataset) -> Blocks:
        """Return the influence vector of a group, one row."""

    def compute_influence_vector_group(self, group: tf.data.Dataset) -> Blocks:
        """Return the influence vector of a group of training examples: the sum of theirs.

        Args:
            group: batched and labelled; its size need not be known beforehand.

        Returns:
            One row in blocks, each a matrix (1, p_k).

        Raises:
            ValueError: a group that is empty, endless, unbatched, unlabelled, larger than the training set,
                not a part of it or with examples repeated; gradients that are not finite.
        """
        self.check_unchanged()
        return self._group_vector(_checked(group))

    def estimate_influence_values_group(
        self, dataset_to_evaluate: tf.data.Dataset | RepresentedExamples, group: tf.data.Dataset
    ) -> tf.data.Dataset:
        """Return the influence of a group as a whole on every query, lazily, elements of shape (m,), float32.

        The value is the predicted increase of the query's loss when the whole group is removed.

        Args:
            dataset_to_evaluate: batched queries.
            group: training examples, batched and labelled; its size need not be known beforehand.

        Raises:
            ValueError: a group that is empty, endless, unbatched, unlabelled, larger than the training set,
                not a part of it or with examples repeated; gradients that are not finite.
        """
        self._check_queries(dataset_to_evaluate)
        _checked(group)

        def values() -> Iterator[tf.Tensor]:
            vector = self._group_vector(group)
            for represented in self._represented(dataset_to_evaluate):
                queries = self._queries(represented, self._explained_classes(represented))
                yield self._scores(queries, vector)[:, 0]

        return self._lazy_dataset(values, tf.TensorSpec([None], tf.float32))

    def _gradient_sum(self, group: tf.data.Dataset) -> tuple[Blocks, int]:
        """Return the sum of a group's gradients, one row, and the group's size."""
        total, size, hashes = None, 0, self._hashes()
        members: list[np.ndarray] = []
        for indices, element in data.enumerate_examples(group):
            members.append(data.hash_examples(element))
            is_known = np.isin(members[-1], hashes)
            require(
                bool(is_known.all()),
                "A group must consist of training examples, with inputs, labels and weights as in the training set.",
                {"unknown examples of the group": indices[~is_known].tolist()},
            )
            with data.naming_positions(int(indices[0]), "group"):
                self.model.refuse_positions("Influence of a group")
                represented = training_batch(self.model, data.unpack(element))
                gradients = check_finite(self._training_gradients(represented), "examples of the group")
            row = tf.reduce_sum(blocks.to_dense(gradients), axis=0, keepdims=True)
            total, size = (row if total is None else total + row), size + len(indices)
            require(
                size <= self.num_train,
                "A group cannot have more examples than the training set.",
                {"num_train": self.num_train},
            )
        require(size > 0, "A group of at least one example is needed.", {"group": group})
        num_repeated = _num_repeated(np.concatenate(members), hashes)
        require(
            num_repeated == 0,
            "A group must not name a training example more often than the training set has it.",
            {"num_repeated": num_repeated, "group": size},
        )
        return blocks.from_dense(total, gradients), size


def _num_repeated(members: np.ndarray, hashes: np.ndarray) -> int:
    """Return how many members of a group exceed the number of their equals among the training examples."""
    kinds, counts = np.unique(members, return_counts=True)
    owned, available = np.unique(hashes, return_counts=True)
    return int(np.maximum(counts - available[np.searchsorted(owned, kinds)], 0).sum())


def _checked(group: tf.data.Dataset) -> tf.data.Dataset:
    """Return a group; one that is unbatched, unlabelled, empty or endless is refused."""
    data.check_batched(group, "group")
    require(
        data.unpack(group.element_spec).labels is not None,
        "The examples of a group need labels: elements (inputs, labels).",
        {"element_spec": group.element_spec},
    )
    data.check_bounded(group, "group")
    return group
