"""What the labels of a model are: classes, independent labels, or numbers."""

from typing import Literal

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models import links
from deel_dualview.models.custom_loss import CustomLoss
from deel_dualview.models.influence_model import InfluenceModel
from deel_dualview.models.keras_losses import ACTIVATIONS
from deel_dualview.models.objectives import IndependentSigmoids
from deel_dualview.models.train_sets import is_split

LabelKind = Literal["classes", "labels", "numbers"]
"""One of c classes, c labels that hold or do not, or c numbers."""


def label_kind(model: InfluenceModel) -> LabelKind:
    """Return what the labels of a model are.

    Raises:
        ValueError: a custom loss after a softmax or sigmoid, whose labels may be anything; or a model with an output at
            each of several positions.
    """
    require(
        model.num_axes == 0,
        "Audits, comparisons and label issues are of models with one output an example; steps and pixels are "
        "explained by methods of the last layer, as in DualView(model, train_set).at(position).top_k(queries).",
        {"axes of positions": model.num_axes},
    )
    if model.is_classifier:
        return "classes"
    objective = model.objective
    if isinstance(objective, IndependentSigmoids):
        return "labels"
    require(
        not isinstance(objective, CustomLoss) or objective.link in (None, "logits", *ACTIVATIONS),
        "What the labels of a custom loss after a softmax or sigmoid mean is unknown: for audits and label issues name "
        "the loss of a classifier, InfluenceModel(model, loss_function='categorical_crossentropy'), or of independent "
        "labels, 'binary_crossentropy'.",
        {"objective": objective},
    )
    return "numbers"


def check_label_kind(model: InfluenceModel) -> None:
    """Refuse before any long work what `label_kind` refuses, of models whose layers are known before a call."""
    if is_split(model):
        label_kind(model)


def explained_target(model: InfluenceModel) -> str | int:
    """Return what is explained: the prediction, or the first of several numbers, of which none is the prediction."""
    has_several = label_kind(model) == "numbers" and model.num_outputs > 1
    return 0 if has_several else "prediction"


def predicted_numbers(model: InfluenceModel, outputs: np.ndarray) -> np.ndarray:
    """Return what a regression predicts, for outputs (b, c) of its last layer before an activation, float32."""
    link = model.objective.link if isinstance(model.objective, CustomLoss) else None
    return np.asarray(links.native_of(tf.constant(outputs, tf.float32), link or "logits"))
