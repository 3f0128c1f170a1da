"""The head of an audit's page: a verdict in one sentence, one next step, and a tile for each finding about the data."""

from __future__ import annotations

from collections.abc import Sequence
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

ABOUT_METHOD = (kinds.Faithfulness, kinds.SparsityPath)
"""Findings that are about the method: the page has them in its last section."""

MANY_WRONG = 10
"""A verdict mentions from so many wrong labels on that there may be some."""


class Verdict(NamedTuple):
    """What an audit comes to.

    Attributes:
        severity: of the finding that it is about.
        strong: how the sentence begins.
        rest: how it goes on.
        next_step: what to do now.
        target: name of the finding to start with.
        action: what the link to it says.
    """

    severity: Severity
    strong: str
    rest: str
    next_step: str
    target: str
    action: str


class Tile(NamedTuple):
    """A finding as one large number, and what it counts."""

    number: str
    meaning: str


def find_verdict(findings: Sequence[Finding], *, num_train: int, num_test: int) -> Verdict:
    """Return the verdict that follows from the findings: that of the most urgent one.

    What can be repaired in the data comes before wrong predictions, and these before what is wrong with the surrogate.
    An unknown number of wrong labels is as urgent as what is wrong, so that it never reads as good. Anything
    else that is unknown, for want of test examples, makes no verdict of its own: "no problem was found" says so.

    Args:
        findings: of an audit.
        num_train: number of training examples.
        num_test: number of test examples.
    """
    by_subject = sorted(findings, key=_subject)
    bounds = [
        own.at_most or 0 for own in findings if isinstance(own, kinds.LabelErrors) and own.status == "at most"
    ]
    most_wrong = max(bounds, default=0)
    candidates = [
        found
        for finding in by_subject
        if (found := _verdict_of(finding, num_train, num_test, most_wrong)) is not None
    ]
    for severities in ({Severity.ACT, Severity.CANNOT_TELL}, {Severity.LOOK}):
        for verdict in candidates:
            if verdict.severity in severities:
                return verdict
    bound = f", where at most {bounds[0]:,} labels are wrong," if bounds else ""
    is_partial = any(finding.severity is Severity.CANNOT_TELL for finding in findings)
    unknown = "; there are too few test examples to look for everything" if is_partial else ""
    return Verdict(
        Severity.FINE,
        "No problem was found",
        f"in {num_train:,} training{bound} and {num_test:,} test examples{unknown}.",
        "Look at what stands behind the predictions, and audit again when the data change.",
        next((finding.name for finding in findings if not isinstance(finding, ABOUT_METHOD)), "method"),
        "Read the findings",
    )


def tile_of(finding: Finding) -> Tile:
    """Return a finding as one large number."""
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
        return Tile(f"{finding.count:,}", "examples far from all training examples")
    if isinstance(finding, (WeakClasses, WeakGroups)) and finding.severity is Severity.CANNOT_TELL:
        kind = "classes" if isinstance(finding, WeakClasses) else "groups"
        return Tile("?", f"{kind} predicted worse than the rest: too few test examples to tell")
    if isinstance(finding, WeakClasses):
        absent = sum(item.num_train == 0 for item in finding.classes)
        if absent and not finding.count:
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
        return Tile(f"{finding.count:,}", "groups of test examples predicted worse than their classes")
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


def _subject(finding: Finding) -> int:
    """Return 0 for what can be repaired in the data, 1 for predictions, 2 for what is to be seen, 3 for the method."""
    if isinstance(finding, ABOUT_METHOD):
        return 3
    if isinstance(finding, InputProblems):
        return 0 if finding.severity is Severity.ACT else 2
    if isinstance(
        finding,
        (
            Outliers,
            WeakClasses,
            WeakGroups,
            ErrorGroups,
            kinds.Duplicates,
            kinds.InfluentialExamples,
            VerifiedPredictions,
        ),
    ):
        return 2
    return int(isinstance(finding, (kinds.WrongPredictions, kinds.UncertainPredictions, PredictionErrors)))


def _output_tile(finding: PredictionErrors | SuspectLabels | ErrorGroups) -> Tile:
    if isinstance(finding, ErrorGroups):
        if finding.severity is Severity.CANNOT_TELL:
            return Tile("?", "groups with larger errors: too few test examples to tell")
        return Tile(f"{finding.count:,}", "groups of test examples with larger errors than the others")
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


def _verdict_of(finding: Finding, num_train: int, num_test: int, most_wrong: int) -> Verdict | None:
    """Return the verdict of a single finding, None of one that never makes a verdict.

    `most_wrong` is the upper bound of the number of wrong labels where there is no estimate of it, else 0.
    """
    is_count = isinstance(finding, kinds.LabelErrors | SuspectLabels)
    if isinstance(finding, VerifiedPredictions) or finding.severity is Severity.CANNOT_TELL and not is_count:
        return None
    if isinstance(finding, SuspectLabels):
        return _suspects_verdict(finding, num_train)
    if isinstance(finding, PredictionErrors):
        return Verdict(
            finding.severity,
            finding.title,
            "; nothing more urgent was found in the data.",
            "See where errors are large, and which training examples stand behind that.",
            finding.name,
            "See the errors",
        )
    if isinstance(finding, InputProblems) and finding.severity is Severity.ACT:
        problem = finding.problems[0]
        return Verdict(
            finding.severity, problem.title, "", problem.advice, finding.name, "See what is unusual"
        )
    if isinstance(
        finding,
        (
            Outliers,
            WeakClasses,
            WeakGroups,
            ErrorGroups,
            InputProblems,
            kinds.Duplicates,
            kinds.InfluentialExamples,
        ),
    ):
        return Verdict(
            finding.severity,
            "Nothing is plainly wrong,",
            f"but look: {finding.title[0].lower()}{finding.title[1:]}.",
            "See whether these examples, or the model, should be other ones.",
            finding.name,
            "See which",
        )
    if isinstance(finding, NotFiniteInputs):
        verb = "has" if finding.count == 1 else "have"
        example = "example" if finding.count == 1 else "examples"
        return Verdict(
            finding.severity,
            f"{finding.count:,} {example}",
            f"{verb} NaN or infinity in the inputs: the model may have learned from them.",
            "Drop or repair these examples, train again, and audit again.",
            finding.name,
            "See which",
        )
    if isinstance(finding, InputScale):
        if finding.is_of_numbers:
            return Verdict(
                finding.severity,
                "The model has not learned these labels:",
                "on its own training set it is no better than their mean.",
                "Prepare inputs and labels as in training (scale, order, unit), load the trained weights, and audit "
                "again.",
                finding.name,
                "See the numbers",
            )
        if finding.is_guessing:
            return Verdict(
                finding.severity,
                f"The model guesses: it is right on {finding.training_accuracy:.1%}",
                "of its own training labels. Inputs or classes are not those of its training, or it is not trained.",
                "Prepare the inputs as in training (scale, order, size), load the trained weights, and audit again.",
                finding.name,
                "See the numbers",
            )
        return Verdict(
            finding.severity,
            "The inputs of one set are not those that the model knows:",
            "the two sets differ in scale.",
            "Prepare both sets as in training (scale, order, size), and audit again.",
            finding.name,
            "See the numbers",
        )
    if isinstance(finding, kinds.LabelErrors):
        return _label_verdict(finding, num_train)
    if isinstance(finding, kinds.Leaks):
        return Verdict(
            finding.severity,
            f"{finding.num_identical:,} of {num_test:,}",
            "test examples are in the training set too: the test score is too good.",
            "Drop them from one of the two sets, and measure the accuracy again.",
            finding.name,
            "See the pairs",
        )
    if isinstance(finding, kinds.ConflictingDuplicates):
        alike = "have the inputs" if finding.num_identical else "look like one"
        return Verdict(
            finding.severity,
            f"{finding.num_identical or finding.count:,} of {num_train:,}",
            f"training examples {alike} of another label.",
            "Decide which label is right, or drop the pairs.",
            finding.name,
            "See the pairs",
        )
    if isinstance(finding, kinds.WrongPredictions):
        return Verdict(
            finding.severity,
            f"{finding.count:,} of {num_test:,}",
            "test predictions are wrong; "
            + (
                f"up to {most_wrong:,} training labels may be wrong, too, if the test labels are right."
                if most_wrong >= MANY_WRONG
                else "nothing more urgent was found in the data."
            ),
            "See which classes are confused, and which training examples stand behind that.",
            finding.name,
            "See the confusions",
        )
    if isinstance(finding, kinds.UncertainPredictions):
        return Verdict(
            finding.severity,
            f"{finding.count:,} of {num_test:,}",
            "test predictions are uncertain; without test labels, how many are wrong is unknown.",
            "Label these test examples first, and audit again.",
            finding.name,
            "See the predictions",
        )
    if isinstance(finding, kinds.Faithfulness):
        return Verdict(
            finding.severity,
            "The surrogate is another model",
            f"on {finding.share:.0%} of the test set: influence values explain it, not yours.",
            "Choose another K or method; label issues and pairs do not depend on it.",
            "method",
            "See the fidelity",
        )
    return None


def _label_verdict(finding: kinds.LabelErrors, num_train: int) -> Verdict:
    first = min(len(finding.issues), 40)
    if finding.status == "cannot tell":
        return Verdict(
            finding.severity,
            "Cannot tell",
            f"how many of {num_train:,} training labels are wrong: {finding.reason or 'there is too little to go by'}.",
            (
                f"Review the first {first} labels here: how many of them are wrong says how far to read on. More test "
                "examples with right labels may give a count"
                + (
                    ", and an earlier checkpoint of the model a better order."
                    if finding.has_memorised
                    else "."
                )
            ),
            finding.name,
            "Review the labels",
        )
    is_one = finding.count == 1
    return Verdict(
        finding.severity,
        f"About {finding.count:,}",
        f"of {num_train:,} training labels {'is' if is_one else 'are'} wrong, perhaps more.",
        (
            f"Review the first {first} labels here, the likeliest wrong ones. Then export corrections.csv, apply "
            "it (corrected, or deel-dualview apply), and train again."
        ),
        finding.name,
        "Review the labels",
    )


def _suspects_verdict(finding: SuspectLabels, num_train: int) -> Verdict:
    first = min(len(finding.issues), 40)
    number = f"About {finding.count:,} entries of the labels" if finding.count else "Cannot tell"
    rest = (
        f"of {num_train:,} training examples are wrong, perhaps more."
        if finding.count
        else f"how many labels of {num_train:,} training examples are wrong; they are ranked."
    )
    return Verdict(
        finding.severity,
        number,
        rest,
        (
            f"Review the first {first} labels here: how many of them are wrong says how far to read on. Then export "
            "corrections.csv, apply it (corrected, or deel-dualview apply), and train again."
        ),
        finding.name,
        "Review the labels",
    )
