"""Patches of the input that a convolution multiplies by its kernel."""

import math

import keras
import tensorflow as tf

_CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1)}


def channels_last(tensor: tf.Tensor, data_format: str) -> tf.Tensor:
    """Return a batch of signals or images with its channels as the last axis."""
    return (
        tf.transpose(tensor, _CHANNELS_LAST[tensor.shape.rank]) if data_format == "channels_first" else tensor
    )


def extract_patches(layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """Return the patches of a Conv1D, Conv2D or depthwise layer's inputs, (b, t, taps, channels), float32.

    Args:
        layer: the convolution; its kernel size, strides, dilation and padding are used.
        inputs: what it was called with.

    Returns:
        t runs over output positions row by row, taps over kernel positions row by row.
    """
    images = tf.cast(channels_last(inputs, layer.data_format), tf.float32)
    sizes, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
    if layer.padding == "causal":
        images = tf.pad(images, [(0, 0), (rates[0] * (sizes[0] - 1), 0), (0, 0)])
    if images.shape.rank == 3:
        images = images[:, tf.newaxis]
        sizes, strides, rates = (1, *sizes), (1, *strides), (1, *rates)
    channels = images.shape[3]
    patches = tf.image.extract_patches(
        images,
        (1, *sizes, 1),
        (1, *strides, 1),
        (1, *rates, 1),
        "SAME" if layer.padding == "same" else "VALID",
    )
    return _merge_positions(tf.reshape(patches, (*_sizes(patches)[:3], sizes[0] * sizes[1], channels)), 2)


def flatten_positions(tensor: tf.Tensor) -> tf.Tensor:
    """Return (b, ..., c) as (b, t, c), float32; a matrix (b, c) as one position."""
    tensor = tf.cast(tensor, tf.float32)
    if tensor.shape.rank == 2:
        return tensor[:, tf.newaxis]
    return _merge_positions(tensor, tensor.shape.rank - 2)


def merge_last_axes(tensor: tf.Tensor) -> tf.Tensor:
    """Return (b, t, u, v) as (b, t, u * v), row by row."""
    return tf.reshape(tensor, (*_sizes(tensor)[:2], tensor.shape[2] * tensor.shape[3]))


def _merge_positions(tensor: tf.Tensor, num_axes: int) -> tf.Tensor:
    """Merge the `num_axes` axes after the first, keeping the product static where it is known."""
    sizes = _sizes(tensor)
    merged = sizes[1 : 1 + num_axes]
    is_known = all(isinstance(size, int) for size in merged)
    # Not -1: an empty batch leaves it undetermined.
    num_positions = math.prod(merged) if is_known else tf.reduce_prod(merged)
    return tf.reshape(tensor, (sizes[0], num_positions, *sizes[1 + num_axes :]))


def _sizes(tensor: tf.Tensor) -> list[int | tf.Tensor]:
    """Return the shape, each size an int where it is known when tracing."""
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]
