"""Forward: one pass of a model from inputs to features and outputs, traced."""

import threading

import keras
import tensorflow as tf

from deel_dualview.models import determinism, tracing
from deel_dualview.models.recording import recorded
from deel_dualview.models.splits import Split
from deel_dualview.typing import Inputs


class Forward:
    """Computes features (b, d) and outputs (b, c) of inputs, each trace compared with an eager call.

    Args:
        model: the Keras model.
        split: where its features are.
        lock: held while it is traced.
    """

    def __init__(self, model: keras.Model, split: Split, lock: threading.RLock) -> None:
        self._model, self._split, self._lock = model, split, lock
        self._function = tf.function(self.eager, autograph=False, reduce_retracing=True)
        self._traced: set[str] = set()

    def __call__(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        """Return features and outputs; these are the head's where there is one, else the model's own."""
        specs = tf.nest.map_structure(tracing.relaxed_spec, inputs)
        if (key := repr(specs)) not in self._traced:
            with self._lock:
                self._function.get_concrete_function(specs)
                traced, own = self._function(inputs), self.eager(inputs)
                determinism.check_traced(self._model, inputs, traced, own)
                self._traced.add(key)
        return self._function(inputs)

    def eager(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what a call does, without a trace of its own."""
        with recorded([self._split.layer]) as calls:
            outputs = tracing.call_model(self._model, inputs)
        features = self._split.features(calls[0])
        if self._split.head is None:
            return features, tf.cast(outputs, tf.float32)
        return features, self._split.head.of_features(features)
