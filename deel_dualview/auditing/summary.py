"""The head of a report: what was audited, settings, versions, certificate."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from deel_dualview.auditing.evidence import Evidence
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.method_specs import MethodDescription
from deel_dualview.report.overview import Certificate, ClassCounts, Overview, Setting
from deel_dualview.report.provenance import Steps, peak_memory_bytes, versions


def summarise(
    calculator: BaseInfluenceCalculator,
    evidence: Evidence,
    class_names: Sequence[str],
    *,
    method: MethodDescription,
    steps: Steps,
) -> Overview:
    """Put together the head of the report, once all steps have run."""
    surrogate = calculator if isinstance(calculator, DualView) else None
    right = None if evidence.test_labels is None else (evidence.predictions == evidence.test_labels).mean()
    return Overview(
        model_name=calculator.model.model.name,
        model_fingerprint=calculator.model.fingerprint,
        feature_layer=calculator.model.feature_layer,
        num_features=calculator.model.num_features,
        num_train=evidence.num_train,
        num_test=evidence.num_test,
        class_names=tuple(class_names),
        test_accuracy=None if right is None else float(right),
        certificate=_certificate(surrogate) if surrogate else None,
        classes=_class_counts(evidence),
        num_support_vectors=_num_support_vectors(surrogate) if surrogate else None,
        mean_nonzero_attributions=_mean_nonzero(evidence),
        settings=tuple(_settings(calculator, method, evidence.k)),
        versions=versions(),
        steps=tuple(steps.times),
        seconds=steps.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        added_memory_bytes=steps.added_memory_bytes,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        method=method.title,
        value_meaning=method.value,
    )


def _mean_nonzero(evidence: Evidence) -> float:
    """Return how many training examples influence a prediction, in the mean."""
    if evidence.holds_all or evidence.surrogate is None:
        return evidence.attributions.nnz / evidence.num_test
    return float(evidence.surrogate.support_vectors[evidence.predictions].mean())


def _settings(calculator: BaseInfluenceCalculator, method: MethodDescription, k: int) -> list[Setting]:
    """List the settings that the findings depend on."""
    own = [Setting("Calculator", method.calculator), Setting("Influence value", method.value)]
    if isinstance(calculator, DualView):
        own = [
            Setting("K × mean squared norm", f"{calculator.K:.4g}"),
            Setting("Kernel", calculator.kernel),
            Setting("Bias feature", "yes" if calculator.feature_map.has_bias else "no"),
        ]
    return [
        Setting("Method", method.title),
        *own,
        Setting("Explained class", "the model's prediction"),
        Setting("Examples per explanation", f"{k} for, {k} against"),
    ]


def _num_support_vectors(calculator: DualView) -> int:
    if calculator.model.is_classifier:
        return int(calculator.surrogate.num_support_vectors)
    return int(np.count_nonzero(np.diff(calculator.surrogate.coefficients.indptr)))


def _certificate(calculator: DualView) -> Certificate:
    solution = calculator.surrogate
    return Certificate(
        relative_gap=float(np.max(solution.relative_gap)),
        tolerance=float(solution.tolerance),
        converged=bool(solution.converged),
        num_iterations=int(np.max(solution.num_iterations)),
        K=float(solution.K),
        scale_free_K=float(calculator.K),
        weight_error_bound=float(np.max(solution.weight_error_bound)),
    )


def _class_counts(evidence: Evidence) -> tuple[ClassCounts, ...]:
    train = np.bincount(evidence.train_labels, minlength=evidence.num_classes)
    predicted = np.bincount(evidence.predictions, minlength=evidence.num_classes)
    return tuple(
        ClassCounts(
            label,
            int(train[label]),
            int(predicted[label]),
            None if evidence.surrogate is None else int(evidence.surrogate.support_vectors[label]),
        )
        for label in range(evidence.num_classes)
    )
