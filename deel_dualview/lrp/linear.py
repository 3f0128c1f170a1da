"""Layers with weights as linear maps of their input and a kernel that a rule may change."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

layers = keras.layers


class LinearMap(NamedTuple):
    """`z = apply(inputs, kernel) + bias`, linear in the inputs and in the kernel.

    Attributes:
        apply: from inputs and a kernel of any values to z without the bias.
        kernel: the layer's own.
        bias: of a shape that broadcasts against z; None where there is none.
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    kernel: tf.Tensor
    bias: tf.Tensor | None

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return z."""
        z = self.apply(inputs, self.kernel)
        return z if self.bias is None else z + self.bias


DENSE = (layers.Dense, layers.EinsumDense)
CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
WEIGHTED = DENSE + CONVOLUTIONS


def is_weighted(operation: Any) -> bool:
    """Tell whether an operation is a layer whose linear maps are known."""
    return isinstance(operation, WEIGHTED)


def linear_maps(layer: keras.Layer) -> tuple[LinearMap, ...]:
    """Return the linear maps that a layer applies one after the other, before its activation.

    There is one, or two for a separable convolution: one for each channel, then one across channels.
    """
    kind = next(kind for kind in WEIGHTED if isinstance(layer, kind))
    return _MAPS[kind](layer)


def activate(layer: keras.Layer, z: tf.Tensor) -> tf.Tensor:
    """Apply the activation inside a layer, if it has one."""
    return z if layer.activation is None else layer.activation(z)


def _tensor(variable: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def _bias(layer: keras.Layer, num_spatial: int) -> tf.Tensor | None:
    if layer.bias is None:
        return None
    bias = _tensor(layer.bias)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        bias = tf.reshape(bias, (1, -1, *(1,) * num_spatial))
    return bias


def _dense(layer: keras.Layer) -> tuple[LinearMap, ...]:
    return (LinearMap(keras.ops.matmul, _tensor(layer.kernel), _bias(layer, 0)),)


def _einsum_dense(layer: keras.Layer) -> tuple[LinearMap, ...]:
    apply = partial(keras.ops.einsum, layer.equation)
    return (LinearMap(apply, _tensor(layer.kernel), _bias(layer, 0)),)


def _convolution(layer: keras.Layer) -> tuple[LinearMap, ...]:
    apply = _convolving(layer, keras.ops.conv)
    return (LinearMap(apply, _tensor(layer.kernel), _bias(layer, layer.rank)),)


def _depthwise(layer: keras.Layer) -> tuple[LinearMap, ...]:
    apply = _convolving(layer, keras.ops.depthwise_conv)
    return (LinearMap(apply, _tensor(layer.kernel), _bias(layer, layer.rank)),)


def _separable(layer: keras.Layer) -> tuple[LinearMap, ...]:
    across = partial(keras.ops.conv, strides=1, padding="valid", data_format=layer.data_format)
    return (
        LinearMap(_convolving(layer, keras.ops.depthwise_conv), _tensor(layer.depthwise_kernel), None),
        LinearMap(across, _tensor(layer.pointwise_kernel), _bias(layer, layer.rank)),
    )


def _transposed(layer: keras.Layer) -> tuple[LinearMap, ...]:
    apply = partial(
        keras.ops.conv_transpose,
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
    return (LinearMap(apply, _tensor(layer.kernel), _bias(layer, layer.rank)),)


def _convolving(
    layer: keras.Layer, operation: Callable[..., tf.Tensor]
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def apply(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        padding = layer.padding
        if padding == "causal":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            at_time = layer.data_format == "channels_last"
            inputs = tf.pad(
                inputs, [[0, 0], [before, 0], [0, 0]] if at_time else [[0, 0], [0, 0], [before, 0]]
            )
            padding = "valid"
        return operation(
            inputs,
            kernel,
            strides=tuple(layer.strides),
            padding=padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    return apply


_MAPS: dict[type, Callable[[keras.Layer], tuple[LinearMap, ...]]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.Conv1D: _convolution,
    layers.Conv2D: _convolution,
    layers.Conv3D: _convolution,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3DTranspose: _transposed,
}
