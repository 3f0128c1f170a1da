"""The report of an audit: findings as plain data, written as one page, JSON and sparse attributions."""

from deel_dualview.report.audit_report import SCHEMA_VERSION, AuditReport
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.data_findings import (
    ClassAccuracy,
    InputScale,
    Outlier,
    Outliers,
    ValueRange,
    WeakClasses,
)
from deel_dualview.report.findings import (
    ClassInfluence,
    ClassPairCount,
    CommonProponent,
    ConflictingDuplicates,
    Confusion,
    DetectionCurve,
    Duplicates,
    ExampleReference,
    ExplainedPrediction,
    Faithfulness,
    Finding,
    Influence,
    InfluentialExample,
    InfluentialExamples,
    InspectionPoint,
    LabelErrors,
    LabelIssue,
    Leaks,
    Measure,
    PairShares,
    PathPoint,
    Severity,
    SimilarPair,
    SparsityPath,
    UncertainPredictions,
    WrongPredictions,
)
from deel_dualview.report.group_findings import GroupMember, WeakGroup, WeakGroups
from deel_dualview.report.input_findings import InputProblem, InputProblems, OddExample
from deel_dualview.report.maps import PairMaps
from deel_dualview.report.overview import Certificate, ClassCounts, Overview, Setting, StepTime
from deel_dualview.report.thresholds import RATES, exceeded_thresholds, parse_threshold, parse_thresholds
from deel_dualview.report.verified import VerifiedPrediction, VerifiedPredictions, VerifiedRemoval
from deel_dualview.report.writing import check_output_directory

__all__ = [
    "RATES",
    "SCHEMA_VERSION",
    "AuditReport",
    "Certificate",
    "ClassCounts",
    "ClassInfluence",
    "ClassPairCount",
    "CommonProponent",
    "ConflictingDuplicates",
    "Confusion",
    "DetectionCurve",
    "Duplicates",
    "ExampleReference",
    "ExplainedPrediction",
    "Faithfulness",
    "Finding",
    "Influence",
    "InfluentialExample",
    "InfluentialExamples",
    "InspectionPoint",
    "LabelErrors",
    "LabelIssue",
    "Leaks",
    "Measure",
    "NotFiniteInputs",
    "Overview",
    "PairMaps",
    "PairShares",
    "PathPoint",
    "Setting",
    "Severity",
    "SimilarPair",
    "SparsityPath",
    "StepTime",
    "UncertainPredictions",
    "WrongPredictions",
    "check_output_directory",
    "exceeded_thresholds",
    "parse_threshold",
    "parse_thresholds",
    "ClassAccuracy",
    "InputProblem",
    "InputProblems",
    "InputScale",
    "OddExample",
    "Outlier",
    "Outliers",
    "ValueRange",
    "VerifiedPrediction",
    "VerifiedPredictions",
    "VerifiedRemoval",
    "WeakClasses",
    "GroupMember",
    "WeakGroup",
    "WeakGroups",
]


def __dir__() -> list[str]:
    return sorted(__all__)
