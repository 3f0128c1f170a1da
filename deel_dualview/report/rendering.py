"""How an example is shown: image, signal, table, text or parts, chosen from its shape and dtype.

Views hold plain text; the template escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from deel_dualview.plots.formatting import agree, name_column, name_token, span_of
from deel_dualview.report import pictures

MAX_TABLE_COLUMNS = pictures.MAX_COLUMNS
MAX_TABLE_ROWS = 8
MAX_TEXT_LENGTH = 280
MAX_WHOLE_LENGTH = 5000
MAX_CELL_LENGTH = 60
MAX_TOKENS = 48


@dataclass(frozen=True)
class ImageView:
    """An image as a `data:` address; `is_pixelated` when it is enlarged without smoothing."""

    address: str
    is_pixelated: bool
    kind: ClassVar[str] = "image"


@dataclass(frozen=True)
class SignalView:
    """A signal as `points` of SVG lines, one per channel, and a sentence for those who do not see it."""

    lines: tuple[str, ...]
    description: str
    width: int = pictures.SIGNAL_WIDTH
    height: int = pictures.SIGNAL_HEIGHT
    kind: ClassVar[str] = "signal"


@dataclass(frozen=True)
class TableView:
    """Columns of a row, the most unusual ones where there are many."""

    rows: tuple[tuple[str, str], ...]
    num_hidden: int
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class TextView:
    """A text, or whatever else can only be described; `whole` is more of one that is shortened."""

    text: str
    whole: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class PartsView:
    """An example of several inputs, each with its name."""

    parts: tuple[tuple[str, Any], ...]
    kind: ClassVar[str] = "parts"


class _Columns(NamedTuple):
    """Mean, deviation and range of the columns of all shown rows of one width, shape (d,) each."""

    means: np.ndarray
    deviations: np.ndarray
    spans: np.ndarray


@dataclass
class _Statistics:
    """Over all shown examples: extremes, and the rows themselves, to tell what is unusual."""

    low: float = np.inf
    high: float = -np.inf
    rows: list[np.ndarray] = field(default_factory=list)
    _columns: dict[int, _Columns] = field(default_factory=dict)

    def update(self, array: np.ndarray) -> None:
        finite = array[np.isfinite(array)]
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        if array.ndim == 1 and array.size <= MAX_TABLE_COLUMNS:
            self.rows.append(array.astype(np.float64))
            self._columns.clear()

    def columns(self, size: int) -> _Columns | None:
        """Return what is known of the columns of rows of one width, None where no such row is shown."""
        if size not in self._columns:
            rows = np.array([row for row in self.rows if row.size == size])
            if not len(rows):
                return None
            spans = np.array([span_of(values) for values in rows.T])
            self._columns[size] = _Columns(rows.mean(axis=0), rows.std(axis=0), spans)
        return self._columns[size]


class ExampleRenderer:
    """Turns examples into views on one common scale, so that pictures side by side can be compared."""

    def __init__(self, examples: Iterable[Any], names: Sequence[str] = ()):
        """Look at all examples that will be shown.

        Args:
            examples: nests of arrays, one example each, no batch dimension.
            names: of the columns of a row, or of more tokens than a text has: their words by number.
        """
        self._names = names
        self._statistics: dict[str, _Statistics] = {}
        for example in examples:
            for path, array in _leaves(example, ""):
                if _is_numeric(array):
                    self._statistics.setdefault(path, _Statistics()).update(array)

    def render(self, example: Any) -> Any:
        """Return the view of one example."""
        return self._render(example, "")

    def render_aligned(self, examples: Sequence[Any]) -> list[TableView]:
        """Return views of the same columns: those in which these examples are farthest from the other shown ones.

        None at all where the examples are no rows of numbers, and no few named numbers.
        """
        views = [self.render(example) for example in examples]
        if not views or not all(isinstance(view, TableView) for view in views):
            return []
        if any(_parts(example) is not None for example in examples):
            columns = {tuple(name for name, _ in view.rows) for view in views}
            return views if len(columns) == 1 and len(columns.pop()) <= MAX_TABLE_ROWS else []
        rows = [np.asarray(example).reshape(-1) for example in examples]
        if len({row.size for row in rows}) > 1:
            return []
        keep = _unusual_columns(np.stack(rows), self._statistics.get("") or _Statistics(0.0, 1.0))
        return [_chosen(row, keep, self._names) for row in rows]

    def render_beside(self, example: Any, other: Any) -> Any:
        """Return the view of an example, of many columns in those that another shows."""
        view, beside = self.render(example), self.render(other)
        rows = [np.asarray(one).reshape(-1) for one in (example, other) if _parts(one) is None]
        is_row = len(rows) == 2 and isinstance(view, TableView) and isinstance(beside, TableView)
        if not is_row or rows[0].size != rows[1].size:
            return view
        keep = _unusual_columns(rows[1][None], self._statistics.get("") or _Statistics(0.0, 1.0))
        return _chosen(rows[0], keep, self._names)

    def agreeing(self, example: Any, other: Any) -> frozenset[str]:
        """Return the names of the columns in which two examples agree, none where they are no tables.

        Texts and integers do where they are equal, other numbers where they are near each other (`NEAR`), or both
        missing.
        """
        own, others = self._cells(example), self._cells(other)
        if own.keys() != others.keys():
            return frozenset()
        return frozenset(name for name, (value, span) in own.items() if agree(value, others[name][0], span))

    def _cells(self, example: Any) -> dict[str, tuple[Any, float]]:
        """Return the value of every column of a table, with the range of the column; empty of anything else."""
        named = _parts(example)
        if named is not None:
            cells = [(name, np.asarray(part)) for name, part in named if _is_cell(part)]
            return {name: (cell.reshape(-1)[0], self._span(f"/{name}")) for name, cell in cells}
        array = np.asarray(example)
        if not isinstance(self.render(array), TableView):
            return {}
        known = self._statistics[""].columns(array.size)
        spans = np.zeros(array.size) if known is None else known.spans
        return {
            name_column(place, self._names): (value, spans[place])
            for place, value in enumerate(array.reshape(-1))
        }

    def _span(self, path: str) -> float:
        found = self._statistics.get(path)
        return 0.0 if found is None or found.low > found.high else found.high - found.low

    def _render(self, example: Any, path: str) -> Any:
        named = _parts(example)
        if named is None:
            return self._render_array(np.asarray(example), path)
        scalars = [(name, part) for name, part in named if _is_cell(part)]
        views: list[tuple[str, Any]] = []
        if scalars:
            rows = tuple((name, _scalar_text(np.asarray(part))) for name, part in scalars)
            views.append(("", TableView(rows[:MAX_TABLE_COLUMNS], max(0, len(rows) - MAX_TABLE_COLUMNS))))
        other = [(name, part) for name, part in named if not _is_cell(part)]
        views += [(name, self._render(part, f"{path}/{name}")) for name, part in other]
        return views[0][1] if len(views) == 1 and not other else PartsView(tuple(views))

    def _render_array(self, array: np.ndarray, path: str) -> Any:
        if not _is_numeric(array):
            whole = " ".join(_scalar_text(item) for item in array.reshape(-1)[:MAX_WHOLE_LENGTH])
            shortened = _shorten(whole)
            return TextView(shortened, _shorten(whole, MAX_WHOLE_LENGTH) if shortened != whole else "")
        statistics = self._statistics.get(path) or _Statistics(0.0, 1.0)
        low, high = pictures.choose_range(statistics.low, statistics.high, array.dtype)
        if pictures.is_image(array.shape):
            address = pictures.image_to_address(array, low, high)
            return ImageView(address, max(array.shape[:2]) <= pictures.LARGEST_PIXELATED_SIDE)
        if self._is_text(array):
            return _text(array, self._names)
        if array.ndim <= 1 and array.size <= MAX_TABLE_COLUMNS:
            return _table(array.reshape(-1), statistics, self._names)
        if array.ndim <= 2:
            description = f"signal of {len(array)} values from {array.min():.4g} to {array.max():.4g}"
            return SignalView(pictures.signal_to_points(array, statistics.low, statistics.high), description)
        return TextView(f"array of shape {array.shape}, values from {array.min():.4g} to {array.max():.4g}")

    def _is_text(self, array: np.ndarray) -> bool:
        is_row_of_integers = array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
        is_named = 0 < len(self._names) <= array.size
        is_long = array.size > MAX_TABLE_ROWS or len(self._names) > 0
        return is_row_of_integers and is_long and not is_named


def _text(tokens: np.ndarray, names: Sequence[str]) -> TextView:
    """Write tokens as words where there are names, and then without padding (0)."""
    kept = tokens[tokens != 0] if names else tokens
    words = [name_token(int(token), names) for token in kept[:MAX_TOKENS]]
    shortened = _shorten(" ".join(words) + _ellipsis(len(kept) - MAX_TOKENS))
    if not names or len(kept) <= MAX_TOKENS and shortened == " ".join(words):
        return TextView(shortened)
    whole = " ".join(name_token(int(token), names) for token in kept[:MAX_WHOLE_LENGTH])
    return TextView(shortened, _shorten(whole, MAX_WHOLE_LENGTH))


def _table(row: np.ndarray, statistics: _Statistics, names: Sequence[str]) -> TableView:
    """Keep the columns in which this row is farthest from the other shown rows, in units of deviation."""
    return _chosen(row, _unusual_columns(row[None], statistics), names)


def _unusual_columns(rows: np.ndarray, statistics: _Statistics) -> np.ndarray:
    """Return the columns in which rows (k, d) are farthest from all shown ones, in the mean; all where they are few."""
    size = rows.shape[1]
    if size <= MAX_TABLE_ROWS:
        return np.arange(size)
    known = statistics.columns(size)
    means, deviations = (rows.mean(0), rows.std(0)) if known is None else (known.means, known.deviations)
    unusual = (np.abs(rows - means) / (deviations + 1e-12)).mean(axis=0)
    return np.sort(np.argsort(-unusual, kind="stable")[:MAX_TABLE_ROWS])


def _chosen(row: np.ndarray, keep: np.ndarray, names: Sequence[str]) -> TableView:
    rows = tuple((name_column(int(index), names), _scalar_text(row[index])) for index in keep)
    return TableView(rows, row.size - len(keep))


def _is_cell(part: Any) -> bool:
    """Return whether a named part of an example is one number or a short text: a cell of a table."""
    if _parts(part) is not None or np.size(part) != 1:
        return False
    return len(_scalar_text(np.asarray(part).reshape(-1)[0])) <= MAX_CELL_LENGTH


def _parts(example: Any) -> list[tuple[str, Any]] | None:
    if isinstance(example, Mapping):
        return [(str(name), part) for name, part in example.items()]
    if isinstance(example, (tuple, list)):
        return [(f"input {position}", part) for position, part in enumerate(example)]
    return None


def _leaves(example: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    named = _parts(example)
    if named is None:
        yield path, np.asarray(example)
        return
    for name, part in named:
        yield from _leaves(part, f"{path}/{name}")


def _is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf"


def _scalar_text(value: Any) -> str:
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shorten(text: str, length: int = MAX_TEXT_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _ellipsis(num_hidden: int) -> str:
    return f" … and {num_hidden} more" if num_hidden > 0 else ""
