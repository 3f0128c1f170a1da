"""One forward pass over each set: penultimate features and predictions, with the layer before for label issues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.models import InfluenceModel
from deel_dualview.models.hidden import Hidden, HiddenLayers
from deel_dualview.stores import Store
from deel_dualview.stores.features import stored_features
from deel_dualview.typing import Inputs


class Layers(NamedTuple):
    """What a pass over a set has kept of its n examples.

    Attributes:
        features: shape (n, d).
        before: the layer before, shape (n, g), or None; see `Hidden`.
        predictions: classes, shape (n,); of a model that is no classifier its outputs, shape (n, c).
        batches: the same examples for a calculator; none of the training set, whose features are in a store.
    """

    features: np.ndarray
    before: np.ndarray | None
    predictions: np.ndarray
    batches: tuple[Represented, ...] = ()

    def represented(
        self, calculator: BaseInfluenceCalculator, test_set: tf.data.Dataset
    ) -> RepresentedExamples:
        """Return the test set as a calculator represents it: without another pass where its features are enough."""
        if calculator.follows_from_features:
            return RepresentedExamples(lambda: iter(self.batches), keep=True)
        return calculator.represent(test_set)


def read_training_layers(model: InfluenceModel, train_set: tf.data.Dataset, store: Store) -> Layers:
    """Run the network over the training set; its features are in `store` then, for any calculator that takes it."""
    compute = HiddenLayers(model, given=data.unpack(train_set.element_spec).inputs)

    def arrays_of(inputs: Inputs) -> dict[str, tf.Tensor | np.ndarray]:
        hidden = compute(inputs)
        before = {} if hidden.before is None else {"before": hidden.before}
        return {"features": hidden.features, "predictions": _predictions(model, hidden), **before}

    stored = stored_features(store, model, train_set, arrays_of)
    if "predictions" not in stored.names:
        # A calculator has kept the features alone: the network runs once more.
        kept = _Kept(model)
        for _ in data.map_batches(lambda batch: kept.keep(compute(batch.inputs)), train_set, "train"):
            pass
        return kept.layers(stored.array("features"))
    before = stored.array("before") if "before" in stored.names else None
    return Layers(stored.array("features"), before, stored.array("predictions"))


def read_test_layers(model: InfluenceModel, test_set: tf.data.Dataset) -> Layers:
    """Run the network over the test set."""
    compute, kept = HiddenLayers(model, given=data.unpack(test_set.element_spec).inputs), _Kept(model)

    def represent(batch: data.Batch) -> Represented:
        hidden = kept.keep(compute(batch.inputs))
        represented = Represented(model, batch.labels, features=hidden.features)
        represented.logits = hidden.logits
        return represented.check_finite()

    batches = tuple(data.map_batches(represent, test_set, "test"))
    return kept.layers(np.concatenate([batch.features.numpy() for batch in batches]), batches)


class _Kept:
    """Collects what a pass does not store: the layer before, and predictions."""

    def __init__(self, model: InfluenceModel) -> None:
        self._model = model
        self._before: list[np.ndarray] = []
        self._predictions: list[np.ndarray] = []

    def keep(self, hidden: Hidden) -> Hidden:
        if hidden.before is not None:
            self._before.append(hidden.before.numpy())
        self._predictions.append(_predictions(self._model, hidden))
        return hidden

    def layers(self, features: np.ndarray, batches: tuple[Represented, ...] = ()) -> Layers:
        before = np.concatenate(self._before) if self._before else None
        return Layers(features, before, np.concatenate(self._predictions), batches)


def _predictions(model: InfluenceModel, hidden: Hidden) -> np.ndarray:
    """Return the predicted classes (b,), or the outputs (b, c) of a model that is no classifier."""
    outputs = hidden.logits.numpy()
    return outputs.argmax(axis=1) if model.is_classifier else outputs
