"""Explanations of an audit, checked by training again without the examples that they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import tensorflow as tf

from deel_dualview.auditing.evidence import Evidence
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.report.findings import Severity
from deel_dualview.report.verified import VerifiedPrediction, VerifiedPredictions, VerifiedRemoval
from deel_dualview.verification import Removal, Share, Verification, verify
from deel_dualview.verification.retraining import examples_where

CHANCE = 0.5
"""Share of predictions that lose more without some random training examples than without some others."""
SIGNIFICANCE = 0.05
"""Of the one-sided sign test by which more than that share do."""


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
        severity=_severity(found.above_random),
        title=_title(found),
        summary=_summary(found),
        count=len(predictions),
        share=share,
        retrained=found.retrained,
        num_above_random=found.above_random.count,
        num_compared=found.above_random.total,
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


def _severity(above: Share) -> Severity:
    if not above.total:
        return Severity.CANNOT_TELL
    if scipy.stats.binomtest(above.count, above.total, CHANCE, "greater").pvalue <= SIGNIFICANCE:
        return Severity.FINE
    return Severity.LOOK if above.value <= CHANCE else Severity.CANNOT_TELL


def _title(found: Verification) -> str:
    above = found.above_random
    if not above.total:
        return "No explained prediction has a proponent that could be left out"
    of = f"{above.count} of {above.total} predictions"
    if above.total == 1:
        of = "A single prediction" if above.count else "Not even the one prediction"
    loses = "loses" if above.total == 1 else "lose"
    rest = f"{loses} more without the proponents than without random examples, with the {found.retrained} trained again"
    return f"{'Only ' if above.value <= CHANCE and above.total > 1 else ''}{of} {rest}"


def _summary(found: Verification) -> str:
    summary = (
        "An explanation says what would be without some training examples. Here they were left out: "
        f"{found.num_trainings - 1:,} times, in {found.seconds:.0f} s."
    )
    severity, above = _severity(found.above_random), found.above_random
    if severity is Severity.CANNOT_TELL and above.total:
        summary += " That may be chance: check more predictions."
    elif severity is Severity.LOOK:
        summary += " Chance gives a half: do not rely on these explanations as reasons."
    everywhere = found.rank_correlation
    if math.isnan(everywhere.value):
        return summary
    low, high = everywhere.interval
    summary += (
        " Over all removals, predicted and actual changes have a rank correlation of "
        f"{everywhere.value:.2f} ({low:.2f} to {high:.2f})"
    )
    among = found.correlation("proponents")
    if math.isnan(among.value):
        return f"{summary}."
    low, high = among.interval
    return (
        f"{summary}; over the proponents alone (which predictions depend on theirs most?) "
        f"{among.value:.2f} ({low:.2f} to {high:.2f})."
    )
