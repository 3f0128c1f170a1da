"""Findings about the surrogate itself: how far it stands for the model, and what another K would give."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np

from deel_dualview.auditing.evidence import PROBABLE, Evidence, OutputEvidence
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.fidelity import OutputFidelity, SurrogateFidelity
from deel_dualview.calculators.tempering import TEMPERED_TOTAL_PENALTY
from deel_dualview.report.findings import Faithfulness, Measure, PathPoint, Severity, SparsityPath
from deel_dualview.svm import ConvergenceWarning, DualSVMSolution

GOOD_AGREEMENT, FAIR_AGREEMENT = 0.98, 0.95
GOOD_R_SQUARED, FAIR_R_SQUARED = 0.95, 0.85
LEAST_COMPARED = 20
"""Of fewer test examples a single one is more than 5 %: that all of them agree says little."""
PATH_KS = (0.001, 0.01, 0.1, 1.0, 10.0)
PATH_TOLERANCE = 1e-3
"""Scale-free values of K that the path goes through, besides the audit's own and the largest default of `DualView`."""


def find_faithfulness(fidelity: SurrogateFidelity) -> Faithfulness:
    """Judge how far the surrogate stands for the model, on the test set."""
    different = round((1 - fidelity.agreement) * fidelity.num_examples)
    is_good = fidelity.agreement >= GOOD_AGREEMENT
    can_tell = not is_good or fidelity.num_examples >= LEAST_COMPARED
    severity = (
        Severity.CANNOT_TELL
        if not can_tell
        else Severity.FINE
        if is_good
        else Severity.LOOK
        if fidelity.agreement >= FAIR_AGREEMENT
        else Severity.ACT
    )
    return Faithfulness(
        severity=severity,
        title=(
            f"The surrogate agrees with the model on {fidelity.agreement:.1%} of the test set"
            if can_tell
            else "Cannot tell whether the surrogate agrees with the model: it does on "
            f"{fidelity.num_examples - different:,} of {fidelity.num_examples:,} test examples, which are too few"
        ),
        summary=(
            "Influence is that of a surrogate: a support vector machine on the features that the model hands to its "
            "last layer. It predicts another class on "
            f"{different:,} of {fidelity.num_examples:,} test examples; where it does, what is said about the model "
            "may not hold."
        ),
        count=different,
        share=1 - fidelity.agreement,
        measures=tuple(_measures(fidelity)),
    )


def find_output_faithfulness(fidelity: OutputFidelity, evidence: OutputEvidence) -> Faithfulness:
    """Judge how far the surrogate of numbers or independent labels stands for the model, on the test set.

    Of numbers by R^2; of labels, whose logits are on another scale than the model's, by the share of equal decisions.
    """
    logits = evidence.surrogate.logits if evidence.surrogate is not None else evidence.test_outputs
    different = int(((logits > 0) != (evidence.test_outputs > PROBABLE)).sum())
    agreement = 1 - different / logits.size
    quality = fidelity.r_squared if evidence.has_numbers else agreement
    good, fair = (
        (GOOD_R_SQUARED, FAIR_R_SQUARED) if evidence.has_numbers else (GOOD_AGREEMENT, FAIR_AGREEMENT)
    )
    can_tell = fidelity.num_examples >= LEAST_COMPARED and bool(np.isfinite(quality))
    rows = [
        (
            "R²",
            fidelity.r_squared,
            "Share of the differences between the model's outputs that the surrogate has too: 1 is all of them.",
        ),
        (
            "Rank correlation",
            fidelity.rank_correlation,
            "Whether examples are ordered alike by an output: 1 is the same order, 0 no relation.",
        ),
        (
            "Left unexplained",
            fidelity.completeness_error,
            "What is missing when all contributions to an output are added up, relative to the largest output.",
        ),
    ]
    if not evidence.has_numbers:
        rows[:1] = [("Same decisions", agreement, "Share of labels on which both decide alike.")]
    mean = "" if evidence.num_classes == 1 else "mean "
    of = "" if evidence.num_classes == 1 else f" of {evidence.num_classes} numbers"
    said = f"{mean}R² {quality:.3f}{of}" if evidence.has_numbers else f"{quality:.1%} of the decisions"
    return Faithfulness(
        severity=(
            Severity.CANNOT_TELL
            if not can_tell
            else Severity.FINE
            if quality >= good
            else Severity.LOOK
            if quality >= fair
            else Severity.ACT
        ),
        title=(
            f"The surrogate agrees with the model: {said} on the test set"
            if can_tell and quality >= fair
            else f"The surrogate is not the model: {said} on the test set"
            if can_tell
            else "Cannot tell whether the surrogate agrees with the model: too few test examples"
        ),
        summary=(
            "Influence is that of a surrogate: support vector machines on the features that the model hands to its "
            "last layer, one an output. Where it differs from the model, what is said about the model may not hold."
        ),
        count=0 if evidence.has_numbers else different,
        share=float(np.clip(1 - quality, 0, 1)),
        measures=tuple(
            Measure(name, float(value), f"{value:.3g}", meaning)
            for name, value, meaning in rows
            if np.isfinite(value)
        ),
    )


def _measures(fidelity: SurrogateFidelity) -> list[Measure]:
    weight_cosine = float("nan") if fidelity.weight_cosine is None else fidelity.weight_cosine
    rows = [
        (
            "Same predictions",
            fidelity.agreement,
            "percent",
            "Share of test examples for which both predict the same class.",
        ),
        (
            "Matthews correlation",
            fidelity.matthews_correlation,
            "number",
            "Agreement beyond chance, fair to rare classes: 1 is perfect, 0 is chance.",
        ),
        (
            "Cosine of the logits",
            fidelity.logit_cosine,
            "number",
            "Whether the logits of an example point the same way: 1 is the same pattern over classes.",
        ),
        (
            "Kendall's tau",
            fidelity.kendall_tau,
            "number",
            "Whether an example's classes are ranked alike: 1 is the same order, 0 no relation.",
        ),
        (
            "Cosine of the weights",
            weight_cosine,
            "number",
            "Whether surrogate and model weigh the features alike; low values are common and harmless alone.",
        ),
        (
            "Left unexplained",
            fidelity.completeness_error,
            "number",
            "What is missing when all contributions to a logit are added up, relative to the largest logit.",
        ),
    ]
    return [
        Measure(name, value, f"{value:.1%}" if style == "percent" else f"{value:.3g}", meaning)
        for name, value, style, meaning in rows
        if np.isfinite(value)
    ]


def path_Ks(K: float, num_train: int) -> list[float]:
    """Return the scale-free values of K that the path adds to the audit's own, increasing."""
    Ks: list[float] = []
    for value in (*PATH_KS, TEMPERED_TOTAL_PENALTY / num_train):
        if not any(math.isclose(value, other) for other in (K, *Ks)):
            Ks.append(value)
    return sorted(Ks)


def fit_path(calculator: DualView) -> dict[float, DualSVMSolution]:
    """Fit the surrogate for other values of K; return solutions by scale-free K, the calculator's own first.

    They are previews, to a gap of 1e-3, and one that stops early does not warn: the report shows its gap.
    """
    Ks = path_Ks(calculator.K, calculator.num_train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solutions = calculator.fit_path(Ks, tolerance=max(PATH_TOLERANCE, calculator.solver.tolerance))
    return {calculator.K: calculator.surrogate, **dict(zip(Ks, solutions, strict=True))}


def _predicted(kernel_features: np.ndarray, solution: DualSVMSolution) -> np.ndarray:
    """Return the classes that a surrogate predicts, shape (m,)."""
    return (kernel_features.astype(np.float64) @ solution.weights).argmax(axis=1)


def find_sparsity_path(
    evidence: Evidence,
    kernel_features: np.ndarray,
    solutions: Mapping[float, DualSVMSolution],
) -> SparsityPath:
    """Tell what sparsity and agreement other values of K would give.

    Args:
        evidence: arrays of the audit.
        kernel_features: of the test set, shape (m, d).
        solutions: of `fit_path`, the audit's own first.
    """
    points = [_point(evidence, kernel_features, K, solution) for K, solution in solutions.items()]
    own = points[0]
    best = max(points, key=lambda point: (point.agreement, -point.share_support_vectors))
    if best.agreement > own.agreement:
        advice = f"It agrees best at {best.scale_free_K:.3g} ({best.agreement:.1%})."
    else:
        advice = "No other K that was tried agrees better."
    return SparsityPath(
        severity=Severity.KNOW,
        title=f"{own.share_support_vectors:.1%} of the training examples are support vectors",
        summary=(
            "A small K spreads influence over many training examples, a large one follows few, hard "
            f"examples. At the K of this audit, {own.scale_free_K:.3g} over the mean squared norm, the "
            f"surrogate agrees with the model on {own.agreement:.1%} of the test set. {advice}"
        ),
        count=own.num_support_vectors,
        share=own.share_support_vectors,
        points=tuple(sorted(points, key=lambda point: point.scale_free_K)),
    )


def _point(evidence: Evidence, kernel_features: np.ndarray, K: float, solution: DualSVMSolution) -> PathPoint:
    predictions = _predicted(kernel_features, solution)
    return PathPoint(
        scale_free_K=float(K),
        K=float(solution.K),
        relative_gap=float(solution.relative_gap),
        converged=bool(solution.converged),
        num_support_vectors=int(solution.num_support_vectors),
        share_support_vectors=solution.num_support_vectors / evidence.num_train,
        agreement=float((predictions == evidence.predictions).mean()),
        accuracy=None
        if evidence.test_labels is None
        else float((predictions == evidence.test_labels).mean()),
    )
