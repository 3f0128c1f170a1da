"""Layer-wise relevance propagation as a way from the influence of a pair to its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from deel_dualview.lrp import LRP, Composite
from deel_dualview.lrp.composites import Named, to_composite
from deel_dualview.lrp.discrete import DISCRETE, are_texts, text_inputs, words_of
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.keras_graph import Graph, ending_at_layer, walk
from deel_dualview.relevance.base import BackEnd, Explainer
from deel_dualview.typing import Inputs


@dataclass(frozen=True)
class LayerwisePropagation(BackEnd):
    """The contributions of the features, shared out layer by layer.

    Attributes:
        rule: a composite of `deel_dualview.lrp`, or its name.

    Source: Yolcu et al. (2024), DualView, section 6.
    """

    rule: Named | Composite = "epsilon-gamma"

    def __post_init__(self) -> None:
        to_composite(self.rule)

    def prepare(self, model: InfluenceModel) -> Explainer:
        """Return the explainer.

        Raises:
            ValueError: the model is subclassed (it has no graph to walk), a layer has no rule, or the features are
                not reached by one call of their layer.
        """
        lrp = LRP.of_graph(feature_graph(model), self.rule)
        return lambda side: lrp(side.inputs, side.start)


def feature_graph(model: InfluenceModel) -> Graph:
    """Return the graph that ends in the penultimate features.

    Raises:
        ValueError: the model is subclassed, or the features are not reached by one call of their layer.
    """
    if model.feature_extractor is not None:
        return walk(model.feature_extractor)
    split = model.split
    graph = ending_at_layer(walk(model.model), split.layer, takes_input=split.takes_input)
    return graph.followed_by(split.head.pooling) if split.takes_input and split.head is not None else graph


def feature_function(model: InfluenceModel) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the penultimate features (b, d) as a function of one floating-point input, differentiable if it can be.

    Along the model's graph where it has one: a model that takes integers would cast its input, which cuts gradients.
    """
    try:
        graph = feature_graph(model)
    except ValueError:
        return model.features

    def features(inputs: tf.Tensor) -> tf.Tensor:
        found = tf.cast(graph.run([inputs])[graph.outputs[0]], tf.float32)
        return tf.reshape(found, (tf.shape(inputs)[0], -1))

    function = tf.function(features, autograph=False, reduce_retracing=True)

    def called(inputs: tf.Tensor) -> tf.Tensor:
        function.get_concrete_function(tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype))
        return tf.ensure_shape(function(inputs), (None, model.num_features))

    return called


class Texts:
    """Inputs that are texts, which the model splits into words itself; none of a model without a graph.

    Args:
        model: whose inputs are explained.
    """

    def __init__(self, model: InfluenceModel) -> None:
        try:
            graph = feature_graph(model)
        except ValueError:
            graph = None
        self._graph = graph if graph is not None and text_inputs(graph) else None

    def among(self, inputs: Inputs) -> Any:
        """Return in the structure of the inputs, or of their specs, which are texts."""
        if self._graph is None:
            return tf.nest.map_structure(lambda part: False, inputs)
        return are_texts(self._graph, inputs)

    def words(self, inputs: Inputs) -> Any:
        """Return in the structure of the inputs the words (b, words) of those that are texts, () for the others."""
        if self._graph is None:
            return tf.nest.map_structure(lambda part: (), inputs)
        return words_of(self._graph, inputs)


def looks_up(model: InfluenceModel) -> bool:
    """Tell whether a model is known to look its inputs up, so that they have no gradient."""
    try:
        steps = feature_graph(model).steps
    except ValueError:
        return takes_tokens(model)
    return any(isinstance(step.operation, (keras.layers.Embedding, *DISCRETE)) for step in steps)


def takes_tokens(model: InfluenceModel) -> bool:
    """Tell whether a model is known to look its inputs up by integers, so that they have no gradient."""
    try:
        return any(isinstance(step.operation, keras.layers.Embedding) for step in feature_graph(model).steps)
    except ValueError:
        specs = tracing.input_specs(model.model)
        return specs is not None and any(
            not tf.as_dtype(spec.dtype).is_floating for spec in tf.nest.flatten(specs)
        )
