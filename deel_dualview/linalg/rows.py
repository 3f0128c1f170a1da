"""A matrix whose rows are read on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


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


class _Subset(LazyRows):
    def __init__(self, rows: LazyRows, positions: np.ndarray) -> None:
        self._rows, self._positions = rows, positions
        self.shape = len(positions), rows.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._rows[self._positions[rows]]
