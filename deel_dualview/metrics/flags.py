"""Which examples are marked: by flags, or by positions where the number of examples is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from deel_dualview._checks import require
from deel_dualview.data import to_array
from deel_dualview.metrics.base import check_unmasked, is_real


def checked_flags(name: str, flags: Any) -> np.ndarray:
    """Return flags as booleans.

    Raises:
        ValueError: they are something else than booleans, or 0 and 1 (positions, for instance).
    """
    check_unmasked(f"`{name}`", flags)
    array = np.asarray(to_array(flags))
    require(
        _are_flags(array),
        f"`{name}` must be booleans, or 0 and 1: positions become flags by np.isin(np.arange(n), positions).",
        {"dtype": str(array.dtype)},
    )
    return array.astype(bool)


def checked_marks(name: str, marks: Any) -> np.ndarray:
    """Return flags or positions as they were given, as far as they can be checked without the number of examples.

    Args:
        name: of the argument.
        marks: flags, booleans or 0 and 1, one an example; or positions of examples, whole numbers from 0, each once.

    Returns:
        Flags of shape (n,), bool or of numbers, or positions (k,), int64.

    Raises:
        ValueError: they are neither.
    """
    check_unmasked(f"`{name}`", marks)
    array = np.asarray(to_array(marks))
    needed = f"`{name}` must be flags, one boolean an example, or positions of examples: integers from 0, each once."
    require(array.ndim == 1, needed, {"shape": array.shape})
    is_mixed = isinstance(marks, (list, tuple)) and any(isinstance(mark, (bool, np.bool_)) for mark in marks)
    require(array.dtype == bool or is_real(array.dtype) and not is_mixed, needed, {name: marks})
    if _are_flags(array):
        return array
    numbers = array.astype(np.float64)
    bad = np.flatnonzero(~((numbers == np.round(numbers)) & (numbers >= 0) & np.isfinite(numbers)))
    require(len(bad) == 0, needed, {f"{name}[{bad[0]}]": array[bad[0]]} if len(bad) else {})
    positions, counts = np.unique(array.astype(np.int64), return_counts=True)
    require(len(positions) == len(array), needed, {"given twice": positions[counts > 1]})
    return array.astype(np.int64)


def marks_to_flags(name: str, marks: Any, size: int) -> np.ndarray:
    """Return flags of shape (size,), bool, of flags or of positions.

    0 and 1 are flags where there is one for each example, and else positions.

    Args:
        name: of the argument.
        marks: as of `checked_marks`.
        size: number of examples n.

    Raises:
        ValueError: another number of flags than of examples, or what are neither flags nor positions.
    """
    array = checked_marks(name, marks)
    if _are_flags(array) and len(array) == size:
        return array.astype(bool)
    require(
        array.dtype != bool,
        f"`{name}` must have one flag for each of the {size} examples.",
        {"number of flags": len(array)},
    )
    positions, counts = np.unique(array.astype(np.int64), return_counts=True)
    require(
        bool((counts == 1).all()),
        f"`{name}` must have one flag for each of the {size} examples, or name each position once.",
        {"length": len(array), "given twice": positions[counts > 1]},
    )
    require(
        not len(positions) or positions[-1] < size,
        f"`{name}` must be positions 0..{size - 1}, or one flag for each of the {size} examples.",
        {"largest position": positions[-1] if len(positions) else None},
    )
    return np.isin(np.arange(size), positions)


def _are_flags(array: np.ndarray) -> bool:
    return array.dtype == bool or (is_real(array.dtype) and bool(((array == 0) | (array == 1)).all()))
