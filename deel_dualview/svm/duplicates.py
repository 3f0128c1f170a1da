"""Examples that are equal in features and targets."""

from __future__ import annotations

import numpy as np

from deel_dualview.svm.features import Features

_CHUNK = 2048


def first_equal_rows(rows: np.ndarray | Features, targets: np.ndarray) -> np.ndarray:
    """Return for every example the index of the first one with equal features and targets, its own if none is.

    Args:
        rows: features, shape (n, d) float32.
        targets: shape (n, t) float64.
    """
    keys = _keys(rows) + _keys(targets)
    _, first, member, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    result = np.arange(len(targets))
    candidates = np.flatnonzero(counts[member] > 1)
    leaders = first[member[candidates]]
    # Equal keys are equal rows but for a chance of 2^-64 a pair.
    for start in range(0, len(candidates), _CHUNK):
        here, there = candidates[start : start + _CHUNK], leaders[start : start + _CHUNK]
        is_equal = (rows[here] == rows[there]).all(axis=1) & (targets[here] == targets[there]).all(axis=1)
        result[here[is_equal]] = there[is_equal]
    return result


def _keys(values: np.ndarray | Features) -> np.ndarray:
    """Return a number for every row, equal for equal rows; integer sums do not depend on their order."""
    n, width = values.shape
    factors = np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    keys = np.empty(n, np.uint64)
    for start in range(0, n, _CHUNK):
        part = values[start : start + _CHUNK]
        # + 0 turns -0.0 into 0.0, which is equal but has other bits.
        integers = (part + part.dtype.type(0)).view(f"u{part.dtype.itemsize}").astype(np.uint64)
        keys[start : start + _CHUNK] = integers @ factors
    return keys
