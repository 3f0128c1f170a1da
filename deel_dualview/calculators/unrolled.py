"""Unrolled differentiation: the exact derivative of an output by the weight of every example of a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, describe, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented
from deel_dualview.data.hashing import combine, hash_rows
from deel_dualview.gradients import PerExampleGradients
from deel_dualview.linalg import blocks
from deel_dualview.models import InfluenceModel
from deel_dualview.models.recorded_training import RecordedTraining
from deel_dualview.search import ORDER, Best, block_top_k
from deel_dualview.stores import Store, StoredVectors
from deel_dualview.typing import Function, Target

_MOST_AT_ONCE, _BYTES_AT_ONCE = 64, 2**30
"""Default of `queries_at_once`: of 64, each pays 1/32 of a training for the replays, so that more gain nothing."""


class UnrolledInfluenceCalculator(BaseInfluenceCalculator):
    """Derivative of an output by the weight of each training example, exactly, through a recorded training.

    - d loss(x, c; theta_T(w)) / d w_i at the weights w that the model was trained with, where theta_T are the weights
    that T steps of the training lead to. One unit is one unit of loss: the value is the predicted increase of the
    query's loss when training example i is left out of every step, all else being as it was: initial weights, batches,
    their order, dropout and augmentation. Positive: the example supports the output. With `function="logit"` or
    `"margin"` it is the predicted decrease of these. The values of a group add up.

    The derivative is exact; the prediction is of first order, and good where the training is smooth. It explains this
    one training: another seed gives other values.

    The queries of a batch share the replays of the training, which cost about two trainings; each query costs about one
    to three more (see `docs/methods/unrolled.md` for seconds). To take many queries at a time, batch them. Values of
    queries are kept, n numbers each, so that the same ones cost nothing again. Self-influence costs as much as n
    queries. There are no influence vectors.

    Args:
        model: that the training left, with its trained weights.
        train_set: the recorded training set, batched.
        training: from `record_training`.
        function: what is differentiated: `"loss"`, or of a classifier `"logit"` or `"margin"`.
        queries_at_once: that one replay of the training takes at most; by default 64, or as many as hold 1 GiB, of
            `training.bytes_per_function` each. Values do not depend on it beyond rounding.
        target: which class of an evaluated example is explained.
        store: where the order of the training examples is kept.

    Raises:
        TypeError: `training` is not a RecordedTraining.
        ValueError: another model, other weights or another training set than the recorded ones.

    Source: Engstrom et al. (2025), Optimizing ML training with metagradient descent, section 2; Ilyas and Engstrom
        (2025), MAGIC: near-optimal data attribution for deep learning, section 3.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        training: RecordedTraining,
        function: Function = "loss",
        queries_at_once: int | None = None,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        self.training = _checked_training(training)
        self.queries_at_once = (
            max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // training.bytes_per_function))
            if queries_at_once is None
            else check_count("queries_at_once", queries_at_once)
        )
        self.gradients = PerExampleGradients(model, "all", function=function)
        self._check_trained(self.gradients.model.model)
        super().__init__(self.gradients.model, train_set, target=target, store=store)
        require(
            np.array_equal(self._hashes(), training.hashes),
            "`train_set` must hold the examples of the recorded training, in the same order.",
            {"examples": self.num_train, "recorded": training.num_train},
        )
        self._known: dict[int, np.ndarray] = {}

    def _check_trained(self, model: keras.Model) -> None:
        """Refuse a model with other weights than those that the training led to.

        Raises:
            ValueError: it has others.
        """
        own = [np.asarray(variable.value).reshape(-1) for variable in model.trainable_variables]
        is_same = np.array_equal(np.concatenate([np.zeros(0), *own]), self.training.parameters)
        require(
            is_same,
            "The model must have the weights that the recorded training led to: give `training.model`.",
            {"model": model.name},
        )

    @property
    def num_train(self) -> int:
        return self.training.num_train

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Refuse: there are no vectors of which these values are inner products.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Unrolled differentiation has no influence vectors, only values: call "
            "estimate_influence_values_in_batches(dataset) or top_k(dataset)."
        )

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        train_set = self._check_same_train_set(train_set)

        def parts() -> Iterator[np.ndarray]:
            start = 0
            for batch in self._train_batches(train_set):
                represented = Represented(self.model, batch.labels, inputs=batch.inputs)
                rows = self._values_at(represented, represented.targets)
                own = np.arange(len(rows))
                yield rows[own, start + own]
                start += len(rows)

        return self._lazy_dataset(parts, tf.TensorSpec([None], tf.float32))

    def _values(self, represented: Represented) -> np.ndarray:
        return self._values_at(represented, self._explained_classes(represented))

    def _values_at(self, represented: Represented, targets: np.ndarray) -> np.ndarray:
        """Return the values of a batch at what is explained of each example, shape (m, n): known ones as they are."""
        hashes = data.hash_examples(data.Batch(represented.inputs, None, None))
        keys = combine(hashes, hash_rows(np.asarray(targets))).tolist()
        first = {key: row for row, key in reversed([*enumerate(keys)])}
        missing = [row for key, row in first.items() if key not in self._known]
        for start in range(0, len(missing), self.queries_at_once):
            rows = missing[start : start + self.queries_at_once]
            inputs = tf.nest.map_structure(
                lambda tensor, rows=rows: tf.gather(tensor, rows), represented.inputs
            )
            found = self.training.derivatives(self._gradients(inputs, targets[rows]))
            # Of a loss the rise without the example, of a logit the fall: proponents are positive.
            sign = -1.0 if self.gradients.function == "loss" else 1.0
            self._known.update(
                zip([keys[row] for row in rows], (sign * found).astype(np.float32), strict=True)
            )
        return np.stack([self._known[key] for key in keys])

    def _gradients(self, inputs: object, targets: np.ndarray) -> tf.Tensor:
        """Return the gradients of the explained functions in all trainable weights, shape (m, p)."""
        parts: dict[int, tf.Tensor] = {}
        found = self.gradients(inputs, targets)
        for group, block in zip(self.gradients.groups, found, strict=True):
            tensors = group.unflatten(blocks.to_dense((block,)))
            parts.update(zip(map(id, group.variables), tensors, strict=True))
        own = self.model.model.trainable_variables
        return tf.concat([tf.reshape(parts[id(variable)], (len(targets), -1)) for variable in own], axis=1)

    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        return block_top_k(self._values(represented), np.arange(self.num_train), k, order)

    def _stored(self) -> StoredVectors:
        return self._examples_alone


def _checked_training(training: Any) -> RecordedTraining:
    """Return the training itself.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(training, RecordedTraining):
        needed = "`training` must be what record_training(model, train_set, ...) returns."
        raise TypeError(describe(needed, {"training": training}))
    return training
