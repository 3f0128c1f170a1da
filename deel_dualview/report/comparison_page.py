"""A comparison of methods as one self-contained HTML page, in the style of an audit's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from deel_dualview import comparison_plots, plots
from deel_dualview.report.html import make_environment, percent, read_style
from deel_dualview.report.overview import format_bytes, format_seconds
from deel_dualview.report.rendering import ExampleRenderer

if TYPE_CHECKING:
    from deel_dualview.report.comparison import Comparison


def render_comparison(comparison: Comparison) -> str:
    """Return the page of a comparison; it runs no script and loads nothing."""
    renderer = ExampleRenderer(comparison.shown.values())
    views = {key: renderer.render(example) for key, example in comparison.shown.items()}
    environment = make_environment(comparison.class_names, views)
    environment.filters["duration"] = format_seconds
    environment.filters["size"] = format_bytes
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        tiles=_tiles(comparison),
        style=read_style(),
        drawings=_draw(comparison),
        created=comparison.created,
    )


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return what the page says first: where it is shown, a word and a sentence."""
    names, matrix = comparison.names, np.array(comparison.rank_correlation)
    rows, columns = np.triu_indices(len(names), 1)
    values = matrix[rows, columns]
    tiles = []
    if np.isfinite(values).any():
        for word, position in (("most alike", np.nanargmax(values)), ("least alike", np.nanargmin(values))):
            pair = f"{names[rows[position]]} and {names[columns[position]]}"
            tiles.append(("agreement", word, f"{pair}: rank correlation {values[position]:.2f}"))
    overlaps = np.array(comparison.top_k_overlap)[rows, columns]
    if np.isfinite(overlaps).any():
        share = percent(float(np.nanmean(overlaps)))
        sentence = f"Two methods share {share} of the {comparison.k} strongest proponents on average"
        tiles.append(("agreement", "overlap", sentence))
    soonest = min(comparison.methods, key=lambda method: method.setup_seconds)
    fastest = min(comparison.methods, key=lambda method: method.seconds_per_query)
    ready, answer = (format_seconds(value) for value in (soonest.setup_seconds, fastest.seconds_per_query))
    cost = f"{soonest.name} is ready first, in {ready}; {fastest.name} answers fastest, in {answer}"
    if soonest is fastest:
        cost = f"{soonest.name} is ready first, in {ready}, and answers fastest, in {answer}"
    return [*tiles, ("cost", "cheapest", cost)]


def _draw(comparison: Comparison) -> dict[str, Markup]:
    figures = {
        "correlation": comparison_plots.plot_agreement(comparison.names, comparison.rank_correlation),
        "overlap": comparison_plots.plot_agreement(
            comparison.names, comparison.top_k_overlap, as_percent=True
        ),
        "cost": comparison_plots.plot_costs(
            comparison.names,
            {
                "Set-up": [method.setup_seconds for method in comparison.methods],
                "A query": [method.seconds_per_query for method in comparison.methods],
            },
            write=format_seconds,
        ),
    }
    return {name: Markup(plots.to_inline_svg(figure, name)) for name, figure in figures.items()}
