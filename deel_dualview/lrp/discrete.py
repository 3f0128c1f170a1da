"""Layers that turn words or categories into numbers: there relevance ends, for they have no parts to share it among."""

import keras

from deel_dualview._checks import describe
from deel_dualview.models.keras_graph import Graph

layers = keras.layers

_DISCRETE = (
    layers.TextVectorization,
    layers.StringLookup,
    layers.IntegerLookup,
    layers.Hashing,
    layers.HashedCrossing,
    layers.Discretization,
    layers.CategoryEncoding,
)


def check_no_look_up(graph: Graph) -> None:
    """Refuse a graph that begins by looking words or categories up.

    Raises:
        ValueError: it does; the message names the layer and says where to cut the model.
    """
    for step in graph.steps:
        if isinstance(step.operation, _DISCRETE):
            needed = (
                f"Relevance cannot go through layer {step.name!r}, which looks words or categories up and is not "
                f"differentiable. Cut the model after it: apply the layer to the dataset, "
                f"`dataset.map(lambda inputs, labels: ({step.name}(inputs), labels))`, and explain a model that begins "
                "with what it returns."
            )
            raise ValueError(describe(needed, {"type": type(step.operation).__name__}))
