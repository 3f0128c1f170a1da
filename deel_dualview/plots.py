"""Pictures of arrays as Matplotlib figures: no model, no dataset, no global state of pyplot."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's colours, told apart by readers of every colour vision.
BLUE, VERMILLION, GREY = "#0072b2", "#d55e00", "#808890"
_INK, _FAINT = "#1b1f24", "#d8dee4"
_STRONGEST = 0.45
_SVG_SETTINGS: Any = {"svg.fonttype": "none"}


def plot_slack(ranks: Sequence[int], slacks: Sequence[float], num_suspected: int) -> Figure:
    """Draw slack against rank, most suspect first, both as far as slack is positive.

    Args:
        ranks: ranks from 1, increasing.
        slacks: slack at each rank, decreasing.
        num_suspected: number of examples of slack above 1, which the drawing sets apart.
    """
    figure, axes = _figure()
    axes.plot(ranks, slacks, color=BLUE, linewidth=1.8)
    axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    inside = np.asarray(ranks) <= num_suspected
    axes.fill_between(ranks, slacks, 1, where=list(inside), color=VERMILLION, alpha=0.25, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(1, max(ranks[-1], 2) if len(ranks) else 2)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Examples looked at, most suspect first")
    axes.set_ylabel("Slack of the example")
    return figure


def plot_detection(inspected: Sequence[int], found: Mapping[str, Sequence[int]], *, num_known: int) -> Figure:
    """Draw how many known label errors are found among the first examples, by two orders.

    Args:
        inspected: numbers of examples looked at, increasing.
        found: how many of the known errors are among them, for each order by its name.
        num_known: number of known errors.
    """
    figure, axes = _figure()
    total = max(num_known, 1)
    styles: list[dict[str, Any]] = [
        {"color": BLUE, "linewidth": 2},
        {"color": VERMILLION, "linewidth": 1.6, "linestyle": (0, (5, 2))},
    ]
    for (name, counts), style in zip(found.items(), styles, strict=True):
        axes.plot(inspected, np.asarray(counts) / total, label=f"by {name}", **style)
    axes.plot([0, inspected[-1]], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="at random")
    axes.set_xlim(0, inspected[-1])
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Examples looked at")
    axes.set_ylabel("Known errors found")
    axes.legend(loc="lower right", frameon=False, labelcolor=_INK)
    return figure


def plot_path(
    scale_free_Ks: Sequence[float],
    sparsity: Sequence[float],
    agreement: Sequence[float],
    *,
    chosen: float | None = None,
) -> Figure:
    """Draw, over K E||f||^2, the share of support vectors and the agreement with the model.

    Args:
        scale_free_Ks: values of K times the mean squared norm, increasing.
        sparsity: share of training examples that are support vectors.
        agreement: share of test predictions on which surrogate and model agree.
        chosen: the value of the audit, marked if given.
    """
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for axes, values, colour, label in (
        (top, agreement, BLUE, "Agrees\nwith the model"),
        (bottom, sparsity, VERMILLION, "Support\nvectors"),
    ):
        _prepare(axes)
        axes.plot(scale_free_Ks, values, color=colour, linewidth=1.8, marker="o", markersize=4)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
        axes.set_ylabel(label)
        if chosen is not None:
            axes.axvline(chosen, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    bottom.set_xscale("log")
    bottom.set_ylim(bottom=0)
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bottom.set_xlabel("K × mean squared norm of the features")
    return figure


def plot_class_counts(names: Sequence[str], counts: Sequence[int], *, label: str) -> Figure:
    """Draw one horizontal bar per class (the 20 largest, if there are more), with its number."""
    order = np.argsort(-np.asarray(counts), kind="stable")[:20]
    order = order if len(counts) > 20 else np.arange(len(counts))
    figure = Figure(figsize=(5.6, 0.7 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    _prepare(axes)
    axes.grid(visible=False)
    bars = axes.barh(range(len(order)), [counts[index] for index in order], color=BLUE, height=0.66)
    axes.bar_label(bars, [f"{counts[index]:,}" for index in order], padding=4, color=_INK)
    axes.set_yticks(range(len(order)), [_plain(_shorten(names[index])) for index in order])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_title(label, loc="left", fontsize=10, color=_INK)
    return figure


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
    _prepare(axes)
    axes.grid(visible=False)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            colour = BLUE if value >= 0 else VERMILLION
            # Pale enough for numbers in the colour of the text, in light and in dark.
            strength = 0.0 if np.isnan(value) else min(abs(value), 1.0) * _STRONGEST
            square = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=strength)
            axes.add_patch(square)
            text = "–" if np.isnan(value) else f"{value:.0%}" if as_percent else f"{value:.2f}"
            text = text.replace("-", "\u2212")
            axes.text(column, row, text, ha="center", va="center", color=_INK, fontsize=9)
    labels = [_plain(_shorten(name)) for name in names]
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
    for axes, colour, (label, seconds) in zip((left, right), (BLUE, VERMILLION), costs.items(), strict=True):
        _prepare(axes)
        axes.grid(visible=False)
        bars = axes.barh(positions, seconds, color=colour, height=0.62)
        axes.bar_label(bars, [write(value) for value in seconds], padding=4, color=_INK)
        axes.set_xscale("log")
        low, high = 0.5 * min(seconds), max(seconds)
        axes.set_xlim(low, high * (high / low) ** 0.4)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{label} (logarithmic)", loc="left", fontsize=10, color=_INK)
    left.set_yticks(positions, [_plain(_shorten(name)) for name in names])
    left.invert_yaxis()
    return figure


def to_inline_svg(figure: Figure, prefix: str) -> str:
    """Write a figure as an SVG element that follows the colours and the font of the page around it.

    Args:
        figure: what to write.
        prefix: put before every id, so that two drawings on a page share none.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_SVG_SETTINGS | {"svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--line)").replace(GREY, "var(--muted)")
    svg = svg.replace(BLUE, "var(--blue)").replace(VERMILLION, "var(--vermillion)")
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} aria-hidden="true">{rest}'


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 2.9), layout="constrained")
    axes = figure.subplots()
    _prepare(axes)
    return figure, axes


def _prepare(axes: Axes) -> None:
    """Style one set of axes itself: a figure made by a user's script must not depend on global settings."""
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=GREY, labelcolor=_INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(_INK)
    for name, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name in ("bottom", "left"))


def _shorten(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _plain(text: str) -> str:
    """Keep Matplotlib from reading mathematics between dollar signs."""
    return text.replace("$", r"\$")
