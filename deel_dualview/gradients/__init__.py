"""Per-example gradients of a model, by layers, factored where the layer allows it."""

from deel_dualview.gradients.groups import WeightGroup as WeightGroup
from deel_dualview.gradients.groups import Weights as Weights
from deel_dualview.gradients.groups import select_groups as select_groups
from deel_dualview.gradients.last_layer import LastLayerGradients as LastLayerGradients
from deel_dualview.gradients.objective import Function as Function
from deel_dualview.gradients.per_example import PerExampleGradients as PerExampleGradients
from deel_dualview.gradients.per_example import check_finite as check_finite
