"""Outer products of two short vectors, kept as their factors."""

from typing import NamedTuple

import tensorflow as tf


class OuterProduct(NamedTuple):
    """One matrix `left_i right_i'` a row, never multiplied out.

    An inner product of two rows costs c + d instead of c * d multiplications. The gradient of a Dense layer
    has this form, and so has the influence vector of DualView.

    Attributes:
        left: first factors, shape (n, c).
        right: second factors, shape (n, d).
    """

    left: tf.Tensor
    right: tf.Tensor


def inner_products(queries: OuterProduct, vectors: OuterProduct) -> tf.Tensor:
    """Return the inner product of every row of `queries` with every row of `vectors`, shape (m, n)."""
    left = tf.matmul(queries.left, vectors.left, transpose_b=True)
    return left * tf.matmul(queries.right, vectors.right, transpose_b=True)


def squared_norms(vectors: OuterProduct) -> tf.Tensor:
    """Return the squared Frobenius norm of every row, shape (n,)."""
    return tf.reduce_sum(vectors.left**2, axis=1) * tf.reduce_sum(vectors.right**2, axis=1)
