"""Which parts of a training and of an evaluated example carry the influence of one on the other."""

from deel_dualview.relevance.back_ends import to_back_end
from deel_dualview.relevance.base import BackEnd, Side
from deel_dualview.relevance.dual import DualRelevance, PairRelevance
from deel_dualview.relevance.grad_cam import GradCAM
from deel_dualview.relevance.gradients import GradientsInputs, IntegratedGradients, SmoothGrad
from deel_dualview.relevance.layerwise import LayerwisePropagation
from deel_dualview.relevance.occlusion import Occlusion

__all__ = [
    "BackEnd",
    "DualRelevance",
    "GradCAM",
    "GradientsInputs",
    "IntegratedGradients",
    "LayerwisePropagation",
    "Occlusion",
    "PairRelevance",
    "Side",
    "SmoothGrad",
    "to_back_end",
]


def __dir__() -> list[str]:
    return sorted(__all__)
