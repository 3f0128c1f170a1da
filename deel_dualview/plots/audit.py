"""Figures of an audit: label scores, detection, path, classes, and relevance in all kinds of inputs."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deel_dualview._checks import check_count, require
from deel_dualview.plots import columns, images, tokens
from deel_dualview.plots.fonts import font_settings
from deel_dualview.plots.formatting import check_column_names, check_names, plain, shorten, to_words
from deel_dualview.plots.panels import (
    Colours,
    check_pair,
    colour_map,
    join_columns,
    sum_channels,
    take_sides,
)

if TYPE_CHECKING:
    from deel_dualview.relevance import PairRelevance

# Okabe and Ito's colours, distinguished by readers of every colour vision.
BLUE, VERMILLION, GREY = "#0072b2", "#d55e00", "#808890"
INK, _FAINT = "#1b1f24", "#d8dee4"
_SVG_SETTINGS: Any = {"svg.fonttype": "none"}


def plot_label_scores(
    ranks: Sequence[int], scores: Sequence[float], num_flagged: int, *, label: str = "Label score (log-odds)"
) -> Figure:
    """Draw label scores against rank, the likeliest wrong label first.

    Args:
        ranks: ranks from 1, increasing.
        scores: label score at each rank, decreasing.
        num_flagged: number of flagged labels, which the drawing shades.
        label: of the axis of scores.
    """
    figure, axes = _figure()
    axes.plot(ranks, scores, color=BLUE, linewidth=1.8)
    axes.axhline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    inside = np.asarray(ranks) <= num_flagged
    axes.fill_between(
        ranks, scores, min(scores), where=list(inside), color=VERMILLION, alpha=0.25, linewidth=0
    )
    axes.set_xscale("log")
    axes.set_xlim(1, max(ranks[-1], 2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Labels looked at, highest score first")
    axes.set_ylabel(label)
    return figure


def plot_predictions(
    sets: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[bool]]], *, name: str
) -> Figure:
    """Draw predicted numbers against labels, of the training set faintly, with histograms of the labels below.

    Args:
        sets: labels, predictions and whether an example is marked, by `"train"` and `"test"`; marked training examples
            are ringed, marked test examples crossed.
        name: of the number.
    """
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axes in (top, bottom):
        prepare_axes(axes)
    everything = np.concatenate([np.concatenate([own[0], own[1]]) for own in sets.values()])
    ends = [float(everything.min()), float(everything.max())]
    top.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    styles = {"train": (GREY, "o", 0.35, "training"), "test": (BLUE, "o", 0.8, "test")}
    for split, (labels, predictions, is_marked) in sets.items():
        colour, marker, alpha, word = styles[split]
        top.scatter(
            labels, predictions, s=9, color=colour, marker=marker, alpha=alpha, linewidths=0, label=word
        )
        marked = np.asarray(is_marked, bool)
        style: dict[str, Any] = (
            {"s": 42, "facecolors": "none", "edgecolors": VERMILLION, "linewidths": 1.3}
            if split == "train"
            else {"s": 36, "color": INK, "marker": "x", "linewidths": 1.2}
        )
        top.scatter(np.asarray(labels)[marked], np.asarray(predictions)[marked], **style)
        bottom.hist(labels, bins=40, range=None, color=colour, alpha=0.6, density=True)
    top.set_ylabel(f"Predicted {name}")
    top.legend(loc="upper left", frameon=False, labelcolor=INK)
    bottom.set_xlabel(f"Label: {name}")
    bottom.set_yticks([])
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
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)
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
        prepare_axes(axes)
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
    prepare_axes(axes)
    axes.grid(visible=False)
    bars = axes.barh(range(len(order)), [counts[index] for index in order], color=BLUE, height=0.66)
    axes.bar_label(bars, [f"{counts[index]:,}" for index in order], padding=4, color=INK)
    axes.set_yticks(range(len(order)), [plain(shorten(names[index])) for index in order])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_title(label, loc="left", fontsize=10, color=INK)
    return figure


def pair_relevance(
    pair: PairRelevance,
    index: int = 0,
    *,
    opponents: PairRelevance | None = None,
    class_names: Sequence[str] | None = None,
    colours: Colours = "red-blue",
) -> Figure:
    """Draw one evaluated example between its opponents (left) and its proponents (right), with relevance.

    In each column, from above: the relevance in the training image, the training image, the relevance in the
    evaluated image, influence value, label and position. Positive relevance is red, negative blue, zero white; a row
    has one scale, stated beside it (above its 99.8 % quantile colours saturate). In the middle stands the evaluated
    image over the sum of its relevance over the pairs shown, which has a scale of its own. Channels are summed.

    Args:
        pair: an element of `DualRelevance.explain`; negative influence values go to the opponents' side.
        index: which of its evaluated examples.
        opponents: the element of `explain(..., order=ORDER.ASCENDING)` for the same batch; only its negative
            influence values are drawn.
        class_names: names of the classes; their numbers by default.
        colours: `"red-blue"`, or `"orange-purple"` for readers of every colour vision.

    Raises:
        TypeError: `pair` or `opponents` is no `PairRelevance`, `index` no integer, `class_names` one string.
        ValueError: `index` out of range, inputs that are no images, too few class names, or unknown colours.
    """
    what = (
        "Pair relevance is drawn for images, of shape (m, k, height, width, channels); `token_relevance` draws that of "
        "texts, `column_relevance` that of tables"
    )
    check_pair(pair, index, colours, rank=5, what=what)
    sides = take_sides(pair, index, opponents, class_names)
    with matplotlib.rc_context(font_settings()):
        return images.draw(
            sides.inputs,
            f"explained as\n{sides.name}",
            proponents=sum_channels(sides.proponents),
            opponents=sum_channels(sides.opponents),
            colours=colour_map(colours),
            note=sides.note,
        )


def token_relevance(
    pair: PairRelevance,
    index: int = 0,
    *,
    vocabulary: Any = (),
    opponents: PairRelevance | None = None,
    class_names: Sequence[str] | None = None,
    colours: Colours = "red-blue",
) -> Figure:
    """Draw one evaluated text and its pairs as coloured tokens, the training text beside the evaluated one.

    Above stands the evaluated text with the sum of its relevance over the pairs shown, in its own scale. Padding
    (token 0, the empty string) is left out, and of long texts all but the 60 tokens in a row that carry most.

    Args:
        pair: an element of `DualRelevance.explain`, of a model of tokens or of texts.
        index: which of its evaluated examples.
        vocabulary: words by their number: a list, or a layer that has one (`TextVectorization`, `StringLookup`);
            numbers are drawn for words that it does not have. Not needed where the model takes strings.
        opponents: as of `pair_relevance`.
        class_names: names of the classes; their numbers by default.
        colours: as of `pair_relevance`.

    Raises:
        TypeError: as of `pair_relevance`; `vocabulary` has no words.
        ValueError: `index` out of range, inputs that are no tokens, too few class names, or unknown colours.
    """
    what = "Token relevance is drawn for texts: relevance of shape (m, k, length), of strings or integers"
    check_pair(pair, index, colours, rank=3, what=what)
    sides = take_sides(pair, index, opponents, class_names)
    require(sides.inputs.dtype.kind in "iuOU", f"{what}.", {"dtype": sides.inputs.dtype})
    with matplotlib.rc_context(font_settings()):
        return tokens.draw(sides, to_words(vocabulary), colour_map(colours))


def column_relevance(
    pair: PairRelevance,
    index: int = 0,
    *,
    column_names: Sequence[str] = (),
    num_columns: int = 8,
    opponents: PairRelevance | None = None,
    class_names: Sequence[str] | None = None,
    colours: Colours = "red-blue",
) -> Figure:
    """Draw the pairs of one evaluated row of a table as signed bars of columns, the training row beside it.

    Args:
        pair: an element of `DualRelevance.explain`, of a model of rows, or of several inputs that are columns.
        index: which of its evaluated examples.
        column_names: one for each column; by default the names of the inputs, or numbers.
        num_columns: how many columns of each pair are drawn, those that carry most.
        opponents: as of `pair_relevance`.
        class_names: names of the classes; their numbers by default.
        colours: as of `pair_relevance`.

    Raises:
        TypeError: as of `pair_relevance`; `num_columns` is no integer, `column_names` are no strings.
        ValueError: `index` or `num_columns` out of range, another number of column names than of columns, inputs
            that are no rows, too few class names, or unknown colours.
    """
    what = "Column relevance is drawn for tables: relevance of shape (m, k, columns)"
    pair, own_names = join_columns(pair)
    opponents = opponents if opponents is None else join_columns(opponents)[0]
    check_pair(pair, index, colours, rank=3, what=what)
    check_count("num_columns", num_columns)
    names = check_names("column_names", column_names)
    check_column_names("column_names", names, np.shape(pair.train_relevance)[2])
    names = names or own_names
    sides = take_sides(pair, index, opponents, class_names)
    with matplotlib.rc_context(font_settings()):
        return columns.draw(sides, names, num_columns, colour_map(colours))


def to_inline_svg(figure: Figure, prefix: str) -> str:
    """Write a figure as an SVG element that follows the colours and the font of the page around it.

    It has no style sheet and no style attributes, which the content security policy of a page forbids.

    Args:
        figure: what to write.
        prefix: put before every id, so that two drawings on a page share none.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_SVG_SETTINGS | {"svg.hashsalt": prefix}), warnings.catch_warnings():
        # The browser that shows the page has fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", svg)
    svg = re.sub(r"<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"<[a-z][^<>]*>", _with_attributes, svg)
    svg = svg.replace(INK, "var(--ink)").replace(_FAINT, "var(--line)").replace(GREY, "var(--muted)")
    svg = svg.replace(BLUE, "var(--blue)").replace(VERMILLION, "var(--vermillion)")
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} stroke-linejoin="round" overflow="visible" aria-hidden="true">{rest}'


def _with_attributes(tag: re.Match[str]) -> str:
    """Return a tag with its declarations of style as attributes; fonts are the page's."""

    def attributes(style: re.Match[str]) -> str:
        pairs = [declaration.split(":", 1) for declaration in style[1].split(";") if ":" in declaration]
        return " ".join(
            f'{name.strip()}="{value.strip()}"' for name, value in pairs if name.strip() != "font-family"
        )

    return re.sub(r'style="([^"]*)"', attributes, tag[0])


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 2.9), layout="constrained")
    axes = figure.subplots()
    prepare_axes(axes)
    return figure, axes


def prepare_axes(axes: Axes) -> None:
    """Style one set of axes itself: a figure made by a user's script must not depend on global settings."""
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=GREY, labelcolor=INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
    for name, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name in ("bottom", "left"))
