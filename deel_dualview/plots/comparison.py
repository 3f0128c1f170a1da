"""How far methods agree and what they cost: functions of arrays to matplotlib figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deel_dualview.plots import audit
from deel_dualview.plots.formatting import plain, shorten

_STRONGEST = 0.45
_MOST_DECADES = 4


def plot_agreement(
    names: Sequence[str], matrix: Sequence[Sequence[float]], *, as_percent: bool = False
) -> Figure:
    """Draw a matrix of agreements, -1 to 1, as coloured squares with their numbers.

    Args:
        names: of rows and columns.
        matrix: values, a x a; NaN leaves its square empty.
        as_percent: write 0.5 as 50%.
    """
    num = len(names)
    size = max(2.6, 1.4 + 0.52 * num)
    figure = Figure(figsize=(size + 0.4, size), layout="constrained")
    axes = figure.subplots()
    audit.prepare_axes(axes)
    axes.grid(visible=False)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            colour = audit.BLUE if value >= 0 else audit.VERMILLION
            # Pale enough for numbers in the colour of the text, in light and in dark.
            strength = 0.0 if np.isnan(value) else min(abs(value), 1.0) * _STRONGEST
            square = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=strength)
            axes.add_patch(square)
            text = "–" if np.isnan(value) else f"{value:.0%}" if as_percent else f"{value:.2f}"
            text = text.replace("-", "\u2212")
            axes.text(column, row, text, ha="center", va="center", color=audit.INK, fontsize=9)
    labels = [plain(shorten(name)) for name in names]
    axes.set_xticks(range(num), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(num), labels)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, num - 0.5)
    axes.set_ylim(num - 0.5, -0.5)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def plot_costs(
    names: Sequence[str], costs: Mapping[str, Sequence[float]], *, write: Callable[[float], str]
) -> Figure:
    """Draw, for each method, two costs side by side, as points on logarithmic axes of whole decades.

    Args:
        names: of the methods.
        costs: two kinds of cost by their titles, one positive number a method.
        write: how a number is written at its point and on the axis.
    """
    figure = Figure(figsize=(6.4, 1.0 + 0.28 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    positions = np.arange(len(names))
    for axes, colour, (label, values) in zip(
        (left, right), (audit.BLUE, audit.VERMILLION), costs.items(), strict=True
    ):
        audit.prepare_axes(axes)
        axes.grid(visible=False)
        _set_decades(axes, values, write)
        # Points: the length of a bar means nothing where there is no zero.
        axes.plot(values, positions, "o", color=colour, markersize=7, clip_on=False)
        for value, position in zip(values, positions, strict=True):
            axes.annotate(
                write(value),
                (value, position),
                (7, 0),
                textcoords="offset points",
                va="center",
                color=audit.INK,
            )
        axes.set_title(f"{label} (logarithmic)", loc="left", fontsize=10, color=audit.INK)
        axes.tick_params(axis="y", length=0)
    left.set_yticks(positions, [plain(shorten(name)) for name in names])
    left.set_ylim(len(names) - 0.5, -0.5)
    return figure


def _set_decades(axes: Axes, values: Sequence[float], write: Callable[[float], str]) -> None:
    """Give the x-axis whole decades with lines at each, few of them named, and room for a text on the right."""
    first, last = int(np.floor(np.log10(min(values)))), int(np.ceil(np.log10(max(values))))
    last = max(last, first + 1)
    axes.set_xscale("log")
    axes.set_xlim(10.0**first, 10.0 ** (last + 0.25 * (last - first)))
    step = -(-(last - first) // _MOST_DECADES)
    ticks = [10.0**exponent for exponent in range(first, last + 1, step)]
    axes.set_xticks(ticks, [write(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.grid(visible=True, axis="x", linewidth=0.6, alpha=0.5)
