"""The picture of pair relevance in texts: coloured tokens, the training text beside the evaluated one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deel_dualview.pair_panels import (
    INK,
    LINE,
    MUTED,
    Sides,
    heat_limit,
    name_token,
    plain,
    shorten,
    shown_tokens,
    signed,
)

MAX_TOKENS = 60
_SIZE = 8.5
# Of a font of fixed width, in inches: a text can be laid out without drawing it first.
_CHARACTER, _LINE = 0.602 * _SIZE / 72, 1.75 * _SIZE / 72
_COLUMN, _GUTTER, _MARGIN, _HEAD = 50, 4, 0.3, 0.34


class _Word(NamedTuple):
    """A token in its place: line, first character, and relevance as a share of full colour."""

    line: int
    start: int
    text: str
    strength: float


class _Block(NamedTuple):
    """A heading, a remark, and one or two texts side by side."""

    heading: str
    remark: str
    texts: list[list[_Word]]

    @property
    def height(self) -> float:
        """In inches."""
        lines = max((word.line + 1 for text in self.texts for word in text), default=1)
        return _HEAD + lines * _LINE + 0.2


def draw(sides: Sides, vocabulary: Sequence[str], colours: Colormap) -> Figure:
    """Draw the evaluated text with the sum over its pairs, then one row a pair, proponents first."""
    panels = [*sides.proponents, *sides.opponents]
    limit = heat_limit([side for panel in panels for side in (panel.train_relevance, panel.test_relevance)])
    total = np.sum([panel.test_relevance for panel in panels], axis=0)
    full = heat_limit([total])
    whole = [_lay_out(sides.inputs, total / full, vocabulary, 2 * _COLUMN + _GUTTER)]
    blocks = [_Block(f"Explained as {sides.name}", f"sum of the pairs, full colour at ±{full:.2g}", whole)]
    for panel in panels:
        kind = "supports it" if panel.value >= 0 else "speaks against it"
        texts = [
            _lay_out(tokens, relevance / limit, vocabulary, _COLUMN)
            for tokens, relevance in (
                (panel.inputs, panel.train_relevance),
                (sides.inputs, panel.test_relevance),
            )
        ]
        blocks.append(_Block(f"{signed(panel.value)}   {panel.label}  ·  #{panel.position}", kind, texts))
    return _compose(blocks, limit, colours)


def _lay_out(tokens: np.ndarray, strengths: np.ndarray, vocabulary: Sequence[str], width: int) -> list[_Word]:
    """Put the words of a text into lines of `width` characters."""
    places, is_cut_before, is_cut_after = shown_tokens(tokens, strengths, MAX_TOKENS)
    words = [
        (shorten(name_token(int(tokens[place]), vocabulary)), float(strengths[place])) for place in places
    ]
    words = [*[("…", 0.0)] * is_cut_before, *words, *[("…", 0.0)] * is_cut_after]
    line, start, found = 0, 0, []
    for text, strength in words:
        if start and start + len(text) > width:
            line, start = line + 1, 0
        found.append(_Word(line, start, text, strength))
        start += len(text) + 1
    return found


def _compose(blocks: Sequence[_Block], limit: float, colours: Colormap) -> Figure:
    width = 2 * _MARGIN + (2 * _COLUMN + _GUTTER) * _CHARACTER
    height = sum(block.height for block in blocks) + 0.75
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    top = 0.15
    for place, block in enumerate(blocks):
        _draw_block(axes, block, top, colours)
        top += block.height
        if place == 0:
            _draw_columns(axes, top, limit)
            top += 0.4
    return figure


def _draw_block(axes: Axes, block: _Block, top: float, colours: Colormap) -> None:
    right = _MARGIN + (2 * _COLUMN + _GUTTER) * _CHARACTER
    axes.text(_MARGIN, top + 0.16, block.heading, color=INK, fontsize=9.5, fontweight="bold")
    axes.text(right, top + 0.16, block.remark, color=MUTED, fontsize=8, ha="right")
    axes.plot([_MARGIN, right], [top + 0.24] * 2, color=LINE, linewidth=0.8)
    for column, words in enumerate(block.texts):
        left = _MARGIN + column * (_COLUMN + _GUTTER) * _CHARACTER
        for word in words:
            _draw_word(axes, word, left, top + _HEAD, colours)


def _draw_word(axes: Axes, word: _Word, left: float, top: float, colours: Colormap) -> None:
    x, y = left + word.start * _CHARACTER, top + word.line * _LINE
    colour = colours(0.5 + 0.5 * float(np.clip(word.strength, -1, 1)))
    box = (x - 0.02, y), len(word.text) * _CHARACTER + 0.04, 0.86 * _LINE
    axes.add_patch(Rectangle(*box, facecolor=colour, linewidth=0))
    is_dark = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] < 0.42
    axes.text(
        x, y + 0.43 * _LINE, plain(word.text), color="white" if is_dark else INK, fontsize=_SIZE,
        family="DejaVu Sans Mono", va="center",
    )  # fmt: skip


def _draw_columns(axes: Axes, top: float, limit: float) -> None:
    """Write what stands in either column, and the scale of both."""
    for column, text in enumerate(("in the training text", "in the test text, in view of it")):
        left = _MARGIN + column * (_COLUMN + _GUTTER) * _CHARACTER
        axes.text(left, top + 0.16, text, color=MUTED, fontsize=8)
    right = _MARGIN + (2 * _COLUMN + _GUTTER) * _CHARACTER
    axes.text(right, top + 0.16, f"full colour at ±{limit:.2g}", color=MUTED, fontsize=8, ha="right")
