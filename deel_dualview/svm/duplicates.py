"""Examples that are equal in features and targets."""

from __future__ import annotations

import numpy as np

from deel_dualview.svm.problem import CHUNK


def first_equal_rows(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return for every example the index of the first one with equal features and targets, its own if none is.

    Args:
        rows: features, shape (n, d) float32.
        targets: shape (n, t) float64.
    """
    keys = _keys(rows) + _keys(targets)
    _, first, member, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    result = np.arange(len(rows))
    candidates = np.flatnonzero(counts[member] > 1)
    leaders = first[member[candidates]]
    # Equal keys are equal rows but for a chance of 2^-64 a pair.
    equal = (rows[candidates] == rows[leaders]).all(axis=1) & (targets[candidates] == targets[leaders]).all(
        axis=1
    )
    result[candidates[equal]] = leaders[equal]
    return result


def _keys(values: np.ndarray) -> np.ndarray:
    """Return a number for every row, equal for equal rows; integer sums do not depend on their order."""
    integers = np.dtype(f"u{values.dtype.itemsize}")
    factors = np.random.default_rng(0).integers(2**63, size=values.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    # + 0 turns -0.0 into 0.0, which is equal but has other bits.
    return np.concatenate(
        [
            (values[start : start + CHUNK] + values.dtype.type(0)).view(integers).astype(np.uint64) @ factors
            for start in range(0, len(values), CHUNK)
        ]
        or [np.zeros(0, np.uint64)]
    )
