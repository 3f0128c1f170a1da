"""Suspected label errors: training examples by decreasing slack of the surrogate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from deel_dualview.auditing.evidence import Evidence, LabelJudge, severity_of
from deel_dualview.report.findings import (
    DetectionCurve,
    InspectionPoint,
    LabelErrors,
    SuspectedLabel,
)

CONTRADICTION = 1.0
"""Above this slack max(0, 1 - margin) the margin is negative: the surrogate gives another label than the
given one, although it was fitted to the given one. This is the rule by which label errors are counted."""
NUM_SUSPECTS = 40
MANY_ERRORS = 0.01
"""From this share of contradicted labels on, the finding is a warning."""
NUM_CURVE_POINTS = 200
INSPECTED_SHARES = (0.03, 0.05, 0.10)


def find_label_errors(
    evidence: Evidence, judge: LabelJudge, known: Sequence[int] | np.ndarray | None
) -> LabelErrors:
    """Rank training labels by slack, and count those that the surrogate contradicts.

    Args:
        evidence: arrays of the audit.
        judge: the surrogate that judges them.
        known: indices of training examples whose label is known to be wrong (a test of the audit itself), or
            None.
    """
    order = by_decreasing(evidence.doubt)
    count = int(evidence.contradicted.sum())
    share = count / evidence.num_train
    num_positive = int((evidence.doubt > 0).sum())
    ranks = _thinned_ranks(num_positive)
    return LabelErrors(
        severity=severity_of(share, warn_from=MANY_ERRORS),
        title=_title(count),
        summary=_summary(count, share, evidence.num_train, judge),
        count=count,
        share=share,
        scale_free_K=judge.K,
        suspects=tuple(_suspect(evidence, index) for index in order[: min(count, NUM_SUSPECTS)]),
        ranks=tuple(int(rank) for rank in ranks),
        slacks=tuple(float(evidence.doubt[order[rank - 1]]) for rank in ranks),
        detection=None if known is None or not len(known) else detection_curve(evidence, np.asarray(known)),
    )


def by_decreasing(values: np.ndarray) -> np.ndarray:
    """Return indices by decreasing value, ties by lower index."""
    return np.argsort(-values, kind="stable")


def detection_curve(evidence: Evidence, known: np.ndarray) -> DetectionCurve:
    """Tell how fast `known` label errors turn up by slack, and by self-influence."""
    is_known = np.zeros(evidence.num_train, bool)
    is_known[known] = True
    num_known = int(is_known.sum())
    found = np.cumsum(is_known[by_decreasing(evidence.doubt)])
    found_by_self = np.cumsum(is_known[by_decreasing(evidence.self_influence)])
    inspected = np.unique(np.linspace(1, evidence.num_train, NUM_CURVE_POINTS).astype(np.int64))
    numbers = [num_known, *(max(1, round(share * evidence.num_train)) for share in INSPECTED_SHARES)]
    return DetectionCurve(
        inspected=(0, *map(int, inspected)),
        found_by_slack=(0, *map(int, found[inspected - 1])),
        found_by_self_influence=(0, *map(int, found_by_self[inspected - 1])),
        area=area_under_roc(evidence.doubt, is_known),
        self_influence_area=area_under_roc(evidence.self_influence, is_known),
        points=tuple(
            InspectionPoint(number, number / evidence.num_train, int(found[number - 1]), num_known)
            for number in sorted(set(numbers))
        ),
    )


def area_under_roc(values: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the probability that a positive has a larger value than a negative, NaN where there are not both."""
    if is_positive.all() or not is_positive.any():
        return float("nan")
    return float(roc_auc_score(is_positive, values))


def _thinned_ranks(num_positive: int) -> np.ndarray:
    if num_positive == 0:
        return np.empty(0, np.int64)
    return np.unique(np.round(np.geomspace(1, num_positive, NUM_CURVE_POINTS)).astype(np.int64))


def _suspect(evidence: Evidence, index: int) -> SuspectedLabel:
    return SuspectedLabel(
        example=evidence.reference("train", index),
        suggested_label=int(evidence.suggested_labels[index]),
        slack=float(evidence.doubt[index]),
        self_influence=float(evidence.self_influence[index]),
    )


def _title(count: int) -> str:
    if count == 0:
        return "No training label is doubtful"
    return f"{count:,} training {'label is' if count == 1 else 'labels are'} doubtful"


def _summary(count: int, share: float, num_train: int, judge: LabelJudge) -> str:
    is_second = judge.own_K != judge.K
    who = "A second surrogate" if is_second else "The surrogate"
    if count == 0:
        text = f"{who} gives every one of the {num_train:,} training examples the label that it has."
    else:
        text = (
            f"{who} was fitted to all {num_train:,} given labels and still contradicts {count:,} of them ({share:.2%}; "
            "slack above 1). Look at the first ones: errors stand before hard but right examples."
        )
    if not is_second:
        return text
    return (
        f"{text} The surrogate that explains predictions follows single labels too far to judge them: this one, of a "
        f"smaller K ({judge.K:.3g} × mean squared norm, not {judge.own_K:.3g}), is right on {judge.num_gained:,} more "
        f"of the {judge.num_test:,} test examples. So it is where a network has learned wrong labels by heart, or "
        "where classes overlap."
    )
