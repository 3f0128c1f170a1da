"""Ensemble: the mean influence of several calculators, of models trained on random halves for instance."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, describe, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented, training_batch
from deel_dualview.models import InfluenceModel
from deel_dualview.search import ORDER, Best, block_top_k
from deel_dualview.stores import StoredVectors
from deel_dualview.typing import Target

Scale = Literal["none", "query"]
"""What the influence values of a member are divided by: nothing, or their standard deviation for each query."""

_BATCH = 1024


class Ensemble(BaseInfluenceCalculator):
    """Mean influence of several calculators, each of its own model, on one training set.

    value(x, i) = mean_m value_m(x, i). What one training run did by chance averages out; models trained on random
    halves of the training set (`train_on_subsets`) say, each of them, what the data do rather than what a network
    has memorised. Their calculators are built on the *whole* training set: influence on a query of examples that a
    model has not seen predicts retraining better than that of examples that it has.

    One unit is that of the members; with `scale="query"`, for members of different kinds, one standard deviation over
    the training set of the values for a query. The explained class of an evaluated example is the same for all
    members: by default the one that `model` predicts.

    A query costs what it costs the members, one after the other, and m n numbers for a batch of m queries: all values
    of a batch are held, also for `top_k`.

    Args:
        calculators: at least one, on the same training set.
        model: whose predictions are explained; by default that of the first calculator.
        scale: `"none"`, or `"query"` for values of unit standard deviation for each query before they are averaged.
        target: which class of an evaluated example is explained: `"prediction"`, `"label"` or a class index.

    Raises:
        TypeError: a member that is no calculator.
        ValueError: no calculator, other training sets, models of other outputs, or an output at each position.

    Example:
        >>> Ensemble([FirstOrderInfluenceCalculator(model, train) for model in models]).top_k(test, k=5)

    Source: averages over seeds: Park et al. (2023), section 3.2 (TRAK); over models of subsets: Ilyas et al. (2022).
    """

    def __init__(
        self,
        calculators: Sequence[BaseInfluenceCalculator],
        *,
        model: keras.Model | InfluenceModel | None = None,
        scale: Scale = "none",
        target: Target = "prediction",
    ) -> None:
        check_choice("scale", scale, get_args(Scale))
        self.scale = scale
        self.calculators = _check_calculators(calculators)
        first = self.calculators[0]
        super().__init__(
            first.model if model is None else model, first.train_set, target=target, store=first.store
        )
        for number, member in enumerate(self.calculators):
            require(
                member.model.num_outputs == self.model.num_outputs,
                "The models of an ensemble must have the same outputs.",
                {
                    "calculator": number,
                    "outputs": member.model.num_outputs,
                    "of the model": self.model.num_outputs,
                },
            )
            require(
                np.array_equal(member._hashes(), first._hashes()),
                "The calculators of an ensemble must be built on the same training set, also those of models that "
                "were trained on parts of it.",
                {
                    "calculator": number,
                    "examples": member.num_train,
                    "examples of the first": first.num_train,
                },
            )
            self._rely_on(*member._records)

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return self.calculators[0].num_train

    @property
    def stored_bytes(self) -> int:
        """Bytes that the stores of all members hold of the training examples."""
        return sum(member.stored_bytes for member in self.calculators)

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Refuse: each member has vectors of its own.

        Raises:
            ValueError: always.
        """
        raise ValueError("An ensemble has no influence vectors of its own: take those of its `calculators`.")

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the self-influence of every training example, lazily, elements of shape (b,), float32.

        With `scale="query"` all values of every training example are computed for it, n^2 in all.
        """
        train_set = self._check_same_train_set(train_set)
        compute = self._mean_self_influences if self.scale == "none" else self._scaled_self_influences
        return self._lazy_dataset(lambda: compute(train_set), tf.TensorSpec([None], tf.float32))

    def _mean_self_influences(self, train_set: tf.data.Dataset) -> Iterator[np.ndarray]:
        members = [one.compute_influence_values(train_set).rebatch(_BATCH) for one in self.calculators]
        for parts in zip(*members, strict=True):
            yield np.stack([part.numpy() for part in parts]).mean(axis=0)

    def _scaled_self_influences(self, train_set: tf.data.Dataset) -> Iterator[np.ndarray]:
        labelled, stop = copy.copy(self), 0
        labelled.target = "label"
        for batch in self._train_batches(train_set):
            values = labelled._values(training_batch(self.model, batch))
            start, stop = stop, stop + len(values)
            yield values[np.arange(len(values)), np.arange(start, stop)]

    def _values(self, represented: Represented) -> np.ndarray:
        total = np.zeros((len(represented), self.num_train), np.float32)
        classes = self._explained_classes(represented)
        for member in self.calculators:
            values = self._member_values(member, represented, classes)
            if self.scale == "query":
                deviations = values.std(axis=1, keepdims=True)
                values = np.divide(values, deviations, out=np.zeros_like(values), where=deviations > 0)
            total += values
        return total / len(self.calculators)

    def _member_values(
        self, member: BaseInfluenceCalculator, represented: Represented, classes: np.ndarray
    ) -> np.ndarray:
        """Return the values of one member for the classes that the ensemble explains."""
        explaining, by_member = copy.copy(member), copy.copy(represented.by(member.model))
        explaining.target = self.target
        if self.model.is_classifier:
            # The members may predict other classes.
            explaining.target, by_member.labels = "label", classes
        return explaining._values(by_member.check_finite())

    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        return block_top_k(self._values(represented), np.arange(self.num_train), k, order)

    def _stored(self) -> StoredVectors:
        return self.calculators[0]._stored()


def _check_calculators(calculators: Sequence[BaseInfluenceCalculator]) -> tuple[BaseInfluenceCalculator, ...]:
    """Return the members of an ensemble, at least one.

    Raises:
        TypeError: something else.
        ValueError: none.
    """
    needed = (
        "An ensemble is made of a list of calculators, such as [GradDot(model, train) for model in models]."
    )
    if not isinstance(calculators, Sequence):
        raise TypeError(describe(needed, {"calculators": calculators}))
    for member in calculators:
        if not isinstance(member, BaseInfluenceCalculator):
            raise TypeError(describe(needed, {"member": type(member).__name__}))
    require(bool(calculators), needed, {"calculators": calculators})
    return tuple(calculators)
