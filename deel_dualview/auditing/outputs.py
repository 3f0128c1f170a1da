"""The steps of an audit of a regression or of independent labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.special

from deel_dualview.auditing.audited import Audited, Read
from deel_dualview.auditing.collecting import self_influence, strongest, surrogate_evidence
from deel_dualview.auditing.evidence import OutputEvidence, SurrogateEvidence
from deel_dualview.auditing.grouping import Values
from deel_dualview.auditing.labels import put_last
from deel_dualview.auditing.output_errors import find_output_errors, r_squared
from deel_dualview.auditing.output_groups import find_error_groups
from deel_dualview.auditing.output_labels import find_suspect_labels
from deel_dualview.auditing.predictions import with_likeness
from deel_dualview.auditing.summary import summarise
from deel_dualview.auditing.surrogate import find_output_faithfulness
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.fidelity import OutputFidelity
from deel_dualview.calculators.method_specs import MethodDescription
from deel_dualview.calculators.represented import RepresentedExamples
from deel_dualview.labels import (
    LabelIssues,
    OutputLabelIssues,
    find_independent_issues,
    find_number_issues,
    robust_deviation,
)
from deel_dualview.models.label_kinds import label_kind, predicted_numbers
from deel_dualview.report.data_findings import InputScale, NumbersNotLearned, ValueRange
from deel_dualview.report.findings import Finding, InfluentialExamples, Severity
from deel_dualview.report.output_findings import InfluentialOnOutputs
from deel_dualview.report.output_words import words_of
from deel_dualview.report.overview import OutputsOverview, Overview, Setting
from deel_dualview.report.provenance import Steps

_EFFECT = "effect of the training example on the output, positive where it raises it"
_NUM_QUARTERS = 4


class AuditedOutputs(Audited[OutputEvidence]):
    """Of a model with c numbers or independent labels.

    Args:
        calculator: of the audit.
        read: both sets.
        steps: to which the steps of the calculator are added.
        label_unit: of numbers.
    """

    def __init__(
        self, calculator: BaseInfluenceCalculator, read: Read, steps: Steps, *, label_unit: str
    ) -> None:
        self._unit = label_unit
        super().__init__(calculator, read, steps)

    def _gather(
        self, evaluated: RepresentedExamples, surrogate: SurrogateEvidence | None = None
    ) -> OutputEvidence:
        calculator, splits = self.calculator, self.read.splits
        model = calculator.model
        has_numbers = label_kind(model) == "numbers"
        train_rows = model.to_targets(splits.train.labels)
        test_rows = None if splits.test.labels is None else model.to_targets(splits.test.labels)
        deviations = np.array([robust_deviation(column) for column in train_rows.T.astype(np.float64)])
        outputs = [self.read.trained.predictions, self.read.tested.predictions]
        if has_numbers:
            outputs = [predicted_numbers(model, part) for part in outputs]
        else:
            outputs = [scipy.special.expit(part.astype(np.float64)) for part in outputs]
        explained = (
            np.full(len(outputs[1]), calculator.target, np.int64)
            if isinstance(calculator.target, int | np.integer)
            else outputs[1].argmax(axis=1)
        )
        codes = _codes(train_rows, test_rows, has_numbers=has_numbers)
        return OutputEvidence(
            num_classes=model.num_outputs,
            k=self.read.k,
            broken_train=splits.train.not_finite,
            broken_test=splits.test.not_finite,
            train_labels=codes[: len(train_rows)],
            train_ids=splits.train.ids,
            self_influence=self_influence(calculator, splits),
            test_labels=None if test_rows is None else codes[len(train_rows) :],
            test_ids=splits.test.ids,
            predictions=explained,
            confidences=np.zeros(len(explained)),
            attributions=(
                strongest(calculator, evaluated, self.read.k)
                if surrogate is None
                else cast(DualView, calculator).sparse_influence_values(evaluated)
            ),
            surrogate=surrogate,
            holds_all=surrogate is not None,
            words=words_of("numbers" if has_numbers else "labels", self.read.names, train_rows, self._unit),
            train_rows=train_rows,
            test_rows=test_rows,
            train_outputs=outputs[0],
            test_outputs=outputs[1],
            units=deviations if has_numbers else np.ones(model.num_outputs),
        )

    def _gather_from_surrogate(self, calculator: DualView, steps: Steps) -> None:
        steps.leave_out(1)  # other values of K
        with steps.step("Predictions and attributions"):
            evaluated = self.read.tested.represented(calculator, self.read.splits.test_set)
            self.evidence = self._gather(
                evaluated, surrogate_evidence(calculator, list(calculator.evaluate(evaluated)))
            )
        with steps.step("Fidelity"):
            fidelity = cast(OutputFidelity, calculator.surrogate_fidelity(evaluated))
            self.faithfulness = find_output_faithfulness(fidelity, self.evidence)

    def find_label_errors(
        self,
        known: np.ndarray | None,
        pred_probs: np.ndarray | None,
        leaking: Sequence[str],
        reviewed: np.ndarray,
    ) -> tuple[LabelIssues | OutputLabelIssues, Finding]:
        del pred_probs, leaking, reviewed  # of classes
        evidence = self.evidence
        find = find_number_issues if evidence.has_numbers else find_independent_issues
        found = find(
            self.read.representations(),
            evidence.train_rows,
            evidence.test_rows,
            output_names=self.read.names,
            ids=evidence.train_ids,
        )
        self._issues = put_last(found, evidence.broken_train)
        return self._issues, find_suspect_labels(evidence, self._issues, known)

    def check_scale(self) -> list[InputScale]:
        evidence = self.evidence
        explained = r_squared(evidence.train_outputs / evidence.units, evidence.train_rows / evidence.units)
        if not evidence.has_numbers or not explained <= 0:
            return []
        return [
            NumbersNotLearned(
                severity=Severity.ACT,
                title=f"On its own training set the model is no better than the mean of the labels: R² {explained:.2f}",
                summary=(
                    "Either these are not the inputs or labels that it was trained on (scaled or ordered otherwise), "
                    "or it is not trained. Nothing else on this page can be relied on."
                ),
                count=1,
                share=1.0,
                is_guessing=True,
                training_accuracy=max(explained, 0.0),
                ranges=tuple(ValueRange(*item) for item in self.read.splits.table.ranges),
            )
        ]

    def find_weak(self, columns: Values, given: Values) -> tuple[list[Finding], list[Finding]]:
        groups = find_error_groups(self.evidence, self.read.features, columns=columns, given=given)
        return [], [*groups]

    def explain(self) -> Any:
        return with_likeness(find_output_errors(self.evidence, self._issues.order), *self.read.features)

    def find_influential(self) -> InfluentialExamples:
        found = super().find_influential()
        fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        return InfluentialOnOutputs(**fields)

    def summarise(self, method: MethodDescription, steps: Steps) -> Overview:
        evidence = self.evidence
        described = method if evidence.surrogate is not None else method._replace(value=_EFFECT)
        head = summarise(self.calculator, evidence, self.read.names, method=described, steps=steps)
        explained = np.unique(evidence.predictions)
        own = evidence.words.names[explained[0]] if len(explained) == 1 else "the likeliest label"
        settings = [
            Setting("Explained output", own) if item.name == "Explained class" else item
            for item in head.settings
        ]
        return OutputsOverview(
            **{field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
            | {"settings": tuple(settings), "classes": (), "test_accuracy": None},
            outputs=evidence.words,
            facts=tuple(self._facts()),
        )

    def _facts(self) -> list[Setting]:
        evidence = self.evidence
        parts = [("training", evidence.train_outputs, evidence.train_rows)]
        if evidence.test_rows is not None:
            parts.append(("test", evidence.test_outputs, evidence.test_rows))
        if evidence.has_numbers:
            mean = "" if evidence.num_classes == 1 else "Mean "
            found = [
                np.array([r_squared(*pair) for pair in zip(own.T, rows.T, strict=True)])
                for _, own, rows in parts
            ]
            return [
                Setting(f"{mean}R² on {name} labels", f"{values[np.isfinite(values)].mean():.2f}")
                for (name, _, _), values in zip(parts, found, strict=True)
                if np.isfinite(values).any()
            ]
        return [
            Setting(f"Right on {name} labels", f"{((own > 0.5) == (rows > 0.5)).mean():.1%}")
            for name, own, rows in parts
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        evidence = self.evidence
        arrays = {
            "test_predictions": evidence.test_outputs.astype(np.float32),
            "explained_outputs": evidence.predictions,
            "train_labels": evidence.train_rows,
            "train_label_scores": self._issues.scores.astype(np.float32),
            "train_suggested_labels": self._issues.suggested_labels,
        } | self.common_arrays()
        if evidence.test_rows is not None:
            arrays["test_labels"] = evidence.test_rows
        return arrays


def _codes(train: np.ndarray, test: np.ndarray | None, *, has_numbers: bool) -> np.ndarray:
    """Return groups of labels as classes: quarters of the first number, or combinations of labels, shape (n + m,)."""
    rows = train if test is None else np.concatenate([train, test])
    if has_numbers:
        return np.searchsorted(
            np.quantile(train[:, 0], np.arange(1, _NUM_QUARTERS) / _NUM_QUARTERS), rows[:, 0]
        )
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
