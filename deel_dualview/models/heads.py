"""The last layer of a classifier as a linear map of its features, and the fixed affine step that may follow it."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.models import links
from deel_dualview.models.keras_losses import ACTIVATIONS

layers = keras.layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
KINDS = (layers.Dense, *CONVOLUTIONS)
"""Layers that may be a head; convolutions, and Dense layers on sequences or maps, where their outputs are averaged."""

_POOLING = {
    3: layers.GlobalAveragePooling1D,
    4: layers.GlobalAveragePooling2D,
    5: layers.GlobalAveragePooling3D,
}
# Logits are of this order; a soft cap or a clip shows itself at the larger ones.
_SCALES = (3.0, 3.0, 3.0, 30.0, 30.0, 30.0)
_ROWS_AT_ONCE = 512


class AffineMap(NamedTuple):
    """`rows @ matrix + offset`.

    Attributes:
        matrix: shape (inputs, outputs), float32.
        offset: shape (outputs,), float32.
    """

    matrix: np.ndarray
    offset: np.ndarray


class LinearHead(NamedTuple):
    """The last layer, with a fixed affine step that may follow it: `logits = features @ kernel + bias`.

    Attributes:
        kernel: shape (d, c), float32.
        bias: shape (c,), zeros where there is none.
        has_bias: whether the layer has a bias of its own, or the step adds a constant.
    """

    kernel: np.ndarray
    bias: np.ndarray
    has_bias: bool


class Head(NamedTuple):
    """The layer that makes the logits, as a linear map of the features.

    Attributes:
        layer: a Dense layer, or a convolution whose outputs are averaged over positions.
        own: what the layer computes where that is not its kernel and bias (LoRA, a subclass of one's own).
        step: the fixed map from the layer's outputs to the logits, None where they are the same.
        pooling: layers that turn the layer's inputs into the features: its patches, and where its outputs are averaged
            their mean.
    """

    layer: keras.Layer
    own: AffineMap | None = None
    step: AffineMap | None = None
    pooling: tuple[keras.Layer, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the layer's kernel and bias are the weights of the linear map, so that closed forms know them."""
        return self.own is None

    @property
    def units(self) -> int:
        """Number u of the layer's own outputs."""
        return width_of(self.layer)

    @property
    def has_bias(self) -> bool:
        """Whether the layer has a bias of its own."""
        return self.layer.bias is not None

    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the kernel (d, c) and bias (c,) that give the logits, the step included, float32; None for no bias."""
        kernel, bias = self._own_weights()
        if self.step is None:
            return kernel, bias
        matrix, offset = self.step
        bias = offset if bias is None else tf.linalg.matvec(matrix, bias, transpose_a=True) + offset
        has_bias = self.has_bias or self.own is not None or offset.any()
        return tf.matmul(kernel, matrix), tf.convert_to_tensor(bias) if has_bias else None

    def of_features(self, features: tf.Tensor) -> tf.Tensor:
        """Return the logits (b, c) of features (b, d)."""
        kernel, bias = self.weights()
        logits = tf.matmul(features, kernel)
        return logits if bias is None else logits + bias

    def linear(self, *, is_binary: bool) -> LinearHead:
        """Return the weights that give the outputs to explain, those of a binary classifier as two logits."""
        weights, own_bias = self.weights()
        kernel = np.asarray(weights)
        bias = np.zeros(kernel.shape[1], np.float32) if own_bias is None else np.asarray(own_bias)
        if is_binary:
            half = np.array([-0.5, 0.5], np.float32)
            kernel, bias = kernel * half, bias * half
        return LinearHead(kernel, bias, own_bias is not None)

    def gives(self, native: np.ndarray, logits: np.ndarray, ending: str, tolerance: float) -> bool:
        """Return whether logits by this head (b, c), or their activation, are the model's native outputs."""
        if native.shape != logits.shape:
            return False
        native, logits = links.finite_rows(native, logits)
        if ending in ACTIVATIONS:
            logits = links.native_of(tf.constant(logits), ending).numpy()
        return links.link_of(native, logits, tolerance) is not None

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the logits (b, c) of the layer's own outputs before its activation, (b, ..., u), float32."""
        outputs = tf.cast(outputs, tf.float32)
        if self.pooling:
            outputs = tf.reduce_mean(outputs, axis=list(range(1, outputs.shape.rank - 1)))
        return outputs if self.step is None else tf.matmul(outputs, self.step.matrix) + self.step.offset

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the features (b, d) of the layer's inputs, float32."""
        inputs = tf.cast(inputs, tf.float32)
        for layer in self.pooling:
            inputs = layer(inputs)
        return inputs

    def pulled(self, gradients: tf.Tensor) -> tf.Tensor:
        """Return gradients in the logits (b, c) as gradients in the layer's own outputs, (b, u)."""
        return gradients if self.step is None else tf.matmul(gradients, self.step.matrix, transpose_b=True)

    def _own_weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        if self.own is not None:
            return tf.constant(self.own.matrix), tf.constant(
                self.own.offset
            ) if self.own.offset.any() else None
        kernel = tf.reshape(tf.cast(self.layer.kernel, tf.float32), (-1, self.units))
        return kernel, None if self.layer.bias is None else tf.cast(self.layer.bias, tf.float32)


def width_of(layer: keras.Layer) -> int:
    """Return the number of outputs of a Dense layer or a convolution."""
    return int(layer.units if isinstance(layer, layers.Dense) else layer.filters)


def is_plain(layer: keras.Layer) -> bool:
    """Return whether a layer multiplies by its kernel and adds its bias, and nothing else."""
    is_changed = (
        getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None) is not None
    )
    return type(layer) in KINDS and not is_changed


def tolerance_of(layer: keras.Layer) -> float:
    """Return the relative error to expect between the layer's arithmetic and ours in float32."""
    return 5e-2 if layer.compute_dtype in ("float16", "bfloat16") else 1e-4


def why_not_linear(layer: keras.Layer) -> str:
    """Return, as a sentence, why the outputs of a layer that is not plain are no linear map of its inputs."""
    mode = getattr(layer, "quantization_mode", None)
    if mode is not None:
        return f"The last layer is quantized ({mode}): it rounds its inputs or weights, so that it is not linear."
    return "The last layer computes something else than a linear map of its inputs."


def not_the_head(head: Head) -> ValueError:
    """Return the error where the last layer applied to its input does not give the outputs of the model."""
    return ValueError(
        "The last Dense layer applied to its input does not give the model's outputs (nor does its softmax, "
        "sigmoid, relu, ..., nor an affine step after it), so it is not the linear head. Name the layer whose "
        "output to take as features, which then come without a linear head: "
        "InfluenceModel(model, feature_layer=NAME), or pass both parts to InfluenceModel.from_parts. "
        f"Received: Dense layer {head.layer.name!r}."
    )


def affine_map(
    function: Callable[[tf.Tensor], tf.Tensor], num_inputs: int, tolerance: float
) -> AffineMap | None:
    """Return a function as an affine map, found at zero and the unit vectors and verified at random points.

    Args:
        function: from rows (m, num_inputs), float32, to rows (m, outputs).
        num_inputs: their width.
        tolerance: largest error at the random points, relative to the largest value.

    Returns:
        None where the function is not affine.
    """

    def values(points: np.ndarray) -> np.ndarray:
        parts = [points[start : start + _ROWS_AT_ONCE] for start in range(0, len(points), _ROWS_AT_ONCE)]
        return np.concatenate([np.asarray(function(tf.constant(part, tf.float32))) for part in parts])

    offset, *rows = values(np.vstack([np.zeros((1, num_inputs)), np.eye(num_inputs)]))
    matrix = np.stack(rows) - offset
    points = _points(num_inputs)
    found, expected = values(points), points @ matrix + offset
    error = np.abs(found - expected).max()
    if not error <= tolerance * max(1.0, float(np.abs(expected).max())):
        return None
    return AffineMap(matrix.astype(np.float32), offset.astype(np.float32))


def link_at_random(function: Callable[[tf.Tensor], tf.Tensor], width: int, tolerance: float) -> str | None:
    """Return the name of the link (softmax, ...) that a function of rows (m, width) is, None if it is none."""
    points = _points(width)
    return links.link_of(np.asarray(function(tf.constant(points, tf.float32))), points, tolerance)


def is_identity(found: AffineMap) -> bool:
    """Return whether a map changes nothing."""
    return not found.offset.any() and np.array_equal(found.matrix, np.eye(len(found.matrix)))


def mean_patches(layer: keras.Layer, rank: int) -> tuple[keras.Layer, ...] | None:
    """Return layers from the inputs of a convolution, or a Dense layer on positions, to the mean of its patches.

    See `patches`.
    """
    found = patches(layer)
    pooling = _POOLING[rank](dtype="float32", name=f"{layer.name}_mean_patch")
    return None if found is None else (*found, pooling)


def patches(layer: keras.Layer) -> tuple[keras.Layer, ...] | None:
    """Return layers from the inputs of a convolution, or a Dense layer on positions, to its patches.

    By linearity the mean over positions of what the layer computes is its kernel times that mean, plus its bias.

    Args:
        layer: whose padding, strides and dilation are used.

    Returns:
        None for channels that come first and for groups.
    """
    if isinstance(layer, layers.Dense):
        return ()
    if layer.data_format != "channels_last" or layer.groups != 1:
        return None
    if np.prod(layer.kernel_size) == 1 and np.prod(layer.strides) == 1:
        return ()
    width = int(np.prod(layer.kernel.shape[:-1]))
    found = type(layer)(
        width,
        layer.kernel_size,
        layer.strides,
        layer.padding,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        dtype="float32",
        trainable=False,
        name=f"{layer.name}_patches",
    )
    found.build((None,) * (len(layer.kernel.shape) - 1) + (layer.kernel.shape[-2],))
    found.set_weights([np.eye(width, dtype=np.float32).reshape((*layer.kernel.shape[:-1], width))])
    return (found,)


def _points(width: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(len(_SCALES), width))
    return (points * np.array(_SCALES)[:, np.newaxis]).astype(np.float32)
