"""What can be said about the tensors of a graph before any data: which are not negative, which are gates."""

from typing import Any

import keras

from deel_dualview.models.keras_graph import Graph, Ref, Step

layers = keras.layers

_NONNEGATIVE = frozenset(("relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential"))
_RECTIFIERS = frozenset(("relu", "relu6"))
_GATES = frozenset(("sigmoid", "hard_sigmoid", "softmax", "sparse_sigmoid"))
_KEEPS_A_GATE = frozenset(("Reshape", "Permute", "Flatten", "Multiply", "TrueDivide", "Divide"))
COMPARISONS = (
    *("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalNot", "OnesLike", "ZerosLike", "All", "Any"),
)
"""Operations that make masks; an Embedding with `mask_zero` brings them into a graph."""
_POSITIONS = ("PositionEmbedding", "SinePositionEncoding")
_SCALES = ("Multiply", "TrueDivide", "Dropout", "SpatialDropout1D", "Rescaling", "Cast")
_PRESERVING = (
    layers.Add,
    layers.Average,
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Dropout,
    layers.Flatten,
    layers.Identity,
    layers.Permute,
    layers.Reshape,
    layers.RepeatVector,
    *(
        getattr(layers, f"{kind}{rank}D")
        for kind in ("SpatialDropout", "Cropping", "UpSampling")
        for rank in (1, 2, 3)
    ),
    *(getattr(layers, f"ZeroPadding{rank}D") for rank in (1, 2, 3)),
    *(
        getattr(layers, f"{kind}Pooling{rank}D")
        for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")
        for rank in (1, 2, 3)
    ),
)


def nonnegative_refs(graph: Graph) -> frozenset[Ref]:
    """Return the tensors that cannot be negative, whatever the inputs."""
    found: set[Ref] = set()
    for step in graph.steps:
        is_preserved = isinstance(step.operation, _PRESERVING) and found.issuperset(step.inputs)
        if is_preserved or activation_name(step.operation) in _NONNEGATIVE:
            found.update(step.outputs)
    return frozenset(found)


def gate_refs(graph: Graph) -> frozenset[Ref]:
    """Return the tensors that come out of a sigmoid or softmax, perhaps reshaped or times a number.

    A bounded ReLU of a tensor plus a number is a hard sigmoid, as MobileNetV3 writes it.
    """
    found: set[Ref] = set()
    shifted: set[Ref] = set()
    for step in graph.steps:
        kind = type(step.operation).__name__
        is_alone = len(step.inputs) == 1
        if is_alone and kind == "Add":
            shifted.update(step.outputs)
        is_bounded = isinstance(step.operation, layers.ReLU) and step.operation.max_value is not None
        is_hard_sigmoid = shifted.issuperset(step.inputs) and (is_bounded or kind == "Relu6")
        is_kept = is_alone and found.issuperset(step.inputs) and kind in _KEEPS_A_GATE
        if activation_name(step.operation) in _GATES or is_hard_sigmoid or is_kept:
            found.update(step.outputs)
    return frozenset(found)


def mask_refs(graph: Graph) -> frozenset[Ref]:
    """Return the tensors that tell tokens from padding: results of comparisons, and what is made of these alone."""
    found: set[Ref] = set()
    for step in graph.steps:
        is_derived = bool(step.inputs) and found.issuperset(step.inputs)
        if is_derived or type(step.operation).__name__ in COMPARISONS:
            found.update(step.outputs)
    return frozenset(found)


def embedded_addends(graph: Graph) -> dict[Step, int]:
    """Return the sums of the embedding of tokens and of that of their positions, with the place of the former.

    Positions are constants, or come from layers that read of their input its shape alone.
    """
    embedded: set[Ref] = set()
    positions: set[Ref] = set()
    found: dict[Step, int] = {}
    for step in graph.steps:
        kind = type(step.operation).__name__
        if kind in _POSITIONS:
            positions.update(step.outputs)
        elif isinstance(step.operation, layers.Embedding) or (
            kind in _SCALES and len(step.inputs) == 1 and embedded.issuperset(step.inputs)
        ):
            embedded.update(step.outputs)
        elif kind == "Add":
            own = [place for place, ref in enumerate(step.inputs) if ref in embedded]
            if len(own) == 1 and positions.issuperset(set(step.inputs) - embedded):
                found[step] = own[0]
    return found


def rectified_steps(graph: Graph) -> frozenset[Step]:
    """Return the steps whose outputs go through a ReLU, their own or that of every step that reads them."""
    users = graph.users()

    def silences(step: Step) -> bool:
        is_activation = isinstance(step.operation, layers.ReLU | layers.Activation)
        is_activation = is_activation or not isinstance(step.operation, keras.Layer)
        return is_activation and activation_name(step.operation) in _RECTIFIERS

    return frozenset(
        step
        for step in graph.steps
        if isinstance(step.operation, keras.Layer)
        and (
            activation_name(step.operation) in _RECTIFIERS
            or step.outputs[0] not in graph.outputs
            and all(silences(user) for user in users[step.outputs[0]])
        )
    )


def first_weighted(graph: Graph, is_weighted: Any) -> frozenset[Step]:
    """Return the steps with weights that see the model's inputs through no other such step."""
    behind: set[Ref] = set()
    found: set[Step] = set()
    for step in graph.steps:
        is_behind = bool(behind.intersection(step.inputs))
        if is_weighted(step.operation):
            if not is_behind:
                found.add(step)
            is_behind = True
        if is_behind:
            behind.update(step.outputs)
    return frozenset(found)


def activation_name(operation: Any) -> str:
    """Return the name of the activation that ends a layer or that an operation is; empty if there is none."""
    if isinstance(operation, layers.ReLU):
        is_plain = operation.negative_slope == 0 and operation.threshold >= 0
        return "relu" if is_plain else ""
    if isinstance(operation, layers.Softmax):
        return "softmax"
    if isinstance(operation, keras.Layer):
        return getattr(getattr(operation, "activation", None), "__name__", "")
    return type(operation).__name__.lower()
