"""Label issues: which training labels are likely wrong, how many, or that this is unknown."""

from deel_dualview.labels.correction_files import Correction, read_corrections
from deel_dualview.labels.corrections import corrected
from deel_dualview.labels.counting import LabelCount
from deel_dualview.labels.finding import (
    Representation,
    Representations,
    find_label_issues,
    representation,
)
from deel_dualview.labels.independent import find_independent_issues
from deel_dualview.labels.inputs import Column, InputColumns, InputRange, InputTable
from deel_dualview.labels.issues import ClassPair, HeadWeight, LabelIssues
from deel_dualview.labels.numbers import find_number_issues, robust_deviation
from deel_dualview.labels.output_issues import OutputLabelIssues
from deel_dualview.labels.reading import (
    check_label_names,
    check_pred_probs,
    check_several_classes,
    label_issues,
    takes_token_ids,
)
from deel_dualview.labels.reviewed import ReviewedLabels

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
    "OutputLabelIssues",
    "Representation",
    "Representations",
    "ReviewedLabels",
    "check_label_names",
    "check_pred_probs",
    "check_several_classes",
    "corrected",
    "find_independent_issues",
    "find_label_issues",
    "find_number_issues",
    "label_issues",
    "read_corrections",
    "representation",
    "robust_deviation",
    "takes_token_ids",
]
