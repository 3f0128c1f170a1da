"""Explanations of an audit, checked by training again without the examples that they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview.auditing.evidence import Evidence
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.report.findings import Severity
from deel_dualview.report.verified import VerifiedPrediction, VerifiedPredictions, VerifiedRemoval
from deel_dualview.verification import Removal, Verification, verify
from deel_dualview.verification.retraining import examples_where

WEAK_CORRELATION = 0.5
"""Below this rank correlation of predicted and actual changes explanations should not be relied on."""


def find_verified(
    calculator: BaseInfluenceCalculator,
    test_set: tf.data.Dataset,
    evidence: Evidence,
    explained: Any,
    names: Sequence[str],
    number: int,
) -> VerifiedPredictions:
    """Verify the explained predictions, and further test examples where more are wanted.

    Args:
        calculator: of the audit.
        test_set: batched.
        evidence: of the audit.
        explained: the finding that explains predictions.
        names: of the classes or outputs.
        number: how many predictions.
    """
    positions = _chosen(evidence, explained, number)
    is_wanted = np.zeros(evidence.num_test, bool)
    is_wanted[positions] = True
    found = verify(
        calculator, examples_where(test_set, is_wanted), k=min(evidence.k, calculator.num_train - 1)
    )
    order = np.flatnonzero(is_wanted)
    rows = {int(position): row for row, position in enumerate(order)}
    predictions = tuple(
        _prediction(found, rows[position], evidence, position, names) for position in map(int, positions)
    )
    correlation = found.rank_correlation
    is_probability = found.removals[0].before.probability is not None
    share = found.share_flipped if found.agreement is not None else math.nan
    return VerifiedPredictions(
        severity=_severity(correlation.value),
        title=_title(found),
        summary=_summary(found),
        count=len(predictions),
        share=share,
        retrained=found.retrained,
        rank_correlation=correlation.value,
        low=correlation.interval[0],
        high=correlation.interval[1],
        agreement=found.agreement,
        difference=found.difference,
        is_probability=is_probability,
        predictions=predictions,
    )


def _chosen(evidence: Evidence, explained: Any, number: int) -> np.ndarray:
    """Return positions of test examples: the explained ones first, then others drawn at random."""
    first = np.array([item.example.index for item in explained.predictions], np.int64)[:number]
    others = np.setdiff1d(np.arange(evidence.num_test), np.concatenate([first, evidence.broken_test]))
    drawn = np.random.default_rng(0).permutation(others)[: number - len(first)]
    return np.concatenate([first, drawn])


def _prediction(
    found: Verification, row: int, evidence: Evidence, position: int, names: Sequence[str]
) -> VerifiedPrediction:
    own = [item for item in found.removals if item.query == row]
    return VerifiedPrediction(
        example=evidence.reference("test", position),
        prediction=own[0].explained,
        sentence=found.sentence(row, names),
        removals=tuple(map(_removal, own)),
    )


def _removal(item: Removal) -> VerifiedRemoval:
    before, after = item.before.shown, item.after.shown
    return VerifiedRemoval(
        item.group, item.removed, item.predicted, item.actual, before, after, item.is_flipped
    )


def _severity(correlation: float) -> Severity:
    if math.isnan(correlation):
        return Severity.CANNOT_TELL
    return Severity.FINE if correlation >= WEAK_CORRELATION else Severity.LOOK


def _title(found: Verification) -> str:
    correlation = found.rank_correlation
    if math.isnan(correlation.value):
        return f"Explanations of {correlation.num_queries} predictions were checked, too few to say how far they hold"
    low, high = correlation.interval
    only = "" if correlation.value >= WEAK_CORRELATION else "only "
    return (
        f"With the {found.retrained} trained again, predicted and actual changes have a rank correlation of "
        f"{only}{correlation.value:.2f} ({low:.2f} to {high:.2f})"
    )


def _summary(found: Verification) -> str:
    summary = (
        "An explanation says what would be without some training examples. Here they were left out: "
        f"{found.num_trainings - 1:,} times, in {found.seconds:.0f} s."
    )
    among = found.correlation("proponents")
    if math.isnan(among.value):
        return summary
    low, high = among.interval
    return (
        f"{summary} The rank correlation is mostly about telling proponents, random examples and opponents apart. "
        "Over the proponents alone (which predictions depend on theirs most?) it is "
        f"{among.value:.2f} ({low:.2f} to {high:.2f})."
    )
