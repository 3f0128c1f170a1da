"""Suspected label errors without a surrogate: training examples by decreasing self-influence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.stats

from deel_dualview.auditing.evidence import Evidence, severity_of
from deel_dualview.auditing.labels import (
    INSPECTED_SHARES,
    MANY_ERRORS,
    NUM_CURVE_POINTS,
    NUM_SUSPECTS,
    area_under_roc,
    by_decreasing,
)
from deel_dualview.report.findings import DoubtedLabel, InspectionPoint, RankedLabels, RankingCurve

TELLING = 0.5
"""Self-influence ranks labels only where its rank correlation with the model's loss is at least this. Of cosines and
similarities it is 1, or the norm of a gradient that does not depend on the label: such a ranking is no better than
none."""


def rank_labels(evidence: Evidence, known: Sequence[int] | np.ndarray | None) -> RankedLabels:
    """Rank training labels, and count those that the model itself contradicts.

    Args:
        evidence: arrays of the audit.
        known: indices of training examples whose label is known to be wrong (a test of the audit itself), or
            None.
    """
    ranking = _ranking(evidence)
    order = by_decreasing(evidence.self_influence if ranking == "self-influence" else evidence.doubt)
    whole = order[~np.isin(order, evidence.broken_train)]
    count = int(evidence.contradicted.sum())
    share = count / evidence.num_train
    return RankedLabels(
        severity=severity_of(share, warn_from=MANY_ERRORS),
        title=_title(count),
        summary=_summary(evidence, count, ranking),
        count=count,
        share=share,
        ranking=ranking,
        suspects=tuple(_suspect(evidence, index) for index in whole[:NUM_SUSPECTS]),
        detection=None if known is None or not len(known) else _detection(evidence, np.asarray(known), order),
    )


def _ranking(evidence: Evidence) -> Literal["self-influence", "loss"]:
    values = evidence.self_influence
    # Rounding makes a ranking of its own out of what is the same for every example.
    if np.ptp(values) <= 1e-4 * np.abs(values).max():
        return "loss"
    correlation = scipy.stats.spearmanr(values, evidence.doubt).statistic
    return "self-influence" if correlation >= TELLING else "loss"


def _detection(evidence: Evidence, known: np.ndarray, order: np.ndarray) -> RankingCurve:
    is_known = np.zeros(evidence.num_train, bool)
    is_known[known] = True
    num_known = int(is_known.sum())
    inspected = np.unique(np.linspace(1, evidence.num_train, NUM_CURVE_POINTS).astype(np.int64))

    def found(values: np.ndarray) -> tuple[int, ...]:
        return (0, *map(int, np.cumsum(is_known[by_decreasing(values)])[inspected - 1]))

    in_order = np.cumsum(is_known[order])
    numbers = [num_known, *(max(1, round(share * evidence.num_train)) for share in INSPECTED_SHARES)]
    return RankingCurve(
        inspected=(0, *map(int, inspected)),
        found_by_self_influence=found(evidence.self_influence),
        found_by_loss=found(evidence.doubt),
        self_influence_area=area_under_roc(evidence.self_influence, is_known),
        loss_area=area_under_roc(evidence.doubt, is_known),
        points=tuple(
            InspectionPoint(number, number / evidence.num_train, int(in_order[number - 1]), num_known)
            for number in sorted(set(numbers))
        ),
    )


def _suspect(evidence: Evidence, index: int) -> DoubtedLabel:
    return DoubtedLabel(
        example=evidence.reference("train", index),
        suggested_label=int(evidence.suggested_labels[index]),
        probability=float(np.exp(-evidence.doubt[index])),
        self_influence=float(evidence.self_influence[index]),
    )


def _title(count: int) -> str:
    if count == 0:
        return "The model contradicts no training label"
    return f"The model contradicts {count:,} training {'label' if count == 1 else 'labels'}"


def _summary(evidence: Evidence, count: int, ranking: str) -> str:
    reason = {
        "self-influence": "Below are the examples of largest self-influence: those that matter most "
        "to their own prediction. Label errors are among them, and rare but right examples.",
        "loss": "Self-influence of this method does not grow with the model's loss and tells nothing of labels, so "
        "examples are ranked by that loss.",
    }[ranking]
    return (
        f"The model was trained on all {evidence.num_train:,} given labels and predicts another class for "
        f"{count:,} of them ({count / evidence.num_train:.2%}). {reason}"
    )
