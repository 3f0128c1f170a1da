"""Per-example gradients of a model, by layers, factored where the layer allows it."""

from deel_dualview.gradients.directions import UnitGradients
from deel_dualview.gradients.groups import WeightGroup, Weights, select_groups
from deel_dualview.gradients.last_layer import LastLayerGradients
from deel_dualview.gradients.per_example import PerExampleGradients, check_finite
from deel_dualview.gradients.preconditioner import AdamPreconditioner, Preconditioner, preconditioner_of

__all__ = [
    "AdamPreconditioner",
    "LastLayerGradients",
    "PerExampleGradients",
    "Preconditioner",
    "UnitGradients",
    "WeightGroup",
    "Weights",
    "check_finite",
    "preconditioner_of",
    "select_groups",
]


def __dir__() -> list[str]:
    return sorted(__all__)
