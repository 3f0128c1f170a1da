"""What an audit does by the kind of labels: the steps that differ, of classifiers here, of others in `outputs`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import scipy.special
import tensorflow as tf

from deel_dualview import data
from deel_dualview.auditing import data_checks, labels, predictions, summary, surrogate, weak_groups
from deel_dualview.auditing.collecting import Splits, gather_from_surrogate, gather_without_surrogate
from deel_dualview.auditing.evidence import Evidence, id_arrays
from deel_dualview.auditing.grouping import Values
from deel_dualview.auditing.layers import Layers
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.fidelity import SurrogateFidelity
from deel_dualview.calculators.method_specs import MethodDescription
from deel_dualview.calculators.represented import RepresentedExamples
from deel_dualview.labels import (
    LabelCount,
    LabelIssues,
    OutputLabelIssues,
    Representation,
    Representations,
    find_label_issues,
    representation,
)
from deel_dualview.linalg.rows import Rows, row_slices
from deel_dualview.report.data_findings import InputScale
from deel_dualview.report.findings import Faithfulness, Finding, InfluentialExamples
from deel_dualview.report.overview import Overview
from deel_dualview.report.provenance import Steps
from deel_dualview.stores.budget import MemoryShares

NUM_STEPS_OF_SURROGATE = 2
_MOST_NAMED = 5
_RANK_OF_IMAGES = 4
_MOSTLY_BROKEN = 0.5
"""From this share of training examples with NaN or infinity in their inputs on, no wrong labels are counted."""
_NOT_PREVIEWED = "Other values of K were not tried, as the features are beyond the memory budget."
_Evidence = TypeVar("_Evidence", bound=Evidence)


class Read(NamedTuple):
    """What the passes over both sets have kept.

    Attributes:
        splits: contents.
        trained: layers of the training set.
        tested: layers of the test set.
        names: of the classes, or of the outputs.
        k: how many proponents and opponents are shown.
        shares: of the memory budget.
    """

    splits: Splits
    trained: Layers
    tested: Layers
    names: Sequence[str]
    k: int
    shares: MemoryShares

    @property
    def features(self) -> tuple[Rows, np.ndarray]:
        """Penultimate features of both sets."""
        return self.trained.features, self.tested.features[:]

    def representations(self) -> Representations:
        """Return what heads for label issues are fitted to."""
        return Representations(
            Representation(*self.features),
            representation(self.trained.before, self.tested.before),
            Representation(*self.splits.table.rows()),
        )


class Audited(ABC, Generic[_Evidence]):
    """The evidence of an audit, and what is found in it.

    Args:
        calculator: of the audit.
        read: both sets.
        steps: in which those of the calculator are done, or left out.
    """

    evidence: _Evidence
    faithfulness: Faithfulness | None = None
    path: Finding | None = None

    def __init__(self, calculator: BaseInfluenceCalculator, read: Read, steps: Steps) -> None:
        self.calculator, self.read = calculator, read
        if isinstance(calculator, DualView):
            self._gather_from_surrogate(calculator, steps)
        else:
            steps.leave_out(NUM_STEPS_OF_SURROGATE)
            with steps.step("Predictions and attributions"):
                self.evidence = self._gather(read.tested.represented(calculator, read.splits.test_set))

    @abstractmethod
    def _gather(self, evaluated: RepresentedExamples) -> _Evidence:
        """Return the evidence by a calculator without a surrogate."""

    @abstractmethod
    def _gather_from_surrogate(self, calculator: DualView, steps: Steps) -> None:
        """Set evidence and findings about the surrogate."""

    @abstractmethod
    def find_label_errors(
        self,
        known: np.ndarray | None,
        pred_probs: np.ndarray | None,
        leaking: Sequence[str],
        reviewed: np.ndarray,
    ) -> tuple[LabelIssues | OutputLabelIssues, Finding]:
        """Return label issues of all training examples, and the finding about them.

        Args:
            known: positions of labels that are known to be wrong.
            pred_probs: probabilities by a model that has not seen the labels.
            leaking: names of the columns that give the label on their own.
            reviewed: positions of labels that a person has found to be right.
        """

    @abstractmethod
    def check_scale(self) -> list[InputScale]:
        """Return the finding that the inputs cannot be those of the training, if they cannot."""

    @abstractmethod
    def find_weak(self, columns: Values, given: Values) -> tuple[list[Finding], list[Finding]]:
        """Return findings about weak classes, if there are classes, and about weak groups."""

    @abstractmethod
    def explain(self) -> Any:
        """Return the finding about predictions, the worst of them explained."""

    def find_influential(self) -> InfluentialExamples:
        """Return the finding about the most influential training examples."""
        return predictions.find_influential_examples(self.evidence)

    @abstractmethod
    def summarise(self, method: MethodDescription, steps: Steps) -> Overview:
        """Return the head of the report."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return what goes beside the attributions."""

    def common_arrays(self) -> dict[str, np.ndarray]:
        """Return what goes beside the attributions of any model; ids as text or integers, never as objects."""
        evidence = self.evidence
        arrays = {"train_self_influence": evidence.self_influence.astype(np.float32)}
        if evidence.surrogate is not None:
            arrays["surrogate_logits"] = evidence.surrogate.logits.astype(np.float32)
        for name, ids in (("train_ids", evidence.train_ids), ("test_ids", evidence.test_ids)):
            if ids is not None:
                arrays |= id_arrays(name, ids)
        return arrays


def _giving(columns: Sequence[str]) -> str:
    """Return "column X gives", "columns X, Y give", or nothing."""
    if not columns:
        return ""
    return (
        f"column {columns[0]} gives"
        if len(columns) == 1
        else f"columns {', '.join(columns[:_MOST_NAMED])} give"
    )


class AuditedClasses(Audited[Evidence]):
    """Of a classifier."""

    def _gather(self, evaluated: RepresentedExamples) -> Evidence:
        return gather_without_surrogate(self.calculator, self.read.splits, evaluated, self.read.k)

    def _gather_from_surrogate(self, calculator: DualView, steps: Steps) -> None:
        read = self.read
        with steps.step("Other values of K"):
            # Where K is small every example has coefficients for all classes, which many examples have no room for.
            is_small = isinstance(read.trained.features, np.ndarray)
            solutions = surrogate.fit_path(calculator) if is_small else {}
        with steps.step("Predictions and attributions"):
            evaluated = read.tested.represented(calculator, read.splits.test_set)
            self.evidence, kernel_features = gather_from_surrogate(
                calculator, read.splits, evaluated, read.k, read.shares.block
            )
        with steps.step("Fidelity"):
            self.faithfulness = surrogate.find_faithfulness(
                cast(SurrogateFidelity, calculator.surrogate_fidelity(evaluated))
            )
            if solutions:
                self.path = surrogate.find_sparsity_path(self.evidence, kernel_features, solutions)
            else:
                summary = f"{self.faithfulness.summary} {_NOT_PREVIEWED}"
                self.faithfulness = dataclasses.replace(self.faithfulness, summary=summary)

    def find_label_errors(
        self,
        known: np.ndarray | None,
        pred_probs: np.ndarray | None,
        leaking: Sequence[str],
        reviewed: np.ndarray,
    ) -> tuple[LabelIssues | OutputLabelIssues, Finding]:
        read, evidence = self.read, self.evidence
        found = find_label_issues(
            read.representations(),
            evidence.train_labels,
            evidence.test_labels,
            (read.trained.predictions, read.tested.predictions),
            class_names=read.names,
            ids=evidence.train_ids,
            pred_probs=pred_probs,
            held_bytes=read.shares.block,
            leaking=_giving(leaking),
        )
        broken = read.splits.train.not_finite
        if len(broken) >= _MOSTLY_BROKEN * len(found.scores):
            reason = "most training examples have NaN or infinity in their inputs"
            found = dataclasses.replace(
                found,
                count=LabelCount("cannot tell", reason=reason),
                class_pairs=(),
                flagged=np.zeros_like(found.flagged),
            )
        self._issues = labels.put_last(labels.put_last(found, reviewed), broken)
        return self._issues, labels.find_label_errors(evidence, self._issues, known, reviewed)

    def check_scale(self) -> list[InputScale]:
        splits, labels = self.read.splits, self.evidence.train_labels
        whole = np.setdiff1d(np.arange(len(labels)), splits.train.not_finite)
        losses = self._training_losses()
        leaves = tf.nest.flatten(data.unpack(splits.train_set.element_spec).inputs)
        return list(
            data_checks.check_scale(
                self.read.trained.predictions[whole],
                labels[whole],
                splits.table.ranges,
                losses=None if losses is None else losses[whole],
                images=[number for number, leaf in enumerate(leaves) if leaf.shape.rank == _RANK_OF_IMAGES],
            )
        )

    def _training_losses(self) -> np.ndarray | None:
        """Return the cross-entropy of every training example from its features, None without a linear head."""
        model, features, labels = (
            self.calculator.model,
            self.read.trained.features,
            self.evidence.train_labels,
        )
        if model.head is None:
            return None
        losses = []
        for part in row_slices(*features.shape):
            logits = model.logits_of_features(tf.constant(features[part])).numpy().astype(np.float64)
            given = logits[np.arange(len(logits)), labels[part]]
            losses.append(scipy.special.logsumexp(logits, axis=1) - given)
        return np.concatenate(losses)

    def find_weak(self, columns: Values, given: Values) -> tuple[list[Finding], list[Finding]]:
        classes = list(data_checks.find_weak_classes(self.evidence, self.read.names))
        groups = weak_groups.find_weak_groups(self.evidence, self.read.features, columns=columns, given=given)
        return [*classes], [*groups]

    def explain(self) -> Any:
        return predictions.with_likeness(
            predictions.find_wrong_predictions(self.evidence, self.read.names), *self.read.features
        )

    def summarise(self, method: MethodDescription, steps: Steps) -> Overview:
        return summary.summarise(self.calculator, self.evidence, self.read.names, method=method, steps=steps)

    def arrays(self) -> dict[str, np.ndarray]:
        evidence = self.evidence
        arrays = {
            "test_predictions": evidence.predictions,
            "test_confidences": evidence.confidences.astype(np.float32),
            "train_labels": evidence.train_labels,
            "train_label_scores": self._issues.scores.astype(np.float32),
            "train_suggested_labels": self._issues.suggested_labels,
        } | self.common_arrays()
        if evidence.test_labels is not None:
            arrays["test_labels"] = evidence.test_labels
        return arrays
