"""Inputs as rows of a table: what a simple head can be fitted to that knows nothing of the network."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse
import tensorflow as tf
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from deel_dualview import data

NUM_COMPONENTS, NUM_TEXT_COMPONENTS = 50, 100
_MOST_COLUMNS = 100
"""Numbers of an example up to which each is a column of its own; more are reduced to principal components."""
_MOST_NUMBERS = 1024
"""Numbers that are kept of a large example: its image averaged over squares, or random projections of it."""
_MOST_WORDS = 8
"""A text of more words is none of a few categories."""
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
    """

    def __init__(self, *, has_token_ids: bool, seed: int = 0):
        self._has_token_ids, self._seed = has_token_ids, seed
        self._parts: dict[str, list[list[_Part]]] = {}
        self._ranges: dict[tuple[str, int], tuple[float, float]] = {}
        self._are_tokens: list[bool] = []
        self._rows: tuple[np.ndarray, np.ndarray] | None = None
        self._are_rows: list[bool] = []
        self._projections: dict[int, np.ndarray] = {}

    def add(self, inputs: Any, split: str) -> None:
        """Keep what is needed of the inputs of a batch of `"train"` or `"test"`."""
        leaves = [data.to_array(leaf) for leaf in tf.nest.flatten(inputs)]
        if not self._are_tokens:
            self._are_tokens = [self._holds_tokens(leaf, is_alone=len(leaves) == 1) for leaf in leaves]
            self._are_rows = [leaf.ndim <= 2 and leaf.size <= _MOST_COLUMNS * len(leaf) for leaf in leaves]
        self._rows = None
        own = self._parts.setdefault(split, [[] for _ in leaves])
        for number, (parts, leaf) in enumerate(zip(own, leaves, strict=True)):
            if self._are_tokens[number]:
                # 0 is padding by Keras' convention.
                parts.append([Counter(row[row != 0].tolist()) for row in leaf.astype(np.int64)])
            elif leaf.dtype.kind in "OSU":
                parts.append(_count_words(leaf))
            else:
                self._widen((split, number), leaf)
                parts.append(self._shortened(leaf))

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
        train, test = self._parts["train"], self._parts.get("test")
        for number, is_row in enumerate(self._are_rows):
            if self._are_tokens[number] or not is_row or test is None:
                continue
            if any(len(words) > _MOST_WORDS for words in train[number][0] if isinstance(words, Counter)):
                continue
            rows = [_as_given(split[number]) for split in (train, test)]
            width = min(part.shape[1] for part in rows)
            for place in range(width):
                yield Column(number, place, width, rows[0][:, place], rows[1][:, place])

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the training set (n, r) and of the test set (m, r), float32."""
        if self._rows is None:
            self._rows = self._make_rows()
        return self._rows

    def tables(self) -> list[InputColumns]:
        """Return the inputs that are tables of up to 100 columns of numbers, as they are."""
        train, test = self._parts["train"], self._parts.get("test")
        found = []
        for number, parts in enumerate(train):
            if self._are_rows[number] and not self._are_tokens[number] and isinstance(parts[0], np.ndarray):
                both = _stacked(cast(list[np.ndarray], [*parts, *(test[number] if test else [])]))
                num_train = sum(map(len, parts))
                found.append(InputColumns(number, both[:num_train], both[num_train:]))
        return found

    def _make_rows(self) -> tuple[np.ndarray, np.ndarray]:
        train, test = self._parts["train"], self._parts.get("test")
        columns, num_train = [], sum(len(part) for part in train[0])
        for number, parts in enumerate(train):
            both = [*parts, *(test[number] if test else [])]
            columns.append(_to_columns(both, self._seed))
        table = np.concatenate(columns, axis=1).astype(np.float32)
        return table[:num_train], table[num_train:]


_Part = np.ndarray | list[Counter[Any]]
"""Of a batch: numbers (b, w), or how often each of its words or tokens occurs in each example."""


def _as_given(parts: Sequence[_Part]) -> np.ndarray:
    """Return the values of an input, shape (n, w); texts, of which their words are left, are one column."""
    if isinstance(parts[0], list):
        texts = [
            " ".join(map(str, words.elements())) for part in parts for words in cast(list[Counter[Any]], part)
        ]
        return np.array(texts)[:, np.newaxis]
    return _stacked(cast(list[np.ndarray], parts))


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows (b, w) of all batches; shorter ones are filled up with zeros, as `padded_batch` does."""
    width = max(part.shape[1] for part in parts)
    missing = [width - part.shape[1] for part in parts]
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, own))) if own else part for part, own in zip(parts, missing, strict=True)]
    )


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


def _to_columns(parts: Sequence[_Part], seed: int) -> np.ndarray:
    """Return the columns of one input of all examples, shape (n + m, w)."""
    if isinstance(parts[0], list):
        return _text_columns([row for part in parts for row in part], seed)
    rows = _stacked(cast(list[np.ndarray], parts))
    finite = np.isfinite(rows)
    if not finite.all():
        means = np.where(finite, rows, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
        rows = np.where(finite, rows, means)
    if rows.shape[1] > _MOST_COLUMNS:
        num_components = min(NUM_COMPONENTS, *rows.shape)
        # The covariance of up to 1,024 numbers: exact, and one pass over the rows.
        rows = PCA(num_components, svd_solver="covariance_eigh").fit_transform(rows)
        return rows / max(float(rows.std(axis=0).max()), 1e-12)
    scale = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(scale == 0, 1, scale)


def _text_columns(counters: Sequence[Counter[Any]], seed: int) -> np.ndarray:
    """Return components of the TF-IDF of texts; of few different ones, a column each (a category)."""
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
