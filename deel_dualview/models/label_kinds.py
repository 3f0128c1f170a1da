"""What the labels of a model are: classes, independent labels, or numbers."""

from typing import Literal

from deel_dualview._checks import require
from deel_dualview.models.custom_loss import CustomLoss
from deel_dualview.models.influence_model import InfluenceModel
from deel_dualview.models.objectives import IndependentSigmoids

LabelKind = Literal["classes", "labels", "numbers"]
"""One of c classes, c labels that hold or do not, or c numbers."""


def label_kind(model: InfluenceModel) -> LabelKind:
    """Return what the labels of a model are.

    Raises:
        ValueError: a custom loss after a softmax or sigmoid, whose labels may be anything.
    """
    if model.is_classifier:
        return "classes"
    objective = model.objective
    if isinstance(objective, IndependentSigmoids):
        return "labels"
    require(
        not isinstance(objective, CustomLoss) or objective.link in (None, "logits"),
        "What the labels of a custom loss after a softmax or sigmoid mean is unknown: for audits and label issues name "
        "the loss of a classifier, InfluenceModel(model, loss_function='categorical_crossentropy'), or of independent "
        "labels, 'binary_crossentropy'.",
        {"objective": objective},
    )
    return "numbers"
