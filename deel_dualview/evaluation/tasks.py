"""An evaluation task, and the result of a method on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from deel_dualview.evaluation.method_run import MethodRun
from deel_dualview.metrics.base import Metric

Kind = Literal["normal", "superclass", "poisoned", "marked", "converged", "recorded"]
"""On which model: trained as usual, on pairs of classes, on wrong labels, on marked images, as usual with the last
layer trained on to its optimum, or by a recorded training that can be repeated."""


class TaskResult(NamedTuple):
    """Measured values: by metric its value, num_examples, interval and further figures; and curves by name."""

    metrics: dict[str, dict[str, Any]]
    details: dict[str, Any]


class Measure(NamedTuple):
    """A metric as tables describe it.

    Attributes:
        title: the heading of its column.
        better: which values are better; None where neither is.
        meaning: in a few words.
        is_ranked: whether it counts for the average rank of a method: one metric for each task.
    """

    title: str
    better: Literal["higher", "lower"] | None
    meaning: str
    is_ranked: bool = False


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        kind: of the model that is explained.
        measures: its metrics, by name.
        run: from a method's run to the result.
        retrains: whether it trains models for each method, which takes long.
        settings: numbers that the result depends on.
    """

    kind: Kind
    measures: Mapping[str, Measure]
    run: Callable[[MethodRun], TaskResult]
    retrains: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)


def record(metric: Metric, **more: float | None) -> dict[str, Any]:
    """Return a metric's result as it is written."""
    result = metric.result()
    return {**result._asdict(), "interval": list(result.interval), **more}
