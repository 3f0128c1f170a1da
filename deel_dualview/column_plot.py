"""The picture of pair relevance in tables: signed bars of columns, the training row beside the evaluated one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from deel_dualview.pair_panels import (
    INK,
    LINE,
    MUTED,
    Panel,
    Sides,
    heat_limit,
    name_column,
    plain,
    shorten,
    signed,
)


def draw(sides: Sides, names: Sequence[str], num_columns: int, colours: Colormap) -> Figure:
    """Draw one row of bars a pair, proponents first: the columns that carry most, with their values."""
    panels = [*sides.proponents, *sides.opponents]
    limit = heat_limit([side for panel in panels for side in (panel.train_relevance, panel.test_relevance)])
    num_columns = min(num_columns, len(sides.inputs))
    height = len(panels) * (0.19 * num_columns + 0.55) + 0.75
    figure = Figure(figsize=(8.4, height))
    figure.text(
        0.5, 1 - 0.24 / height, f"Explained as {sides.name}", ha="center", color=INK, fontsize=11,
        fontweight="bold",
    )  # fmt: skip
    grid = figure.add_gridspec(
        len(panels), 2, left=0.25, right=0.97, top=1 - 0.85 / height, bottom=0.35 / height,
        wspace=0.62, hspace=0.5 / (0.19 * num_columns + 0.05),
    )  # fmt: skip
    for row, panel in enumerate(panels):
        pair = [figure.add_subplot(grid[row, side]) for side in (0, 1)]
        _draw_pair(pair, panel, sides.inputs, names, num_columns, limit, colours)
        if row == len(panels) - 1:
            for axes in pair:
                axes.set_xticks([-limit, 0, limit], [signed(-limit, 2), "0", signed(limit, 2)])
    return figure


def _draw_pair(
    pair: Sequence[Axes],
    panel: Panel,
    test: np.ndarray,
    names: Sequence[str],
    num_columns: int,
    limit: float,
    colours: Colormap,
) -> None:
    strength = np.abs(panel.train_relevance) + np.abs(panel.test_relevance)
    order = np.argsort(-strength, kind="stable")[:num_columns]
    title = f"{signed(panel.value)}   {panel.label}  ·  #{panel.position}"
    for axes, relevance, row, text, colour in (
        (pair[0], panel.train_relevance, panel.inputs, title, INK),
        (pair[1], panel.test_relevance, test, "in the test row, in view of it", MUTED),
    ):
        labels = [f"{plain(shorten(name_column(int(index), names)))} = {row[index]:.3g}" for index in order]
        _bars(axes, np.asarray(relevance)[order], labels, limit, colours)
        axes.set_title(text, loc="left", fontsize=9, color=colour, pad=5)


def _bars(axes: Axes, values: np.ndarray, labels: Sequence[str], limit: float, colours: Colormap) -> None:
    shades = [colours(0.82 if value >= 0 else 0.18) for value in values]
    axes.barh(range(len(values)), np.clip(values, -limit, limit), color=shades, height=0.68)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-1.04 * limit, 1.04 * limit)
    axes.set_xticks([])
    axes.set_yticks(range(len(values)), labels, fontsize=7.5, color=INK)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK)
    axes.grid(visible=False)
    axes.invert_yaxis()
    for name, spine in axes.spines.items():
        spine.set(visible=name == "bottom", color=LINE)
