"""Batches of long vectors in blocks: one dense matrix or one batch of outer products for each layer."""

from typing import Any, NamedTuple

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


Blocks = tuple[tf.Tensor | OuterProduct, ...]
"""n vectors of size p in blocks: each a matrix (n, p_k) or an OuterProduct of n matrices (c_k, d_k)."""


def inner_products(queries: Blocks, vectors: Blocks) -> tf.Tensor:
    """Return all inner products, shape (m, n); outer products are never multiplied out."""
    return tf.add_n([_inner_products(left, right) for left, right in zip(queries, vectors, strict=True)])


def row_products(first: Blocks, second: Blocks) -> tf.Tensor:
    """Return the inner product of each row of `first` with the same row of `second`, shape (n,)."""
    return tf.add_n([_row_products(left, right) for left, right in zip(first, second, strict=True)])


def squared_norms(vectors: Blocks) -> tf.Tensor:
    """Return the squared Euclidean norm of every row, shape (n,)."""
    return row_products(vectors, vectors)


def norms(vectors: Blocks) -> tf.Tensor:
    """Return the Euclidean norm of every row, shape (n,), float64: no square of a small entry becomes zero."""
    rows, sizes = split_sizes(vectors)
    return sizes * tf.sqrt(tf.cast(squared_norms(rows), tf.float64))


@tf.function(reduce_retracing=True, autograph=False)
def unit(vectors: Blocks) -> Blocks:
    """Divide every row by its norm, differentiably; a row of zeros stays."""
    rows, _ = split_sizes(vectors)
    squares = squared_norms(rows)
    # A zero row is divided by 1, so that its gradient is finite too.
    lengths = tf.sqrt(tf.where(squares > 0, squares, tf.ones_like(squares)))
    return scaled(rows, 1.0 / lengths[:, tf.newaxis])


def split_sizes(vectors: Blocks) -> tuple[Blocks, tf.Tensor]:
    """Return rows whose squares neither vanish nor overflow, and what they were divided by.

    Returns:
        The rows with entries of at most 1 in absolute value, and sizes (n,), float64; a row of zeros stays and has size
        0. Sizes are constants for automatic differentiation, which is right for what does not depend on them.
    """
    parts = [_split_size(block) for block in vectors]
    sizes = tf.stop_gradient(tf.reduce_max([size for _, size in parts], axis=0))
    shares = [tf.math.divide_no_nan(size, sizes)[:, tf.newaxis] for _, size in parts]
    pairs = zip(parts, shares, strict=True)
    return tuple(scaled((block,), tf.cast(share, tf.float32))[0] for (block, _), share in pairs), sizes


def scaled(vectors: Blocks, factors: tf.Tensor | float) -> Blocks:
    """Return vectors times one factor for each row, shape (n, 1), or one for all."""
    return tuple(
        OuterProduct(block.left * factors, block.right)
        if isinstance(block, OuterProduct)
        else block * factors
        for block in vectors
    )


def to_dense(vectors: Blocks) -> tf.Tensor:
    """Multiply everything out, shape (n, p); outer products row by row: left_i right_j at i * d + j."""
    return tf.concat([_to_dense(block) for block in vectors], axis=1)


def from_dense(rows: tf.Tensor, like: Blocks) -> Blocks:
    """Cut rows (n, p) into matrices of the widths of the blocks of `like`; the inverse of `to_dense`."""
    return tuple(tf.split(rows, [_width(block) for block in like], axis=1))


def spec_of(vectors: Blocks) -> Any:
    """Return the specs of batches of any size."""
    return tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), vectors)


def _inner_products(first: Any, second: Any) -> tf.Tensor:
    if isinstance(first, OuterProduct) and isinstance(second, OuterProduct):
        left = tf.matmul(first.left, second.left, transpose_b=True)
        return left * tf.matmul(first.right, second.right, transpose_b=True)
    if isinstance(second, OuterProduct):
        return _bilinear_forms(first, second)
    if isinstance(first, OuterProduct):
        return tf.transpose(_bilinear_forms(second, first))
    return tf.matmul(first, second, transpose_b=True)


def _bilinear_forms(matrices: tf.Tensor, vectors: OuterProduct) -> tf.Tensor:
    """Return left_j' Q_i right_j for every row Q_i (c * d) of `matrices` and every j, shape (m, n)."""
    # Shapes of a traced call may not be known: another model's last layer goes through the same function.
    num_matrices, num_left, num_right = (
        tf.shape(matrices)[0],
        tf.shape(vectors.left)[1],
        tf.shape(vectors.right)[1],
    )
    rows = tf.reshape(matrices, (num_matrices * num_left, num_right))
    products = tf.matmul(rows, vectors.right, transpose_b=True)
    products = tf.reshape(products, (num_matrices, num_left, tf.shape(vectors.left)[0]))
    return tf.reduce_sum(products * tf.transpose(vectors.left), axis=1)


def _width(block: Any) -> int:
    if isinstance(block, OuterProduct):
        return int(block.left.shape[1]) * int(block.right.shape[1])
    return int(block.shape[1])


def _row_products(first: Any, second: Any) -> tf.Tensor:
    if isinstance(first, OuterProduct) and isinstance(second, OuterProduct):
        return tf.reduce_sum(first.left * second.left, axis=1) * tf.reduce_sum(
            first.right * second.right, axis=1
        )
    return tf.reduce_sum(_to_dense(first) * _to_dense(second), axis=1)


def _to_dense(block: Any) -> tf.Tensor:
    if not isinstance(block, OuterProduct):
        return block
    product = block.left[:, :, tf.newaxis] * block.right[:, tf.newaxis, :]
    flat = tf.reshape(product, (tf.shape(product)[0], tf.shape(product)[1] * tf.shape(product)[2]))
    left, right = block.left.shape[1], block.right.shape[1]
    return tf.ensure_shape(flat, (None, left * right if left and right else None))


def _split_size(block: Any) -> tuple[Any, tf.Tensor]:
    """Return rows of largest entry 1 and their sizes (n,), float64: that of an outer product may leave float32."""
    if isinstance(block, OuterProduct):
        (left, left_size), (right, right_size) = _split_size(block.left), _split_size(block.right)
        return OuterProduct(left, right), left_size * right_size
    size = tf.stop_gradient(tf.reduce_max(tf.abs(block), axis=1))
    divisors = tf.where(size > 0, size, tf.ones_like(size))
    return block / divisors[:, tf.newaxis], tf.cast(size, tf.float64)
