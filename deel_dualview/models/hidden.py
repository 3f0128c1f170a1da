"""The penultimate features of a model together with the layer before them, of one forward pass."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.models import tracing
from deel_dualview.models.influence_model import InfluenceModel
from deel_dualview.models.inputs import structure_of
from deel_dualview.models.recording import LayerCall, recorded
from deel_dualview.models.replicas import ReplicatedFunction
from deel_dualview.typing import Inputs

_MAX_WIDTH = 512
"""Numbers of an example that are kept of the layer before: of a wider one, random projections (cosines stay)."""
_layers = keras.layers
_KINDS = (
    *(_layers.Dense, _layers.EinsumDense, _layers.RNN, _layers.Bidirectional, _layers.Embedding),
    *(_layers.Conv1D, _layers.Conv2D, _layers.Conv3D, _layers.SeparableConv1D, _layers.SeparableConv2D),
    *(_layers.DepthwiseConv1D, _layers.DepthwiseConv2D, _layers.Conv1DTranspose, _layers.Conv2DTranspose),
    _layers.MultiHeadAttention,
)


class Hidden(NamedTuple):
    """Layers of b examples.

    Attributes:
        features: penultimate features, shape (b, d).
        logits: class logits, shape (b, c).
        before: inputs of the last layer with weights that the features are made by, shape (b, at most 512); None
            where those are no numbers (token ids), or there is no such layer.
    """

    features: tf.Tensor
    logits: tf.Tensor
    before: tf.Tensor | None


class HiddenLayers:
    """Calls a model on inputs and returns its `Hidden` layers.

    Where batches may differ in length, what a layer takes is averaged over positions, so that all rows are as wide.

    Args:
        model: prepared on a batch, see `InfluenceModel.prepare`.
        seed: of random projections.
        given: specs of the inputs of the dataset; None where all batches have one length.
    """

    def __init__(self, model: InfluenceModel, seed: int = 0, given: Inputs | None = None) -> None:
        self._model, self._given, self._seed = model, given, seed
        structure = structure_of(model.model)
        wanted = [] if structure is None else keras.tree.flatten(structure)
        takes_any_length = not wanted or any(None in want.shape[1:] for want in wanted)
        self._has_lengths = given is not None and takes_any_length
        self._compute = ReplicatedFunction(self._hidden, model.strategy)

    def __call__(self, inputs: Inputs) -> Hidden:
        self._model.prepare(inputs)
        specs = tf.nest.map_structure(tracing.relaxed_spec, inputs)
        if self._has_lengths:
            specs = tf.nest.map_structure(_as_unknown, specs, self._given)
        with self._model.lock:
            function = self._compute.for_batch(inputs).get_concrete_function(specs)
        with tracing.with_own_errors(self._model.model, inputs):
            features, logits, *before = function(
                *tf.nest.flatten(tf.nest.map_structure(tf.convert_to_tensor, inputs))
            )
        return Hidden(features, logits, before[0] if before else None)

    def _hidden(self, inputs: Inputs) -> tuple[tf.Tensor, ...]:
        split = self._model.split
        kernels = [layer for layer in tracing.all_layers(self._model.model) if isinstance(layer, _KINDS)]
        watched = list({id(layer): layer for layer in [*kernels, split.layer]}.values())
        with recorded(watched) as calls:
            outputs = tracing.call_model(self._model.model, inputs)
        position = next(number for number, call in enumerate(calls) if call.layer is split.layer)
        features = split.features(calls[position])
        if split.head is None:
            logits = self._model.objective.from_native(tf.cast(outputs, tf.float32), self._model.link)
        else:
            logits = self._model.logits_of_features(features)
        earlier = calls[: position + (not split.takes_input)]
        before = [call for call in earlier if isinstance(call.layer, _KINDS)]
        rows = self._rows(before[-1]) if before else None
        return (features, logits) if rows is None else (features, logits, rows)

    def _rows(self, call: LayerCall) -> tf.Tensor | None:
        """Return the inputs of a call as rows, None where they are no numbers."""
        taken = call.inputs
        if (
            not tf.is_tensor(taken)
            or not taken.dtype.is_floating
            or taken.shape.rank is None
            or taken.shape.rank < 2
        ):
            return None
        taken = tf.cast(taken, tf.float32)
        if taken.shape[1:].num_elements() is None:
            taken = tf.reduce_mean(taken, axis=list(range(1, taken.shape.rank - 1)))
        width = taken.shape[1:].num_elements()
        if not width:
            return None
        rows = tf.reshape(taken, (-1, width))
        if width <= _MAX_WIDTH:
            return rows
        projection = np.random.default_rng(self._seed).standard_normal((width, _MAX_WIDTH), np.float32)
        return rows @ tf.constant(projection / np.sqrt(np.float32(_MAX_WIDTH)))


def _as_unknown(spec: tf.TensorSpec, given: tf.TensorSpec) -> tf.TensorSpec:
    """Return the spec of a batch without the sizes that a dataset does not know."""
    if given.shape.rank != spec.shape.rank:
        return spec
    sizes = [known and own for own, known in zip(spec.shape, given.shape, strict=True)]
    return tf.TensorSpec([None, *sizes[1:]], spec.dtype)
