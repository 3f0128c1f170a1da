"""Batch normalisation folded into the layer before it, in new layers: the user's model is left as it is."""

import copy
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from deel_dualview.lrp.discrete import DISCRETE
from deel_dualview.lrp.linear import WEIGHTED
from deel_dualview.models.keras_graph import Graph, Ref, Step, walk

layers = keras.layers

# Where the output channels stand in each kernel; the bias' axis follows the data format.
_CHANNELS_LAST_IN_KERNEL = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_HALF = ("float16", "bfloat16")
_FOLDABLE = _CHANNELS_LAST_IN_KERNEL + _SEPARABLE + _DEPTHWISE + _TRANSPOSED


def canonize(model: keras.Model) -> keras.Model:
    """Return a new model that computes the same without the batch normalisations that can be folded.

    Each that follows a Dense layer or a convolution without activation, whose output goes nowhere else, is folded
    into it. Nested models are opened and shared layers become one layer for each call. No weight is shared with
    the model given, which is left as it is.

    Args:
        model: a Functional or Sequential model.

    Raises:
        TypeError: it is not a Keras model.
        ValueError: it is subclassed or not built.
    """
    graph = walk(model)
    folded = fold_batch_norms(graph)
    originals = {id(step.operation) for step in graph.steps}
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], tensor.shape[0], tensor.dtype, name=tensor.name),
        graph.structure,
    )
    values: dict[Ref, Any] = dict(zip(graph.inputs, keras.tree.flatten(inputs), strict=True))
    names: dict[str, int] = {}
    for step in folded.steps:
        is_new = id(step.operation) not in originals
        operation = step.operation if is_new else _copy(step.operation)
        operation.name = _unique(step.name, names)
        args, kwargs = step.fill([values[ref] for ref in step.inputs])
        outputs = keras.tree.flatten(operation(*args, **kwargs))
        values.update(zip(step.outputs, outputs, strict=True))
        if isinstance(operation, keras.Layer) and not is_new:
            operation.set_weights(step.operation.get_weights())
    outputs = [values[ref] for ref in folded.outputs]
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=f"{model.name}_canonized")


def fold_batch_norms(graph: Graph) -> Graph:
    """Return the graph with each batch normalisation that follows a linear layer folded into a copy of it."""
    users = graph.users()
    makers = {step.outputs[0]: step for step in graph.steps}
    replaced: dict[int, Step] = {}
    dropped: set[int] = set()
    for step in graph.steps:
        before = makers.get(step.inputs[0]) if step.inputs else None
        if before is None or len(users[step.inputs[0]]) > 1 or step.inputs[0] in graph.outputs:
            continue
        if _can_fold(before.operation, step.operation):
            folded = _folded(before.operation, step.operation)
            replaced[id(before)] = replace(before, operation=folded, outputs=step.outputs)
            dropped.add(id(step))
    steps = tuple(replaced.get(id(step), step) for step in graph.steps if id(step) not in dropped)
    return replace(graph, steps=steps)


def in_float32(graph: Graph) -> Graph:
    """Return the graph with copies in float32 of Keras' layers of half precision that have no kernel.

    Relevance spans more orders of magnitude than half precision holds; of layers with a kernel the linear maps are
    in float32 anyway.
    """
    copies: dict[int, keras.Layer] = {}

    def single(step: Step) -> Step:
        layer = step.operation
        if not _is_half(layer):
            return step
        if id(layer) not in copies:
            copies[id(layer)] = _copy_in_float32(layer)
        return replace(step, operation=copies[id(layer)])

    return replace(graph, steps=tuple(single(step) for step in graph.steps))


def _is_half(layer: Any) -> bool:
    is_own = isinstance(layer, keras.Layer) and type(layer).__module__.startswith("keras.")
    # What looks up computes no numbers, and its table is no weight that a copy would have.
    is_left = isinstance(layer, (*WEIGHTED, *DISCRETE, layers.Wrapper))
    return is_own and layer.compute_dtype in _HALF and not is_left


def _copy_in_float32(layer: keras.Layer) -> keras.Layer:
    copied = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    if layer.weights:
        copied.build_from_config(layer.get_build_config())
        copied.set_weights(layer.get_weights())
    return copied


def _can_fold(layer: Any, norm: Any) -> bool:
    if not isinstance(layer, _FOLDABLE) or type(norm) is not layers.BatchNormalization:
        return False
    if layer.activation is not None and layer.activation is not keras.activations.linear:
        return False
    axis = norm.axis if norm.axis >= 0 else norm.axis + norm.input_spec.ndim
    is_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return axis == (norm.input_spec.ndim - 1 if is_last else 1)


def _folded(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> keras.Layer:
    """Return a new layer that computes `norm(layer(x))`."""
    scale, shift = _affine(norm)
    kernel, *before = (_array(variable) for variable in reversed(_kernels(layer)))
    bias = _array(layer.bias) if layer.bias is not None else np.zeros_like(shift)
    new = type(layer).from_config({**layer.get_config(), "use_bias": True})
    new.build(_input_shape(layer))
    weights = [*before, _scaled(layer, kernel, scale), bias * scale + shift]
    new.set_weights([weight.astype(np.float32) for weight in weights])
    new.trainable = False
    return new


def _affine(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of each channel in inference mode, float64."""
    deviation = np.sqrt(_array(norm.moving_variance) + norm.epsilon)
    scale = (_array(norm.gamma) if norm.scale else 1.0) / deviation
    shift = (_array(norm.beta) if norm.center else 0.0) - _array(norm.moving_mean) * scale
    return scale, shift


def _kernels(layer: keras.Layer) -> list[Any]:
    if isinstance(layer, _SEPARABLE):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]


def _scaled(layer: keras.Layer, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scale the output channels of a kernel."""
    if isinstance(layer, _DEPTHWISE):
        return kernel * scale.reshape(kernel.shape[-2:])
    if isinstance(layer, _TRANSPOSED):
        return kernel * scale[:, np.newaxis]
    return kernel * scale


def _input_shape(layer: keras.Layer) -> tuple[Any, ...]:
    shape = layer.input_spec.axes or {}
    ndim = layer.input_spec.ndim or layer.input_spec.min_ndim
    wanted: list[Any] = [None] * ndim
    for axis, size in shape.items():
        wanted[axis] = size
    return tuple(wanted)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _copy(operation: Any) -> Any:
    if isinstance(operation, keras.Layer):
        return type(operation).from_config(operation.get_config())
    # An operation has no weights, but notes every call on it.
    copied = copy.copy(operation)
    copied._inbound_nodes, copied._outbound_nodes = [], []
    return copied


def _unique(name: str, names: dict[str, int]) -> str:
    names[name] = names.get(name, 0) + 1
    return name if names[name] == 1 else f"{name}_{names[name] - 1}"
