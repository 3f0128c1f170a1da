"""Gradients of single layers in closed form, from captured (input, output gradient) pairs."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import layers

from deel_dualview.gradients import einsum
from deel_dualview.gradients.capture import CapturedCall
from deel_dualview.gradients.patches import channels_last, extract_patches, flatten_positions, merge_last_axes
from deel_dualview.linalg.factors import Factored, Factors, OneHotFactors

_MATRIX_LAYERS = (layers.Dense, layers.Conv1D, layers.Conv2D)
_NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
)


def is_matrix_layer(layer: keras.Layer) -> bool:
    """Return whether a layer has one weight matrix, so that `layer_factors` may know it.

    Only the Keras classes themselves count (a subclass may compute anything), with all their weights
    trainable and nothing added to them (LoRA, quantization).
    """
    kinds = (*_MATRIX_LAYERS, layers.EinsumDense, layers.Embedding)
    return type(layer) in kinds and _is_plain(layer) and getattr(layer, "groups", 1) == 1


def is_normalization(layer: keras.Layer) -> bool:
    """Return whether a layer is a normalisation of Keras, with its own scale and offset alone."""
    return type(layer) in _NORMALIZATIONS and _is_plain(layer)


def kernel_axes(layer: keras.Layer) -> tuple[list[int], list[int]] | None:
    """Return which axes of the kernel are outputs and which inputs; None where `layer_factors` is None."""
    if not is_matrix_layer(layer):
        return None
    if type(layer) is not layers.EinsumDense:
        rank = len(layer.kernel.shape) if type(layer) is not layers.Embedding else 2
        return [rank - 1], list(range(rank - 1))
    axes = einsum.parse(layer)
    if axes is None:
        return None
    produced, contracted = (
        [axes.kernel.index(letter) for letter in part] for part in (axes.produced, axes.contracted)
    )
    return produced, contracted


def layer_factors(layer: keras.Layer, calls: Sequence[CapturedCall]) -> Factored | None:
    """Return the gradient of every example in a layer with one weight matrix, factored over positions.

    The matrix is (outputs c, inputs d + has_bias): the transposed kernel with the bias as its last column,
    where d runs over a convolution's patch row by row, channels fastest. Calls of a shared layer are further
    positions.

    Args:
        layer: a layer.
        calls: its captured calls, at least one.

    Returns:
        `Factors` with left = output gradients (b, t, c) and right = [inputs or patches, 1] (b, t, d +
        has_bias); `OneHotFactors` for an Embedding (c: width, d: vocabulary). None where the layer has no
        such form.
    """
    if not calls or not is_matrix_layer(layer):
        return None
    if type(layer) is layers.Embedding:
        return _joined_lookups([_lookup(layer, call) for call in calls])
    found = [_matrix_factors(layer, call) for call in calls]
    if any(factors is None for factors in found):
        return None
    return _joined([factors for factors in found if factors is not None])


def layer_gradients(layer: keras.Layer, calls: Sequence[CapturedCall]) -> Factored | tf.Tensor | None:
    """Return the gradient of every example in a layer's own weights, or None where no closed form is known.

    Args:
        layer: a layer.
        calls: its captured calls, at least one.

    Returns:
        Factors as `layer_factors` gives them, or a matrix (b, p) of the gradients of the layer's trainable
        variables, each flattened, one after the other.
    """
    factors = layer_factors(layer, calls)
    rule = _RULES.get(type(layer))
    if factors is not None or rule is None or not calls or not _is_plain(layer):
        return factors
    return tf.add_n([rule(layer, call) for call in calls])


def _matrix_factors(layer: keras.Layer, call: CapturedCall) -> Factors | None:
    if type(layer) is layers.EinsumDense:
        axes = einsum.parse(layer, call.inputs.shape.rank)
        if axes is None:
            return None
        left = einsum.to_matrix(call.output_gradients, axes.outputs, axes, axes.produced)
        right = einsum.to_matrix(call.inputs, axes.inputs, axes, axes.contracted)
    elif type(layer) is layers.Dense:
        left, right = flatten_positions(call.output_gradients), flatten_positions(call.inputs)
    else:
        patches = extract_patches(layer, call.inputs)
        right = merge_last_axes(patches)
        left = flatten_positions(channels_last(call.output_gradients, layer.data_format))
    if layer.bias is not None:
        right = tf.concat([right, tf.ones_like(right[:, :, :1])], axis=2)
    return Factors(left, right)


def _lookup(layer: layers.Embedding, call: CapturedCall) -> OneHotFactors:
    left = flatten_positions(call.output_gradients)
    indices = tf.reshape(tf.cast(call.inputs, tf.int64), tf.shape(left)[:2])
    return OneHotFactors(left, indices, layer.input_dim)


def _joined(found: Sequence[Factors]) -> Factors:
    if len(found) == 1:
        return found[0]
    return Factors(*(tf.concat(parts, axis=1) for parts in zip(*found, strict=True)))


def _joined_lookups(found: Sequence[OneHotFactors]) -> OneHotFactors:
    left = tf.concat([lookup.left for lookup in found], axis=1)
    return OneHotFactors(left, tf.concat([lookup.indices for lookup in found], axis=1), found[0].size)


def _depthwise(layer: keras.Layer, call: CapturedCall) -> tf.Tensor:
    patches = extract_patches(layer, call.inputs)
    gradients = flatten_positions(channels_last(call.output_gradients, layer.data_format))
    shape = tf.shape(gradients)
    by_channel = tf.reshape(gradients, (shape[0], shape[1], patches.shape[3], layer.depth_multiplier))
    kernel = tf.einsum("btkc,btcm->bkcm", patches, by_channel)
    return _concatenated(layer, kernel, tf.reduce_sum(gradients, axis=1))


def _grouped(layer: keras.Layer, call: CapturedCall) -> tf.Tensor:
    patches = extract_patches(layer, call.inputs)
    gradients = flatten_positions(channels_last(call.output_gradients, layer.data_format))
    shape, groups = tf.shape(patches), layer.groups
    taps, width = patches.shape[2], patches.shape[3] // groups
    patches = tf.reshape(patches, (shape[0], shape[1], taps, groups, width))
    by_group = tf.reshape(gradients, (shape[0], shape[1], groups, layer.filters // groups))
    # Outputs of a group are neighbours: the kernel is (taps, inputs of a group, groups * outputs of a group).
    kernel = tf.einsum("btkgi,btgo->bkigo", patches, by_group)
    return _concatenated(layer, kernel, tf.reduce_sum(gradients, axis=1))


def _concatenated(layer: keras.Layer, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    flat = tf.reshape(kernel, (tf.shape(kernel)[0], kernel.shape[1:].num_elements()))
    return flat if layer.bias is None else tf.concat([flat, bias], axis=1)


def _normalization(layer: keras.Layer, call: CapturedCall) -> tf.Tensor:
    """Scale and offset are applied to normalised inputs: what the layer gives with scale 1, offset 0."""
    with _unscaled(layer):
        normalized = layer.call(call.inputs)
    gradients = tf.cast(call.output_gradients, tf.float32)
    weighted = {
        "gamma": gradients * tf.cast(normalized, tf.float32),
        "scale": gradients * tf.cast(normalized, tf.float32),
        "beta": gradients,
    }
    sums = [_sum_of_axes(weighted[variable.name], layer) for variable in layer.trainable_variables]
    return tf.concat(sums, axis=1)


def _sum_of_axes(weighted: tf.Tensor, layer: keras.Layer) -> tf.Tensor:
    """Sum over all axes but the batch and those along which the layer has weights; shape (b, p)."""
    rank = weighted.shape.rank
    kept = {axis % rank for axis in (layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis])}
    sums = tf.reduce_sum(weighted, axis=[axis for axis in range(1, rank) if axis not in kept])
    return tf.reshape(sums, (tf.shape(sums)[0], sums.shape[1:].num_elements()))


def _unscaled(layer: keras.Layer) -> keras.StatelessScope:
    """Return a scope in which this thread sees a normalisation's scale as ones and its offset as zeros."""
    # The layer itself must not change: another thread may be calling it.
    mapping = []
    for variable in layer.trainable_variables:
        neutral = tf.zeros if variable.name == "beta" else tf.ones
        mapping.append((variable, neutral(variable.shape, variable.dtype)))
    return keras.StatelessScope(mapping)


def _is_plain(layer: keras.Layer) -> bool:
    """Return whether a layer's weights are those its class makes, all trainable and float."""
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None) is not None:
        return False
    names = {"kernel", "bias", "embeddings", "gamma", "beta", "scale"}
    return all(variable.name in names for variable in layer.trainable_variables)


_RULES: dict[type, Callable[[keras.Layer, CapturedCall], tf.Tensor]] = {
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv1D: _grouped,
    layers.Conv2D: _grouped,
    **dict.fromkeys(_NORMALIZATIONS, _normalization),
}
