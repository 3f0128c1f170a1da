"""Inputs of layers and gradients with respect to their outputs, for each example of a batch, in one pass.

How to use it, inside a `tf.function` (nothing of it works eagerly):

    model.prepare(inputs)                                  # eagerly, once: finds the split, builds the model

    @tf.function(autograph=False)
    def statistics(inputs, classes):
        captured = capture(model, layers, inputs, lambda logits: evaluate(logits, classes, "loss"))
        for layer in layers:
            for call in captured[layer]:                   # one for each time that the layer was called
                call.inputs                                # (b, ..., d): what the layer was called with
                call.output_gradients                      # (b, ..., c): dL_i / d(pre-activation output)
            factors = layer_factors(layer, captured[layer])    # from gradients.rules: (b, t, c), (b, t, d +
            has_bias)

For EK-FAC: `layer_factors` flattens every kind of layer with one weight matrix (Dense, convolution,
EinsumDense, Embedding) to `Factors(left=delta (b, t, c), right=[input or patch, 1] (b, t, d + has_bias))`,
whose sum over t of outer products is the gradient of an example. Labels sampled from the model are possible
in the same pass: the objective is given the logits, so `lambda z: evaluate(z, sample(tf.stop_gradient(z)),
"loss")`.

Examples must not see each other (true in inference mode): the gradient of the *sum* of the objective then
gives every example its own gradient. The objective is summed, never averaged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.recording import Around, inputs_of, intercepted, recorded
from deel_dualview.typing import Inputs

Objective = Callable[[tf.Tensor], tf.Tensor]
"""From class logits (b, c) to one number an example, shape (b,)."""


class CapturedCall(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: the first argument of the call, as it came.
        output_gradients: gradient of each example's objective with respect to the output before the layer's
            activation, of the output's shape.
    """

    inputs: Any
    output_gradients: tf.Tensor


class _Recorded(NamedTuple):
    layer: keras.Layer
    inputs: Any
    outputs: tf.Tensor


def capture(
    model: InfluenceModel, layers: Sequence[keras.Layer], inputs: Inputs, objective: Objective
) -> dict[keras.Layer, tuple[CapturedCall, ...]]:
    """Call the model and return every call of `layers`, to be used while a `tf.function` is traced.

    A layer is left out if one of its calls cannot be seen from here: inside of a loop over time, a condition
    or another `tf.function`, or with an output that is not one tensor. A layer that is not called has no
    calls.

    Args:
        model: prepared (`model.prepare`).
        layers: layers of the model at any depth, each once.
        inputs: a batch.
        objective: what is differentiated, for each example.
    """
    (found,) = capture_each(model, layers, inputs, lambda logits: [objective(logits)])
    return found


def capture_each(
    model: InfluenceModel,
    layers: Sequence[keras.Layer],
    inputs: Inputs,
    objectives: Callable[[tf.Tensor], Sequence[tf.Tensor]],
) -> list[dict[keras.Layer, tuple[CapturedCall, ...]]]:
    """Return what `capture` does for each of several objectives (b,) of the logits, in one forward pass."""
    with (
        tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
        _recording(layers, tape) as (calls, hidden),
    ):
        values = objectives(call_for_logits(model, inputs))
    found = {
        layer: [call for call in calls if call.layer is layer] for layer in layers if layer not in hidden
    }
    return [_with_gradients(tape, value, found) for value in values]


def _with_gradients(
    tape: tf.GradientTape, values: tf.Tensor, found: dict[keras.Layer, list[_Recorded]]
) -> dict[keras.Layer, tuple[CapturedCall, ...]]:
    """Return the calls with the gradients of the sum of the values (b,) in their outputs."""
    outputs = [[call.outputs for call in own] for own in found.values()]
    gradients = tape.gradient(values, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {
        layer: tuple(
            CapturedCall(call.inputs, gradient) for call, gradient in zip(own, of_layer, strict=True)
        )
        for (layer, own), of_layer in zip(found.items(), gradients, strict=True)
    }


def call_for_logits(model: InfluenceModel, inputs: Inputs) -> tf.Tensor:
    """Call a prepared model and return its outputs (b, c), float32, connected to all that it computed.

    Where the model ends in a linear head these are the head's output before its activation.
    """
    head = model.split.head
    if head is None:
        outputs = tf.cast(tracing.call_model(model.model, inputs), tf.float32)
        return model.objective.from_native(outputs, model.link)
    with (
        _pre_activations([head.layer]) as seen,
        recorded([] if head.is_plain else [head.layer]) as calls,
    ):
        tracing.call_model(model.model, inputs)
    # A class of one's own may add its activation by itself; a linear one leaves the outputs as they are.
    return model.objective.from_native(head.logits(seen[-1] if seen else calls[-1].outputs), "logits")


@contextmanager
def _pre_activations(layers: Sequence[keras.Layer]) -> Iterator[list[tf.Tensor]]:
    """List what the activations of `layers` are applied to inside the block."""
    seen: list[tf.Tensor] = []

    def note(layer: keras.Layer, outputs: tf.Tensor) -> None:
        del layer
        seen.append(outputs)

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(intercepted(layer, "activation", _before_activation(note, layer)))
        yield seen


@contextmanager
def _recording(
    layers: Sequence[keras.Layer], tape: tf.GradientTape
) -> Iterator[tuple[list[_Recorded], set[keras.Layer]]]:
    """Record calls of `layers` inside the block: their inputs and watched pre-activation outputs."""
    graph = tf.constant(0).graph
    latest: dict[keras.Layer, tf.Tensor] = {}
    calls: list[_Recorded] = []
    hidden: set[keras.Layer] = set()

    def note(layer: keras.Layer, outputs: Any) -> None:
        if tf.is_tensor(outputs) and getattr(outputs, "graph", None) is graph:
            tape.watch(outputs)
            latest[layer] = outputs
        else:
            hidden.add(layer)

    def finish(layer: keras.Layer, inputs: Any, outputs: Any) -> None:
        if not _has_activation(layer):
            note(layer, outputs)
        if layer in latest:
            calls.append(_Recorded(layer, inputs, latest.pop(layer)))
        else:
            hidden.add(layer)

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(intercepted(layer, "call", _after_call(finish, layer)))
            if _has_activation(layer):
                stack.enter_context(intercepted(layer, "activation", _before_activation(note, layer)))
        yield calls, hidden


def _has_activation(layer: keras.Layer) -> bool:
    # A recurrent layer's `activation` is a property of its cell: nothing that can be shadowed.
    return vars(layer).get("activation") is not None


def _after_call(finish: Callable[[keras.Layer, Any, Any], None], layer: keras.Layer) -> Around:
    """Have `finish` called after every call of a layer, with the layer, its inputs and its outputs."""

    def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        finish(layer, inputs_of(args, kwargs), outputs)
        return outputs

    return around


def _before_activation(note: Callable[[keras.Layer, tf.Tensor], None], layer: keras.Layer) -> Around:
    """Have `note` called with a layer and what its activation is applied to, before it is."""

    def around(activation: Callable[..., tf.Tensor], outputs: tf.Tensor) -> tf.Tensor:
        note(layer, outputs)
        return activation(outputs)

    return around
