"""Examples that are equal in features and targets."""

from __future__ import annotations

import numpy as np

from deel_dualview.svm.features import Features, row_keys

_CHUNK = 2048


def first_equal_rows(rows: np.ndarray | Features, targets: np.ndarray) -> np.ndarray:
    """Return for every example the index of the first one with equal features and targets, its own if none is.

    Args:
        rows: features, shape (n, d) float32.
        targets: shape (n, t) float64.
    """
    keys = (rows.keys if isinstance(rows, Features) else row_keys(rows)) + row_keys(targets)
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
