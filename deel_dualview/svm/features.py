"""The features of a problem, in memory or read in blocks, and what is found out about every row once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.linalg.rows import LazyRows

# Numbers of a block of a pass.
_NUMBERS = 2**22
_KEYS_AT_ONCE = 2048


class Features:
    """F, shape (n, d), float32: `features[rows]` is an array, `features.gather(rows)` a tensor.

    Args:
        rows: in memory, or read on demand; finite.

    Attributes:
        shape: (n, d).
        is_in_memory: whether all rows may be held at once.
    """

    def __init__(self, rows: np.ndarray | LazyRows) -> None:
        self._rows = rows
        self.shape: tuple[int, int] = rows.shape[0], rows.shape[1]
        self.is_in_memory = isinstance(rows, np.ndarray)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._rows[rows]

    @cached_property
    def tensor(self) -> tf.Tensor:
        """All rows: a copy, on the GPU where there is one."""
        return tf.convert_to_tensor(self[:])

    @cached_property
    def is_on_gpu(self) -> bool:
        """Whether they are held by a GPU, for all passes."""
        return self.is_in_memory and bool(tf.config.list_logical_devices("GPU"))

    def gather(self, rows: np.ndarray) -> tf.Tensor:
        """Return rows at increasing positions as a tensor (b, d); of all of them no further copy is made."""
        if len(rows) == self.shape[0]:
            return self.tensor
        return tf.gather(self.tensor, rows) if self.is_on_gpu else tf.constant(self[rows])

    def parts(self) -> Iterator[tuple[slice, np.ndarray | tf.Tensor]]:
        """Yield (rows, features (b, d)) over all: one part where a GPU holds them."""
        if self.is_on_gpu:
            yield slice(0, self.shape[0]), self.tensor
        else:
            yield from _blocks_of(self)

    def subset(self, rows: np.ndarray) -> Features:
        """Return the features of some rows, at increasing positions where these are not in memory."""
        return Features(self._rows.subset(rows) if isinstance(self._rows, LazyRows) else self._rows[rows])

    @property
    def squared_norms(self) -> np.ndarray:
        """||f||^2 of every row, shape (n,), float32."""
        return self._first_look[0]

    @property
    def is_zero(self) -> np.ndarray:
        """Which rows are zero, shape (n,)."""
        return self._first_look[1]

    @cached_property
    def keys(self) -> np.ndarray:
        """A number for every row, equal for equal rows, shape (n,) uint64."""
        return row_keys(self)

    @cached_property
    def _first_look(self) -> tuple[np.ndarray, np.ndarray]:
        squares, zero = np.empty(self.shape[0], np.float32), np.empty(self.shape[0], bool)
        for rows, part in _blocks_of(self._rows):
            with np.errstate(over="ignore"):
                squares[rows] = np.einsum("nd,nd->n", part, part)
            # By themselves: the square of a small number is 0.
            zero[rows] = ~part.any(axis=1)
        return squares, zero


def check_finite_rows(rows: np.ndarray | LazyRows) -> None:
    """Refuse rows that are not finite.

    Raises:
        ValueError: some are not; the message says which.
    """
    bad: list[int] = []
    for block, part in _blocks_of(rows):
        # A sum is finite only if every term is; it spares a mask of all numbers in the ordinary case.
        with np.errstate(invalid="ignore", over="ignore"):
            suspects = np.flatnonzero(~np.isfinite(part.sum(axis=1)))
        bad += [int(i) + block.start for i in suspects if not np.isfinite(part[i]).all()]
    require(
        not bad,
        "`features` must be finite in float32: drop or repair these rows, or look for what made them so.",
        {"num_bad_rows": len(bad), "rows": bad},
    )


def _blocks_of(rows: np.ndarray | LazyRows | Features) -> Iterator[tuple[slice, np.ndarray]]:
    n, d = rows.shape
    size = max(_NUMBERS // d, 1)
    for start in range(0, n, size):
        block = slice(start, min(start + size, n))
        yield block, rows[block]


def row_keys(rows: np.ndarray | Features) -> np.ndarray:
    """Return a number for every row, equal for equal rows; integer sums do not depend on their order."""
    n, width = rows.shape
    factors = np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    keys = np.empty(n, np.uint64)
    for start in range(0, n, _KEYS_AT_ONCE):
        part = rows[start : start + _KEYS_AT_ONCE]
        # + 0 turns -0.0 into 0.0, which is equal but has other bits.
        integers = (part + part.dtype.type(0)).view(f"u{part.dtype.itemsize}").astype(np.uint64)
        keys[start : start + _KEYS_AT_ONCE] = integers @ factors
    return keys
