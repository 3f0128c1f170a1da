"""The picture of a row of a table between its proponents and opponents: a bar for every column's relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deel_dualview.plots.fonts import drawn
from deel_dualview.plots.formatting import agree, brief, name_column, name_value, signed, span_of
from deel_dualview.plots.panels import INK, LINE, MUTED, WARNING, Panel, Sides, both_sides, equally_strong

_THICKNESS = 0.36
# Inches that a note in one line needs.
_WIDTH_OF_A_NOTE = 4.2


def draw(found: Sides, column_names: Sequence[str], num_columns: int, colours: Colormap) -> Figure:
    """Draw a panel of bars for each pair: the columns that carry most over all pairs, with their values.

    Opponents are at the left, proponents at the right, the strongest nearest the middle. Of the two bars of a column
    the upper, full one is its relevance in the training row, the lower, pale one that in the evaluated row. Beside a
    column's name stands its value in the evaluated row, in a panel that in the training row, bold where they agree.

    Args:
        found: the evaluated row, its proponents and opponents.
        column_names: numbers stand for those that it does not have.
        num_columns: at most how many are drawn.
        colours: of relevance from negative to positive.
    """
    names = [drawn(name_column(place, column_names)) for place in range(len(found.inputs))]
    panels = [*reversed(found.opponents), *found.proponents]
    strength = np.abs(both_sides(panels))
    shown = np.argsort(-strength.sum(axis=0), kind="stable")[:num_columns]
    limit = float(np.nan_to_num(strength[:, shown]).max()) or 1.0
    width, height = 1.9 + 1.6 * len(panels), 1.85 + 0.31 * len(shown)
    figure = Figure(figsize=(width, height))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(
        left=1.75 / width, right=1 - 0.15 / width, top=1 - 1.15 / height, bottom=0.62 / height, wspace=0.08
    )
    spans = [span_of(values) for values in zip(found.inputs, *(row.inputs for row in panels), strict=True)]
    for axes, row in zip(all_axes, panels, strict=True):
        agrees = list(map(agree, row.inputs, found.inputs, spans))
        _bars(axes, row, shown, (colours(0.86), colours(0.14)), agrees)
        # The training row's values stand at the right of the bars.
        axes.set_xlim(-1.06 * limit, 1.75 * limit)
        ticks = axes.set_xticks([-limit, limit], [brief(-limit), brief(limit)])
        for tick, side in zip(ticks, ("left", "right"), strict=True):
            tick.label1.set_horizontalalignment(side)
        axes.tick_params(axis="x", labelsize=6.5, labelcolor=MUTED, length=0)
        axes.set_title(
            f"{signed(row.value)}\n{row.label}\n#{row.position}", fontsize=8, color=INK, linespacing=1.35
        )
    labels = [f"{names[place]} = {drawn(name_value(found.inputs[place]))}" for place in shown]
    all_axes[0].set_yticks(range(len(shown)), labels, fontsize=8, color=INK)
    all_axes[0].invert_yaxis()
    _explain(figure, found, len(names) - len(shown))
    _head(
        figure,
        all_axes[: len(found.opponents)],
        f"Opponents speak against it{equally_strong(found.opponents)}",
    )
    _head(
        figure, all_axes[len(found.opponents) :], f"Proponents support it{equally_strong(found.proponents)}"
    )
    return figure


def _bars(
    axes: Axes, row: Panel, shown: np.ndarray, colours: Sequence[tuple[float, ...]], agrees: Sequence[bool]
) -> None:
    """Draw the two bars of every column, in colours of positive and of negative relevance."""
    for relevance, shift, alpha in ((row.train_relevance, -1, 1.0), (row.test_relevance, 1, 0.45)):
        own = np.nan_to_num(relevance[shown])
        places = np.arange(len(shown)) + shift * _THICKNESS / 2
        chosen = [colours[0] if value >= 0 else colours[1] for value in own]
        axes.barh(places, own, height=_THICKNESS, color=chosen, alpha=alpha, linewidth=0)
    axes.axvline(0, color=LINE, linewidth=0.8)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    for place, column in enumerate(shown):
        axes.text(
            0.985, place, drawn(name_value(row.inputs[column])), transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=6.5, color=INK if agrees[column] else MUTED,
            fontweight="bold" if agrees[column] else "normal",
        )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    for name, spine in axes.spines.items():
        spine.set(visible=name == "bottom", color=LINE)


def _explain(figure: Figure, found: Sides, num_hidden: int) -> None:
    """Write what is explained, and what the bars are."""
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.25 / height, "Explained as", fontsize=8, color=MUTED, va="center")
    figure.text(
        0.1 / width, 1 - 0.43 / height, found.name, fontsize=9.5, color=INK, fontweight="bold", va="center"
    )
    sides = [
        Patch(color=MUTED, label="in the training row"),
        Patch(color=MUTED, alpha=0.45, label="in the evaluated row"),
    ]
    legend = figure.legend(
        handles=sides, loc="lower left", bbox_to_anchor=(0.1 / width, 0.0), ncols=2, frameon=False, fontsize=7,
        handlelength=1.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_color(MUTED)
    note = found.note if width > _WIDTH_OF_A_NOTE else found.note.replace(", ", ",\n")
    figure.text(0.1 / width, 0.33 / height, note, fontsize=6.2, color=WARNING, va="center", linespacing=1)
    if num_hidden:
        note = f"and {num_hidden:,} more columns"
        figure.text(1.69 / width, 0.5 / height, note, fontsize=7, color=MUTED, ha="right", va="center")


def _head(figure: Figure, group: Sequence[Axes], text: str) -> None:
    """Write over the panels of one side which they are."""
    if not len(group):
        return
    low, high = group[0].get_position().x0 + 0.004, group[-1].get_position().x1 - 0.004
    height = 1 - 0.36 / figure.get_figheight()
    words = text if len(group) > 1 else text.partition(" ")[0]
    figure.text(
        (low + high) / 2, height + 0.1 / figure.get_figheight(), words, fontsize=9, color=INK, ha="center"
    )
    figure.add_artist(
        Line2D([low, high], [height, height], color=LINE, linewidth=0.8, transform=figure.transFigure)
    )
