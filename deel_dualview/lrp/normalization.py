"""Rule for normalisation by the statistics of the example itself: layer and group normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from deel_dualview.lrp.calls import Call, Rule, per_row, pull_back, ratio


@dataclass(frozen=True)
class ScaleAsGiven(Rule):
    """The deviation is taken as given: what is left is linear, and inputs receive by the epsilon rule.

        y = gamma (x - mean(x)) / deviation + beta

    In particular beta takes its share, as a bias does. Leaving relevance in its place (`Pass`) conserves it here, but
    gives an input near zero what belongs to beta and to the mean: the residual sum below divides by that input, and
    the heatmap of a trained vision transformer grew to 17,000 times the influence.

    Attributes:
        epsilon: as a fraction of the root mean square of the example's outputs.

    Source: Ali et al. (2022), XAI for Transformers, the LN-rule; Achtibat et al. (2024), AttnLRP, section 3.3.
    """

    epsilon: float = 1e-6

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        scaled = ratio(relevance, call.outputs, self.epsilon)
        own, *others = (per_row(tensor, relevance) for tensor in call.inputs)
        (pulled,) = pull_back(lambda tensors: _without_beta(call.step.operation, tensors[0]), [own], scaled)
        return [own * pulled, *(tf.zeros_like(other) for other in others)]


def _without_beta(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """Return gamma (x - mean) / deviation, with no gradient through the deviation."""
    rank = inputs.shape.rank
    if isinstance(layer, keras.layers.GroupNormalization):
        axes = [layer.axis % rank]
        found = _by_groups(inputs, axes[0], layer)
    else:
        axes = [axis % rank for axis in layer.axis]
        found = _standardised(inputs, axes, layer.epsilon)
    if layer.gamma is None:
        return found
    shape = [size if axis in axes else 1 for axis, size in enumerate(inputs.shape)]
    return found * tf.reshape(tf.cast(tf.convert_to_tensor(layer.gamma), tf.float32), shape)


def _by_groups(inputs: tf.Tensor, axis: int, layer: Any) -> tf.Tensor:
    moved = keras.ops.moveaxis(inputs, axis, -1)
    shape, num_channels = tf.shape(moved), moved.shape[-1]
    grouped = tf.reshape(moved, (shape[0], -1, layer.groups, num_channels // layer.groups))
    return keras.ops.moveaxis(tf.reshape(_standardised(grouped, [1, 3], layer.epsilon), shape), -1, axis)


def _standardised(inputs: tf.Tensor, axes: Sequence[int], epsilon: float) -> tf.Tensor:
    centred = inputs - tf.reduce_mean(inputs, axis=axes, keepdims=True)
    variance = tf.reduce_mean(tf.stop_gradient(centred) ** 2, axis=axes, keepdims=True)
    return centred / tf.sqrt(variance + epsilon)
