"""Layers that apply another layer: relevance goes through the one inside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from deel_dualview.lrp import linear
from deel_dualview.lrp.calls import Call, Rule, mask_of, masked, per_row
from deel_dualview.lrp.recurrent import RECURRENT
from deel_dualview.models.keras_graph import graph_of

TimeDistributed = keras.layers.TimeDistributed


@dataclass(frozen=True)
class OverTime(Rule):
    """`TimeDistributed`: the rules of the layer or model inside, with time folded into the batch.

    Attributes:
        propagate_inside: from inputs (b t, ...) and the relevance of their outputs (b t r, ...) to that of the inputs.
    """

    propagate_inside: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        inputs, *others = call.inputs
        batch, times = tf.shape(inputs)[0], tf.shape(inputs)[1]
        num_rows = tf.shape(relevance)[0] // batch
        mask = mask_of(inputs)
        is_inside = mask is not None and mask.shape.rank > 2
        folded = masked(
            _reshaped(inputs, 2, [batch * times]), _reshaped(mask, 2, [-1]) if is_inside else None
        )
        # Outside r rows follow each other for an example, inside for an example at a time.
        swapped = _swapped(_reshaped(relevance, 1, [batch, num_rows]))
        found = self.propagate_inside(folded, _reshaped(swapped, 3, [batch * times * num_rows]))
        own = _reshaped(_swapped(_reshaped(found, 1, [batch, times, num_rows])), 2, [batch * num_rows])
        own = tf.ensure_shape(own, [None, *inputs.shape[1:]])
        return [own, *(tf.zeros_like(per_row(other, relevance)) for other in others)]


def is_weighted(operation: Any) -> bool:
    """Tell whether an operation weighs its inputs: it has linear maps or is recurrent, or one that it applies."""
    if isinstance(operation, TimeDistributed):
        return any(is_weighted(step.operation) for step in graph_of(operation.layer).steps)
    return linear.is_weighted(operation) or isinstance(operation, RECURRENT)


def _reshaped(tensor: tf.Tensor, num_axes: int, sizes: list[Any]) -> tf.Tensor:
    """Return a tensor with other sizes in the place of its first axes; those of the others are kept."""
    dynamic = tf.shape(tensor)
    kept = [
        dynamic[axis] if tensor.shape[axis] is None else tensor.shape[axis]
        for axis in range(num_axes, tensor.shape.rank)
    ]
    return tf.reshape(tensor, [*sizes, *kept])


def _swapped(tensor: tf.Tensor) -> tf.Tensor:
    """Exchange the second and the third axis."""
    return tf.transpose(tensor, [0, 2, 1, *range(3, tensor.shape.rank)])
