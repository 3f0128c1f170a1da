"""Comparison: what `compare` returns, as data, as text, and as a page."""

from __future__ import annotations

import html
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from markupsafe import Markup

from deel_dualview import plots
from deel_dualview.plots.comparison import plot_agreement, plot_costs
from deel_dualview.plots.formatting import format_bytes, format_seconds, visible
from deel_dualview.report.findings import ExampleReference, Influence
from deel_dualview.report.html import make_environment, percent, read_style
from deel_dualview.report.output_words import OutputWords
from deel_dualview.report.overview import Setting
from deel_dualview.report.rendering import ExampleRenderer
from deel_dualview.report.writing import check_output_directory, to_json, write_json, write_report, write_text

SCHEMA_VERSION = 1
COMPARISON_FILES = ("index.html", "compare.json")
_WIDEST = 80
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ComparedMethod:
    """A method, what its values are, and its cost.

    `setup_seconds` is the time until it has answered a first batch of queries, `seconds_per_query` that for
    the influence of all n training examples on one more prediction (both without the network's pass for the features,
    which methods in the last layer share), `stored_bytes` what is kept of the training set
    in the store (not what the method needs beside: weights, inverse Hessians, what is in work).
    """

    name: str
    title: str
    value: str
    calculator: str
    setup_seconds: float
    seconds_per_query: float
    stored_bytes: int = 0


@dataclass(frozen=True)
class ComparedPrediction:
    """A prediction with the strongest proponents by each method, in the order of the methods.

    Of a model that is no classifier `prediction` is the explained output, and `confidence` the predicted number, or the
    probability of the label.
    `rank_correlation` is the mean over all pairs of methods.
    """

    example: ExampleReference
    prediction: int
    confidence: float
    rank_correlation: float
    proponents: tuple[tuple[Influence, ...], ...]


@dataclass(frozen=True, repr=False)
class Comparison:
    """How far methods agree on the same predictions, and what they cost.

    Args:
        model_name: of the Keras model.
        model_fingerprint: of its weights.
        feature_layer: where its features are taken.
        num_train: number of training examples n.
        num_queries: number of explained predictions m.
        k: how many proponents were compared.
        class_names: of the c classes.
        methods: the a methods, in the order of rows and columns.
        rank_correlation: Spearman's rank correlation of the n influence values of a prediction, mean over the
            predictions, a x a; NaN where a method gives all training examples the same value.
        top_k_overlap: share of the k strongest proponents of a prediction that two methods have in common, mean
            over the predictions, a x a.
        predictions: those on which the methods agree least.
        versions: of the package and what it stands on.
        seconds: of the whole comparison.
        peak_memory_bytes: peak resident memory of the process, None where unknown.
        added_memory_bytes: by how much the comparison raised it.
        created: date and time.
        shown: contents of the examples that the page shows, by split and index.
    """

    model_name: str
    model_fingerprint: str
    feature_layer: str
    num_train: int
    num_queries: int
    k: int
    class_names: tuple[str, ...]
    methods: tuple[ComparedMethod, ...]
    rank_correlation: Matrix
    top_k_overlap: Matrix
    predictions: tuple[ComparedPrediction, ...]
    versions: tuple[Setting, ...]
    seconds: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    created: str
    shown: Mapping[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(method.name for method in self.methods)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the examples' contents, as JSON holds it."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "shown"}
        return {"schema_version": SCHEMA_VERSION} | to_json(own)

    def to_json(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write everything but the examples' contents as JSON, over an earlier file; return the path."""
        write_json(pathlib.Path(path), self.to_dict())
        return pathlib.Path(path)

    def to_html(
        self, directory: str | os.PathLike[str], overwrite: bool = False, *, title: str | None = None
    ) -> pathlib.Path:
        """Write `index.html`, which needs no other file, and `compare.json` into a new directory, both or none.

        Args:
            directory: created, parents included.
            overwrite: replace an earlier comparison; a directory with any other file in it is never touched.
            title: what the page is called; by the name of the model where there is none.

        Returns:
            The path of `index.html`.

        Raises:
            FileExistsError: the directory exists and `overwrite` is off, or it is not an earlier comparison.
            NotADirectoryError: a file has that name.
        """
        path = check_output_directory(directory, overwrite=overwrite, names=COMPARISON_FILES)
        page = render_comparison(self, title=title)
        write_report(
            path,
            {
                "index.html": lambda file: write_text(file, page),
                "compare.json": lambda file: write_json(file, self.to_dict()),
            },
        )
        return path / "index.html"

    def __str__(self) -> str:
        title = f"Mean rank correlation of influence values over {self.num_queries:,} predictions"
        correlations = [[_number(value, ".2f") for value in row] for row in self.rank_correlation]
        overlaps = [[_number(value, ".0%") for value in row] for row in self.top_k_overlap]
        costs = [
            [
                format_seconds(method.setup_seconds),
                format_seconds(method.seconds_per_query),
                format_bytes(method.stored_bytes),
            ]
            for method in self.methods
        ]
        rows, columns = self._labels()
        return "\n\n".join(
            [
                _table(title, rows, columns, correlations),
                _table(f"Share of the {self.k} strongest proponents in common", rows, columns, overlaps),
                _table("Cost", self.names, ("set-up", "a query", "kept"), costs),
            ]
        )

    def _labels(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return names for rows and columns; of many methods columns are named by their numbers."""
        if sum(len(name) + 2 for name in self.names) <= _WIDEST:
            return self.names, self.names
        numbers = [str(number) for number in range(1, len(self.names) + 1)]
        return [f"{number:>2} {name}" for number, name in zip(numbers, self.names, strict=True)], numbers

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.names)} on {self.num_queries} predictions of {visible(self.model_name)}"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True, repr=False, kw_only=True)
class OutputComparison(Comparison):
    """The same of a model that is no classifier; `class_names` are names of its outputs."""

    outputs: OutputWords


def _number(value: float, form: str) -> str:
    """Return a number as text; a dash where no prediction has one."""
    return "–" if math.isnan(value) else format(value, form)


def _table(title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table of text; columns are as wide as they need to be."""
    rows, columns = [visible(name) for name in rows], [visible(name) for name in columns]
    first = max(map(len, rows))
    widths = [max(len(name), *(len(row[index]) for row in cells)) for index, name in enumerate(columns)]
    lines = [" " * first + "".join(f"  {name:>{width}}" for name, width in zip(columns, widths, strict=True))]
    for name, row in zip(rows, cells, strict=True):
        values = "".join(f"  {cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{name:<{first}}{values}")
    return "\n".join([title, *lines])


def render_comparison(comparison: Comparison, *, title: str | None = None) -> str:
    """Return the page of a comparison; it runs no script and loads nothing."""
    renderer = ExampleRenderer(comparison.shown.values())
    views = {key: renderer.render(example) for key, example in comparison.shown.items()}
    outputs = comparison.outputs if isinstance(comparison, OutputComparison) else None
    environment = make_environment(comparison.class_names, views, outputs=outputs)
    environment.filters["duration"] = format_seconds
    environment.filters["size"] = format_bytes
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        title=title,
        tiles=_tiles(comparison),
        style=read_style(),
        drawings=_draw(comparison),
        created=comparison.created,
    )


def _tiles(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return what the page says first: where it is shown, a word, a number and a sentence."""
    names, matrix = comparison.names, np.array(comparison.rank_correlation)
    rows, columns = np.triu_indices(len(names), 1)
    values = matrix[rows, columns]
    tiles = []
    if np.isfinite(values).any():
        for word, position in (("most alike", np.nanargmax(values)), ("least alike", np.nanargmin(values))):
            pair = f"{names[rows[position]]} and {names[columns[position]]}"
            number = f"{values[position]:.2f}".replace("-", "\u2212")
            tiles.append(("agreement", word, number, f"rank correlation of {pair}"))
    overlaps = np.array(comparison.top_k_overlap)[rows, columns]
    if np.isfinite(overlaps).any():
        share = percent(float(np.nanmean(overlaps)))
        sentence = f"of the {comparison.k} strongest proponents are shared by two methods, on average"
        tiles.append(("agreement", "overlap", share, sentence))
    soonest = min(comparison.methods, key=lambda method: method.setup_seconds)
    fastest = min(comparison.methods, key=lambda method: method.seconds_per_query)
    return [
        *tiles,
        ("cost", "ready first", format_seconds(soonest.setup_seconds), f"set-up of {soonest.name}"),
        ("cost", "fastest answer", format_seconds(fastest.seconds_per_query), f"a query by {fastest.name}"),
    ]


def _draw(comparison: Comparison) -> dict[str, Markup]:
    figures = {
        "correlation": plot_agreement(comparison.names, comparison.rank_correlation),
        "overlap": plot_agreement(comparison.names, comparison.top_k_overlap, as_percent=True),
        "cost": plot_costs(
            comparison.names,
            {
                "Set-up": [method.setup_seconds for method in comparison.methods],
                "A query": [method.seconds_per_query for method in comparison.methods],
            },
            write=format_seconds,
        ),
    }
    return {name: Markup(plots.to_inline_svg(figure, name)) for name, figure in figures.items()}
