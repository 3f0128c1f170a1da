"""EK-FAC of one layer in float64 NumPy, loops and all: the formulas of the paper for each kind of layer."""

import numpy as np
import tensorflow as tf
from keras import layers

NUM_CLASSES = 3


def patches(images, size, strides, rates, padding):
    """Return (b, t, taps, channels): position by position, tap by tap."""
    spans = [(k - 1) * r + 1 for k, r in zip(size, rates, strict=True)]
    if padding == "same":
        totals = [
            max((-(-n // s) - 1) * s + span - n, 0)
            for n, s, span in zip(images.shape[1:3], strides, spans, strict=True)
        ]
        images = np.pad(images, [(0, 0), *((t // 2, t - t // 2) for t in totals), (0, 0)])
    counts = [(n - span) // s + 1 for n, s, span in zip(images.shape[1:3], strides, spans, strict=True)]
    return np.stack(
        [
            np.stack(
                [
                    images[:, y * strides[0] + i * rates[0], x * strides[1] + j * rates[1]]
                    for i in range(size[0])
                    for j in range(size[1])
                ],
                axis=1,
            )
            for y in range(counts[0])
            for x in range(counts[1])
        ],
        axis=1,
    )


def of_convolution(layer, inputs, num_groups):
    """Return what a convolution multiplies, (b, t, g, taps * channels of a group)."""
    images = np.asarray(inputs, np.float64)
    size, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
    if layer.padding == "causal":
        images = np.pad(images, [(0, 0), (rates[0] * (size[0] - 1), 0), (0, 0)])
    if images.ndim == 3:
        images, size, strides, rates = images[:, np.newaxis], (1, *size), (1, *strides), (1, *rates)
    found = patches(images, size, strides, rates, layer.padding)
    b, t, taps, channels = found.shape
    by_group = found.reshape(b, t, taps, num_groups, channels // num_groups)
    return by_group.transpose(0, 1, 3, 2, 4).reshape(b, t, num_groups, -1)


def what_is_multiplied(layer, inputs):
    """Return the inputs of every kind of layer as (b, t, g, d), without the constant of the bias."""
    inputs = np.asarray(inputs)
    if isinstance(layer, layers.Embedding):
        return np.eye(layer.input_dim)[inputs][:, :, np.newaxis]
    if isinstance(layer, layers.Dense | layers.EinsumDense):
        return inputs.astype(np.float64).reshape(len(inputs), -1, 1, inputs.shape[-1])
    if hasattr(layer, "depth_multiplier"):
        return of_convolution(layer, inputs, inputs.shape[-1])
    return of_convolution(layer, inputs, layer.groups)


def as_matrices(layer, shape, kernel, bias):
    """Return a kernel and a bias, or gradients in them, as (g, c, d + has_bias)."""
    num_groups, num_left, _ = shape
    kernel = np.asarray(kernel, np.float64).reshape(-1, num_groups, num_left).transpose(1, 2, 0)
    if bias is None:
        return kernel
    return np.concatenate([kernel, np.asarray(bias, np.float64).reshape(num_groups, num_left, 1)], axis=2)


class Twin:
    """EK-FAC of the first layer of `layer -> tanh -> Flatten -> Dense`, the exact expectation over classes.

    Attributes:
        left: A of the layer's output gradients, (g, c, c).
        right: of its inputs, (g, d, d).
        gradients: of every example and class, times the root of its probability, (n, classes, g, c, d).
    """

    def __init__(self, layer, head, inputs):
        right = what_is_multiplied(layer, inputs)
        self.layer = layer
        weights = [np.asarray(weight) for weight in layer.trainable_variables]
        bias = weights[1] if len(weights) > 1 else None
        if bias is not None:
            right = np.concatenate([right, np.ones_like(right[..., :1])], axis=3)
        num_left = weights[0].size // (right.shape[2] * (right.shape[3] - (bias is not None)))
        self.shape = (right.shape[2], num_left, right.shape[3])
        self.matrices = as_matrices(layer, self.shape, weights[0], bias)
        self.outputs = np.einsum("gcd,btgd->btgc", self.matrices, right)
        hidden = np.tanh(self.outputs)
        kernel = np.asarray(head.kernel, np.float64)
        logits = hidden.reshape(len(hidden), -1) @ kernel + np.asarray(head.bias, np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = exponentials / exponentials.sum(axis=1, keepdims=True)
        gradients, left = [], []
        for label in range(NUM_CLASSES):
            u = np.sqrt(p[:, label, np.newaxis]) * (np.eye(NUM_CLASSES)[label] - p)
            delta = (u @ kernel.T).reshape(hidden.shape) * (1 - hidden**2)
            left.append(np.einsum("btgc,btge->gce", delta, delta))
            gradients.append(np.einsum("btgc,btgd->bgcd", delta, right))
        self.gradients = np.stack(gradients, axis=1)
        self.left, self.right = sum(left), np.einsum("btgd,btge->gde", right, right)

    def solve(self, matrices, damping):
        """Return the damped inverse applied to matrices (n, g, c, d)."""
        solved = np.zeros_like(matrices)
        for group in range(self.shape[0]):
            q_left = np.linalg.eigh(self.left[group])[1]
            q_right = np.linalg.eigh(self.right[group])[1]
            eigenvalues = np.zeros(self.shape[1:])
            for example in self.gradients[:, :, group]:
                for gradient in example:
                    eigenvalues += (q_left.T @ gradient @ q_right) ** 2 / len(self.gradients)
            for row, matrix in enumerate(matrices[:, group]):
                rotated = q_left.T @ matrix @ q_right / (eigenvalues + damping)
                solved[row, group] = q_left @ rotated @ q_right.T
        return solved

    def to_variables(self, matrices):
        """Return matrices (n, g, c, d) as [kernels (n, ...), biases (n, ...)]."""
        shapes = [tuple(variable.shape) for variable in self.layer.trainable_variables]
        num_taps = matrices.shape[3] - (len(shapes) > 1)
        parts = [matrices[..., :num_taps].transpose(0, 3, 1, 2), matrices[..., num_taps:]]
        return [
            tf.constant(part.reshape(len(matrices), *shape), tf.float32)
            for part, shape in zip(parts, shapes, strict=False)
        ]
