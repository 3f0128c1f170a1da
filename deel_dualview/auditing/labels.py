"""The finding about label issues: how many labels are wrong, or that this is unknown, and the likeliest ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from sklearn.metrics import roc_auc_score

from deel_dualview.auditing.evidence import Evidence, severity_of
from deel_dualview.labels import LabelIssues, OutputLabelIssues
from deel_dualview.plots.formatting import ended
from deel_dualview.report.findings import (
    ClassPairCount,
    DetectionCurve,
    InspectionPoint,
    LabelErrors,
    LabelIssue,
    Severity,
)

MOST_SHOWN = 200
NUM_SHOWN: dict[str, int] = {"counted": 40, "at most": 16, "cannot tell": 96}
"""Label issues of a page by the status of the count: at least so many, and half as many again as were counted."""
NUM_CLASS_PAIRS = 100
MANY_ERRORS = 0.01
"""From this share of wrong labels on, the finding is a warning."""
NUM_CURVE_POINTS = 200
INSPECTED_SHARES = (0.03, 0.05, 0.10)

_Issues = TypeVar("_Issues", LabelIssues, OutputLabelIssues)


def find_label_errors(
    evidence: Evidence,
    issues: LabelIssues,
    known: Sequence[int] | np.ndarray | None,
    reviewed: Sequence[int] | np.ndarray = (),
) -> LabelErrors:
    """Put label issues into words and pictures.

    Args:
        evidence: arrays of the audit.
        issues: of the training labels.
        known: indices of training examples whose label is known to be wrong (a test of the audit itself), or
            None.
        reviewed: indices of training examples whose label a person has found to be right.
    """
    number, num_train = issues.count, evidence.num_train
    count = number.estimate or 0
    num_shown = min(max(NUM_SHOWN[number.status], round(1.5 * count)), MOST_SHOWN)
    left_out = np.concatenate([evidence.broken_train, np.asarray(reviewed, np.int64)])
    shown = issues.order[~np.isin(issues.order, left_out)][:num_shown]
    ranks = _thinned_ranks(num_train)
    return LabelErrors(
        severity=_severity(issues),
        title=_title(issues),
        summary=" ".join([*_sentences(issues, num_train), *_of_reviewed(len(reviewed))]),
        count=count,
        share=count / num_train if number.status != "cannot tell" else float("nan"),
        status=number.status,
        low=number.low,
        high=number.high,
        at_most=number.at_most,
        reason=number.reason,
        training_accuracy=issues.training_accuracy,
        deviations_easier=issues.deviations_easier,
        heads=issues.heads,
        class_pairs=tuple(ClassPairCount(*pair) for pair in issues.class_pairs[:NUM_CLASS_PAIRS]),
        issues=tuple(_issue(evidence, issues, int(index)) for index in shown),
        ranks=tuple(int(rank) for rank in ranks),
        scores=tuple(float(issues.scores[issues.order[rank - 1]]) for rank in ranks),
        detection=None
        if known is None or not len(known)
        else detection_curve(evidence, issues.scores, np.asarray(known)),
    )


def put_last(issues: _Issues, positions: np.ndarray) -> _Issues:
    """Return label issues with the examples at these positions last and not flagged."""
    if not len(positions):
        return issues
    scores, flagged = issues.scores.copy(), issues.flagged.copy()
    scores[positions], flagged[positions] = np.nextafter(issues.scores.min(), -np.inf), False
    return dataclasses.replace(issues, scores=scores, flagged=flagged)


def area_under_roc(values: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the probability that a positive has a larger value than a negative, NaN where there are not both."""
    if is_positive.all() or not is_positive.any():
        return float("nan")
    return float(roc_auc_score(is_positive, values))


def _severity(issues: LabelIssues) -> Severity:
    if issues.count.status == "cannot tell":
        return Severity.CANNOT_TELL
    if issues.count.status == "at most":
        return Severity.KNOW
    return severity_of((issues.count.estimate or 0) / len(issues.scores), warn_from=MANY_ERRORS)


def _title(issues: LabelIssues) -> str:
    number = issues.count
    if number.status == "counted":
        verb = "label is" if number.estimate == 1 else "labels are"
        return f"About {number.estimate:,} training {verb} wrong, perhaps more ({number.low:,} to {number.high:,})"
    if number.status == "at most":
        return (
            f"Too few wrong training labels to count, perhaps none: at most {number.at_most:,}, if the test labels are "
            "right"
        )
    return "Cannot tell how many training labels are wrong"


def _sentences(issues: LabelIssues, num_train: int) -> list[str]:
    number = issues.count
    if number.status == "counted":
        said = [
            f"Of {num_train:,} labels, scored by classifiers that have not seen the label they score. The first "
            f"{number.estimate:,} by score are flagged. Labels of examples that the test set has trouble with too are "
            "undercounted."
        ]
    elif number.status == "at most":
        said = [
            f"The {num_train:,} training labels look hardly worse than the test labels. More than {number.at_most:,} "
            "wrong ones, spread at random, would have been noticed. The likeliest ones are shown; none is flagged."
        ]
    else:
        said = [
            f"This is no all-clear: {ended(number.reason)} The labels are still ranked: how many of the first ones are "
            "wrong shows how far to look."
        ]
    if issues.has_memorised:
        said.append(
            f"The training labels look easier to the network than the test labels ({issues.training_accuracy:.1%} of "
            "them are predicted"
            + (f", {issues.test_accuracy:.1%} of the test labels" if issues.test_accuracy is not None else "")
            + "): it has learned some of them one by one, wrong ones too, so that its own confidence says little about "
            "them; an earlier checkpoint says more."
        )
    if number.status != "cannot tell":
        said.append(
            "Test labels are taken as right: if they are not, the count is of how many more are wrong here."
        )
    return said


def _of_reviewed(number: int) -> list[str]:
    if not number:
        return []
    said = "label that was reviewed as right is" if number == 1 else "labels that were reviewed as right are"
    return [f"{number:,} {said} not listed again; the count does not know of reviews."]


def _issue(evidence: Evidence, issues: LabelIssues, index: int) -> LabelIssue:
    return LabelIssue(
        example=evidence.reference("train", index),
        suggested_label=int(issues.suggested_labels[index]),
        score=float(issues.scores[index]),
        self_influence=float(evidence.self_influence[index]),
        flagged=bool(issues.flagged[index]),
    )


def detection_curve(evidence: Evidence, scores: np.ndarray, known: np.ndarray) -> DetectionCurve:
    """Compare how fast `known` label errors turn up by label score (n,), and by self-influence."""
    is_known = np.zeros(evidence.num_train, bool)
    is_known[known] = True
    num_known = int(is_known.sum())
    found = np.cumsum(is_known[np.argsort(-scores, kind="stable")])
    by_self = np.cumsum(is_known[np.argsort(-evidence.self_influence, kind="stable")])
    inspected = np.unique(np.linspace(1, evidence.num_train, NUM_CURVE_POINTS).astype(np.int64))
    numbers = [num_known, *(max(1, round(share * evidence.num_train)) for share in INSPECTED_SHARES)]
    return DetectionCurve(
        inspected=(0, *map(int, inspected)),
        found_by_score=(0, *map(int, found[inspected - 1])),
        found_by_self_influence=(0, *map(int, by_self[inspected - 1])),
        area=area_under_roc(scores, is_known),
        self_influence_area=area_under_roc(evidence.self_influence, is_known),
        points=tuple(
            InspectionPoint(number, number / evidence.num_train, int(found[number - 1]), num_known)
            for number in sorted(set(numbers))
        ),
    )


def _thinned_ranks(num_train: int) -> np.ndarray:
    return np.unique(np.round(np.geomspace(1, num_train, NUM_CURVE_POINTS)).astype(np.int64))
