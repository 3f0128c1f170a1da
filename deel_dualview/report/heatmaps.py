"""How relevance looks on the page: pictures of few colours, coloured tokens, bars of columns.

Colours go from none, where relevance is zero, to full at the scale of a prediction, over whatever is behind them: the
same picture does for light and dark pages.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from deel_dualview.plots.formatting import name_column, name_token, name_value
from deel_dualview.plots.panels import Colours, heat_limit, shown_tokens
from deel_dualview.report.findings import ExplainedPrediction
from deel_dualview.report.maps import PairMaps
from deel_dualview.report.output_findings import ExplainedOutput

FULL: Mapping[str, tuple[str, str]] = {
    "red-blue": ("#d9363e", "#2f7fd6"),
    "orange-blue": ("#d9730d", "#2f74c0"),
    "orange-purple": ("#d9730d", "#7b5cc4"),
}
"""Colours of full positive and full negative relevance: seen on white and on black."""
_HEADINGS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "red-blue": (("#b3262e", "#1d5fa8"), ("#ff8e8e", "#7db8f5")),
    "orange-blue": (("#a84600", "#1f5c9e"), ("#f09a4e", "#7db4ee")),
    "orange-purple": (("#a34d00", "#5f3fae"), ("#fdb863", "#b9a5f2")),
}
"""Of the words for and against, on light and on dark pages: readable as text."""
_LEVELS = 31
# Lower than that of figures: pictures of the page are small, and single pixels would leave the rest pale.
_QUANTILE = 0.99
TOKEN_LEVELS = 8
MAX_TOKENS = 60
MAX_COLUMNS_SHOWN = 8


@dataclass(frozen=True)
class HeatView:
    """A heatmap as a `data:` address; a signal's is one row high."""

    address: str
    kind: ClassVar[str] = "heat"


@dataclass(frozen=True)
class Token:
    """A stretch of text of one colour: `level` from -8 (full negative) to 8 (full positive)."""

    text: str
    level: int


@dataclass(frozen=True)
class TokensView:
    """A text, or the stretch of it that carries most relevance."""

    tokens: tuple[Token, ...]
    kind: ClassVar[str] = "tokens"


@dataclass(frozen=True)
class ColumnBars:
    """A column in both rows of a pair: values as text, relevance in percent of the scale."""

    name: str
    train: str
    test: str
    train_percent: float
    test_percent: float


@dataclass(frozen=True)
class ColumnsView:
    """The columns that carry most of a pair's influence, in both rows."""

    columns: tuple[ColumnBars, ...]
    num_hidden: int
    kind: ClassVar[str] = "columns"


@dataclass(frozen=True)
class PairView:
    """Relevance of a pair: in the training and in the test example, or (columns) both in one."""

    train: HeatView | TokensView | None
    test: HeatView | TokensView | None
    both: ColumnsView | None = None


@dataclass(frozen=True)
class PredictionHeat:
    """What is drawn of one explained prediction.

    Attributes:
        kind: image, signal, tokens or columns.
        limit: relevance at full colour in all heatmaps of the pairs.
        pairs: by the position of the training example.
        total: of the test example, summed over the pairs shown; None for columns.
        total_limit: relevance at full colour there.
    """

    kind: str
    limit: float
    pairs: Mapping[int, PairView]
    total: HeatView | TokensView | None
    total_limit: float


def render_heat(
    item: ExplainedPrediction | ExplainedOutput,
    maps: Mapping[tuple[int, int], PairMaps],
    *,
    colours: Colours,
    names: Sequence[str],
) -> PredictionHeat | None:
    """Return the views of one explained prediction; None if it has no heatmaps.

    Args:
        item: the prediction.
        maps: of all pairs, by the positions of the test and of the training example.
        colours: of positive and negative relevance.
        names: the vocabulary of tokens, or the names of columns; may be empty.
    """
    own = {train: pair for (test, train), pair in maps.items() if test == item.example.index}
    if not own:
        return None
    first = next(iter(own.values()))
    kind = first.kind
    limit = heat_limit([side for pair in own.values() for side in (pair.train, pair.test)], _QUANTILE)
    if kind == "columns":
        pairs = {
            train: PairView(None, None, _columns(pair, limit, pair.names or names))
            for train, pair in own.items()
        }
        return PredictionHeat(kind, limit, pairs, None, limit)
    total = np.sum([pair.test for pair in own.values()], axis=0)
    total_limit = heat_limit([total], _QUANTILE)

    def view(side: np.ndarray, example: Any, full: float) -> HeatView | TokensView:
        if kind == "tokens":
            return _tokens(side, example, full, names)
        return HeatView(heat_to_address(side, full, colours))

    pairs = {
        train: PairView(view(pair.train, pair.train_inputs, limit), view(pair.test, pair.test_inputs, limit))
        for train, pair in own.items()
    }
    return PredictionHeat(kind, limit, pairs, view(total, first.test_inputs, total_limit), total_limit)


def heat_to_address(relevance: np.ndarray, limit: float, colours: Colours) -> str:
    """Encode relevance (h, w) or (length,) as a PNG of 63 colours, clear where it is zero."""
    levels = _LEVELS + np.clip(np.rint(_LEVELS * np.atleast_2d(relevance) / limit), -_LEVELS, _LEVELS)
    picture = Image.fromarray(levels.astype(np.uint8), "P")
    positive, negative = (bytes.fromhex(colour[1:]) for colour in FULL[colours])
    picture.putpalette(negative * _LEVELS + positive * (_LEVELS + 1))
    opacity = np.abs(np.arange(-_LEVELS, _LEVELS + 1)) / _LEVELS
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, transparency=np.rint(255 * opacity).astype(np.uint8).tobytes())
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def heat_style(colours: Colours) -> str:
    """Return the style rules of what is coloured without pictures: tokens, bars, scales."""
    rules = []
    for name, colour in zip("pn", FULL[colours], strict=True):
        red, green, blue = bytes.fromhex(colour[1:])
        rules += [
            f".{name}{level} {{ background: rgb({red} {green} {blue} / {0.75 * level / TOKEN_LEVELS:.2f}); }}"
            for level in range(1, TOKEN_LEVELS + 1)
        ]
    positive, negative = FULL[colours]
    light, dark = (f"--for: {words[0]}; --against: {words[1]};" for words in _HEADINGS[colours])
    return "\n".join(
        [
            f":root {{ --positive: {positive}; --negative: {negative}; {light} }}",
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
            *rules,
        ]
    )


def _tokens(relevance: np.ndarray, example: np.ndarray, limit: float, names: Sequence[str]) -> TokensView:
    """Colour tokens; padding (0) is left out, neighbours without colour are one stretch."""
    kept, is_cut_before, is_cut_after = shown_tokens(example, relevance, MAX_TOKENS)
    levels = np.clip(np.rint(TOKEN_LEVELS * relevance[kept] / limit), -TOKEN_LEVELS, TOKEN_LEVELS)
    tokens = [
        Token(name_token(example[place], names), int(level))
        for place, level in zip(kept, levels, strict=True)
    ]
    start, end = ([Token("…", 0)] * is_cut for is_cut in (is_cut_before, is_cut_after))
    joined: list[Token] = []
    for token in [*start, *tokens, *end]:
        if joined and joined[-1].level == token.level == 0:
            joined[-1] = Token(f"{joined[-1].text} {token.text}", 0)
        else:
            joined.append(token)
    return TokensView(tuple(joined))


def _columns(pair: PairMaps, limit: float, names: Sequence[str]) -> ColumnsView:
    train, test = pair.train_inputs, pair.test_inputs
    strength = np.abs(pair.train) + np.abs(pair.test)
    order = np.argsort(-strength, kind="stable")[:MAX_COLUMNS_SHOWN]

    def percent(value: float) -> float:
        return float(np.clip(100 * value / limit, -100, 100))

    columns = tuple(
        ColumnBars(
            name_column(int(index), names),
            name_value(train[index], 4),
            name_value(test[index], 4),
            percent(pair.train[index]),
            percent(pair.test[index]),
        )
        for index in order
    )
    return ColumnsView(columns, len(strength) - len(columns))
