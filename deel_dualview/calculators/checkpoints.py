"""Several checkpoints of one model: checked to be alike, and their gradients side by side."""

from collections.abc import Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.calculators.represented import Represented
from deel_dualview.gradients import PerExampleGradients, Weights, check_finite
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.projections import Projection
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.train_sets import to_influence_model
from deel_dualview.typing import Function

Models: TypeAlias = keras.Model | InfluenceModel | Sequence[keras.Model | InfluenceModel]
"""One model or several checkpoints of it."""


def check_models(models: Models) -> tuple[InfluenceModel, ...]:
    """Return one or several models as a tuple.

    Raises:
        TypeError: something is not a model.
        ValueError: there is none.
    """
    listed = list(models) if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    require(bool(listed), "At least one checkpoint is needed.", {"models": models})
    wrong = [model for model in listed if not isinstance(model, keras.Model | InfluenceModel)]
    if wrong:
        needed = "Checkpoints must be Keras models, or InfluenceModel(model) of each."
        raise TypeError(describe(needed, {"model of type": type(wrong[0]).__name__}))
    return tuple(to_influence_model(model) for model in listed)


class CheckpointGradients:
    """Gradients at every checkpoint, one after the other.

    Args:
        models: checkpoints of one architecture.
        weights: in which weights gradients are taken.
        function: what is differentiated.
        projection: the same for all checkpoints; none by default.

    Raises:
        TypeError: `weights` or `projection` is of another type.
        ValueError: an unknown function, or weights that the models do not have.
    """

    def __init__(
        self,
        models: tuple[InfluenceModel, ...],
        *,
        weights: Weights,
        function: Function,
        projection: Projection | None,
    ) -> None:
        self.models = models
        self.of_models = [
            PerExampleGradients(model, weights, function=function, projection=projection) for model in models
        ]

    def prepare(self, train_set: tf.data.Dataset) -> None:
        """Prepare all models on the first batch of the training set.

        Raises:
            ValueError: checkpoints of different architectures.
        """
        first = data.unpack(data.first_batch(train_set, "train_set"))
        for model in self.models:
            model.prepare(first.inputs)
        _check_same_architecture(self.models)
        self.records = tuple(model.record_weights() for model in self.models)
        for gradients in self.of_models:
            gradients.prepare(first.inputs, self.models[0].training_targets(first.labels))

    def represented(self, represented: Represented) -> list[Represented]:
        """Return a batch as each checkpoint represents it."""
        return [represented.by(model) for model in self.models]

    def __call__(self, represented: Sequence[Represented], classes: np.ndarray) -> list[Blocks]:
        """Return the gradients of a batch, given as each checkpoint represents it, at each."""
        pairs = zip(represented, self.of_models, strict=True)
        return [batch.gradients(gradients, classes) for batch, gradients in pairs]

    def checked(self, represented: Represented, classes: np.ndarray) -> list[Blocks]:
        """Return the gradients of a batch at each checkpoint.

        Raises:
            ValueError: some are not finite (the message says for which examples).
        """
        found = self(self.represented(represented), classes)
        return [check_finite(gradients, "examples") for gradients in found]

    def describe(self) -> dict[str, str]:
        """Return all settings that the gradients depend on, as text that keys a store."""
        fingerprints = " ".join(model.fingerprint for model in self.models)
        return {**self.of_models[0].describe(), "checkpoints": fingerprints}


def _check_same_architecture(models: tuple[InfluenceModel, ...]) -> None:
    first = _architecture(models[0])
    for index, model in enumerate(models):
        own = _architecture(model)
        different = [pair for pair in zip(first, own, strict=False) if pair[0] != pair[1]]
        require(
            not different and len(own) == len(first),
            "Checkpoints must be of one architecture, the same layers and shapes of weights; the first "
            f"one differs from number {index}.",
            {
                "first": different[0][0] if different else len(first),
                "other": different[0][1] if different else len(own),
            },
        )


def _architecture(model: InfluenceModel) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    return [
        (type(layer).__name__, tuple(tuple(weight.shape) for weight in layer.weights))
        for layer in tracing.all_layers(model.model)
    ]
