"""Rows that are appended batch by batch: in memory, and beyond a number of bytes in a temporary file."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import IO

import numpy as np

from deel_dualview.linalg.rows import LazyRows
from deel_dualview.stores.disk import check_temporary_directory, reporting_full_temporary_directory

_ROWS_OF_A_PART = 4096
"""Rows are kept in parts of so many at least: a read touches few of them, and a part is small beside any budget."""


class GrowingRows(LazyRows):
    """A matrix to which rows are appended, float32; shorter rows are filled up with zeros, as `padded_batch` does.

    The temporary file is deleted with this object, and by the system when the process ends.

    Args:
        most_bytes: that are kept in memory; None for no limit.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self.shape = 0, 0
        self._most_bytes = most_bytes
        self._waiting: list[np.ndarray] = []
        self._parts: list[np.ndarray] = []
        # Of parts on the disk: the offset in numbers, and the shape.
        self._places: list[tuple[int, tuple[int, int]]] = []
        self._starts = [0]
        self._file: IO[bytes] | None = None

    def append(self, rows: np.ndarray) -> None:
        """Append rows, shape (b, w).

        Raises:
            StoreError: the temporary directory is none, or takes no more.
        """
        rows = np.asarray(rows, np.float32)
        if self._waiting and self._waiting[0].shape[1] != rows.shape[1]:
            self._flush()
        self._waiting.append(rows)
        self.shape = self.shape[0] + len(rows), max(self.shape[1], rows.shape[1])
        if sum(map(len, self._waiting)) >= _ROWS_OF_A_PART:
            self._flush()

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        self._flush()
        if isinstance(rows, slice):
            if self._file is None and len(self._parts) == 1:
                return self._parts[0][rows].copy()
            rows = np.arange(*rows.indices(len(self)))
        order = np.argsort(rows, kind="stable")
        positions = rows[order]
        found = np.zeros((len(rows), self.shape[1]), np.float32)
        bounds = np.searchsorted(positions, self._starts)
        for number in np.flatnonzero(np.diff(bounds)):
            inside = slice(bounds[number], bounds[number + 1])
            part = self._part(int(number))
            found[order[inside], : part.shape[1]] = part[positions[inside] - self._starts[number]]
        return found

    def in_memory(self) -> np.ndarray | GrowingRows:
        """Return the whole matrix as an array where it is in memory, else these rows."""
        self._flush()
        if self._file is not None:
            return self
        if len(self._parts) != 1 or self._parts[0].shape != self.shape:
            whole = self[:]
            self._parts, self._starts = [whole], [0, len(whole)]
        return self._parts[0]

    def _part(self, number: int) -> np.ndarray:
        if self._file is None:
            return self._parts[number]
        offset, shape = self._places[number]
        self._file.seek(offset * np.float32().itemsize)
        return np.fromfile(self._file, np.float32, shape[0] * shape[1]).reshape(shape)

    def _flush(self) -> None:
        if not self._waiting:
            return
        part = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        self._starts.append(self._starts[-1] + len(part))
        if self._file is not None:
            self._write(self._file, part)
            return
        self._parts.append(part)
        if self._most_bytes is not None and sum(part.nbytes for part in self._parts) > self._most_bytes:
            check_temporary_directory()
            with reporting_full_temporary_directory():
                self._file = tempfile.TemporaryFile(prefix="deel-dualview-")  # noqa: SIM115 (open as long as this)
            weakref.finalize(self, self._file.close)
            for part in self._parts:
                self._write(self._file, part)
            self._parts = []

    def _write(self, file: IO[bytes], part: np.ndarray) -> None:
        offset = file.seek(0, os.SEEK_END) // part.itemsize
        with reporting_full_temporary_directory():
            part.tofile(file)
        self._places.append((offset, (part.shape[0], part.shape[1])))
