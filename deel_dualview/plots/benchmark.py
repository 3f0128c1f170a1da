"""The figures of a benchmark: functions of arrays to Matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deel_dualview._checks import require
from deel_dualview.plots import audit
from deel_dualview.plots.formatting import format_seconds, plain

_STYLES = (
    {"color": audit.BLUE, "linewidth": 1.8},
    {"color": audit.VERMILLION, "linewidth": 1.6, "linestyle": (0, (5, 2))},
    {"color": audit.INK, "linewidth": 1.4, "linestyle": (0, (1, 1.5))},
)
_COLUMNS = 4
_TITLE = 20


def plot_detection(curves: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Draw, for each method, how many wrong labels are found among the examples inspected first.

    Every panel shows the parallelogram between the best and the worst order, as in the DualView paper; the area
    under the ROC curve is the share of it below a curve.

    Args:
        curves: by method and by the name of a score, the arrays of a `DetectionCurve`.

    Raises:
        ValueError: there is none.
    """
    require(bool(curves), "At least one method with curves is needed.", {"methods": list(curves)})
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(0.5 + 2.0 * columns, 0.7 + 1.9 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    names = list(dict.fromkeys(name for of_method in curves.values() for name in of_method))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(curves) - columns) : len(curves)]:
        axes.tick_params(labelbottom=True)
    for axes, (method, of_method) in zip(panels, curves.items(), strict=False):
        audit.prepare_axes(axes)
        any_curve = next(iter(of_method.values()))
        axes.fill_between(
            any_curve["inspected"],
            any_curve["worst"],
            any_curve["best"],
            color=audit.GREY,
            alpha=0.16,
            linewidth=0,
        )
        for name, style in zip(names, _STYLES, strict=False):
            if name in of_method:
                axes.plot(of_method[name]["inspected"], of_method[name]["found"], label=name, **style)
        axes.set_title(plain(_wrapped(method)), loc="left", fontsize=9, color=audit.INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
            axis.set_ticks([0, 0.5, 1])
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(
        [handles[name] for name in names if name in handles],
        [name for name in names if name in handles],
        loc="outside upper left",
        ncols=3,
        frameon=False,
        labelcolor=audit.INK,
        fontsize=9,
    )
    figure.supxlabel("Training examples inspected", fontsize=9, color=audit.INK)
    figure.supylabel("Wrong labels found", fontsize=9, color=audit.INK)
    return figure


def plot_rank_against_time(ranks: Mapping[str, float], seconds: Mapping[str, float]) -> Figure:
    """Draw the average rank of each method, the best at the top, against the seconds that it takes.

    Args:
        ranks: by method.
        seconds: by method, positive; methods of either alone are left out.
    """
    names = [name for name in ranks if name in seconds]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    audit.prepare_axes(axes)
    times, heights = [seconds[name] for name in names], [ranks[name] for name in names]
    axes.scatter(times, heights, color=audit.BLUE, s=28, zorder=3)
    axes.set_xscale("log")
    if names:
        low, high = min(times), max(times)
        axes.set_xlim(low / 1.6, high * 1.6 * (high / low) ** 0.35)
        worst = max(ranks.values())
        axes.set_ylim(worst + 0.5, 0.5)
    for name, height, place in _spread(names, times, heights):
        axes.annotate(
            plain(short_name(name)),
            (seconds[name], ranks[name]),
            xytext=(seconds[name] * 1.12, place),
            color=audit.INK,
            fontsize=8,
            va="center",
            arrowprops=None
            if abs(place - height) < 0.02
            else {"arrowstyle": "-", "color": audit.GREY, "linewidth": 0.6},
        )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
    axes.set_xlabel("Set-up and explanations of all test examples (logarithmic)")
    axes.set_ylabel("Average rank (1 is best)")
    return figure


def _spread(
    names: Sequence[str], times: Sequence[float], heights: Sequence[float]
) -> list[tuple[str, float, float]]:
    """Return (name, height, height of its label), labels of neighbours moved apart."""
    span = max(heights, default=1.0)
    step = 0.045 * span
    placed: list[tuple[str, float, float, float]] = []
    for index in sorted(range(len(names)), key=lambda one: heights[one]):
        place = heights[index]
        for _, _, other, time in placed:
            is_near = abs(np.log10(times[index] / time)) < 0.9
            if is_near and abs(place - other) < step:
                place = other + step
        placed.append((names[index], heights[index], place, times[index]))
    return [(name, height, place) for name, height, place, _ in placed]


def short_name(name: str, length: int = 24) -> str:
    """Return a name with its end, where settings differ, and without its middle if it is long."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[length // 2 + 1 - length :]}"


def _wrapped(name: str) -> str:
    lines = [name] if len(name) <= _TITLE else name.split("?", 1)
    return "\n".join(short_name(line, _TITLE) for line in lines)
