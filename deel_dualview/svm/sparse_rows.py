"""Sparse rows that are rewritten over and over, without rebuilding the rest."""

from __future__ import annotations

import numpy as np
import scipy.sparse


class SparseRows:
    """A sparse array (n, c) whose rows are read and replaced in any order.

    New entries go to the end, and rows point to theirs; entries that nothing points to are dropped when room runs out.
    At most three times as many entries are held as there are.

    Args:
        rows: the array to begin with, CSR; not modified.
    """

    def __init__(self, rows: scipy.sparse.csr_array) -> None:
        self.shape: tuple[int, int] = rows.shape
        self._used = 0
        self._fill(rows, rows.nnz)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self._counts.sum())

    def __getitem__(self, rows: np.ndarray) -> scipy.sparse.csr_array:
        """Return some rows, CSR (len(rows), c)."""
        counts = self._counts[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self._starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
        return scipy.sparse.csr_array(
            (self._values[places], self._columns[places], starts), shape=(len(rows), self.shape[1])
        )

    def __setitem__(self, rows: np.ndarray, new: scipy.sparse.csr_array) -> None:
        """Replace some rows, each named once, by those of a CSR array (len(rows), c)."""
        if self._used + new.nnz > len(self._values):
            self._fill(self[np.arange(self.shape[0])], new.nnz)
        end = self._used + new.nnz
        self._columns[self._used : end], self._values[self._used : end] = new.indices, new.data
        self._starts[rows], self._counts[rows] = self._used + new.indptr[:-1], np.diff(new.indptr)
        self._used = end

    def _fill(self, rows: scipy.sparse.csr_array, room: int) -> None:
        """Hold these rows alone, with room for at least as many entries again, and `room`."""
        free = np.zeros(max(room, rows.nnz))
        self._columns = np.concatenate([rows.indices, free.astype(rows.indices.dtype)])
        self._values = np.concatenate([rows.data, free.astype(rows.data.dtype)])
        self._starts, self._counts, self._used = rows.indptr[:-1].copy(), np.diff(rows.indptr), rows.nnz
