"""Gradients of depthwise and grouped convolutions as one small matrix for each group of channels."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import layers

from deel_dualview.gradients.capture import CapturedCall
from deel_dualview.gradients.patches import channels_last, extract_patches, flatten_positions


class GroupedFactors(NamedTuple):
    """Matrices `sum_t left_itg right_itg'` (c, d), one for each row i and group g, not multiplied out.

    Attributes:
        left: shape (n, t, g, c).
        right: shape (n, t, g, d).
    """

    left: tf.Tensor
    right: tf.Tensor


def is_grouped_layer(layer: keras.Layer) -> bool:
    """Return whether a layer convolves groups of channels, each by itself."""
    if type(layer) in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
        return True
    return type(layer) in (layers.Conv1D, layers.Conv2D) and layer.groups > 1


def num_groups(layer: keras.Layer) -> int:
    """Return the number of groups of a grouped layer: of a depthwise one, its input channels."""
    return int(layer.kernel.shape[-2]) if hasattr(layer, "depth_multiplier") else int(layer.groups)


def grouped_factors(layer: keras.Layer, calls: Sequence[CapturedCall]) -> GroupedFactors:
    """Return the gradients of every example in a grouped layer; further calls are further positions.

    Columns d run over the taps, input channels of a group fastest, and last the bias.
    """
    found = [_of_call(layer, call) for call in calls]
    return GroupedFactors(*(tf.concat(parts, axis=1) for parts in zip(*found, strict=True)))


def to_matrices(layer: keras.Layer, rows: tf.Tensor) -> tf.Tensor:
    """Return flattened variables (n, p) as matrices (n, g, c, d)."""
    size, groups = int(rows.shape[1]), num_groups(layer)
    num_biases = 0 if layer.bias is None else int(layer.bias.shape[0])
    num_left, num_rows = _num_left(layer, groups), tf.shape(rows)[0]
    num_right = (size - num_biases) // (groups * num_left)
    kernel = tf.reshape(rows[:, : size - num_biases], (num_rows, num_right, groups, num_left))
    kernel = tf.transpose(kernel, (0, 2, 3, 1))
    if not num_biases:
        return kernel
    bias = tf.reshape(rows[:, size - num_biases :], (num_rows, groups, num_left, 1))
    return tf.concat([kernel, bias], axis=3)


def to_rows(layer: keras.Layer, matrices: tf.Tensor) -> tf.Tensor:
    """Return matrices (n, g, c, d) as flattened variables (n, p): the inverse of `to_matrices`."""
    num_rows, (groups, num_left, num_right) = tf.shape(matrices)[0], matrices.shape[1:]
    num_taps = num_right - (layer.bias is not None)
    kernel = tf.transpose(matrices[:, :, :, :num_taps], (0, 3, 1, 2))
    bias = tf.reshape(matrices[:, :, :, num_taps:], (num_rows, groups * num_left * (layer.bias is not None)))
    return tf.concat([tf.reshape(kernel, (num_rows, num_taps * groups * num_left)), bias], axis=1)


def _num_left(layer: keras.Layer, groups: int) -> int:
    return layer.depth_multiplier if hasattr(layer, "depth_multiplier") else layer.filters // groups


def _of_call(layer: keras.Layer, call: CapturedCall) -> GroupedFactors:
    groups = num_groups(layer)
    patches = extract_patches(layer, call.inputs)
    gradients = flatten_positions(channels_last(call.output_gradients, layer.data_format))
    num_rows, num_positions = tf.unstack(tf.shape(gradients)[:2])
    taps, width = patches.shape[2], patches.shape[3] // groups
    by_group = tf.reshape(patches, (num_rows, num_positions, taps, groups, width))
    right = tf.transpose(by_group, (0, 1, 3, 2, 4))
    right = tf.reshape(right, (num_rows, num_positions, groups, taps * width))
    if layer.bias is not None:
        right = tf.concat([right, tf.ones_like(right[..., :1])], axis=3)
    left = tf.reshape(gradients, (num_rows, num_positions, groups, _num_left(layer, groups)))
    return GroupedFactors(left, right)
