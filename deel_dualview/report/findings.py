"""Findings of an audit as frozen dataclasses of Python numbers and strings, ready for JSON.

Classes are integers here (their names are in `Overview.class_names`); an example is named by its split and
its position in that dataset, never by its pixels.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from deel_dualview.report.frames import (
    ClassName,
    Row,
    example_columns,
    namer,
    pair_row,
    prediction_row,
    to_frame,
)
from deel_dualview.report.maps import PairShares as PairShares

if TYPE_CHECKING:
    import pandas as pd

    from deel_dualview.labels import HeadWeight


class Severity(enum.StrEnum):
    """How much a finding asks of the reader.

    `ACT`: something is wrong, and there is something to do. `LOOK`: it may be; look at the examples. `KNOW`: nothing to
    do, good to know. `FINE`: looked for and not found. `CANNOT_TELL`: looked for, and no answer, which is not `FINE`.
    """

    ACT = "act"
    LOOK = "look"
    KNOW = "know"
    FINE = "fine"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class ExampleReference:
    """An example: its split, its position there, and the id and label that the dataset gave, if any."""

    split: Literal["train", "test"]
    index: int
    id: int | str | None
    label: int | None


@dataclass(frozen=True)
class Influence:
    """The influence of one training example on one prediction: what it adds to a logit of the surrogate, if any.

    `share` is `value` over that logit, so that the shares of all training examples add up to 1; None where
    the logit is not positive, for a share of it would mean nothing, or where there is no surrogate. `relevance` is
    None where no heatmaps of the pair were made. `likeness` is the cosine of the features of the pair, centred and
    scaled by the training set: 1 is the same to the model, 0 unrelated; None where it was not computed.
    """

    example: ExampleReference
    value: float
    share: float | None
    relevance: PairShares | None = None
    likeness: float | None = None


@dataclass(frozen=True)
class ExplainedPrediction:
    """A prediction of the model with the training examples that speak most for it and against it.

    `confidence` is the model's probability of `prediction`. `logit` is the surrogate's, of that same class;
    the exact minimiser's would lie within `logit_error_bound` of it. Without a surrogate these are None.
    """

    example: ExampleReference
    prediction: int
    confidence: float
    surrogate_prediction: int | None
    logit: float | None
    logit_error_bound: float | None
    proponents: tuple[Influence, ...]
    opponents: tuple[Influence, ...]


@dataclass(frozen=True)
class LabelIssue:
    """A training example by the score of its label: log-odds of `suggested_label` against the given one."""

    example: ExampleReference
    suggested_label: int
    score: float
    self_influence: float
    flagged: bool


@dataclass(frozen=True)
class ClassPairCount:
    """Labels of class `given` that should be `suggested`: how many by the count (None without one), and flagged."""

    given: int
    suggested: int
    estimate: float | None
    num_flagged: int


@dataclass(frozen=True)
class InspectionPoint:
    """Of `known` label errors, `found` are among the `inspected` examples (`share` of all) of highest label score."""

    inspected: int
    share: float
    found: int
    known: int


@dataclass(frozen=True)
class DetectionCurve:
    """How fast known label errors turn up by decreasing label score, or by decreasing self-influence.

    `area` is the ROC-AUC of the score against "is a known label error"; `self_influence_area` that of
    self-influence.
    """

    inspected: tuple[int, ...]
    found_by_score: tuple[int, ...]
    found_by_self_influence: tuple[int, ...]
    area: float
    self_influence_area: float
    points: tuple[InspectionPoint, ...]


@dataclass(frozen=True)
class InfluentialExample:
    """A training example that is among the k strongest proponents of `num_predictions` test examples."""

    example: ExampleReference
    num_predictions: int
    mean_share: float | None


@dataclass(frozen=True)
class ClassInfluence:
    """The most influential training examples for the `num_predictions` test examples predicted as `label`."""

    label: int
    num_predictions: int
    num_proponents: int
    examples: tuple[InfluentialExample, ...]


@dataclass(frozen=True)
class SimilarPair:
    """Two examples with the same inputs (`is_identical`), or nearer to each other than chance makes any in the set.

    `similarity` estimates the correlation of their inputs, of images after a slight blur, `mirrored` after turning one.
    """

    first: ExampleReference
    second: ExampleReference
    similarity: float
    is_identical: bool
    mirrored: bool = False


@dataclass(frozen=True)
class Measure:
    """A number, how it is written for a reader, and what it means in one sentence."""

    name: str
    value: float
    text: str
    meaning: str


@dataclass(frozen=True)
class PathPoint:
    """One value of K of the path. `agreement` is with the model on the test set, `accuracy` with its labels, if any."""

    scale_free_K: float
    K: float
    relative_gap: float
    converged: bool
    num_support_vectors: int
    share_support_vectors: float
    agreement: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What every finding says. `share` is what a threshold of `--fail-on` is compared with."""

    name: ClassVar[str]
    severity: Severity
    title: str
    summary: str
    count: int
    share: float

    def to_frame(self, class_names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row for each example, pair, class, group or problem that the finding lists, as on its page.

        Without rows where it lists none. pandas is imported here.

        Args:
            class_names: classes are written by; their numbers by default.
        """
        return to_frame(self._rows(namer(class_names)))

    def _rows(self, name_of: ClassName) -> list[Row]:
        """Return a row for each entry, all of the same columns."""
        del name_of
        return []


@dataclass(frozen=True, kw_only=True)
class Faithfulness(Finding):
    """How far the surrogate stands for the model; `share` of test predictions on which the two differ."""

    name: ClassVar[str] = "unfaithful"
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class CommonProponent:
    """A training example that is among the strongest proponents of `num_predictions` predictions of a confusion."""

    example: ExampleReference
    num_predictions: int


@dataclass(frozen=True)
class Confusion:
    """Of `num_labelled` test examples of class `label`, `count` are predicted `prediction`, and what speaks for it.

    `proponents` are the training examples that are most often among the strongest proponents of these predictions.
    """

    label: int
    prediction: int
    count: int
    num_labelled: int
    proponents: tuple[CommonProponent, ...]


@dataclass(frozen=True, kw_only=True)
class WrongPredictions(Finding):
    """The wrong predictions of which the model is surest, explained; `share` of wrong predictions.

    `confusions` are the most frequent pairs of label and prediction, by decreasing count. `matrix` counts the test
    examples of each label (rows) by prediction (columns); empty of many classes.
    """

    name: ClassVar[str] = "wrong-predictions"
    predictions: tuple[ExplainedPrediction, ...]
    confusions: tuple[Confusion, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [prediction_row(item, name_of) for item in self.predictions]


@dataclass(frozen=True, kw_only=True)
class UncertainPredictions(Finding):
    """In place of wrong predictions where the test set has no labels: those of least confidence."""

    name: ClassVar[str] = "uncertain-predictions"
    predictions: tuple[ExplainedPrediction, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [prediction_row(item, name_of) for item in self.predictions]


@dataclass(frozen=True, kw_only=True)
class LabelErrors(Finding):
    """Training labels that are likely wrong, and how many are; see `LabelCount` and `LabelIssues`.

    `count` is the estimate, 0 where there is none; `share` is NaN where the status is "cannot tell". `issues` are the
    first by score, `ranks` and `scores` a thinned curve of all.
    """

    name: ClassVar[str] = "label-errors"
    status: Literal["counted", "at most", "cannot tell"]
    low: int | None
    high: int | None
    at_most: int | None
    reason: str
    training_accuracy: float
    deviations_easier: float | None
    heads: tuple[HeadWeight, ...]
    class_pairs: tuple[ClassPairCount, ...]
    issues: tuple[LabelIssue, ...]
    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    detection: DetectionCurve | None

    @property
    def has_memorised(self) -> bool:
        """Whether the network has learned some labels one by one."""
        from deel_dualview.labels.issues import MEMORISED  # reports are read without TensorFlow

        return self.deviations_easier is not None and self.deviations_easier > MEMORISED

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "position": item.example.index,
                "id": item.example.id,
                "given_label": name_of(item.example.label),
                "suggested_label": name_of(item.suggested_label),
                "score": item.score,
                "flagged": item.flagged,
            }
            for item in self.issues
        ]


@dataclass(frozen=True, kw_only=True)
class InfluentialExamples(Finding):
    """Training examples behind most test predictions; `share` is that of the busiest one."""

    name: ClassVar[str] = "influential-examples"
    k: int
    classes: tuple[ClassInfluence, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "predicted_label": name_of(group.label),
                **example_columns(item.example, name_of),
                "predictions": item.num_predictions,
                "mean_share": item.mean_share,
            }
            for group in self.classes
            for item in group.examples
        ]


@dataclass(frozen=True, kw_only=True)
class Leaks(Finding):
    """Test examples that are in the training set too, or look like one there; `share` of test examples."""

    name: ClassVar[str] = "leaks"
    num_identical: int
    pairs: tuple[SimilarPair, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [pair_row(pair, name_of, ("test_", "train_")) for pair in self.pairs]


@dataclass(frozen=True, kw_only=True)
class ConflictingDuplicates(Finding):
    """Training examples that have the same inputs as one of another label, or look like one; `share` of all."""

    name: ClassVar[str] = "duplicates-conflicting"
    num_identical: int
    pairs: tuple[SimilarPair, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [pair_row(pair, name_of, ("", "other_")) for pair in self.pairs]


@dataclass(frozen=True, kw_only=True)
class Duplicates(Finding):
    """Training examples that count twice: copies of one of the same label, or look-alikes; `share` of all.

    `num_identical` are exact copies beyond the first of each content.
    """

    name: ClassVar[str] = "duplicates"
    num_identical: int
    pairs: tuple[SimilarPair, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [pair_row(pair, name_of, ("", "other_")) for pair in self.pairs]


@dataclass(frozen=True, kw_only=True)
class SparsityPath(Finding):
    """Sparsity against fidelity over K; `share` of support vectors at the K of the audit."""

    name: ClassVar[str] = "sparsity-path"
    points: tuple[PathPoint, ...]
