"""Store and StoredVectors: the promises that every store keeps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview._checks import require
from deel_dualview._summaries import Summarised
from deel_dualview.data import array_bytes

HASHES = "hashes"
ID_HASHES = "id_hashes"
"""Kept where the dataset has ids: they are no part of an example's content, and may change without it."""
CHECKED = (HASHES, ID_HASHES)

Block = Mapping[str, np.ndarray]
Compute = Callable[[Any], Mapping[str, Any]]


class StoreError(ValueError):
    """A store holds other vectors than requested, is damaged, or cannot be written to."""


class StoredVectors(ABC):
    """Vectors of n examples by name, in the dataset's order, in blocks that may be iterated many times.

    Besides the names that were computed there is `"hashes"`, the examples' content hashes, uint64, and
    `"id_hashes"`, those of their ids, where the dataset has ids. Text is kept as `bytes` objects of any length.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples n."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the arrays, `"hashes"` among them."""

    @abstractmethod
    def __iter__(self) -> Iterator[Block]:
        """Yield consecutive blocks of examples: by name, an array of shape (b, ...) not to be written to."""

    @property
    def examples(self) -> "StoredVectors":
        """The vectors of whole examples, with their hashes: these, unless there is one for each position."""
        return self

    @property
    def pairs(self) -> np.ndarray | None:
        """Example and position of every row, shape (r, 1 + axes), where there is one for each position, else None."""
        return None

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays, in memory or on disk, hashes included."""
        return sum(array_bytes(array) for block in self for array in block.values())

    def array(self, name: str) -> np.ndarray:
        """Return one array of all examples, shape (n, ...), in memory.

        Raises:
            ValueError: there is no array of this name.
        """
        require(name in self.names, "No array of this name is stored.", {"name": name, "names": self.names})
        column = Column(len(self))
        for block in self:
            column.append(block[name])
        return column.array()

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Return one array of some examples, shape (r, ...), without reading those of the others.

        Args:
            name: of the array.
            positions: of the examples, increasing, shape (r,).
        """
        parts: list[np.ndarray] = []
        start = 0
        for block in self:
            stop = start + len(block[name])
            first, last = np.searchsorted(positions, [start, stop])
            if first < last or not parts:
                parts.append(block[name][positions[first:last] - start])
            start = stop
        return np.concatenate(parts)


class Store(Summarised, ABC):
    """Where the vectors of a dataset's examples are kept once a model has computed them.

    Attributes:
        progress: whether passes over a dataset are shown by a bar (only where the output is a terminal).
    """

    def __init__(self, *, progress: bool = True):
        self.progress = progress

    @abstractmethod
    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        """Return the vectors of every example of `dataset`, computed now unless this store holds them.

        Stored vectors are checked against the dataset, ids included, by a pass over it that computes nothing but
        hashes.

        Args:
            key: everything besides the examples that the vectors depend on: model, layer, versions...
            dataset: batched; the same examples in the same order at each iteration.
            compute: from an element to arrays by name, each with the element's number of examples first.

        Raises:
            ValueError: the dataset is empty, or `compute` returned non-finite numbers (the message says for
                which examples) or shapes that do not fit.
            StoreError: this store holds something else, is damaged, or cannot be written to.
        """

    def bar(self, dataset: tf.data.Dataset, description: str) -> tqdm:
        """Return a progress bar over the batches of a dataset."""
        cardinality = int(dataset.cardinality())
        return tqdm(
            total=cardinality if cardinality >= 0 else None,
            desc=description,
            unit="batch",
            leave=False,
            disable=None if self.progress else True,
        )


def checked_arrays(vectors: StoredVectors) -> Block:
    """Return the arrays by which examples are recognised: hashes of contents, and of ids if there are any."""
    return {name: vectors.array(name) for name in CHECKED if name in vectors.names}


class Column:
    """Rows of one array, appended in place: memory stays near that of the result for any n."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._rows = np.empty(0)
        self._length = 0

    def append(self, rows: np.ndarray) -> None:
        """Append rows (b, ...)."""
        if not self._length:
            self._rows = np.empty((max(self._capacity, len(rows)), *rows.shape[1:]), rows.dtype)
        stop = self._length + len(rows)
        if stop > len(self._rows):
            # In place (realloc) where an array and its enlarged copy would be held at once.
            self._rows.resize((max(stop, len(self._rows) * 3 // 2), *rows.shape[1:]), refcheck=False)
        self._rows[self._length : stop] = rows
        self._length = stop

    def array(self) -> np.ndarray:
        """Return the rows so far, read-only; nothing may be appended afterwards."""
        rows = self._rows[: self._length]
        rows.flags.writeable = False
        return rows
