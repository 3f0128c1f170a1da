"""LRP: relevance of a model's outputs, propagated back to its inputs layer by layer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.data.hashing import checksum
from deel_dualview.lrp import linear, signs, wrappers
from deel_dualview.lrp.calls import Applied, Call, Rule, mask_of, masked
from deel_dualview.lrp.canonize import fold_batch_norms, in_float32
from deel_dualview.lrp.composites import SHIFT_SHARES, Composite, Named, to_composite
from deel_dualview.lrp.discrete import DISCRETE, LookUp, text_inputs, uncast_refs, words_of
from deel_dualview.lrp.routing import OneTakesAll, Pass, Share
from deel_dualview.models.keras_graph import Graph, Ref, Step, graph_of, walk
from deel_dualview.typing import Inputs


class StepRelevance(NamedTuple):
    """What one layer received and passed on.

    Attributes:
        name: of the layer.
        received: sum of its output's relevance, shape (b,).
        passed: sum of its inputs' relevance, shape (b,).
    """

    name: str
    received: tf.Tensor
    passed: tf.Tensor


class LRP:
    """Layer-wise relevance propagation: relevance of outputs shared out to the inputs, layer by layer.

    Positive relevance speaks for the output that is explained, negative against it; in the output's unit. What is
    lost on the way is what biases and stabilisers take. Batch normalisation is folded into the layer before it
    where it follows one; the model itself is only read.

    Args:
        model: a Functional or Sequential model, nested as it may be.
        rule: a composite, or its name.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: a subclassed model, an unknown rule, a layer without a rule (the message tells how to register
            one), a layer with several outputs.

    Source: Bach et al. (2015), On pixel-wise explanations; Montavon et al. (2019), Layer-wise relevance propagation.
    """

    def __init__(self, model: keras.Model, rule: Named | Composite = "epsilon-gamma") -> None:
        self._prepare(walk(model), to_composite(rule))

    @classmethod
    def of_graph(cls, graph: Graph, rule: Named | Composite = "epsilon-gamma") -> "LRP":
        """Build from a part of a walked model."""
        lrp = cls.__new__(cls)
        lrp._prepare(graph, to_composite(rule))
        return lrp

    def __call__(self, inputs: Inputs, relevance: tf.Tensor) -> Inputs:
        """Return the relevance of the inputs.

        Args:
            inputs: of b examples.
            relevance: of the model's output, shape (b, ...) or flattened; (b r, ...) for r explanations of every
                example in a row, which share its forward pass.

        Returns:
            In the structure of the inputs, each tensor of its shape, with b r examples, float32.
        """
        self._check_unchanged()
        return _called(self._propagated, inputs, tf.cast(relevance, tf.float32))

    def forward(self, inputs: Inputs) -> tf.Tensor:
        """Return the model's output, float32: of a final softmax too, whose input it is that LRP explains."""
        self._check_unchanged()
        return _called(self._outputs, inputs)

    def explain(self, inputs: Inputs, classes: tf.Tensor | None = None) -> Inputs:
        """Return the relevance of the inputs to one output of each example, which it starts from.

        Args:
            inputs: of b examples.
            classes: which output, shape (b,); the largest by default.
        """
        outputs = self.forward(inputs)
        chosen = tf.argmax(outputs, axis=-1) if classes is None else tf.convert_to_tensor(classes)
        return self(inputs, outputs * tf.one_hot(chosen, outputs.shape[-1]))

    def by_step(self, inputs: Inputs, relevance: tf.Tensor) -> list[StepRelevance]:
        """Return what every layer received and passed on, from the output to the inputs: where relevance is lost."""
        self._check_unchanged()
        received, passed = _called(self._sums, inputs, tf.cast(relevance, tf.float32))
        names = [step.name for step in reversed(self._graph.steps)]
        return [StepRelevance(*parts) for parts in zip(names, received, passed, strict=True)]

    def _prepare(self, graph: Graph, composite: Composite) -> None:
        require(
            len(graph.outputs) == 1,
            "Relevance starts at one output; build a model that ends there.",
            {"outputs": len(graph.outputs)},
        )
        # Of the layers as the user knows them, before any are folded.
        for step in graph.steps:
            _rule_of(step, composite, graph, is_first=False)
        self._graph = in_float32(fold_batch_norms(graph))
        kept = {id(step.operation) for step in self._graph.steps}
        self._copied = [step.operation for step in graph.steps if id(step.operation) not in kept]
        self._checksums = _checksums(self._copied)
        first = signs.first_weighted(self._graph, wrappers.is_weighted)
        self._rules: list[Rule] = [
            _rule_of(step, composite, self._graph, is_first=step in first) for step in self._graph.steps
        ]
        self._uncast, self._texts = uncast_refs(self._graph), text_inputs(self._graph)
        for step in self._graph.steps:
            require(
                len(step.outputs) == 1,
                f"Layer {step.name!r} has several outputs, and relevance is propagated from one.",
                {"outputs": len(step.outputs)},
            )
        self._nonnegative = signs.nonnegative_refs(self._graph)
        self._gates = signs.gate_refs(self._graph)
        self._masks = signs.mask_refs(self._graph)
        self._rectified = signs.rectified_steps(self._graph)

    def words(self, inputs: Inputs) -> Any:
        """Return the words of texts that a TextVectorization in the model splits, which receive a number each.

        Args:
            inputs: of b examples.

        Returns:
            In the structure of the inputs, strings (b, words), padded by empty ones; () for inputs that are no texts.
        """
        return words_of(self._graph, inputs)

    def _check_unchanged(self) -> None:
        """Refuse to mix copies of layers with other weights than they were copied from."""
        require(
            _checksums(self._copied) == self._checksums,
            "The model's weights have changed since this LRP was built (by `fit`, `load_weights` or an assignment), "
            "and it holds batch normalisations folded from the earlier ones: build another LRP.",
            {"layers": [layer.name for layer in self._copied]},
        )

    @cached_property
    def _propagated(self) -> Callable[..., Any]:
        return tf.function(self._propagate, reduce_retracing=True, autograph=False)

    @cached_property
    def _outputs(self) -> Callable[..., Any]:
        return tf.function(
            lambda inputs: self._run(inputs)[1][self._graph.outputs[0]],
            reduce_retracing=True,
            autograph=False,
        )

    @cached_property
    def _sums(self) -> Callable[..., Any]:
        return tf.function(self._sum, reduce_retracing=True, autograph=False)

    def _propagate(self, inputs: Inputs, relevance: tf.Tensor) -> Inputs:
        calls, values = self._run(inputs)
        shaped = self._shaped(relevance, values)
        found: dict[Ref, tf.Tensor] = {}
        self._walk_back(calls, shaped, found)
        num_rows = tf.shape(shaped)[0]
        return self._graph.pack(
            inputs, [_of_input(found, values, ref, num_rows) for ref in self._graph.inputs], self._texts
        )

    def _shaped(self, relevance: tf.Tensor, values: dict[Ref, tf.Tensor]) -> tf.Tensor:
        """Return flattened relevance in the shape of the output."""
        output = values[self._graph.outputs[0]]
        return tf.reshape(relevance, tf.concat([tf.shape(relevance)[:1], tf.shape(output)[1:]], axis=0))

    def _sum(self, inputs: Inputs, relevance: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        calls, values = self._run(inputs)
        return self._walk_back(calls, self._shaped(relevance, values), {})

    def _run(self, inputs: Inputs) -> tuple[list[Call], dict[Ref, tf.Tensor]]:
        """Run the steps forward, keeping what the rules need."""
        values = {
            ref: tensor if ref in self._uncast else tf.cast(tensor, tf.float32)
            for ref, tensor in zip(self._graph.inputs, self._graph.flatten(inputs), strict=True)
        }
        calls = []
        for step in self._graph.steps:
            looks_up = isinstance(step.operation, DISCRETE) or step.outputs[0] in self._uncast
            call = self._call(
                step, [values[ref] if looks_up else _to_float(values[ref]) for ref in step.inputs]
            )
            values[step.outputs[0]] = call.outputs
            calls.append(call)
        return calls, values

    def _call(self, step: Step, inputs: Sequence[tf.Tensor]) -> Call:
        gates = tuple(ref in self._gates for ref in step.inputs)
        if not linear.is_weighted(step.operation):
            # Kept before the call: MultiHeadAttention takes the masks off the very tensors that it reads.
            kept = tuple(_kept(tensor) for tensor in inputs)
            outputs = tf.nest.flatten(step.call(inputs))[0]
            is_kept = step.outputs[0] in self._uncast
            return Call(step, kept, outputs if is_kept else _to_float(outputs), (), gates)
        applied, value, is_nonnegative = [], inputs[0], step.inputs[0] in self._nonnegative
        *before, last = linear.linear_maps(step.operation)
        for linear_map in (*before, last):
            z = linear_map(value)
            is_rectified = linear_map is last and step in self._rectified
            applied.append(Applied(linear_map, value, z, is_nonnegative, is_rectified))
            value, is_nonnegative = z, False
        outputs = linear.activate(step.operation, value)
        if step.operation.supports_masking:
            outputs = masked(outputs, mask_of(inputs[0]))
        return Call(step, tuple(inputs), outputs, tuple(applied), gates)

    def _walk_back(
        self, calls: list[Call], relevance: tf.Tensor, found: dict[Ref, tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Fill in the relevance of the inputs; return what every step received and passed on, the last first."""
        found[self._graph.outputs[0]] = relevance
        received, passed = [], []
        for step, rule, call in zip(
            reversed(self._graph.steps), reversed(self._rules), reversed(calls), strict=True
        ):
            own = found.pop(step.outputs[0])
            parts = rule.propagate(call, own)
            for ref, own_part in zip(step.inputs, parts, strict=True):
                part = tf.zeros_like(own_part) if ref in self._masks else own_part
                found[ref] = found[ref] + part if ref in found else part
            received.append(_row_sums(own))
            passed.append(tf.add_n([_row_sums(part) for part in parts]))
        return received, passed


def _rule_of(step: Step, composite: Composite, graph: Graph, *, is_first: bool) -> Rule:
    """Return the rule of a step; of a layer over time that of the layer inside."""
    operation = step.operation
    if not isinstance(operation, wrappers.TimeDistributed) or composite.has_rule(operation):
        rule = composite.rule_of(operation, is_first=is_first)
        if isinstance(rule, LookUp) and step.inputs[0] in text_inputs(graph):
            return replace(rule, by_words=True)
        if isinstance(rule, Share) and step in (sums := signs.embedded_addends(graph)):
            return OneTakesAll(sums[step])
        return Pass() if rule is SHIFT_SHARES and step.inputs[0] in graph.inputs else rule
    inside = composite if is_first else replace(composite, first=None)
    return wrappers.OverTime(LRP.of_graph(graph_of(operation.layer), inside)._propagate)


def _of_input(
    found: dict[Ref, tf.Tensor], values: dict[Ref, tf.Tensor], ref: Ref, num_rows: tf.Tensor
) -> tf.Tensor:
    # An input that the outputs do not depend on has no relevance.
    return (
        found[ref] if ref in found else tf.zeros(tf.concat([[num_rows], tf.shape(values[ref])[1:]], axis=0))
    )


def _checksums(copied: list[Any]) -> list[int]:
    weights = [weight for layer in copied for weight in getattr(layer, "weights", ())]
    return [checksum(tf.convert_to_tensor(weight).numpy()) for weight in weights]


def _called(function: Any, *arguments: Inputs) -> Any:
    """Call a tf.function that was traced once for batches of any size."""
    arguments = keras.tree.map_structure(tf.convert_to_tensor, arguments)
    specs = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), arguments
    )
    if not tf.config.functions_run_eagerly():
        function.get_concrete_function(*specs)
    return function(*arguments)


def _to_float(tensor: tf.Tensor) -> tf.Tensor:
    return tensor if tensor.dtype == tf.float32 else masked(tf.cast(tensor, tf.float32), mask_of(tensor))


def _kept(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor whose mask no call can take away."""
    mask = mask_of(tensor)
    return tensor if mask is None else masked(tf.identity(tensor), mask)


def _row_sums(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tensor, axis=list(range(1, tensor.shape.rank)))
