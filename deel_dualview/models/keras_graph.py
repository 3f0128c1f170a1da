"""A Keras model as a flat list of steps, each one call of one layer; nested models are opened.

The only module that reads the private nodes of a Keras Functional model.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses.losses import LossFunctionWrapper

from deel_dualview._checks import describe, require
from deel_dualview.models.inputs import spread, used


@dataclass(frozen=True)
class Ref:
    """Names one tensor of a graph."""

    index: int


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a layer (or of another Keras operation).

    Attributes:
        operation: what is called. A layer that is called twice has two steps.
        arguments: `(args, kwargs)` of the call, with a Ref wherever a tensor of the graph goes.
        inputs: the Refs among the arguments, in order; a tensor that is passed twice is here twice.
        outputs: what the call returns, flattened.
    """

    operation: Any
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.operation.name)

    def call(self, tensors: Sequence[tf.Tensor]) -> Any:
        """Call the operation on other tensors in the places of `inputs`."""
        args, kwargs = self.fill(tensors)
        return self.operation(*args, **kwargs)

    def fill(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with `values` in the places of `inputs`."""
        remaining = iter(values)
        leaves = [
            next(remaining) if isinstance(leaf, Ref) else leaf for leaf in keras.tree.flatten(self.arguments)
        ]
        return keras.tree.pack_sequence_as(self.arguments, leaves)


@dataclass(frozen=True, eq=False)
class Graph:
    """Steps in an order in which they can run.

    Attributes:
        inputs: the model's inputs, flattened.
        steps: all calls that the outputs need.
        outputs: the model's outputs, flattened.
        structure: the structure in which the model takes its inputs.
        models: by id, the outputs of the (nested) models that were opened, one entry a call.
    """

    inputs: tuple[Ref, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
    structure: Any
    models: Mapping[int, tuple[tuple[Ref, ...], ...]]

    def flatten(self, inputs: Any) -> list[Any]:
        """Return the model's inputs in the order of `self.inputs`, from whatever form the model takes them in."""
        return used(self.structure, inputs)

    def pack(self, inputs: Any, values: Sequence[Any], texts: Collection[Ref] = ()) -> Any:
        """Return one value for each of `self.inputs` in the structure of `inputs`; zeros for what is not read.

        Args:
            inputs: as a dataset yields them.
            values: in their shapes, or for texts in that of their words.
            texts: the inputs that are texts.
        """
        return spread(self.structure, inputs, values, [ref in texts for ref in self.inputs])

    def users(self) -> dict[Ref, list[Step]]:
        """Return the steps that read each tensor."""
        found: dict[Ref, list[Step]] = {}
        for step in self.steps:
            for ref in dict.fromkeys(step.inputs):
                found.setdefault(ref, []).append(step)
        return found

    def run(self, inputs: Sequence[Any]) -> dict[Ref, Any]:
        """Run every step on the model's inputs, flattened; return all tensors.

        What a model would cast its inputs to is passed by: pixels stay floating-point numbers, with a gradient.
        """
        values = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            outputs = tf.nest.flatten(step.call([values[ref] for ref in step.inputs]))
            values.update(zip(step.outputs, outputs, strict=True))
        return values

    def ending_at(self, outputs: Sequence[Ref]) -> "Graph":
        """Return the part of the graph that these tensors need."""
        needed, kept = set(outputs), []
        for step in reversed(self.steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
        return replace(self, steps=tuple(reversed(kept)), outputs=tuple(outputs))

    def followed_by(self, layers: Sequence[keras.Layer]) -> "Graph":
        """Return the graph with layers called on its one output, one after the other."""
        steps, (last,) = list(self.steps), self.outputs
        for number, layer in enumerate(layers, start=1):
            steps.append(Step(layer, ((last,), {}), (last,), (Ref(-number),)))
            last = Ref(-number)
        return replace(self, steps=tuple(steps), outputs=(last,))


def walk(model: keras.Model) -> Graph:
    """Return the steps of a Functional or Sequential model, those of nested models among them.

    Raises:
        TypeError: it is not a Keras model.
        ValueError: it (or a model inside) is subclassed and has no graph to walk, or is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(describe("Relevance propagation needs a Keras model.", {"model": model}))
    functional = _functional(model)
    walker = _Walker()
    inputs = tuple(walker.new_ref() for _ in functional.inputs)
    outputs = walker.run(model, inputs)
    models = {key: tuple(found) for key, found in walker.models.items()}
    graph = Graph(inputs, tuple(walker.steps), outputs, functional._inputs_struct, models)
    return graph.ending_at(outputs)


def graph_of(layer: keras.Layer) -> Graph:
    """Return the graph of a model, or that of a layer called on one tensor.

    Raises:
        ValueError: it is (or holds) a subclassed model.
    """
    if isinstance(layer, keras.Model):
        return walk(layer)
    before, after = Ref(0), Ref(1)
    step = Step(layer, ((before,), {}), (before,), (after,))
    return Graph((before,), (step,), (after,), None, {})


def ending_at_layer(graph: Graph, layer: keras.Layer, *, takes_input: bool) -> Graph:
    """Return the part of a graph that ends in the input or the output of a layer.

    Raises:
        ValueError: the layer is not called exactly once.
    """
    found = list(_places(graph, layer, takes_input))
    require(
        len(found) == 1 and len(found[0]) == 1,
        "Relevance starts at the features, so their layer must be called exactly once in the model's graph, on or "
        "giving one tensor; a layer that another one calls in Python code is no part of the graph. Name another by "
        "InfluenceModel(model, feature_layer=...), or wrap the model's parts: "
        "InfluenceModel.from_parts(feature_extractor, head).",
        {"layer": layer.name, "calls": len(found)},
    )
    return graph.ending_at(found[0])


def _places(graph: Graph, layer: keras.Layer, takes_input: bool) -> Iterator[tuple[Ref, ...]]:
    for step in graph.steps:
        if step.operation is layer:
            yield step.inputs if takes_input else step.outputs
    if not takes_input:
        yield from graph.models.get(id(layer), ())


def wiring(layer: keras.Layer) -> list[tuple[Any, Any]]:
    """Return the calls that a Functional model makes, nested models closed: (what is called, arguments with Refs).

    First comes its input structure and last its outputs, both called None; empty for a layer that is no such model.
    """
    if not hasattr(layer, "_nodes_by_depth"):
        return []
    refs: dict[int, Ref] = {}

    def to_refs(tensors: Any) -> Any:
        return keras.tree.map_structure(lambda leaf: refs.get(id(leaf), leaf), tensors)

    refs.update((id(tensor), Ref(index)) for index, tensor in enumerate(layer.inputs))
    found = [(None, to_refs(layer._inputs_struct))]
    for node in _nodes(layer):
        found.append((node.operation, to_refs((node.arguments.args, node.arguments.kwargs))))
        refs.update((id(tensor), Ref(len(refs) + index)) for index, tensor in enumerate(node.outputs))
    return [*found, (None, to_refs(layer._outputs_struct))]


def _nodes(functional: Any) -> Iterator[Any]:
    """Yield the calls of a Functional model in an order in which they can run."""
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.operation and not node.is_input:
                yield node


class _Walker:
    """Collects steps while nested models are opened."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.models: dict[int, list[tuple[Ref, ...]]] = {}
        self._num_refs = 0

    def new_ref(self) -> Ref:
        self._num_refs += 1
        return Ref(self._num_refs - 1)

    def run(self, model: keras.Model, inputs: Sequence[Ref]) -> tuple[Ref, ...]:
        """Append the steps of a model called on `inputs`; return its outputs."""
        functional = _functional(model)
        known = {id(tensor): ref for tensor, ref in zip(functional.inputs, inputs, strict=True)}
        for node in _nodes(functional):
            for tensor, ref in zip(node.outputs, self._call(node, known), strict=True):
                known[id(tensor)] = ref
        outputs = tuple(known[id(tensor)] for tensor in functional.outputs)
        self.models.setdefault(id(model), []).append(outputs)
        return outputs

    def _call(self, node: Any, known: Mapping[int, Ref]) -> tuple[Ref, ...]:
        arguments = (node.arguments.args, node.arguments.kwargs)
        arguments = keras.tree.map_structure(lambda leaf: known.get(id(leaf), leaf), arguments)
        operation = node.operation
        while isinstance(operation, keras.layers.SpectralNormalization):
            # At inference it is the layer inside, whose kernel training has divided by its norm.
            operation = operation.layer
        if isinstance(operation, keras.Model):
            args, kwargs = arguments
            # Not their masks, which Keras adds to the arguments and which tensors carry along.
            given = args[0] if args else kwargs["inputs"]
            return self.run(operation, _refs(given))
        inputs = _refs(arguments)
        outputs = tuple(self.new_ref() for _ in node.outputs)
        self.steps.append(Step(operation, arguments, inputs, outputs))
        return outputs


def _refs(arguments: Any) -> tuple[Ref, ...]:
    return tuple(leaf for leaf in keras.tree.flatten(arguments) if isinstance(leaf, Ref))


def _functional(model: keras.Model) -> Any:
    """Return the Functional model that a model is or holds."""
    functional: Any = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    require(
        functional is not None,
        "A Sequential model has no graph before it is built: give it a keras.Input, or call it on a batch.",
        {"model": model.name},
    )
    require(
        _has_graph(functional),
        "Relevance is propagated along the graph of a Functional or Sequential model; a subclassed model, whose "
        "`call` is Python code, has none. Rebuild it with keras.Input and layers, or wrap its parts: "
        "InfluenceModel.from_parts(feature_extractor, head) with a Functional feature extractor.",
        {"model": model.name, "type": type(model).__name__},
    )
    return functional


def outputs_of(model: keras.Model) -> Any:
    """Return the symbolic outputs of a Functional or built Sequential model as it nests them, else None."""
    functional: Any = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return functional._outputs_struct if _has_graph(functional) else None


def _has_graph(functional: Any) -> bool:
    return hasattr(functional, "_nodes_by_depth") and type(functional).call.__qualname__.startswith(
        "Functional."
    )


def split_words(layer: keras.layers.TextVectorization, texts: tf.Tensor) -> tf.Tensor:
    """Return the words of texts as the layer looks them up, strings (b, words); empty ones after the last of a text.

    Of a layer that gives numbers there are as many words as numbers.
    """
    words = layer._preprocess(texts)
    if not isinstance(words, tf.RaggedTensor):
        words = tf.RaggedTensor.from_tensor(words if words.shape.rank > 1 else words[:, tf.newaxis])
    settings = layer.get_config()
    length = settings["output_sequence_length"] if settings["output_mode"] == "int" else None
    return words.to_tensor("", shape=[None, length])


def encode_words(layer: keras.layers.TextVectorization, words: tf.Tensor) -> tf.Tensor:
    """Return the codes of words (b, words) that were split already."""
    return layer._lookup_layer(words)


def mask_of(outputs: tf.Tensor) -> tf.Tensor | None:
    """Return the mask that Keras gave to the outputs of a model that it has just called, None for none."""
    return getattr(outputs, "_keras_mask", None)


def settings_of_loss(loss: Any) -> dict[str, Any]:
    """Return the settings of a Keras loss by the names of its arguments, such as the delta of a Huber loss."""
    return dict(getattr(loss, "_fn_kwargs", {}))


def second_moments(optimizer: Any) -> dict[int, Any]:
    """Return the averages of squared gradients by which a built Adam divides, by the ids of the trained variables."""
    moments = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
    return {id(own): moment for own, moment in zip(optimizer._trainable_variables, moments, strict=True)}


def assign_slots(
    optimizer: Any, variables: list[keras.Variable], slots: list[tf.Tensor], num_steps: int
) -> None:
    """Give SGD or Adam what it keeps for each of the trained variables, one slot after another, after some steps.

    One that was built for other variables, such as those before a layer was frozen, stays as it is.
    """
    optimizer.build(variables)
    if list(map(id, optimizer._trainable_variables)) != list(map(id, variables)):
        return
    optimizer.iterations.assign(num_steps)
    kept = optimizer.momentums if isinstance(optimizer, keras.optimizers.SGD) else _slots_of_adam(optimizer)
    for variable, value in zip(kept if slots else [], slots, strict=True):
        variable.assign(value)


def as_compiled(loss: Any, dtype: str) -> keras.losses.Loss:
    """Return a loss as `compile` makes it of a function, in float64 for weights of that type, else in its own."""
    if not isinstance(loss, keras.losses.Loss):
        loss = LossFunctionWrapper(loss)
    # Not by `copy`, which would save and load it.
    found: keras.losses.Loss = object.__new__(type(loss))
    vars(found).update(vars(loss))
    if dtype == "float64":
        found._dtype = dtype
    return found


def compiled_loss_weights(model: keras.Model) -> Any:
    """Return the weights of losses that a model was compiled with, None for none."""
    return getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)


def takes_training(model: keras.Model) -> bool:
    """Return whether `fit` passes `training=` to the model's call."""
    return bool(model._call_has_training_arg)


def leaves_out_of_weight_decay(optimizer: Any) -> bool:
    """Return whether `exclude_from_weight_decay` was called on an optimizer."""
    return bool(
        getattr(optimizer, "_exclude_from_weight_decay", None)
        or getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    )


def _slots_of_adam(optimizer: Any) -> list[keras.Variable]:
    return [*optimizer._momentums, *optimizer._velocities]
