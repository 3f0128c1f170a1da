"""Where a Keras model can be split: its features, and the linear head that they feed."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview.models import heads
from deel_dualview.models.determinism import check_repeatable
from deel_dualview.models.heads import AffineMap, Head
from deel_dualview.models.keras_losses import ACTIVATIONS, Ending
from deel_dualview.models.named_outputs import output_names
from deel_dualview.models.recording import LayerCall, intercepted, recorded, without_time_loops
from deel_dualview.models.tracing import all_layers, call_model, named_layer
from deel_dualview.typing import Inputs

_LINKS: dict[str, Ending] = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid"}
_UNCHANGED = ("Identity", "Cast", "StopGradient")


class Split(NamedTuple):
    """Where the features are taken, and the linear head that they feed (None if there is none).

    Attributes:
        layer: the layer whose input or output is the features.
        takes_input: whether it is its input.
        head: the last layer, which the features feed.
        num_features: width d of the flattened features.
        num_outputs: width of the model's output.
        ending: how the outputs of the model follow from those of its last layer: `"logits"`, `"softmax"`,
            `"log-softmax"` or `"sigmoid"`.
        num_axes: number of axes of positions: 0 of outputs (b, c), 1 of sequences (b, T, c), 2 of images. Features are
            then one row for each example and position.
    """

    layer: keras.Layer
    takes_input: bool
    head: Head | None
    num_features: int
    num_outputs: int
    ending: Ending
    num_axes: int = 0

    def features(self, call: LayerCall) -> tf.Tensor:
        """Return the features (b, d) of a call of the layer, or (b * positions, d), float32."""
        taken = call.inputs if self.takes_input else call.outputs
        if self.takes_input and self.head is not None:
            taken = self.head.features(taken)
        return tf.reshape(tf.cast(taken, tf.float32), (-1, self.num_features))


def find_split(model: keras.Model, feature_layer: str | keras.Layer | None, specs: Inputs) -> Split:
    """Trace the model once and find where its features are.

    Args:
        model: the user's classifier.
        feature_layer: the layer whose output is the features; None for the input of the last Dense layer, or of a last
            convolution whose outputs are averaged.
        specs: specs of the inputs, batch dimension None.

    Raises:
        ValueError: no last layer that is linear, an output that is not (b, c), a shared head or feature layer.
    """
    named = named_layer(model, feature_layer)
    weighted = [layer for layer in all_layers(model) if isinstance(layer, heads.KINDS)]
    watched = list(
        {id(layer): layer for layer in [*weighted, *([named] if named is not None else [])]}.values()
    )
    seen: dict[str, list[LayerCall] | tf.Tensor] = {}

    def trace(inputs: Inputs) -> None:
        with recorded(watched) as seen["calls"]:
            seen["outputs"] = call_model(model, inputs)

    # autograph=False: Keras does not convert the calls of layers either, and errors stay readable.
    tf.function(trace, autograph=False).get_concrete_function(specs)
    outputs = seen["outputs"]
    if isinstance(outputs, tf.Tensor) and outputs.shape.rank != 2:
        with without_time_loops(all_layers(model)):
            tf.function(trace, autograph=False).get_concrete_function(specs)
    traced = _Traced(model, specs, seen["calls"], seen["outputs"], _output_width(model, seen["outputs"]))
    return _split_at_head(traced) if named is None else _split_after(traced, named)


class _Traced(NamedTuple):
    """One call of a model: the calls of its layers, its output and the width of that."""

    model: keras.Model
    specs: Inputs
    calls: list[LayerCall]
    outputs: tf.Tensor
    width: int

    @property
    def num_axes(self) -> int:
        """Number of axes of positions."""
        return int(self.outputs.shape.rank) - 2


def check_one_output(model: keras.Model, outputs: Any) -> None:
    """Refuse the outputs of a model that has several.

    Raises:
        ValueError: there are several; the message lists their names.
    """
    if not tf.is_tensor(outputs):
        names = output_names(model) or (sorted(outputs) if isinstance(outputs, dict) else range(len(outputs)))
        raise ValueError(
            "The model has several outputs: say which to explain, InfluenceModel(model, output=NAME). "
            f"Received: output=None of a model with the outputs {', '.join(map(str, names))}."
        )


def _output_width(model: keras.Model, outputs: tf.Tensor) -> int:
    check_one_output(model, outputs)
    if outputs.shape.rank is None or outputs.shape.rank < 2 or outputs.shape[-1] is None:
        raise ValueError(
            "A model must have an output of shape (batch, outputs), or (batch, positions, outputs) of one output at "
            f"each position. Received: output={outputs.shape}."
        )
    return int(outputs.shape[-1])


def _split_at_head(traced: _Traced) -> Split:
    advice = "Name the layer whose output to take as features: InfluenceModel(model, feature_layer=NAME)."
    last = _last_call(traced)
    _check_not_quantized(traced, last)
    if last is None:
        raise ValueError(
            "The features are the input of the last Dense layer (or of a last convolution whose outputs are averaged), "
            f"but this model calls none that makes its {traced.width} outputs. {advice} "
            "Received: a model without a Dense layer at its end."
        )
    if heads.width_of(last.layer) != traced.width or last.inputs.shape.rank < 2:
        raise ValueError(
            f"The last Dense layer of the model does not make its {traced.width} outputs. {advice} Received: layer "
            f"{last.layer.name!r} with {heads.width_of(last.layer)} units on inputs of shape {last.inputs.shape}."
        )
    if sum(call.layer is last.layer for call in traced.calls) > 1:
        raise ValueError(
            "The classification head is called more than once in one forward pass, so its input is not unique. "
            f"{advice} Received: shared layer {last.layer.name!r}."
        )
    try:
        head = _head(traced, last)
    except _NotLinearError as reason:
        raise ValueError(f"{reason} {advice} Received: layer {last.layer.name!r}.") from None
    width = head.weights()[0].shape[0]
    ending = _activation(traced, last) or _ending(traced.outputs)
    return Split(last.layer, True, head, int(width), traced.width, ending, traced.num_axes)


def _check_not_quantized(traced: _Traced, last: LayerCall | None) -> None:
    """Refuse a quantized last layer, of which Keras calls another method than `call`: it is not among the calls."""
    if last is not None and heads.width_of(last.layer) == traced.width:
        return
    for layer in all_layers(traced.model):
        is_quantized = getattr(layer, "quantization_mode", None) is not None
        if is_quantized and isinstance(layer, heads.KINDS) and heads.width_of(layer) == traced.width:
            raise ValueError(
                f"{heads.why_not_linear(layer)} Name a layer that is not quantized, whose output to take as features: "
                f"InfluenceModel(model, feature_layer=NAME). Received: layer {layer.name!r}."
            )


def _last_call(traced: _Traced) -> LayerCall | None:
    """Return the call of the last layer that may be a head: of a convolution only if it makes the outputs."""
    calls = list(traced.calls)
    while calls and not _reaches(calls[-1].outputs, traced.outputs):
        # Part of another output of the same model.
        calls.pop()
    if calls and heads.width_of(calls[-1].layer) == traced.width:
        return calls[-1]
    dense = [call for call in calls if isinstance(call.layer, keras.layers.Dense)]
    return dense[-1] if dense else None


def _reaches(tensor: tf.Tensor, result: tf.Tensor) -> bool:
    """Return whether a tensor of a graph has a part in a later one."""
    known, new = {result.op.name}, [result.op]
    while new and tensor.op.name not in known:
        before = {source.op.name: source.op for op in new for source in op.inputs}
        new = [op for name, op in before.items() if name not in known]
        known.update(before)
    return tensor.op.name in known


def _split_after(traced: _Traced, named: keras.Layer) -> Split:
    own = [call for call in traced.calls if call.layer is named]
    if len(own) != 1 or not tf.is_tensor(own[0].outputs):
        raise ValueError(
            "`feature_layer` must be called exactly once in a forward pass and return one tensor. "
            "Name another by InfluenceModel(model, feature_layer=...), or wrap the model's parts: "
            "InfluenceModel.from_parts(feature_extractor, head). "
            f"Received: layer {named.name!r}, called {len(own)} time(s)."
        )
    features = own[0].outputs
    num_axes = traced.num_axes
    num_features = features.shape[-1] if num_axes else features.shape[1:].num_elements()
    if num_axes and features.shape.rank != num_axes + 2:
        raise ValueError(
            f"The features of a model with an output at each position must be of shape (batch, positions, features). "
            f"Received: feature_layer={named.name!r} with output of shape {features.shape}."
        )
    if not num_features:
        raise ValueError(
            "The features must have a fixed size; pool or pad the sequence before the layer that you name. "
            f"Received: feature_layer={named.name!r} with output of shape {features.shape}."
        )
    feeds = [
        call
        for call in traced.calls
        if isinstance(call.layer, keras.layers.Dense) and call.inputs is features
    ]
    is_head = len(feeds) == 1 and feeds[0].layer.units == traced.width and features.shape.rank == 2 + num_axes
    try:
        head = _head(traced, feeds[0]) if is_head else None
    except _NotLinearError:
        head = None
    return Split(named, False, head, num_features, traced.width, _ending(traced.outputs), num_axes)


class _NotLinearError(Exception):
    """Says as a sentence why the logits are no linear map of the inputs of the last layer."""


def _head(traced: _Traced, last: LayerCall) -> Head:
    """Return the last layer with what follows it.

    Raises:
        _NotLinearError: the logits are no linear map of its inputs.
    """
    layer, rank = last.layer, last.inputs.shape.rank
    tolerance = heads.tolerance_of(layer)
    own = None
    if not heads.is_plain(layer):
        is_dense = isinstance(layer, keras.layers.Dense)
        own = _own_map(layer, int(last.inputs.shape[-1]), tolerance) if is_dense else None
        if own is None:
            raise _NotLinearError(heads.why_not_linear(layer))
    pooling: tuple[keras.Layer, ...] | None = ()
    if rank > 2:
        pooling = heads.patches(layer) if traced.num_axes else heads.mean_patches(layer, rank)
    if pooling is None:
        raise _NotLinearError(
            "A last convolution must have channels_last and one group for its outputs to be taken as linear."
        )
    return Head(layer, own, _step(traced, last, tolerance), pooling)


def _own_map(layer: keras.Layer, width: int, tolerance: float) -> AffineMap | None:
    """Return what a layer computes before its activation as an affine map, None where it is none."""

    def compute(rows: tf.Tensor) -> tf.Tensor:
        return tf.cast(_before_link(layer(rows, training=False)), tf.float32)

    spec = [tf.TensorSpec([None, width], tf.float32)]
    return heads.affine_map(tf.function(compute, autograph=False, input_signature=spec), width, tolerance)


def _step(traced: _Traced, last: LayerCall, tolerance: float) -> AffineMap | None:
    """Return the affine map from the outputs of the last layer to the logits, None where it is none or changes nothing.

    It is found by calling the model with other outputs in the place of the layer's own; only what follows the layer is
    computed.
    """
    layer = last.layer
    if _before_link(traced.outputs).name == _before_link(last.outputs).name:
        return None
    positions = [1 if size is None else size for size in last.outputs.shape[1:-1]]
    units = heads.width_of(layer)

    def after(rows: tf.Tensor, inputs: Inputs) -> tf.Tensor:
        shaped = tf.reshape(tf.cast(rows, last.outputs.dtype), (-1, *[1] * len(positions), units))
        shape = tf.concat([tf.shape(rows)[:1], positions, [units]], axis=0)
        given = tf.broadcast_to(shaped, tf.cast(shape, tf.int32))
        activated = given if layer.activation is None else layer.activation(given)
        with (
            without_time_loops(all_layers(traced.model) if traced.num_axes else ()),
            intercepted(layer, "call", lambda call, *args, **kwargs: activated),
        ):
            found = tf.cast(_before_link(call_model(traced.model, inputs)), tf.float32)
        # The same at every position; whether it is so of any inputs is verified on the first batch.
        return tf.reshape(found, (tf.shape(rows)[0], -1, found.shape[-1]))[:, 0] if traced.num_axes else found

    spec = tf.TensorSpec([None, units], tf.float32)
    compute = tf.function(after, autograph=False).get_concrete_function(spec, traced.specs)

    def any_inputs(points: tf.Tensor) -> Inputs:
        return tf.nest.map_structure(lambda part: _zeros(part, points), traced.specs)

    def function(points: tf.Tensor) -> tf.Tensor:
        return compute(points, any_inputs(points))

    try:
        found = heads.affine_map(function, units, tolerance)
        if found is None and heads.link_at_random(function, units, tolerance) is None:
            points = tf.zeros((2, units))
            check_repeatable(traced.model, any_inputs(points), function(points), function(points))
            raise _NotLinearError(
                "What follows the last layer (a soft cap, a scale of cosines, ...) is no affine map of its outputs."
            )
    except tf.errors.OpError:
        raise _NotLinearError(
            "What follows the last layer also reads other tensors, so it is no fixed step."
        ) from None
    return None if found is None or heads.is_identity(found) else found


def _zeros(spec: tf.TensorSpec, rows: tf.Tensor) -> tf.Tensor:
    return tf.zeros((rows.shape[0], *(1 if size is None else size for size in spec.shape[1:])), spec.dtype)


def _before_link(tensor: tf.Tensor) -> tf.Tensor:
    """Return what a final softmax or sigmoid was applied to while a function is traced; else the tensor itself."""
    tensor = _before(tensor, _UNCHANGED)
    if tensor.op.type in _LINKS:
        tensor = _before(tensor.op.inputs[0], _UNCHANGED)
    return tensor


def _activation(traced: _Traced, last: LayerCall) -> Ending | None:
    """Return the activation of the last layer of a regression where nothing follows it, None for others."""
    if _before(traced.outputs, _UNCHANGED).name != _before(last.outputs, _UNCHANGED).name:
        return None
    return next(
        (name for name in ACTIVATIONS if last.layer.activation is getattr(keras.activations, name)), None
    )


def _ending(outputs: tf.Tensor) -> Ending:
    """Return the final softmax or sigmoid of a function that is traced."""
    return _LINKS.get(_before(outputs, _UNCHANGED).op.type, "logits")


def _before(tensor: tf.Tensor, kinds: tuple[str, ...]) -> tf.Tensor:
    while tensor.op.type in kinds:
        tensor = tensor.op.inputs[0]
    return tensor
