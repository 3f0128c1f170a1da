"""Results of a benchmark put together: means over seeds, ranks, costs, and a table in Markdown."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.stats

from deel_dualview.calculators.methods import METHODS
from deel_dualview.evaluation.attribution_tasks import TASKS
from deel_dualview.evaluation.results import Result
from deel_dualview.evaluation.tasks import Measure
from deel_dualview.plots.formatting import format_seconds

MEASURES: Mapping[str, Measure] = {
    name: measure for protocol in TASKS.values() for name, measure in protocol.measures.items()
}
"""Every metric of a benchmark by its name."""
REFERENCES: Mapping[str, str] = {
    "ceiling": "ceiling",
    "at_random": "random examples",
    "most_similar": "most similar examples",
}
"""What a metric is compared with, by its name in a result, and as tables call it: what a perfect method would reach,
and what random or the most similar training examples do in the place of those that a method names."""


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds.

    Attributes:
        value: mean over the seeds.
        low: least of the seeds; of one seed, the lower end of its bootstrap interval, or NaN.
        high: greatest of the seeds, or the upper end.
        num_seeds: how many.
    """

    value: float
    low: float
    high: float
    num_seeds: int

    def __str__(self) -> str:
        text = f"{self.value:.3f}"
        return text if np.isnan(self.low) else f"{text} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Benchmark:
    """All results of one dataset and number of test examples.

    Attributes:
        data: name of the dataset.
        num_test: test examples that most questions took.
        cells: the results, errors among them.
        folder: where they lie.
    """

    data: str
    num_test: int
    cells: tuple[Result, ...]
    folder: pathlib.Path

    @property
    def failed(self) -> list[Result]:
        """Results that are errors."""
        return [cell for cell in self.cells if cell.error is not None]

    @cached_property
    def methods(self) -> list[str]:
        """Names of the methods: in the order of `METHODS`, your own after them, random numbers last."""
        places = {name: place for place, name in enumerate(METHODS)} | {"random": len(METHODS) + 1}
        names = {cell.identity.method for cell in self.cells}
        return sorted(names, key=lambda name: (places.get(name.partition("?")[0], len(METHODS)), name))

    @cached_property
    def measures(self) -> list[str]:
        """Names of the metrics that any result has, in the order of `MEASURES`."""
        found = {name for cell in self.cells for name in cell.metrics}
        return [name for name in MEASURES if name in found]

    @property
    def seeds(self) -> list[int]:
        """The seeds of any result."""
        return sorted({cell.identity.seed for cell in self.cells})

    @cached_property
    def summaries(self) -> dict[tuple[str, str], Summary]:
        """Every metric over the seeds, by (method, metric)."""
        found: dict[tuple[str, str], list[Mapping[str, object]]] = {}
        for cell in self.cells:
            for name, measured in cell.metrics.items():
                found.setdefault((cell.identity.method, name), []).append(measured)
        return {key: _summary(results) for key, results in found.items()}

    def is_failed(self, method: str, measure: str) -> bool:
        """Whether a method has an error where the metric should be."""
        return any(
            cell.identity.method == method and measure in TASKS[cell.identity.protocol].measures
            for cell in self.failed
        )

    def best(self, measure: str) -> set[str]:
        """Return the methods of the best mean, to three digits."""
        better = MEASURES[measure].better
        means = {
            method: round(self.summaries[method, measure].value, 3)
            for method in self.methods
            if (method, measure) in self.summaries
        }
        if better is None or not means:
            return set()
        first = max(means.values()) if better == "higher" else min(means.values())
        return {method for method, mean in means.items() if mean == first}

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """What metrics are compared with, by the names of `REFERENCES`: by metric the mean over all results."""
        found: dict[str, dict[str, list[float]]] = {}
        for cell in self.cells:
            for measure, measured in cell.metrics.items():
                for name in REFERENCES:
                    if measured.get(name) is not None:
                        found.setdefault(name, {}).setdefault(measure, []).append(float(measured[name]))
        means = {name: {key: float(np.mean(one)) for key, one in by.items()} for name, by in found.items()}
        return {name: means[name] for name in REFERENCES if name in means}

    @cached_property
    def ranked_measures(self) -> list[str]:
        """The metrics whose ranks are averaged: those that all methods, and more than one, were asked about."""
        return [
            name
            for name in self.measures
            if MEASURES[name].is_ranked
            and len(self._measured_methods) > 1
            and all(
                (method, name) in self.summaries or self.is_failed(method, name)
                for method in self._measured_methods
            )
        ]

    @cached_property
    def _measured_methods(self) -> list[str]:
        """The methods with a result: one that only failed, by a typo in a setting for instance, has no rank."""
        measured = {method for method, _ in self.summaries}
        return [method for method in self.methods if method in measured]

    @cached_property
    def average_ranks(self) -> dict[str, float]:
        """Mean over the metrics of the rank of each method, from 1; equal means share their rank.

        A method that failed at some of them shares the last ranks there.
        """
        ranks = []
        for name in self.ranked_measures:
            sign = -1.0 if MEASURES[name].better == "higher" else 1.0
            means = [
                sign * round(self.summaries[method, name].value, 3)
                if (method, name) in self.summaries
                else np.inf
                for method in self._measured_methods
            ]
            ranks.append(scipy.stats.rankdata(means))
        if not ranks:
            return {}
        return dict(zip(self._measured_methods, map(float, np.mean(ranks, axis=0)), strict=True))

    def cost(self, method: str, name: str) -> float | None:
        """Return the mean of a cost over the seeds: of the question on the normal model, or of another."""
        by_protocol: dict[str, list[float]] = {}
        for cell in self.cells:
            value = cell.cost.get(name)
            if cell.identity.method == method and value is not None:
                by_protocol.setdefault(cell.identity.protocol, []).append(float(value))
        found = next((by_protocol[protocol] for protocol in TASKS if protocol in by_protocol), None)
        return None if found is None else float(np.mean(found))

    def run_seconds(self, method: str) -> float | None:
        """Return the seconds of the set-up and of explaining `num_test` test examples."""
        setup, query = (self.cost(method, name) for name in ("setup_seconds", "seconds_per_query"))
        return None if setup is None or query is None else setup + query * self.num_test

    def mean_curve(self, method: str, measure: str) -> dict[str, np.ndarray] | None:
        """Return a detection curve and its parallelogram, mean over the seeds, or None."""
        curves = [
            cell.details["curves"][measure]
            for cell in self.cells
            if cell.identity.method == method and measure in cell.details.get("curves", {})
        ]
        if not curves:
            return None
        return {name: np.mean([curve[name] for curve in curves], axis=0) for name in curves[0]}

    def to_markdown(self) -> str:
        """Return the table, with what its columns are below it."""
        heads = [MEASURES[name].title for name in self.measures]
        rows = [["Method", *heads, "Rank", "Set-up", "A query", "Memory"]]
        rows += [[f"`{method}`", *self._texts(method)] for method in self.methods]
        rows += [
            [f"*{REFERENCES[name]}*", *_reference_texts(values, self.measures), "", "", "", ""]
            for name, values in self.references.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([*self._heading(), *lines, "", *self._legend(), ""])

    def to_text(self) -> str:
        """Return the means of the metrics that are ranked and the costs, for a terminal."""
        heads = [MEASURES[name].title for name in self.ranked_measures or self.measures]
        rows = [[*head.rsplit(" ", 1)] for head in ("Method", *heads, "Rank", "Set-up", "A query")]
        cells = [[" "] + row if len(row) == 1 else row for row in rows]
        lines = [[cell[0] for cell in cells], [cell[1] for cell in cells]]
        lines += [[method, *self._short_texts(method)] for method in self.methods]
        shown = self.ranked_measures or self.measures
        lines += [
            [f"({REFERENCES[name]})", *_reference_texts(values, shown), "", "", ""]
            for name, values in self.references.items()
            if values.keys() & set(shown)
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(cells))]
        return "\n".join(
            "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _short_texts(self, method: str) -> list[str]:
        names = self.ranked_measures or self.measures
        found = [self.summaries.get((method, name)) for name in names]
        rank = self.average_ranks.get(method)
        return [
            *(
                self._missing(method, name) if summary is None else f"{summary.value:.3f}"
                for name, summary in zip(names, found, strict=True)
            ),
            "–" if rank is None else f"{rank:.2f}",
            *self._seconds(method),
        ]

    def _missing(self, method: str, name: str) -> str:
        return "failed" if self.is_failed(method, name) else "–"

    def _seconds(self, method: str) -> list[str]:
        query = self.cost(method, "seconds_per_query")
        # Some questions take all values, and no list of the strongest.
        query = self.cost(method, "seconds_per_row_of_values") if query is None else query
        seconds = [self.cost(method, "setup_seconds"), query]
        return ["–" if value is None else format_seconds(value) for value in seconds]

    def _texts(self, method: str) -> list[str]:
        texts = []
        for name in self.measures:
            summary = self.summaries.get((method, name))
            text = self._missing(method, name) if summary is None else str(summary)
            texts.append(f"**{text}**" if method in self.best(name) else text)
        rank = self.average_ranks.get(method)
        memory = self.cost(method, "additional_memory_bytes")
        return [
            *texts,
            "–" if rank is None else f"{rank:.2f}",
            *self._seconds(method),
            "–" if memory is None else f"{memory / 2**20:,.0f} MiB",
        ]

    def _heading(self) -> list[str]:
        seeds = ", ".join(map(str, self.seeds))
        return [
            f"# {self.data}",
            "",
            f"{self.num_test:,} test examples, seeds {seeds}. In brackets the least and the greatest of the seeds; of "
            "one seed the 95 % bootstrap interval. Bold: the best mean.",
            "",
        ]

    def _legend(self) -> list[str]:
        lines = [f"- **{MEASURES[name].title}**: {MEASURES[name].meaning}." for name in self.measures]
        ranked = ", ".join(MEASURES[name].title.lower() for name in self.ranked_measures)
        lines.append(f"- **Rank**: mean rank in {ranked or 'no metric'}.")
        lines += [
            f"- `{cell.identity.method}`, {cell.identity.protocol}, seed {cell.identity.seed} failed: "
            f"{(cell.error or {}).get('type')}: {(cell.error or {}).get('message')}"
            for cell in self.failed
        ]
        return lines

    def __str__(self) -> str:
        return self.to_text()


def _summary(results: Sequence[Mapping[str, object]]) -> Summary:
    values = [float(str(result["value"])) for result in results if result["value"] is not None]
    if len(values) > 1:
        return Summary(float(np.mean(values)), min(values), max(values), len(values))
    low, high = (float("nan") if end is None else float(end) for end in results[0]["interval"])  # type: ignore[attr-defined]
    return Summary(values[0] if values else float("nan"), low, high, len(values))


def _reference_texts(values: Mapping[str, float], measures: Sequence[str]) -> list[str]:
    return [f"{values[name]:.3f}" if name in values else "" for name in measures]


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)) + " |"
