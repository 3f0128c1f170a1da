"""Tiles at the head of an audit's page: each finding as one large number."""

from __future__ import annotations

from typing import NamedTuple

from deel_dualview.report import findings as kinds
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.data_findings import InputScale, Outliers, WeakClasses
from deel_dualview.report.findings import Finding, Severity
from deel_dualview.report.group_findings import WeakGroups
from deel_dualview.report.input_findings import InputProblems
from deel_dualview.report.output_findings import (
    ErrorGroups,
    InfluentialOnOutputs,
    PredictionErrors,
    SuspectLabels,
    WrongLabelPredictions,
)
from deel_dualview.report.verified import VerifiedPredictions


class Tile(NamedTuple):
    """A finding as one large number, and what it counts."""

    number: str
    meaning: str


def tile_of(finding: Finding) -> Tile:
    """Return a finding as one large number."""
    plural = "s" * (finding.count != 1)
    if isinstance(finding, kinds.LabelErrors):
        return _label_tile(finding)
    if isinstance(finding, PredictionErrors | SuspectLabels | ErrorGroups):
        return _output_tile(finding)
    if isinstance(finding, kinds.WrongPredictions):
        return Tile(f"{finding.count:,}", f"wrong test predictions, {finding.share:.1%} of all")
    if isinstance(finding, kinds.UncertainPredictions):
        return Tile(f"{finding.count:,}", "test predictions with less than 50 % confidence")
    if isinstance(finding, kinds.Leaks):
        return Tile(f"{finding.count:,}", "test examples that are in training, or look like one there")
    if isinstance(finding, kinds.ConflictingDuplicates):
        return Tile(f"{finding.count:,}", "training examples that are or look like one of another label")
    if isinstance(finding, kinds.Duplicates):
        return Tile(f"{finding.count:,}", "training examples that count twice, or look as if")
    if isinstance(finding, kinds.InfluentialExamples):
        of = "an output" if isinstance(finding, InfluentialOnOutputs) else "a class"
        return Tile(
            f"{finding.share:.0%}", f"of the predictions of {of} have one training example behind them"
        )
    if isinstance(finding, InputScale):
        if finding.is_of_numbers:
            return Tile("!", "no better than the mean of the labels, on the training set")
        return Tile(f"{finding.training_accuracy:.0%}", "of the training labels are predicted")
    if isinstance(finding, Outliers):
        return Tile(f"{finding.count:,}", f"example{plural} far from all training examples")
    if isinstance(finding, (WeakClasses, WeakGroups)) and finding.severity is Severity.CANNOT_TELL:
        kind = "classes" if isinstance(finding, WeakClasses) else "groups"
        return Tile("?", f"{kind} predicted worse than the rest: too few test examples to tell")
    if isinstance(finding, WeakClasses):
        absent = sum(item.num_train == 0 for item in finding.classes)
        if absent:
            return Tile(f"{absent:,}", f"of {len(finding.classes):,} classes without a training example")
        return Tile(
            f"{finding.count:,}", f"of {len(finding.classes):,} classes predicted worse than the rest"
        )
    if isinstance(finding, InputProblems):
        return Tile(
            f"{finding.count:,}",
            f"{'thing is' if finding.count == 1 else 'things are'} unusual about the inputs",
        )
    if isinstance(finding, WeakGroups):
        return Tile(
            f"{finding.count:,}", f"group{plural} of test examples predicted worse than their classes"
        )
    if isinstance(finding, VerifiedPredictions):
        if not finding.num_compared:
            return Tile("?", "checked explanations: no prediction has a proponent")
        return Tile(
            f"{finding.num_above_random} of {finding.num_compared}",
            "checked predictions lose more without their proponents than without random examples",
        )
    if isinstance(finding, NotFiniteInputs):
        return Tile(f"{finding.count:,}", "examples with NaN or infinity in their inputs")
    return Tile(f"{finding.count:,}", finding.title)


def _output_tile(finding: PredictionErrors | SuspectLabels | ErrorGroups) -> Tile:
    if isinstance(finding, ErrorGroups):
        if finding.severity is Severity.CANNOT_TELL:
            return Tile("?", "groups with larger errors: too few test examples to tell")
        return Tile(
            f"{finding.count:,}", f"group{'s' * (finding.count != 1)} of test examples with larger errors"
        )
    if isinstance(finding, SuspectLabels):
        untold = sum(count.status == "cannot tell" for count in finding.counts)
        if finding.count:
            more = f", and an unknown number of {untold:,} other labels" if untold else ""
            return Tile(f"≈ {finding.count:,}", f"wrong training labels, perhaps more{more}")
        if untold:
            return Tile("?", "wrong training labels: ranked, their number is unknown")
        return Tile("0", "labels of which wrong ones were counted; perhaps there are none")
    scores = [own for own in finding.scores if own.split == "test"]
    if not scores:
        return Tile("?", "errors on new examples: the test set has no labels")
    if isinstance(finding, WrongLabelPredictions):
        return Tile(f"{finding.count:,}", f"test labels predicted wrong, {finding.share:.1%} of all")
    found = {measure.name: measure for score in scores[:1] for measure in score.measures}
    error = found["Mean absolute error"].text
    of = "" if len(scores) == 1 else ", of the first number"
    return Tile(error, f"mean absolute error on the test set{of}")


def _label_tile(finding: kinds.LabelErrors) -> Tile:
    if finding.status == "counted":
        return Tile(
            f"≈ {finding.count:,}",
            f"training labels are wrong, perhaps more ({finding.low or 0:,} to {finding.high or 0:,})",
        )
    if finding.status == "at most":
        return Tile(f"≤ {finding.at_most or 0:,}", "wrong training labels, if the test labels are right")
    return Tile("?", "wrong training labels: their number is unknown")
