"""Rules for operations without weights: passing, sharing, routing, gating, attention and look-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from deel_dualview._checks import describe
from deel_dualview.lrp.calls import Call, Rule, per_row, pull_back, ratio

# Attention layers that are called as (query, value, key=None) and not with one list.
_WITH_HEADS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclass(frozen=True)
class Pass(Rule):
    """An output's relevance goes to the input in its place: activations, dropout, normalisation of the model's inputs.

    Source: Achtibat et al. (2024), AttnLRP, section 3.3, the identity rule of functions of one variable.
    """

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        shape = tf.concat([tf.shape(relevance)[:1], tf.shape(call.inputs[0])[1:]], axis=0)
        own = tf.reshape(relevance, shape)
        return [own, *(tf.zeros_like(per_row(other, relevance)) for other in call.inputs[1:])]


@dataclass(frozen=True)
class Route(Rule):
    """Relevance goes the way that gradients go: reshapes, padding, concatenation; the winner of a maximum takes all."""

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        inputs = [per_row(_as_floats(tensor), relevance) for tensor in call.inputs]
        return pull_back(call.step.call, inputs, relevance)


@dataclass(frozen=True)
class OneTakesAll(Rule):
    """One input receives everything: of the embedding of a token and that of its position the token's.

    Attributes:
        place: of this input.
    """

    place: int

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        return [
            relevance if place == self.place else tf.zeros(tf.shape(per_row(tensor, relevance)))
            for place, tensor in enumerate(call.inputs)
        ]


@dataclass(frozen=True)
class Share(Rule):
    """Inputs receive in proportion to their contributions to a linear operation: sums, means, interpolation.

    The epsilon rule for any operation that is linear in its inputs.

    Attributes:
        epsilon: as a fraction of the root mean square of the example's outputs.
    """

    epsilon: float = 1e-6

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        scaled = ratio(relevance, call.outputs, self.epsilon)
        inputs = [per_row(tensor, relevance) for tensor in call.inputs]
        pulled = pull_back(call.step.call, inputs, scaled)
        return [tensor * gradient for tensor, gradient in zip(inputs, pulled, strict=True)]


@dataclass(frozen=True)
class SignalTakesAll(Rule):
    """Of a product of a signal and a gate, the signal receives everything.

    The gate is the input that comes out of a sigmoid or softmax, or that is broadcast against the other.

    Source: Arras et al. (2017), Explaining recurrent neural network predictions, section 2.2.
    """

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        signal = self._signal(call)
        return [
            relevance if index == signal else tf.zeros_like(per_row(tensor, relevance))
            for index, tensor in enumerate(call.inputs)
        ]

    def _signal(self, call: Call) -> int:
        sizes = [tensor.shape[1:].num_elements() or 0 for tensor in call.inputs]
        signals = [index for index, is_gate in enumerate(call.gates) if not is_gate]
        largest = [index for index in range(len(sizes)) if sizes[index] == max(sizes)]
        candidates = signals if len(signals) == 1 else largest
        if len(candidates) == 1:
            return candidates[0]
        needed = (
            f"Layer {call.step.name!r} multiplies tensors of which none is seen to be a gate (the output of a sigmoid "
            "or softmax, or broadcast), so that relevance has no one way to go. Choose a rule for it: "
            f"composite.with_rules(by_name={{{call.step.name!r}: Share()}}) counts every factor as a contribution, "
            "or write a Rule."
        )
        raise ValueError(describe(needed, {"shapes": [tuple(tensor.shape) for tensor in call.inputs]}))


@dataclass(frozen=True)
class ValuesTakeAll(Rule):
    """Attention weights are taken as given: values receive everything, queries and keys nothing.

    With fixed weights attention is linear in its values, and those receive by the epsilon rule.

    Attributes:
        epsilon: as a fraction of the root mean square of the example's outputs.

    Source: Ali et al. (2022), XAI for Transformers, section 3.2 (the AH-rule).
    """

    epsilon: float = 1e-6

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        position = _value_position(call)
        inputs = [per_row(tensor, relevance) for tensor in call.inputs]

        def attend(values: Sequence[tf.Tensor]) -> tf.Tensor:
            own = [*inputs[:position], values[0], *inputs[position + 1 :]]
            return _attend(call, own, key=tf.stop_gradient(inputs[position]))

        scaled = ratio(relevance, call.outputs, self.epsilon)
        (pulled,) = pull_back(attend, [inputs[position]], scaled)
        found = [tf.zeros_like(tensor) for tensor in inputs]
        found[position] = inputs[position] * pulled
        return found


@dataclass(frozen=True)
class SumOverFeatures(Rule):
    """A token receives the relevance of all features of its embedding."""

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        return [tf.reduce_sum(relevance, axis=-1)]


@dataclass(frozen=True)
class Nothing(Rule):
    """What is compared to make a mask receives nothing."""

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        return [tf.zeros_like(per_row(tensor, relevance)) for tensor in call.inputs]


def _as_floats(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor that has a gradient, in the shape of one that is to be looked up."""
    return (
        tf.zeros_like(tensor, tf.float32) if tensor.dtype == tf.string or tensor.dtype.is_integer else tensor
    )


def _value_position(call: Call) -> int:
    """Return at which of the call's inputs the values of an attention layer stand."""
    args, kwargs = call.step.fill(range(len(call.inputs)))
    if isinstance(call.step.operation, _WITH_HEADS):
        return args[1] if len(args) > 1 else kwargs["value"]
    return (args[0] if args else kwargs["inputs"])[1]


def _attend(call: Call, tensors: Sequence[tf.Tensor], key: tf.Tensor) -> tf.Tensor:
    """Call the attention layer with the key apart from the value, so that a gradient flows through values only."""
    args: Any
    args, kwargs = call.step.fill(tensors)
    operation = call.step.operation
    if isinstance(operation, _WITH_HEADS):
        names = ("query", "value", "key")
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        if kwargs.get("key") is None or kwargs["key"] is kwargs["value"]:
            kwargs["key"] = key
        return operation(**kwargs)
    first, *rest = args or (kwargs.pop("inputs"),)
    query, value, *given = first
    return operation([query, value, given[0] if given else key], *rest, **kwargs)
