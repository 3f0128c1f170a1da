"""Findings about models that are no classifiers: errors of outputs, suspect labels, groups of large errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from deel_dualview.report.findings import (
    DetectionCurve,
    ExampleReference,
    Finding,
    Influence,
    InfluentialExamples,
    Measure,
)
from deel_dualview.report.frames import ClassName, Row, example_columns
from deel_dualview.report.group_findings import GroupKind

if TYPE_CHECKING:
    from deel_dualview.labels import HeadWeight, LabelCount


@dataclass(frozen=True)
class OutputReference(ExampleReference):
    """An example with its numbers, or which of its labels hold, one entry an output; None where it has none."""

    labels: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ExplainedOutput:
    """One output of a test example with the training examples that raise it most, and that lower it most.

    `predicted` is the model's number, or its probability of a label; `given` its label, None without. `value` is the
    surrogate's output (of a label its logit), of which the exact minimiser's is within `error_bound`; None without one.
    """

    example: ExampleReference
    output: int
    predicted: float
    given: float | None
    value: float | None
    error_bound: float | None
    proponents: tuple[Influence, ...]
    opponents: tuple[Influence, ...]


@dataclass(frozen=True)
class OutputScore:
    """How well one output is predicted in one of the sets."""

    output: int
    split: Literal["train", "test"]
    num_examples: int
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class PlottedExamples:
    """Predictions (of numbers) against labels of one output, at most some thousand examples of a set."""

    output: int
    split: Literal["train", "test"]
    labels: tuple[float, ...]
    predictions: tuple[float, ...]
    is_marked: tuple[bool, ...]
    """Training: whether the label is among the most suspect ones. Test: whether the prediction is explained."""


@dataclass(frozen=True, kw_only=True)
class PredictionErrors(Finding):
    """How large the errors of a regression are, with the largest ones explained; its `share` means nothing."""

    name: ClassVar[str] = "prediction-errors"
    scores: tuple[OutputScore, ...]
    predictions: tuple[ExplainedOutput, ...]
    plotted: tuple[PlottedExamples, ...] = ()

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                **example_columns(item.example, name_of),
                "output": name_of(item.output),
                "given": item.given,
                "predicted": item.predicted,
                "proponents": [own.example.index for own in item.proponents],
                "opponents": [own.example.index for own in item.opponents],
            }
            for item in self.predictions
        ]


@dataclass(frozen=True, kw_only=True)
class WrongLabelPredictions(PredictionErrors):
    """How often independent labels are predicted wrong; `share` of all labels of all test examples."""

    name: ClassVar[str] = "wrong-predictions"


@dataclass(frozen=True, kw_only=True)
class InfluentialOnOutputs(InfluentialExamples):
    """The same of a model that is no classifier; its groups are by explained output."""


@dataclass(frozen=True)
class SuspectLabel:
    """A label of a training example by its score, see `OutputLabelIssues`."""

    example: ExampleReference
    output: int
    given_label: float
    suggested_label: float
    score: float
    self_influence: float
    flagged: bool


@dataclass(frozen=True, kw_only=True)
class SuspectLabels(Finding):
    """Training labels of a model that is no classifier by how likely they are wrong.

    Numbers are ranked, and `share` is NaN. Independent labels are counted one by one; `share` is the share of all that
    are wrong by these counts, NaN where the number of any is unknown.
    """

    name: ClassVar[str] = "label-errors"
    counts: tuple[LabelCount, ...]
    heads: tuple[tuple[HeadWeight, ...], ...]
    issues: tuple[SuspectLabel, ...]
    detection: DetectionCurve | None

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "position": item.example.index,
                "id": item.example.id,
                "output": name_of(item.output),
                "given_label": item.given_label,
                "suggested_label": item.suggested_label,
                "score": item.score,
                "flagged": item.flagged,
            }
            for item in self.issues
        ]


@dataclass(frozen=True)
class ErrorGroup:
    """Test examples with larger errors than the others, beyond chance; see `WeakGroup`.

    `error` and `others` are the mean error in the group, and of the other test examples: of one number in its unit, of
    several in standard deviations of their labels, of independent labels the share of wrong ones.
    """

    kind: GroupKind
    name: str
    value: str
    proponent: ExampleReference | None
    num_test: int
    error: float
    others: float
    num_train: int | None
    chance: float
    examples: tuple[ExampleReference, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorGroups(Finding):
    """Groups with large errors, of least chance first; `share` of the test examples that are in one of them."""

    name: ClassVar[str] = "weak-groups"
    num_examined: int
    groups: tuple[ErrorGroup, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        del name_of
        return [
            {
                "kind": item.kind,
                "name": item.name,
                "value": item.value,
                "proponent": None if item.proponent is None else item.proponent.index,
                "test_examples": item.num_test,
                "mean_error": item.error,
                "mean_error_of_others": item.others,
                "training_examples": item.num_train,
                "chance": item.chance,
            }
            for item in self.groups
        ]
