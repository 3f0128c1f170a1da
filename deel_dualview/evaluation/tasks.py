"""The shape of a question to a method, and of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from deel_dualview.evaluation.method_run import Trial
from deel_dualview.metrics.base import Metric

Kind = Literal["normal", "superclass", "poisoned", "marked", "converged"]
"""On which model: trained as usual, on pairs of classes, on wrong labels, on marked images, or as usual with the last
layer trained on to its optimum."""


class Answer(NamedTuple):
    """What was measured: by metric its value, num_examples, interval and further figures; and curves by name."""

    metrics: dict[str, dict[str, Any]]
    details: dict[str, Any]


class Measure(NamedTuple):
    """A metric as tables tell of it.

    Attributes:
        title: the heading of its column.
        better: which values are better; None where neither is.
        meaning: in a few words.
        is_ranked: whether it counts for the average rank of a method: one metric for each question.
    """

    title: str
    better: Literal["higher", "lower"] | None
    meaning: str
    is_ranked: bool = False


@dataclass(frozen=True)
class Protocol:
    """One question to a method.

    Attributes:
        kind: of the model that is asked about.
        measures: what it measures, by name.
        ask: from a trial to the answer.
        retrains: whether it trains models for each method, which takes long.
        settings: numbers that the answer depends on.
    """

    kind: Kind
    measures: Mapping[str, Measure]
    ask: Callable[[Trial], Answer]
    retrains: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)


def told(metric: Metric, **more: float | None) -> dict[str, Any]:
    """Return a metric's result as a cell keeps it."""
    result = metric.result()
    return {**result._asdict(), "interval": list(result.interval), **more}
