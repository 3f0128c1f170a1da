"""Label issues: which training labels are likely wrong, how many, and whether that can be told."""

from deel_dualview.labels.corrections import Correction, corrected, read_corrections
from deel_dualview.labels.counting import LabelCount
from deel_dualview.labels.finding import (
    Representation,
    Representations,
    find_label_issues,
    representation,
)
from deel_dualview.labels.inputs import Column, InputColumns, InputRange, InputTable
from deel_dualview.labels.issues import ClassPair, HeadWeight, LabelIssues
from deel_dualview.labels.reading import (
    check_pred_probs,
    check_several_classes,
    label_issues,
    takes_token_ids,
)

__all__ = [
    "ClassPair",
    "Column",
    "Correction",
    "HeadWeight",
    "InputColumns",
    "InputRange",
    "InputTable",
    "LabelCount",
    "LabelIssues",
    "Representation",
    "Representations",
    "check_pred_probs",
    "check_several_classes",
    "corrected",
    "find_label_issues",
    "label_issues",
    "read_corrections",
    "representation",
    "takes_token_ids",
]
