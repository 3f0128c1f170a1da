"""A matrix whose rows are read, or computed, on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

_NUMBERS_AT_ONCE = 2**22
_MOST_ROWS = 8192


class LazyRows(ABC):
    """A matrix (n, d), float32, that need not fit into memory: `rows[start:stop]`, `rows[positions]`.

    What is returned belongs to the caller.

    Attributes:
        shape: (n, d).
    """

    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return consecutive rows, or those at some positions in any order, shape (r, d)."""

    def subset(self, positions: np.ndarray) -> LazyRows:
        """Return the matrix of the rows at increasing positions; nothing is read."""
        return _Subset(self, positions)


Rows: TypeAlias = np.ndarray | LazyRows
"""A matrix (n, d) of which rows are taken by a slice or by positions."""


class MappedRows(LazyRows):
    """Rows that are computed from those of another matrix when they are taken; of any dtype.

    Args:
        rows: shape (n, d').
        function: from rows (b, d') to rows (b, d), a row at a time.
        num_columns: d.
    """

    def __init__(self, rows: Rows, function: Callable[[np.ndarray], np.ndarray], num_columns: int) -> None:
        self._rows, self._function = rows, function
        self.shape = len(rows), num_columns

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._function(self._rows[rows])


def row_slices(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Yield slices of consecutive rows, of some 4 million numbers or 8,192 rows each."""
    step = max(1, min(_MOST_ROWS, _NUMBERS_AT_ONCE // max(num_columns, 1)))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def mean_and_deviation(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each column, (d,) float32 both; a deviation of 0 is given as 1."""
    center = np.zeros(rows.shape[1])
    for part in row_slices(*rows.shape):
        center += rows[part].sum(axis=0, dtype=np.float64)
    center /= max(len(rows), 1)
    squares = np.zeros_like(center)
    for part in row_slices(*rows.shape):
        squares += np.square(rows[part] - center).sum(axis=0)
    deviation = np.sqrt(squares / max(len(rows), 1))
    return center.astype(np.float32), np.where(deviation == 0, 1, deviation).astype(np.float32)


class _Subset(LazyRows):
    def __init__(self, rows: LazyRows, positions: np.ndarray) -> None:
        self._rows, self._positions = rows, positions
        self.shape = len(positions), rows.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._rows[self._positions[rows]]
