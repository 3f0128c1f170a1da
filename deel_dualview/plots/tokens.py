"""The picture of an evaluated text between its proponents and opponents: every token coloured by its relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath

from deel_dualview.plots.fonts import drawn
from deel_dualview.plots.formatting import brief, name_token, signed
from deel_dualview.plots.panels import (
    INK,
    LINE,
    MUTED,
    WARNING,
    Panel,
    Sides,
    are_words,
    both_sides,
    equally_strong,
    heat_limit,
    shown_tokens,
)

MAX_TOKENS = 60
# From this share of a text's relevance on, a note says what padding received.
_TOLD = 0.005
# In points, the unit of all coordinates here.
_SIZE, _LINE_HEIGHT, _GAP, _BLOCK_GAP, _MARGIN, _HEAD, _SIDE, _BETWEEN = (
    8.5,
    14.5,
    3.4,
    12.0,
    14.0,
    82.0,
    292.0,
    18.0,
)
_WIDTH = 2 * _MARGIN + _HEAD + 2 * _SIDE + _BETWEEN


class Passage(NamedTuple):
    """Tokens in their order, as they are drawn.

    Attributes:
        words: text of each.
        relevance: of each.
        note: what is not drawn: tokens left out, relevance that went to padding.
    """

    words: list[str]
    relevance: np.ndarray
    note: str


def draw(sides: Sides, vocabulary: Sequence[str], colours: Colormap) -> Figure:
    """Draw the evaluated text with the sum over its pairs, then one row a pair, proponents first.

    Args:
        sides: the evaluated text, its proponents and opponents.
        vocabulary: words by their number; numbers are drawn for those that it does not have.
        colours: of relevance from negative to positive.
    """
    return _Page(sides, vocabulary, colours).draw()


def passage(tokens: np.ndarray, relevance: np.ndarray, vocabulary: Sequence[str]) -> Passage:
    """Return what is drawn of a text, tokens or words: no padding, and of a long one the stretch of most relevance."""
    places, _, _ = shown_tokens(tokens, relevance, MAX_TOKENS)
    is_word = are_words(tokens)
    num_hidden, padding = int(is_word.sum()) - len(places), float(relevance[~is_word].sum())
    notes = []
    if num_hidden:
        rest = float(relevance[is_word].sum() - relevance[places].sum())
        notes.append(f"{num_hidden:,} more tokens {brief(rest)}")
    if abs(padding) > _TOLD * np.abs(relevance).sum():
        notes.append(f"padding {brief(padding)}")
    words = [drawn(name_token(token, vocabulary)) for token in tokens[places]]
    return Passage(words, relevance[places], ", ".join(notes))


class _Page:
    """Lays passages out from above to below, then makes the figure as high as they need."""

    def __init__(self, found: Sides, vocabulary: Sequence[str], colours: Colormap) -> None:
        self._found, self._colours = found, colours
        self._read = lambda tokens, relevance: passage(tokens, relevance, vocabulary)
        rows = [*found.proponents, *found.opponents]
        self._total = np.sum([row.test_relevance for row in rows], axis=0)
        self._limit, self._own_limit = heat_limit(both_sides(rows), 0.99), heat_limit([self._total], 0.99)
        self._figure = Figure()
        self._axes: Axes = self._figure.add_axes((0, 0, 1, 1))
        self._below = _MARGIN

    def draw(self) -> Figure:
        found = self._found
        own = f"the evaluated text, sum of the pairs: {brief(-self._own_limit)} to {brief(self._own_limit)}"
        self._say(_MARGIN, f"Explained as {found.name}", size=11, weight="bold")
        self._say(_MARGIN + _HEAD + _SIDE + _BETWEEN, own, colour=MUTED)
        self._below += 20
        text = self._read(found.inputs, self._total)
        self._below = self._write(text, _MARGIN, self._own_limit, width=_WIDTH - 2 * _MARGIN) + _BLOCK_GAP
        for heading, rows in (
            (f"Proponents support it{equally_strong(found.proponents)}", found.proponents),
            (f"Opponents speak against it{equally_strong(found.opponents)}", found.opponents),
        ):
            if rows:
                self._group(heading, rows)
        self._scale()
        height = self._below + _MARGIN
        self._axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
        self._axes.axis("off")
        self._figure.set_size_inches(_WIDTH / 72, height / 72)
        return self._figure

    def _group(self, heading: str, rows: Sequence[Panel]) -> None:
        self._axes.plot([_MARGIN, _WIDTH - _MARGIN], [self._below] * 2, color=LINE, linewidth=0.8)
        self._below += 10
        self._say(_MARGIN, heading, size=9.5, weight="bold")
        self._below += 13
        left, right = _MARGIN + _HEAD, _MARGIN + _HEAD + _SIDE + _BETWEEN
        self._say(left, "in the training text", colour=MUTED)
        self._say(right, "in the evaluated text, in view of it", colour=MUTED)
        self._below += 14
        for row in rows:
            self._say(_MARGIN, signed(row.value), size=9.5)
            for line, text in enumerate((row.label, f"#{row.position}")):
                self._say(_MARGIN, text, colour=MUTED, size=7.5, down=13.0 + 10.5 * line)
            ends = [self._below + 36]
            for place, tokens, relevance in (
                (left, row.inputs, row.train_relevance),
                (right, self._found.inputs, row.test_relevance),
            ):
                ends.append(self._write(self._read(tokens, relevance), place, self._limit, width=_SIDE))
            self._below = max(ends) + _BLOCK_GAP

    def _write(self, text: Passage, left: float, limit: float, *, width: float) -> float:
        """Write a passage from the current height on; return where it ends."""
        across, down = left, self._below
        for word, value in zip(text.words, text.relevance, strict=True):
            size = _measure(word)
            if across + size > left + width and across > left:
                across, down = left, down + _LINE_HEIGHT
            self._token(word, across, down, min(size, width), float(np.clip(value / limit, -1, 1)))
            across += size + _GAP
        if text.note:
            down += _LINE_HEIGHT
            self._say(left, f"({text.note})", colour=MUTED, size=7, down=down - self._below)
        return down + _LINE_HEIGHT

    def _token(self, word: str, across: float, down: float, width: float, strength: float) -> None:
        strength = strength if np.isfinite(strength) else 0.0
        colour = self._colours(0.5 + 0.5 * strength)
        box = FancyBboxPatch(
            (across - 0.8, down - 5.6), width + 1.6, 11.2, boxstyle="round,pad=0,rounding_size=2", facecolor=colour,
            edgecolor="none",
        )  # fmt: skip
        self._axes.add_patch(box)
        ink = INK if _luminance(colour) > 0.2 else "#ffffff"
        self._axes.text(across, down, word, fontsize=_SIZE, color=ink, va="center_baseline", clip_on=True)

    def _say(
        self,
        across: float,
        text: str,
        *,
        size: float = 7.5,
        colour: str = INK,
        weight: str = "normal",
        down: float = 0.0,
    ) -> None:
        self._axes.text(
            across, self._below + down, text, fontsize=size, color=colour, fontweight=weight, va="center_baseline"
        )  # fmt: skip

    def _scale(self) -> None:
        """Draw the colours of the pairs with their numbers."""
        across, width = _MARGIN + _HEAD, 110.0
        extent = (across, across + width, self._below + 4, self._below - 4)
        self._axes.imshow(
            np.linspace(-1, 1, 256)[np.newaxis], cmap=self._colours, extent=extent, aspect="auto"
        )
        self._say(_MARGIN, "scale of the pairs", colour=MUTED)
        ends = f"{brief(-self._limit)} to {brief(self._limit)}"
        self._say(
            across + width + 8, f"{ends}; relevance of a token, summed over its embedding", colour=MUTED
        )
        self._below += 8
        if self._found.note:
            self._below += 12
            self._say(_MARGIN, self._found.note, colour=WARNING)


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, by WCAG; below 0.2 white has more contrast than ink."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _measure(word: str) -> float:
    """Return the width of a word in points."""
    # Blanks at the ends have no outline to measure.
    return (
        float(TextPath((0, 0), word.strip() or "·", prop=FontProperties(size=_SIZE)).get_extents().x1) + 0.8
    )
