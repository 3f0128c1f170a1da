"""One forward pass over each set: penultimate features and predictions, with the layer before for label issues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.linalg.rows import Rows
from deel_dualview.models import InfluenceModel
from deel_dualview.models.hidden import Hidden, HiddenLayers
from deel_dualview.stores import Store
from deel_dualview.stores.features import stored_features
from deel_dualview.stores.growing import GrowingRows
from deel_dualview.stores.rows import all_rows
from deel_dualview.typing import Inputs

_ROWS_OF_A_BATCH = 4096


class Layers(NamedTuple):
    """What a pass over a set has kept of its n examples.

    Attributes:
        features: shape (n, d); of the training set rows that are read, beyond the memory budget of its store.
        before: the layer before, shape (n, g), or None; see `Hidden`.
        predictions: classes, shape (n,); of a model that is no classifier its outputs, shape (n, c).
        batches: the same examples for a calculator; none of the training set, whose features are in a store.
    """

    features: Rows
    before: Rows | None
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
        kept = _Kept(model, None if store.memory_budget is None else store.memory_budget // 4)
        for _ in data.map_batches(lambda batch: kept.keep(compute(batch.inputs)), train_set, "train"):
            pass
        return kept.layers(all_rows(stored, "features"))
    before = all_rows(stored, "before") if "before" in stored.names else None
    return Layers(all_rows(stored, "features"), before, stored.array("predictions"))


def read_test_layers(model: InfluenceModel, test_set: tf.data.Dataset) -> Layers:
    """Run the network over the test set."""
    compute, kept = HiddenLayers(model, given=data.unpack(test_set.element_spec).inputs), _Kept(model)

    def represent(batch: data.Batch) -> Represented:
        hidden = kept.keep(compute(batch.inputs))
        represented = Represented(model, batch.labels, features=hidden.features)
        represented.logits = hidden.logits
        return represented.check_finite()

    batches = tuple(data.map_batches(represent, test_set, "test"))
    features = np.concatenate([batch.features.numpy() for batch in batches])
    # Every question reads the training set once a batch: few large ones.
    return kept.layers(features, tuple(Represented.joined(batches, _ROWS_OF_A_BATCH)))


class _Kept:
    """Collects what a pass does not store: the layer before, and predictions."""

    def __init__(self, model: InfluenceModel, most_bytes: int | None = None) -> None:
        self._model = model
        self._before = GrowingRows(most_bytes)
        self._predictions: list[np.ndarray] = []

    def keep(self, hidden: Hidden) -> Hidden:
        if hidden.before is not None:
            self._before.append(hidden.before.numpy())
        self._predictions.append(_predictions(self._model, hidden))
        return hidden

    def layers(self, features: Rows, batches: tuple[Represented, ...] = ()) -> Layers:
        before = self._before.in_memory() if len(self._before) else None
        return Layers(features, before, np.concatenate(self._predictions), batches)


def _predictions(model: InfluenceModel, hidden: Hidden) -> np.ndarray:
    """Return the predicted classes (b,), or the outputs (b, c) of a model that is no classifier."""
    outputs = hidden.logits.numpy()
    return outputs.argmax(axis=1) if model.is_classifier else outputs
