"""Store and StoredVectors: the promises that every store keeps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview._checks import check_bytes, check_flag, describe, require
from deel_dualview._summaries import Summarised
from deel_dualview.data import array_bytes

HASHES = "hashes"
ID_HASHES = "id_hashes"
"""Kept where the dataset has ids: they are no part of an example's content, and may change without it."""
CHECKED = (HASHES, ID_HASHES)
# Of an example: labels, weights and hashes are held whatever the budget.
_FEW_BYTES = 64

Block = Mapping[str, np.ndarray]
Compute = Callable[[Any], Mapping[str, Any]]


class StoreError(ValueError):
    """A store holds other vectors than requested, is damaged, or cannot be written to."""


class StoredVectors(ABC):
    """Vectors of n examples by name, in the dataset's order, in blocks that may be iterated many times.

    Besides the names that were computed there is `"hashes"`, the examples' content hashes, uint64, and
    `"id_hashes"`, those of their ids, where the dataset has ids. Text is kept as `bytes` objects of any length.

    Attributes:
        memory_budget: bytes that arrays with a row for every example may take; None for no limit.
    """

    memory_budget: int | None = None

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
            ValueError: there is no array of this name, or it takes more than half of the memory budget.
        """
        require(name in self.names, "No array of this name is stored.", {"name": name, "names": self.names})
        self._check_fits(name)
        column = Column(len(self))
        for block in self:
            column.append(block[name])
        return column.array()

    def allows(self, num_bytes: int, share: float = 0.5) -> bool:
        """Return whether an array of so many bytes fits into a share of the memory budget."""
        return self.memory_budget is None or num_bytes <= share * self.memory_budget

    def _check_fits(self, name: str) -> None:
        if self.memory_budget is None:
            return
        row = next(iter(self))[name][:1]
        num_bytes = len(self) * array_bytes(row)
        # A text of each example, such as its id, counts as little.
        if row.ndim > 1 and num_bytes > _FEW_BYTES * len(self) and not self.allows(num_bytes):
            message = (
                f"All `{name}` would be held at once, which takes more than half of the memory budget: raise it, or "
                "take a method that reads them in blocks (DualView of a classifier, GradDot, GradCos, "
                "FeatureSimilarity, FirstOrderInfluenceCalculator)."
            )
            raise ValueError(describe(message, {"bytes": num_bytes, "memory_budget": self.memory_budget}))

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Return one array of some examples, shape (r, ...), without reading those of the others.

        Args:
            name: of the array.
            positions: of the examples, never decreasing, shape (r,).
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
        memory_budget: bytes that arrays with a row for every example may take together: half of it stored vectors, the
            rest what a calculator makes of them; None for no limit. Beyond it they are read from the disk in blocks.
        half_precision: whether features are kept as float16, which halves their size; values change by less than 1e-3
            of the largest, those of a fitted surrogate by what its tolerance leaves open.
    """

    def __init__(
        self, *, progress: bool = True, memory_budget: int | None = None, half_precision: bool = False
    ):
        self.progress = progress
        self.memory_budget = None if memory_budget is None else check_bytes("memory_budget", memory_budget)
        self.half_precision = check_flag("half_precision", half_precision)

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

    @property
    def fits(self) -> Path | None:
        """Directory where long fits to the vectors keep how far they have come; None for none."""
        return None

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
