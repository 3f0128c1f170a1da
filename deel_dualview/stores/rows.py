"""One array of stored vectors as a matrix that is read row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deel_dualview.linalg.rows import LazyRows, Rows
from deel_dualview.stores.base import StoredVectors


def all_rows(stored: StoredVectors, name: str, num_columns: int | None = None) -> Rows:
    """Return an array (n, d) of a store: in memory, or beyond half of the memory budget as rows that are read.

    Args:
        stored: the vectors.
        name: of the array.
        num_columns: d; by default that of the first block.
    """
    if num_columns is None:
        num_columns = next(iter(stored))[name].shape[1]
    if stored.allows(4 * len(stored) * num_columns):
        return stored.array(name)
    return StoredRows(stored, name, num_columns)


class StoredRows(LazyRows):
    """Rows of an array in a store, mapped as they are read, so that not all are ever in memory.

    Args:
        stored: the vectors.
        name: of an array, shape (n, d').
        num_columns: d, after the map.
        function: from rows (b, d') to rows (b, d), a row at a time; none by default.
    """

    def __init__(
        self, stored: StoredVectors, name: str, num_columns: int, function: Callable[..., Any] | None = None
    ) -> None:
        self._stored, self._name, self._function = stored, name, function
        self.shape = len(stored), num_columns

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            return self._read(np.arange(*rows.indices(len(self))))
        order = np.argsort(rows, kind="stable")
        found = self._read(rows[order])
        result = np.empty_like(found)
        result[order] = found
        return result

    def _read(self, positions: np.ndarray) -> np.ndarray:
        found = self._stored.rows(self._name, positions)
        return np.asarray(found if self._function is None else self._function(found), np.float32)
