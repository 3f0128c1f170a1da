"""Inputs as rows of a table: what a simple head can be fitted to that knows nothing of the network."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse
import tensorflow as tf
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from deel_dualview import data
from deel_dualview.linalg.rows import MappedRows, Rows, row_slices
from deel_dualview.stores.growing import GrowingRows

NUM_COMPONENTS, NUM_TEXT_COMPONENTS = 50, 100
_MOST_COLUMNS = 100
"""Numbers of an example up to which each is a column of its own; more are reduced to principal components."""
_MOST_NUMBERS = 1024
"""Numbers that are kept of a large example: its image averaged over squares, or random projections of it."""
_MOST_WORDS, _FIRST_TEXTS = 8, 256
"""A text of more words is none of a few categories, of which the first texts show whether they are."""
_WORD = re.compile(r"\w+")


class InputRange(NamedTuple):
    """Numbers of one input of one set.

    Attributes:
        split: `"train"` or `"test"`.
        number: of the input among the model's, from 0.
        low: the smallest.
        high: the largest.
    """

    split: str
    number: int
    low: float
    high: float


class InputColumns(NamedTuple):
    """An input that is a table, as it is.

    Attributes:
        number: of the input among the model's, from 0.
        train: shape (n, w) float32.
        test: shape (m, w) float32.
    """

    number: int
    train: np.ndarray
    test: np.ndarray


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        number: of the input among the model's, from 0.
        place: of the column in this input.
        width: number of columns of this input.
        train: values, shape (n,): numbers, or texts by their words.
        test: shape (m,).
    """

    number: int
    place: int
    width: int
    train: np.ndarray
    test: np.ndarray


class InputTable:
    """Collects the inputs of both sets, batch by batch, and makes rows of them.

    Columns are standardised, images and other large arrays become principal components, texts and token ids components
    of their TF-IDF. All is fitted to both sets together, without labels: fitted to the training set alone it would
    make that look easier, or harder, than the test set.

    Args:
        has_token_ids: whether whole numbers stand for tokens, as an Embedding takes them.
        seed: of random projections and components.
        most_bytes: of numbers that are kept in memory, beyond which they go to the temporary directory; None for no
            limit. Words of texts, and tokens, are always in memory.
    """

    def __init__(self, *, has_token_ids: bool, seed: int = 0, most_bytes: int | None = None):
        self._has_token_ids, self._seed, self._most_bytes = has_token_ids, seed, most_bytes
        self._kept: dict[str, list[_Kept]] = {}
        self._ranges: dict[tuple[str, int], tuple[float, float]] = {}
        self._are_tokens: list[bool] = []
        self._rows: tuple[Rows, np.ndarray] | None = None
        self._are_rows: list[bool] = []
        self._projections: dict[int, np.ndarray] = {}

    def add(self, inputs: Any, split: str) -> None:
        """Keep what is needed of the inputs of a batch of `"train"` or `"test"`."""
        leaves = [data.to_array(leaf) for leaf in tf.nest.flatten(inputs)]
        if not self._are_tokens:
            self._are_tokens = [self._holds_tokens(leaf, is_alone=len(leaves) == 1) for leaf in leaves]
            self._are_rows = [leaf.ndim <= 2 and leaf.size <= _MOST_COLUMNS * len(leaf) for leaf in leaves]
        self._rows = None
        if split not in self._kept:
            most = None if self._most_bytes is None else self._most_bytes // len(leaves)
            self._kept[split] = [
                [] if are_tokens or leaf.dtype.kind in "OSU" else GrowingRows(most)
                for leaf, are_tokens in zip(leaves, self._are_tokens, strict=True)
            ]
        for number, (kept, leaf) in enumerate(zip(self._kept[split], leaves, strict=True)):
            if isinstance(kept, GrowingRows):
                self._widen((split, number), leaf)
                kept.append(self._shortened(leaf))
            elif self._are_tokens[number]:
                # 0 is padding by Keras' convention.
                kept += [Counter(row[row != 0].tolist()) for row in leaf.astype(np.int64)]
            else:
                kept += _count_words(leaf)

    def _holds_tokens(self, values: np.ndarray, *, is_alone: bool) -> bool:
        """Return whether an input holds token ids, by its first batch; floats do only where there is no other input."""
        if not self._has_token_ids or values.ndim != 2 or values.shape[1] == 1:
            return False
        if values.dtype.kind == "f":
            return is_alone and bool((values == np.round(values)).all())
        return values.dtype.kind in "iu"

    def _shortened(self, values: np.ndarray) -> np.ndarray:
        """Return an input of b examples as rows of at most 1,024 numbers."""
        if values[0].size <= _MOST_NUMBERS:
            return values.reshape(len(values), -1).astype(np.float32)
        values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
        rows = (_averaged(values) if values.ndim == 4 else values).reshape(len(values), -1)
        if rows.shape[1] <= _MOST_NUMBERS:
            return rows
        if rows.shape[1] not in self._projections:
            projection = np.random.default_rng(self._seed).standard_normal(
                (rows.shape[1], _MOST_NUMBERS), np.float32
            )
            self._projections[rows.shape[1]] = projection / np.sqrt(np.float32(_MOST_NUMBERS))
        return rows @ self._projections[rows.shape[1]]

    @property
    def ranges(self) -> list[InputRange]:
        """The ranges of the inputs that are numbers (token ids are none), of both sets."""
        return [InputRange(*key, *found) for key, found in self._ranges.items()]

    def _widen(self, key: tuple[str, int], values: np.ndarray) -> None:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            low, high = self._ranges.get(key, (np.inf, -np.inf))
            self._ranges[key] = min(low, float(finite.min())), max(high, float(finite.max()))

    def columns(self) -> Iterator[Column]:
        """Yield the columns of inputs that are rows of up to 100 numbers, or texts of few words, as they were given."""
        train, test = self._kept["train"], self._kept.get("test")
        for number, is_row in enumerate(self._are_rows):
            if self._are_tokens[number] or not is_row or test is None:
                continue
            own = train[number]
            if isinstance(own, list) and any(len(words) > _MOST_WORDS for words in own[:_FIRST_TEXTS]):
                continue
            rows = [_as_given(split[number]) for split in (train, test)]
            width = min(part.shape[1] for part in rows)
            for place in range(width):
                yield Column(number, place, width, rows[0][:, place], rows[1][:, place])

    def rows(self) -> tuple[Rows, np.ndarray]:
        """Return the rows of the training set (n, r) and of the test set (m, r), float32."""
        if self._rows is None:
            self._rows = self._make_rows()
        return self._rows

    def tables(self) -> list[InputColumns]:
        """Return the inputs that are tables of up to 100 columns of numbers, as they are."""
        return [
            InputColumns(number, *(rows[:] for rows in self._numbers(number)))
            for number, kept in enumerate(self._kept["train"])
            if self._are_rows[number] and isinstance(kept, GrowingRows)
        ]

    def _numbers(self, number: int) -> tuple[Rows, Rows]:
        """Return the rows of an input of numbers of both sets; shorter ones are filled up with zeros."""
        kept = [
            cast(GrowingRows, self._kept[name][number]) for name in ("train", "test") if name in self._kept
        ]
        width = max(rows.shape[1] for rows in kept)
        train, *test = (_as_wide(rows, width) for rows in kept)
        return train, (test[0] if test else np.empty((0, width), np.float32))

    def _make_rows(self) -> tuple[Rows, np.ndarray]:
        columns = [
            _number_columns(*self._numbers(number))
            if isinstance(kept, GrowingRows)
            else _text_columns(
                kept, cast(list[Counter[Any]], self._kept.get("test", {number: []})[number]), self._seed
            )
            for number, kept in enumerate(self._kept["train"])
        ]
        tables = []
        for own in zip(*columns, strict=True):
            table, width = GrowingRows(self._most_bytes), sum(rows.shape[1] for rows in own)
            for part in row_slices(len(own[0]), width):
                table.append(np.concatenate([rows[part] for rows in own], axis=1))
            tables.append(table.in_memory() if len(own[0]) else np.empty((0, width), np.float32))
        return tables[0], tables[1][:]


_Kept = GrowingRows | list[Counter[Any]]
"""Of all examples: numbers (n, w), or how often each of its words or tokens occurs in each."""


def _as_given(kept: _Kept) -> np.ndarray:
    """Return the values of an input, shape (n, w); texts, of which their words are left, are one column."""
    if isinstance(kept, GrowingRows):
        return kept[:]
    return np.array([" ".join(map(str, words.elements())) for words in kept])[:, np.newaxis]


def _as_wide(kept: GrowingRows, width: int) -> Rows:
    rows = kept.in_memory()
    missing = width - rows.shape[1]
    return rows if not missing else MappedRows(rows, lambda part: np.pad(part, ((0, 0), (0, missing))), width)


def _count_words(values: np.ndarray) -> list[Counter[Any]]:
    """Return how often each word occurs in each of b texts (or rows of texts)."""
    texts = values.reshape(len(values), -1).tolist()
    return [Counter(word for text in row for word in _words(text)) for row in texts]


def _words(text: str | bytes) -> list[str]:
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return _WORD.findall(text.lower())


def _averaged(images: np.ndarray) -> np.ndarray:
    """Average images (b, height, width, channels) over squares, until few enough numbers are left."""
    height, width, channels = images.shape[1:]
    side = int(np.ceil(np.sqrt(height * width * channels / _MOST_NUMBERS)))
    if side <= 1:
        return images
    cut = images[:, : max(height // side, 1) * min(side, height), : max(width // side, 1) * min(side, width)]
    shape = (
        len(cut),
        max(height // side, 1),
        -1,
        max(width // side, 1),
        cut.shape[2] // max(width // side, 1),
        channels,
    )
    return cut.reshape(shape).mean(axis=(2, 4))


def _number_columns(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    """Return the columns of an input of numbers of both sets: standardised, or principal components of many."""
    both, width = (train, test), train.shape[1]
    total, count = np.zeros(width), np.zeros(width)
    for part in _parts_of(both):
        is_finite = np.isfinite(part)
        total += np.where(is_finite, part, 0).sum(axis=0, dtype=np.float64)
        count += is_finite.sum(axis=0)
    mean = total / np.maximum(count, 1)
    mean = mean.astype(np.float32)

    def centred(part: np.ndarray) -> np.ndarray:
        part = part - mean
        # A missing number counts as the mean.
        return np.where(np.isfinite(part), part, 0)

    num_rows = len(train) + len(test)
    if width <= _MOST_COLUMNS:
        squares = sum(np.square(centred(part)).sum(axis=0, dtype=np.float64) for part in _parts_of(both))
        deviation = np.sqrt(squares / num_rows)
        scale = np.where(deviation == 0, 1, deviation).astype(np.float32)
        found = [MappedRows(rows, lambda part: centred(part) / scale, width) for rows in both]
        return found[0], found[1]
    # The covariance of up to 1,024 numbers: exact, and one pass over the rows.
    covariance = np.zeros((width, width))
    for part in _parts_of(both):
        rows = centred(part)
        covariance += rows.T @ rows
    values, vectors = np.linalg.eigh(covariance / num_rows)
    num_components = min(NUM_COMPONENTS, num_rows, width)
    largest = max(float(np.sqrt(max(values[-1], 0))), 1e-12)
    components = (vectors[:, ::-1][:, :num_components] / largest).astype(np.float32)
    found = [MappedRows(rows, lambda part: centred(part) @ components, num_components) for rows in both]
    return found[0], found[1]


def _parts_of(both: Sequence[Rows]) -> Iterator[np.ndarray]:
    for rows in both:
        for part in row_slices(*rows.shape):
            yield rows[part]


def _text_columns(
    train: Sequence[Counter[Any]], test: Sequence[Counter[Any]], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return components of the TF-IDF of texts of both sets; of few different ones, a column each (a category)."""
    columns = _words_columns([*train, *test], seed)
    return columns[: len(train)], columns[len(train) :]


def _words_columns(counters: Sequence[Counter[Any]], seed: int) -> np.ndarray:
    names: dict[Any, int] = {}
    indices = [names.setdefault(word, len(names)) for counter in counters for word in counter]
    starts = np.cumsum([0, *(len(counter) for counter in counters)])
    values = np.array([count for counter in counters for count in counter.values()], np.float64)
    counts = scipy.sparse.csr_array((values, indices, starts), shape=(len(counters), max(len(names), 1)))
    weighted = TfidfTransformer().fit_transform(counts)
    if weighted.shape[1] <= NUM_TEXT_COMPONENTS:
        return weighted.toarray()
    num_components = min(NUM_TEXT_COMPONENTS, len(counters))
    return TruncatedSVD(num_components, random_state=seed).fit_transform(scipy.sparse.csr_matrix(weighted))
