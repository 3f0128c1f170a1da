"""Vectors kept in memory, or not kept at all."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import tensorflow as tf

from deel_dualview.data import ChangedError, array_bytes
from deel_dualview.stores.base import (
    CHECKED,
    HASHES,
    Block,
    Column,
    Compute,
    Store,
    StoredVectors,
    checked_arrays,
)
from deel_dualview.stores.disk import SHARD_SIZE, TemporaryVectors
from deel_dualview.stores.passes import (
    check_examples,
    check_length,
    check_same,
    compute_blocks,
    read_again,
    read_hashes,
)

_BLOCK_SIZE = 8192
_NONE_KNOWN: Block = {}


class MemoryStore(Store):
    """Keeps vectors in memory, per key, as long as this object lives.

    Opened again with the same key, it computes anew if the dataset is found to have changed. With a memory budget,
    vectors that would take more than half of it go to a temporary directory (of `TMPDIR`), in shards read by memory
    mapping.

    Args:
        progress: see `Store`.
        memory_budget: see `Store`.
        half_precision: see `Store`.
    """

    def __init__(
        self, *, progress: bool = True, memory_budget: int | None = None, half_precision: bool = False
    ):
        super().__init__(progress=progress, memory_budget=memory_budget, half_precision=half_precision)
        self._kept: dict[tuple[tuple[str, str], ...], StoredVectors] = {}

    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        """Return the vectors of every example of `dataset`; see `Store.open`."""
        sorted_key = tuple(sorted(key.items()))
        kept = self._kept.get(sorted_key)
        if kept is None or not self._still_holds(kept, dataset):
            kept = self._kept[sorted_key] = self._compute(dataset, compute)
        return kept

    def _still_holds(self, kept: StoredVectors, dataset: tf.data.Dataset) -> bool:
        try:
            check_examples(dataset, checked_arrays(kept), self.bar(dataset, "Checking examples"))
        except ChangedError:
            return False
        return True

    def _compute(self, dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        columns: dict[str, Column] = {}
        num_batches = max(int(dataset.cardinality()), 1)
        num_bytes = sum(kept.num_bytes for kept in self._kept.values() if isinstance(kept, _InMemory))
        blocks = compute_blocks(dataset, compute, _NONE_KNOWN, self.bar(dataset, "Computing vectors"))
        for block in blocks:
            columns = columns or {name: Column(len(rows) * num_batches) for name, rows in block.items()}
            for name, rows in block.items():
                columns[name].append(rows)
                num_bytes += array_bytes(rows)
            if self.memory_budget is not None and num_bytes > self.memory_budget / 2:
                kept: StoredVectors = TemporaryVectors(chain(_drained(columns), blocks), self.memory_budget)
                break
        else:
            kept = _InMemory({name: column.array() for name, column in columns.items()})
            kept.memory_budget = self.memory_budget
        read_again(dataset, len(kept))
        return kept


class NoStore(Store):
    """Keeps nothing but the examples' hashes: vectors are computed anew at every iteration.

    For training sets whose vectors fit neither in memory nor on disk. `array` still returns them all at once.
    """

    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        """Return vectors that a pass over `dataset` computes at each iteration; see `Store.open`."""
        return _Recomputed(self, dataset, compute)


def _drained(columns: dict[str, Column]) -> Iterator[Block]:
    """Yield the rows of columns in blocks, and let go of the columns afterwards."""
    arrays = {name: column.array() for name, column in columns.items()}
    columns.clear()
    for start in range(0, len(arrays[HASHES]), SHARD_SIZE):
        yield {name: array[start : start + SHARD_SIZE] for name, array in arrays.items()}


class _InMemory(StoredVectors):
    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays[HASHES])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._arrays)

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self), _BLOCK_SIZE):
            yield {name: array[start : start + _BLOCK_SIZE] for name, array in self._arrays.items()}

    def array(self, name: str) -> np.ndarray:
        return self._arrays[name] if name in self._arrays else super().array(name)

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        return self._arrays[name][positions]


class _Recomputed(StoredVectors):
    """The first pass records hashes; every later one must yield the same."""

    def __init__(self, store: Store, dataset: tf.data.Dataset, compute: Compute):
        self._store = store
        self._dataset = dataset
        self._compute = compute
        self._known = read_hashes(dataset, store.bar(dataset, "Reading examples"))

    def __len__(self) -> int:
        return len(self._known[HASHES])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(next(self._blocks(self._dataset)))

    def __iter__(self) -> Iterator[Block]:
        stop = 0
        for block in self._blocks(self._dataset):
            start, stop = stop, stop + len(block[HASHES])
            known = {name: array[start:stop] for name, array in self._known.items()}
            check_same({name: block[name] for name in block if name in CHECKED}, known, start)
            yield block
        check_length(stop, len(self))

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self._known.values())

    def array(self, name: str) -> np.ndarray:
        return self._known[name] if name in self._known else super().array(name)

    def _blocks(self, dataset: tf.data.Dataset) -> Iterator[Block]:
        return compute_blocks(
            dataset, self._compute, _NONE_KNOWN, self._store.bar(dataset, "Computing vectors")
        )
