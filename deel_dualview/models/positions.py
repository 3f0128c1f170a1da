"""Outputs at positions: one an example and step of a sequence, or pixel. Which of them count, and their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.data.examples import RowsError

Position: TypeAlias = int | tuple[int, ...]
"""The step of a sequence from 0, or the row and column of a pixel."""


class PositionLabels(NamedTuple):
    """Labels of b examples at P positions.

    Attributes:
        targets: in the form of the objective, shape (b, P) or (b, P, c).
        is_kept: which of them count, shape (b, P), bool; the others hold a label of no meaning.
    """

    targets: np.ndarray
    is_kept: np.ndarray

    def of_kept(self) -> np.ndarray:
        """Return the targets of all that count, shape (r,) or (r, c)."""
        return self.targets[self.is_kept]


def check_position(position: object) -> tuple[int, ...] | None:
    """Return a position as one index for each axis, None for none.

    Raises:
        TypeError: it is no integer, nor a tuple of such.
        ValueError: an index is negative.
    """
    if position is None:
        return None
    given = position if isinstance(position, tuple) else (position,)
    if not given or any(isinstance(part, bool) or not isinstance(part, int | np.integer) for part in given):
        needed = "`position` must be a step of a sequence, an integer, or a (row, column) of an image."
        raise TypeError(describe(needed, {"position": position}))
    require(
        min(given) >= 0,
        "`position` counts from the first step, 0: sequences of a batch may be padded to any length.",
        {"position": position},
    )
    return tuple(int(part) for part in given)


def flat_position(position: tuple[int, ...] | None, shape: tuple[int, ...]) -> int:
    """Return the index of a position among the flattened ones.

    Args:
        position: one index an axis; None raises the error that says to give one.
        shape: sizes of the axes.

    Raises:
        ValueError: there is no such position.
    """
    require(
        position is not None,
        "The model has an output at each of several positions: say which to explain, by `calculator.at(POSITION)` or "
        "InfluenceModel(model, position=POSITION).",
        {"position": None, "positions": shape},
    )
    chosen = position or ()
    require(
        len(chosen) == len(shape) and all(part < size for part, size in zip(chosen, shape, strict=False)),
        f"`position` must be one of the model's outputs, of shape {shape} here.",
        {"position": chosen[0] if len(chosen) == 1 else chosen},
    )
    return int(np.ravel_multi_index(chosen, shape))


def rows_at(position: tuple[int, ...] | None, mask: tf.Tensor) -> np.ndarray:
    """Return the rows of b examples at one position, among rows for all positions of all of them.

    Args:
        position: see `flat_position`.
        mask: shape (b, *positions), 0 where a position is padding.

    Raises:
        ValueError: there is no such position.
        RowsError: it is one of padding.
    """
    flat = np.asarray(mask).reshape(len(mask), -1)
    chosen = flat_position(position, tuple(mask.shape[1:]))
    padded = np.flatnonzero(flat[:, chosen] == 0)
    if padded.size:
        needed = "The position to explain is one of padding in these examples, by the model's mask."
        raise RowsError(needed, padded, {"position": position})
    return np.arange(len(flat)) * flat.shape[1] + chosen


def labels_at_positions(
    labels: np.ndarray,
    num_axes: int,
    to_targets: Callable[[np.ndarray], np.ndarray],
    *,
    ignored: int | None,
    is_number: bool,
) -> PositionLabels:
    """Return labels of examples at all positions, without those that do not count.

    Args:
        labels: shape (b, *positions), with a last axis of c for one-hot labels and several numbers.
        num_axes: number of axes of positions.
        to_targets: brings labels of single positions into the form of the objective; its errors name rows.
        ignored: besides negative ones a class that the loss leaves out, None for none.
        is_number: whether labels are numbers, which may be negative.

    Raises:
        ValueError: labels of another shape, or that do not fit the objective.
    """
    axes = labels.shape[1 : 1 + num_axes]
    require(
        labels.ndim in (1 + num_axes, 2 + num_axes),
        f"Labels must be of shape (b, {', '.join('positions' for _ in range(num_axes))}), one label for each output, "
        "or have a last axis of one number for each class.",
        {"shape of the labels": labels.shape},
    )
    num_positions = int(np.prod(axes))
    rows = labels.reshape((-1, *labels.shape[1 + num_axes :]))
    is_ignored = np.zeros(rows.shape, bool)
    if not is_number and labels.dtype.kind in "if":
        is_ignored = (rows < 0) | (rows == (-1 if ignored is None else ignored))
    is_kept = ~is_ignored.reshape(len(rows), -1).any(axis=1)
    try:
        kept = to_targets(rows[is_kept])
    except RowsError as error:
        raise error.of(np.flatnonzero(is_kept)[error.rows] // num_positions) from None
    targets = np.zeros((len(rows), *kept.shape[1:]), kept.dtype)
    targets[is_kept] = kept
    return PositionLabels(
        targets.reshape((len(labels), num_positions, *kept.shape[1:])),
        is_kept.reshape(len(labels), num_positions),
    )
