"""The finding about training again without the examples that explain predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deel_dualview.report.findings import ExampleReference, Finding
from deel_dualview.report.frames import ClassName, Row, example_columns


@dataclass(frozen=True)
class VerifiedRemoval:
    """What the removal of a group of training examples was predicted to change, and what it changed.

    `removed` are positions in the training set. `predicted` is the sum of their influence values, `actual` the fall of
    the log-probability of the prediction (of a predicted number, its own); both are positive where the removal hurts
    it. `before` and `after` are the probability, or the number, by the model trained again with and without them.
    """

    group: Literal["proponents", "opponents", "random"]
    removed: tuple[int, ...]
    predicted: float
    actual: float
    before: float
    after: float
    is_flipped: bool


@dataclass(frozen=True)
class VerifiedPrediction:
    """A prediction with its removals, and what happened in one sentence; `prediction` is a class or an output."""

    example: ExampleReference
    prediction: int
    sentence: str
    removals: tuple[VerifiedRemoval, ...]


@dataclass(frozen=True, kw_only=True)
class VerifiedPredictions(Finding):
    """Explanations checked by training again; only in audits with `verify=`.

    `count` is the number of predictions, `share` that of those which flip without their proponents (NaN of numbers).
    `num_above_random` of `num_compared` predictions lose more without their proponents than without random examples.
    The severity follows that: "fine" where it is more than chance gives (a half; one-sided sign test, 5 %), "look"
    where it is at most a half, "cannot tell" in between.
    `rank_correlation` is Spearman's of predicted and actual changes, from `low` to `high` with 95 % confidence: NaN of
    fewer than 5 predictions. `agreement` is the share of these predictions that the model trained again on everything
    shares with the model that is explained, None of numbers; `difference` their mean difference in the probability (in
    the number).
    """

    name: ClassVar[str] = "verified-predictions"
    retrained: str
    num_above_random: int
    num_compared: int
    rank_correlation: float
    low: float
    high: float
    agreement: float | None
    difference: float
    is_probability: bool
    predictions: tuple[VerifiedPrediction, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                **example_columns(item.example, name_of),
                "predicted_label": name_of(item.prediction),
                "group": own.group,
                "removed": list(own.removed),
                "predicted": own.predicted,
                "actual": own.actual,
                "before": own.before,
                "after": own.after,
                "flipped": own.is_flipped,
            }
            for item in self.predictions
            for own in item.removals
        ]
