"""The head of an audit's page: a verdict in one sentence, and one next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deel_dualview.plots.formatting import ended
from deel_dualview.report import findings as kinds
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.data_findings import InputScale, Outliers, WeakClasses
from deel_dualview.report.findings import Finding, Severity
from deel_dualview.report.group_findings import WeakGroups
from deel_dualview.report.input_findings import InputProblems
from deel_dualview.report.output_findings import (
    ErrorGroups,
    PredictionErrors,
    SuspectLabels,
)
from deel_dualview.report.verified import VerifiedPredictions

ABOUT_METHOD = (kinds.Faithfulness, kinds.SparsityPath)
"""Findings that are about the method: the page has them in its last section."""

MANY_WRONG = 10
"""A verdict mentions from so many wrong labels on that there may be some."""


MOSTLY_LEAKED = 0.5
"""From this share of leaked test examples on, no finding that rests on the test set means anything."""


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
    by_subject = sorted(findings, key=lambda finding: _subject(finding, num_test))
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


def _subject(finding: Finding, num_test: int) -> int:
    """Return the rank of what a finding is about.

    It is -1 for a test set of training examples, 0 for what can be repaired in the data, 1 for predictions, 2 for what
    is to be seen, 3 for the method.
    """
    if isinstance(finding, ABOUT_METHOD):
        return 3
    if isinstance(finding, InputProblems):
        return 0 if finding.severity is Severity.ACT else 2
    if isinstance(finding, kinds.Leaks) and finding.num_identical >= MOSTLY_LEAKED * num_test:
        return -1
    if isinstance(finding, WeakClasses) and finding.severity is Severity.ACT:
        return 0
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
    if isinstance(finding, WeakClasses) and finding.severity is Severity.ACT:
        return Verdict(
            finding.severity,
            "All training examples are of one class:",
            "no other can be learned from this set.",
            "See whether the labels are read from the right place, and train with examples of every class.",
            finding.name,
            "See the classes",
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
        if finding.training_loss is not None:
            return Verdict(
                finding.severity,
                f"The training loss is {finding.training_loss:.1f} nats, above that of guessing,",
                f"although {finding.training_accuracy:.1%} of the training labels are predicted: inputs of another "
                "scale, or labels that the model was not trained on?",
                "Prepare the inputs as in training (scale, order, size), and audit again.",
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
            "test examples are in the training set too: "
            + (
                "nothing that is measured on this test set is about new examples."
                if finding.num_identical >= MOSTLY_LEAKED * num_test
                else "the test score is too good."
            ),
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
        reason = ended(finding.reason or "there is too little to go by")
        return Verdict(
            finding.severity,
            "Cannot tell",
            f"how many of {num_train:,} training labels are wrong: {reason}",
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
