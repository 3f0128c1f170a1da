"""Exact Newton directions where few classes are tied, through the small dual system.

On a row with k tied classes the derivative J of the projection is the orthogonal projector on the k - 1
differences e_j - e_r, r any of them. With one row of C a difference,

    (I + sigma F' J F)^-1 g = g - F'C (C'C / sigma + C'F F'C)^-1 C'F g          (Woodbury)

and the entry (p, q) of C'F F'C is <f_p, f_q> times the inner product of the two differences.
"""

from __future__ import annotations

import tensorflow as tf


def tied_differences(tied: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The differences e_j - e_r of rows of tied classes (r, c): row, class j and reference r of each."""
    reference = tf.argmax(tied, axis=1, output_type=tf.int32)
    others = tied * (1.0 - tf.one_hot(reference, tf.shape(tied)[1], dtype=tied.dtype))
    pairs = tf.cast(tf.where(others > 0), tf.int32)
    return pairs[:, 0], pairs[:, 1], tf.gather(reference, pairs[:, 0])


def direct_solve(rows: tf.Tensor, tied: tf.Tensor, sigma: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """Solve (I + sigma F' J F) V = rhs exactly, in float64.

    Args:
        rows: features of the tied rows, shape (r, d) float32.
        tied: 1 where lambda > 0, shape (r, c) float32.
        sigma: weight of the proximal term, float64.
        rhs: right-hand side, shape (d, c) float64.
    """
    row, first, second = tied_differences(tied)
    features = tf.gather(tf.cast(rows, tf.float64), row)

    def meet(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.cast(a[:, None] == b[None, :], tf.float64)

    products = meet(first, first) - meet(first, second) - meet(second, first) + meet(second, second)
    gram = tf.matmul(features, features, transpose_b=True)
    matrix = products * (gram + meet(row, row) / sigma)
    transposed = tf.transpose(rhs)
    difference = tf.gather(transposed, first) - tf.gather(transposed, second)
    image = tf.reduce_sum(features * difference, axis=1, keepdims=True)
    # The Gram matrix may be singular (duplicate rows) while 1/sigma is below its rounding.
    shift = 1e-14 * tf.reduce_max(tf.linalg.diag_part(matrix))
    factor = tf.linalg.cholesky(matrix + shift * tf.eye(tf.shape(row)[0], dtype=tf.float64))
    solved = features * tf.linalg.cholesky_solve(factor, image)
    num_classes = tf.shape(tied)[1]
    correction = tf.math.unsorted_segment_sum(solved, first, num_classes)
    correction -= tf.math.unsorted_segment_sum(solved, second, num_classes)
    return rhs - tf.transpose(correction)
