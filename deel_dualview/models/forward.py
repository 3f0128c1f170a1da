"""Forward: one pass of a model from inputs to features and outputs, traced."""

import threading

import keras
import tensorflow as tf

from deel_dualview.models import determinism, tracing
from deel_dualview.models.keras_graph import mask_of
from deel_dualview.models.recording import recorded, without_time_loops
from deel_dualview.models.replicas import ReplicatedFunction
from deel_dualview.models.splits import Split
from deel_dualview.typing import Inputs


class Forward:
    """Computes features (b, d) and outputs (b, c) of inputs, each trace compared with an eager call.

    Of a model with an output at each position these are rows for all positions of all examples, and the mask of the
    outputs (b, *positions) follows, ones where Keras has none.

    Args:
        model: the Keras model.
        split: where its features are.
        lock: held while it is traced.
        strategy: whose devices share a batch; None for one device.
    """

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        lock: threading.RLock,
        strategy: tf.distribute.Strategy | None,
    ) -> None:
        self._model, self._split, self._lock = model, split, lock
        self._function = ReplicatedFunction(self.eager, strategy)
        self._traced: set[tuple[int, str]] = set()

    def __call__(self, inputs: Inputs) -> tuple[tf.Tensor, ...]:
        """Return features and outputs; these are the head's where there is one, else the model's own."""
        specs = tf.nest.map_structure(tracing.relaxed_spec, inputs)
        function = self._function.for_batch(inputs)
        if (key := (id(function), repr(specs))) not in self._traced:
            with self._lock:
                known = function.experimental_get_tracing_count()
                function.get_concrete_function(specs)
                # Batches of other lengths soon share a trace, so that the network runs once for each.
                if function.experimental_get_tracing_count() > known:
                    traced = function(inputs)
                    determinism.check_traced(self._model, inputs, traced, self.eager(inputs))
                self._traced.add(key)
        with tracing.with_own_errors(self._model, inputs):
            return function(inputs)

    def eager(self, inputs: Inputs) -> tuple[tf.Tensor, ...]:
        """Return what a call does, without a trace of its own."""
        split = self._split
        looping = tracing.all_layers(self._model) if split.num_axes else ()
        with without_time_loops(looping), recorded([split.layer]) as calls:
            outputs = tracing.call_model(self._model, inputs)
        features = split.features(calls[0])
        if split.head is None:
            rows = tf.reshape(outputs, (-1, split.num_outputs)) if split.num_axes else outputs
            found = features, tf.cast(rows, tf.float32)
        else:
            found = features, split.head.of_features(features)
        return (*found, _mask(outputs)) if split.num_axes else found


def _mask(outputs: tf.Tensor) -> tf.Tensor:
    """Return the mask of outputs (b, *positions, c), 1 for those that count, float32."""
    mask = mask_of(outputs)
    ones = tf.ones(tf.shape(outputs)[:-1])
    has_one_each = mask is not None and mask.shape.rank == outputs.shape.rank - 1
    return ones * tf.cast(mask, tf.float32) if has_one_each else ones
