"""How far methods agree and what they cost: functions of arrays to matplotlib figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deel_dualview import plots

_STRONGEST = 0.45


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
    plots.prepare_axes(axes)
    axes.grid(visible=False)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            colour = plots.BLUE if value >= 0 else plots.VERMILLION
            # Pale enough for numbers in the colour of the text, in light and in dark.
            strength = 0.0 if np.isnan(value) else min(abs(value), 1.0) * _STRONGEST
            square = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=strength)
            axes.add_patch(square)
            text = "–" if np.isnan(value) else f"{value:.0%}" if as_percent else f"{value:.2f}"
            text = text.replace("-", "\u2212")
            axes.text(column, row, text, ha="center", va="center", color=plots.INK, fontsize=9)
    labels = [plots.plain(plots.shorten(name)) for name in names]
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
    """Draw, for each method, bars of two costs, side by side, by their logarithms.

    Args:
        names: of the methods.
        costs: two kinds of cost by their titles, one positive number a method.
        write: how a number is written at its bar.
    """
    figure = Figure(figsize=(6.4, 0.7 + 0.28 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    positions = range(len(names))
    for axes, colour, (label, seconds) in zip(
        (left, right), (plots.BLUE, plots.VERMILLION), costs.items(), strict=True
    ):
        plots.prepare_axes(axes)
        axes.grid(visible=False)
        bars = axes.barh(positions, seconds, color=colour, height=0.62)
        axes.bar_label(bars, [write(value) for value in seconds], padding=4, color=plots.INK)
        axes.set_xscale("log")
        low, high = 0.5 * min(seconds), max(seconds)
        axes.set_xlim(low, high * (high / low) ** 0.4)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{label} (logarithmic)", loc="left", fontsize=10, color=plots.INK)
    left.set_yticks(positions, [plots.plain(plots.shorten(name)) for name in names])
    left.invert_yaxis()
    return figure
