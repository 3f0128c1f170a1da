"""Approximate inverses of the Newton matrix I + sigma F' J F, built when conjugate gradients get long.

The diagonal block of class j is I + sigma sum_i (1 - 1/k_i) f_i f_i' over the rows tied there, k_i classes
each. The blocks themselves save the most iterations; where c d x d numbers are too many, one eigenbasis
shared by all classes and one diagonal a class do.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import tensorflow as tf

# Tied rows that a block looks at, in multiples of d, and that the shared basis looks at.
_ROWS_PER_FEATURE = 3
_SAMPLED_ROWS = 4096


class SharedBasis(NamedTuple):
    """basis diag(inverse of class j) basis' for every class j.

    Attributes:
        basis: orthogonal, shape (d, d) float32.
        inverse: positive, shape (d, c) float32.
    """

    basis: tf.Tensor
    inverse: tf.Tensor


Preconditioner: TypeAlias = tf.Tensor | SharedBasis | None
"""Inverse blocks (c, d, d) float32, a shared basis, or nothing."""


def precondition(preconditioner: Preconditioner, residual: tf.Tensor) -> tf.Tensor:
    """Apply to a residual (d, c) whose rows sum to zero over the classes, and keep it so.

    alpha sums to zero over the classes, so all gradients do.
    """
    if preconditioner is None:
        return residual
    if isinstance(preconditioner, SharedBasis):
        turned = tf.matmul(preconditioner.basis, residual, transpose_a=True)
        solved = tf.matmul(preconditioner.basis, turned * preconditioner.inverse)
    else:
        solved = tf.transpose(tf.linalg.matvec(preconditioner, tf.transpose(residual)))
    return solved - tf.reduce_mean(solved, axis=1, keepdims=True)


def build_preconditioner(rows: tf.Tensor, multipliers: tf.Tensor, sigma: tf.Tensor) -> Preconditioner:
    """Preconditioner at lambda (b, c) for rows (b, d): blocks while they are smaller than the rows."""
    size, num_classes = rows.shape[1], multipliers.shape[1]
    if num_classes * size <= max(rows.shape[0], 4 * size, 4096):
        return _block_inverses(rows, multipliers, sigma)
    return _shared_basis(rows, multipliers, sigma)


def build_cost(size: int, num_tied: int) -> float:
    """About how many conjugate gradient iterations on `num_tied` rows cost as much as building."""
    return min(max(4.0 * size**2 / (4 * num_tied + 2 * size), 5.0), 100.0)


def _tied_weights(multipliers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tied rows, and their diagonal entries 1 - 1/k of J (0 off the tied classes)."""
    tied = multipliers > 0
    counts = tf.reduce_sum(tf.cast(tied, tf.float32), axis=1, keepdims=True)
    index = tf.where(counts[:, 0] > 1)[:, 0]
    return index, tf.gather(tf.cast(tied, tf.float32) * (1 - 1 / tf.maximum(counts, 1.0)), index)


@tf.function(reduce_retracing=True, autograph=False)
def _block_inverses(rows: tf.Tensor, multipliers: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    index, diagonal = _tied_weights(multipliers)
    size = tf.shape(rows)[1]
    identity = tf.eye(size, dtype=tf.float64)

    def block(j: tf.Tensor) -> tf.Tensor:
        chosen = tf.where(diagonal[:, j] > 0)[:, 0]
        stride = 1 + tf.shape(chosen)[0] // (_ROWS_PER_FEATURE * size)
        chosen = chosen[::stride]
        scale = tf.cast(sigma, tf.float32) * tf.cast(stride, tf.float32) * tf.gather(diagonal[:, j], chosen)
        weighted = tf.gather(rows, tf.gather(index, chosen)) * tf.sqrt(scale)[:, None]
        gram = tf.cast(tf.matmul(weighted, weighted, transpose_a=True), tf.float64)
        # float32 rounding of the Gram matrix is relative to its largest eigenvalue.
        factor = tf.linalg.cholesky(gram + (1.0 + 1e-6 * tf.linalg.trace(gram)) * identity)
        inverse = tf.cast(tf.linalg.cholesky_solve(factor, identity), tf.float32)
        is_sound = tf.reduce_all(tf.math.is_finite(inverse))
        return tf.where(is_sound, inverse, tf.cast(identity, tf.float32))

    return tf.map_fn(block, tf.range(tf.shape(multipliers)[1]), fn_output_signature=tf.float32)


@tf.function(reduce_retracing=True, autograph=False)
def _shared_basis(rows: tf.Tensor, multipliers: tf.Tensor, sigma: tf.Tensor) -> SharedBasis:
    index, diagonal = _tied_weights(multipliers)
    stride = 1 + tf.shape(index)[0] // _SAMPLED_ROWS
    weights = diagonal[::stride] * tf.cast(sigma, tf.float32) * tf.cast(stride, tf.float32)
    sample = tf.gather(rows, index[::stride])
    pooled = sample * tf.sqrt(tf.reduce_sum(weights, axis=1, keepdims=True))
    _, basis = tf.linalg.eigh(tf.matmul(pooled, pooled, transpose_a=True))
    squares = tf.square(tf.matmul(sample, basis))
    return SharedBasis(basis, 1 / (1 + tf.matmul(squares, weights, transpose_a=True)))
