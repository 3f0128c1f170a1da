"""Layer-wise relevance propagation as a way from the influence of a pair to its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from deel_dualview.lrp import LRP, Composite
from deel_dualview.lrp.composites import Named, to_composite
from deel_dualview.lrp.graph import Graph, ending_at_layer, walk
from deel_dualview.models import InfluenceModel
from deel_dualview.relevance.base import BackEnd, Explainer


@dataclass(frozen=True)
class LayerwisePropagation(BackEnd):
    """The contributions of the features, shared out layer by layer.

    Attributes:
        rule: a composite of `deel_dualview.lrp`, or its name.

    Source: Yolcu et al. (2024), DualView, section 6.
    """

    rule: Named | Composite = "epsilon-plus-flat"

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
    return ending_at_layer(walk(model.model), model.split.layer, takes_input=model.split.takes_input)
