"""Which parts of a training and of an evaluated example carry the influence of one on the other."""

from deel_dualview.relevance.back_ends import to_back_end as to_back_end
from deel_dualview.relevance.base import BackEnd as BackEnd
from deel_dualview.relevance.base import Side as Side
from deel_dualview.relevance.dual import DualRelevance as DualRelevance
from deel_dualview.relevance.dual import PairRelevance as PairRelevance
from deel_dualview.relevance.grad_cam import GradCAM as GradCAM
from deel_dualview.relevance.gradients import GradientsInputs as GradientsInputs
from deel_dualview.relevance.gradients import IntegratedGradients as IntegratedGradients
from deel_dualview.relevance.gradients import SmoothGrad as SmoothGrad
from deel_dualview.relevance.layerwise import LayerwisePropagation as LayerwisePropagation
from deel_dualview.relevance.occlusion import Occlusion as Occlusion
