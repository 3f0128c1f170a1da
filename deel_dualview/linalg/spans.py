"""Curvatures of few rows in many inputs: they act in the span of the rows alone, in which they are small."""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

WIDE, LEAST_WIDE = 2, 1024
"""From how many inputs a row on, and in all, coordinates in the span save more than finding them costs."""
_MOST_NUMBERS = 2**26
"""Of a basis: 512 MiB."""


def is_wide(num_rows: int, num_inputs: int) -> bool:
    """Return whether rows (n, d) are so few that it pays to find their span first."""
    return num_inputs >= max(WIDE * num_rows, LEAST_WIDE)


def basis_of(blocks: Iterable[tf.Tensor], num_rows: int, num_inputs: int) -> tf.Tensor | None:
    """Return orthonormal columns whose span has all rows, shape (d, n), float64; None unless rows are few.

    Args:
        blocks: the rows, (b, d) each; not read unless they are few.
        num_rows: n.
        num_inputs: d.
    """
    if not is_wide(num_rows, num_inputs) or num_rows * num_inputs > _MOST_NUMBERS:
        return None
    rows = np.concatenate([np.asarray(block, np.float64) for block in blocks])
    return tf.constant(np.linalg.qr(rows.T).Q)


def inside(rows: tf.Tensor, basis: tf.Tensor | None) -> tf.Tensor:
    """Return rows (m, c * d) in coordinates of the basis, (m, c * n); as they are without one."""
    if basis is None:
        return rows
    num_inputs, num_columns = basis.shape
    products = tf.matmul(tf.reshape(rows, (-1, num_inputs)), tf.cast(basis, rows.dtype))
    return tf.reshape(products, (-1, rows.shape[1] // num_inputs * num_columns))


def solve(
    inverse: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor, basis: tf.Tensor | None, damping: float
) -> tf.Tensor:
    """Return (H + damping I)^-1 times rows (m, c * d), float64, for H = (I (x) basis) M (I (x) basis)'.

    Outside of the span H is 0: what a row has there is divided by the damping.

    Args:
        inverse: of M + damping I, applied to rows (m, c * n).
        rows: right-hand sides.
        basis: shape (d, n), orthonormal columns; None where M is H itself.
        damping: positive.
    """
    if basis is None:
        return inverse(rows)
    coordinates = inside(rows, basis)
    changes = tf.reshape(inverse(coordinates) - coordinates / damping, (-1, basis.shape[1]))
    return tf.reshape(tf.matmul(changes, basis, transpose_b=True), tf.shape(rows)) + rows / damping
