"""Hessian and Gauss-Newton matrices of the mean loss, as linear operators."""

import tensorflow as tf

from deel_dualview import data
from deel_dualview.curvature.base import Curvature as Curvature
from deel_dualview.curvature.base import CurvatureKind as CurvatureKind
from deel_dualview.curvature.last_layer import LastLayerCurvature as LastLayerCurvature
from deel_dualview.curvature.layers import LayersCurvature as LayersCurvature
from deel_dualview.gradients import Weights
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store


def curvature_of(
    model: InfluenceModel,
    examples: tf.data.Dataset,
    *,
    weights: Weights = "last",
    kind: CurvatureKind = "hessian",
    store: Store | None = None,
) -> Curvature:
    """Return the curvature of the mean loss over examples, in closed form for the last layer.

    Args:
        model: the classifier.
        examples: batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        weights: `"last"`, `"all"` or names of layers.
        kind: `"hessian"` or `"gauss-newton"`; the same for the last layer.
        store: where the features are kept that a last layer's follows from; in memory by default.
    """
    data.check_bounded(examples, "examples")
    if not model.is_prepared:
        model.prepare(data.unpack(data.first_batch(examples, "examples")).inputs)
    head = model.split.head
    if weights == "last" and (head is None or head.is_plain):
        return LastLayerCurvature(model, examples, store)
    return LayersCurvature(model, examples, weights=weights, kind=kind)
