"""Calls of layers as a forward pass leaves them behind, and the arithmetic that all rules share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from deel_dualview.lrp.linear import LinearMap
from deel_dualview.models.keras_graph import Step


class Applied(NamedTuple):
    """A linear map of a layer, as it was applied.

    Attributes:
        map: the linear map.
        inputs: a, shape (b, ...).
        outputs: z, the bias included, shape (b, ...).
        is_nonnegative: whether the inputs are known to be nowhere negative.
        is_rectified: whether nothing but a ReLU reads the outputs, so that negative ones are silenced.
    """

    map: LinearMap
    inputs: tf.Tensor
    outputs: tf.Tensor
    is_nonnegative: bool
    is_rectified: bool


class Call(NamedTuple):
    """One call of an operation in a forward pass.

    Attributes:
        step: what was called, and how.
        inputs: the tensors that went in, each (b, ...).
        outputs: the tensor that came out, (b, ...).
        applied: the linear maps of a layer with weights, in order; empty for others.
        gates: for each input, whether it comes out of a sigmoid or softmax.
    """

    step: Step
    inputs: tuple[tf.Tensor, ...]
    outputs: tf.Tensor
    applied: tuple[Applied, ...]
    gates: tuple[bool, ...]


class Rule(ABC):
    """How the relevance of an operation's output is shared out among its inputs."""

    @abstractmethod
    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        """Return the relevance of each of the call's inputs.

        Args:
            call: of b examples.
            relevance: of its output, shape (b r, ...): r in a row for every example.

        Returns:
            One tensor (b r, ...) for each of `call.inputs`.
        """


def per_row(tensor: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Repeat every example as often as there are rows of relevance for it."""
    num_rows = tf.shape(relevance)[0] // tf.shape(tensor)[0]
    mask = mask_of(tensor)
    return masked(
        tf.repeat(tensor, num_rows, axis=0), None if mask is None else tf.repeat(mask, num_rows, axis=0)
    )


def mask_of(tensor: tf.Tensor) -> tf.Tensor | None:
    """Return the mask of a padded sequence, which Keras hangs on its tensor."""
    return getattr(tensor, "_keras_mask", None)


def masked(tensor: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Hang a mask, if there is one, on a tensor and return the tensor."""
    if mask is not None:
        tensor._keras_mask = mask
    return tensor


def pull_back(
    function: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    inputs: Sequence[tf.Tensor],
    cotangent: tf.Tensor,
) -> list[tf.Tensor]:
    """Return the product of a cotangent with the Jacobian of a function, for each input; zeros if it has no part."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        # A layer of half precision gives outputs of it.
        outputs = tf.cast(function(inputs), cotangent.dtype)
    return tape.gradient(
        outputs, list(inputs), output_gradients=cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def stabilised(z: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Return z + epsilon * sign(z) * (root mean square of the example's z), where sign(0) is 1."""
    if not epsilon:
        return z
    scale = tf.sqrt(tf.reduce_mean(z**2, axis=list(range(1, z.shape.rank)), keepdims=True))
    return z + epsilon * tf.where(z < 0, -scale, scale)


def ratio(relevance: tf.Tensor, z: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Return relevance / stabilised z, shape of the relevance; 0 where z is 0."""
    return tf.math.divide_no_nan(relevance, per_row(stabilised(z, epsilon), relevance))
