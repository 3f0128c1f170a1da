"""Exact Newton directions where few classes are tied, through the small dual system.

On a row with k tied classes the derivative J of the projection is the orthogonal projector on the k - 1
differences e_j - e_r, r any of them. With one row of C a difference,

    (I + sigma F' J F)^-1 g = g - F'C (C'C / sigma + C'F F'C)^-1 C'F g          (Woodbury)

and the entry (p, q) of C'F F'C is <f_p, f_q> times the inner product of the two differences.
"""

from __future__ import annotations

import tensorflow as tf


def tied_differences(tied: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The differences e_j - e_r of rows of tied classes (r, c): the row of each (k,), and they (k, c)."""
    num_classes = tf.shape(tied)[1]
    reference = tf.argmax(tied, axis=1, output_type=tf.int32)
    others = tied * (1.0 - tf.one_hot(reference, num_classes, dtype=tied.dtype))
    pairs = tf.cast(tf.where(others > 0), tf.int32)
    row = pairs[:, 0]
    signs = tf.one_hot(pairs[:, 1], num_classes, dtype=tf.float64)
    return row, signs - tf.one_hot(tf.gather(reference, row), num_classes, dtype=tf.float64)


def direct_solve(rows: tf.Tensor, tied: tf.Tensor, sigma: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """Solve (I + sigma F' J F) V = rhs exactly, in float64.

    Args:
        rows: features of the tied rows, shape (r, d) float32.
        tied: 1 where lambda > 0, shape (r, c) float32.
        sigma: weight of the proximal term, float64.
        rhs: right-hand side, shape (d, c) float64.
    """
    row, differences = tied_differences(tied)
    features = tf.gather(tf.cast(rows, tf.float64), row)
    is_same = tf.cast(row[:, None] == row[None, :], tf.float64)
    gram = tf.matmul(features, features, transpose_b=True)
    matrix = tf.matmul(differences, differences, transpose_b=True) * (gram + is_same / sigma)
    image = tf.reduce_sum(features * tf.matmul(differences, rhs, transpose_b=True), axis=1, keepdims=True)
    # The Gram matrix may be singular (duplicate rows) while 1/sigma is below its rounding.
    shift = 1e-14 * tf.reduce_max(tf.linalg.diag_part(matrix))
    factor = tf.linalg.cholesky(matrix + shift * tf.eye(tf.shape(row)[0], dtype=tf.float64))
    solved = features * tf.linalg.cholesky_solve(factor, image)
    return rhs - tf.matmul(solved, differences, transpose_a=True)
