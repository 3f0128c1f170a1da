"""Passes over rows in float64, a chunk at a time: margins at given weights, and F' alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview.svm.features import Features
from deel_dualview.svm.problem import CHUNK, Problem

# A sparse product takes this many times longer an entry than a dense one.
_SPARSE_ENTRY = 60


class RowScan(NamedTuple):
    """What one pass at weights W keeps of each row, shape (n,) each.

    Attributes:
        slack: max_j z_ij - s_{i,y_i}, with z = F W + 1[j != y]; never negative.
        lead: the largest z minus the runner-up.
        winner: argmax_j z_ij, the lowest index on ties.
        shortfall: max_j z_ij minus z at the class that a frozen row stands on.
    """

    slack: np.ndarray
    lead: np.ndarray
    winner: np.ndarray
    shortfall: np.ndarray


def _chunk_margins(rows: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    scores = tf.matmul(tf.cast(rows, tf.float64), weights)
    return scores + 1.0 - tf.one_hot(labels, tf.shape(weights)[1], dtype=tf.float64)


def _over_chunks(
    function: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]],
    size: tf.Tensor,
    shapes: tuple[tuple[int | None, ...], ...],
    dtypes: tuple[tf.DType, ...],
) -> tuple[tf.Tensor, ...]:
    """Results of `function(start, stop)` for every chunk of `size` rows, one after the other, joined."""
    number = (size + CHUNK - 1) // CHUNK
    arrays = tuple(
        tf.TensorArray(dtype, number, element_shape=shape, infer_shape=False)
        for dtype, shape in zip(dtypes, shapes, strict=True)
    )

    def advance(i: tf.Tensor, *written: tf.TensorArray) -> tuple[tf.Tensor | tf.TensorArray, ...]:
        results = function(i * CHUNK, tf.minimum((i + 1) * CHUNK, size))
        return i + 1, *(array.write(i, result) for array, result in zip(written, results, strict=True))

    # One chunk at a time: the next one's float64 copy would only fight for the cache.
    loop = tf.while_loop(lambda i, *_: i < number, advance, (0, *arrays), parallel_iterations=1)
    return tuple(array.concat() for array in loop[1:])


def scan_chunk(
    rows: tf.Tensor, labels: tf.Tensor, vertex: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """The fields of `RowScan` for a chunk of rows."""
    z = _chunk_margins(rows, labels, weights)
    winner = tf.argmax(z, axis=1, output_type=tf.int32)
    top = tf.reduce_max(z, axis=1)
    is_winner = tf.one_hot(winner, tf.shape(z)[1], on_value=True, off_value=False)
    lead = top - tf.reduce_max(tf.where(is_winner, z.dtype.min, z), axis=1)
    slack = top - tf.gather(z, labels, batch_dims=1)
    return slack, lead, winner, top - tf.gather(z, vertex, batch_dims=1)


@tf.function(reduce_retracing=True, autograph=False)
def _scan(
    features: tf.Tensor, labels: tf.Tensor, vertex: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    def scan(start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return scan_chunk(features[start:stop], labels[start:stop], vertex[start:stop], weights)

    dtypes = (tf.float64, tf.float64, tf.int32, tf.float64)
    return _over_chunks(scan, tf.shape(features)[0], ((None,),) * 4, dtypes)


@tf.function(reduce_retracing=True, autograph=False)
def _margins(rows: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    def part(start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (_chunk_margins(rows[start:stop], labels[start:stop], weights),)

    return _over_chunks(part, tf.shape(rows)[0], ((None, weights.shape[1]),), (tf.float64,))[0]


@tf.function(reduce_retracing=True, autograph=False)
def _scores(rows: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    def part(start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (tf.matmul(tf.cast(rows[start:stop], tf.float64), weights),)

    return _over_chunks(part, tf.shape(rows)[0], ((None, weights.shape[1]),), (tf.float64,))[0]


def adjoint_chunk(rows: tf.Tensor, coefficients: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """`total` (c, d) and alpha' F of a chunk of rows (b, d) with their alpha (b, c), float64."""
    return total + tf.matmul(coefficients, tf.cast(rows, tf.float64), transpose_a=True)


@tf.function(reduce_retracing=True, autograph=False)
def _adjoint(rows: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    # Rows without coefficients are many: most of a working set stands on its label.
    index = tf.where(tf.reduce_any(coefficients != 0.0, axis=1))[:, 0]
    size = tf.shape(index)[0]

    def advance(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = index[start : start + CHUNK]
        return start + CHUNK, adjoint_chunk(tf.gather(rows, chosen), tf.gather(coefficients, chosen), total)

    start = tf.zeros((tf.shape(coefficients)[1], tf.shape(rows)[1]), tf.float64)
    shapes = tf.TensorShape([]), tf.TensorShape([None, None])
    loop = tf.while_loop(lambda i, _: i < size, advance, (0, start), shapes, parallel_iterations=1)
    return tf.transpose(loop[1])


def scan_rows(problem: Problem, vertex: np.ndarray, weights: tf.Tensor) -> RowScan:
    """Pass over all rows at `weights`; `vertex` (n,) int32 is the class that a frozen row stands on."""
    parts = [
        [result.numpy() for result in _scan(features, problem.labels[rows], vertex[rows], weights)]
        for rows, features in problem.features.parts()
    ]
    return RowScan(*(np.concatenate(results) for results in zip(*parts, strict=True)))


def margins(rows: tf.Tensor, labels: np.ndarray, weights: tf.Tensor) -> tf.Tensor:
    """z = F W + 1[j != y] for some rows (b, d), shape (b, c) float64."""
    if len(labels) == 0:
        return tf.zeros((0, weights.shape[1]), tf.float64)
    return _margins(rows, labels, weights)


def scores(rows: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """F W for some rows (b, d), at least one, shape (b, t) float64."""
    return _scores(rows, weights)


def adjoint(rows: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """F' alpha for some rows (b, d) and their alpha (b, c) float64, shape (d, c) float64."""
    return _adjoint(rows, coefficients)


def sparse_adjoint(
    features: Features, rows: np.ndarray, coefficients: scipy.sparse.csr_array, dtype: type[np.floating]
) -> np.ndarray:
    """alpha' F for some rows of F (n, d), increasing, and their sparse alpha (b, c), shape (c, d) float64.

    A chunk's product is in `dtype`, their sum in float64.
    """
    total = np.zeros((coefficients.shape[1], features.shape[1]))
    is_sparse = coefficients.nnz * _SPARSE_ENTRY < len(rows) * coefficients.shape[1]
    for start in range(0, len(rows), CHUNK):
        block = features[rows[start : start + CHUNK]].astype(dtype, copy=False)
        alpha = coefficients[start : start + CHUNK].astype(dtype, copy=False)
        total += alpha.T @ block if is_sparse else alpha.toarray().T @ block
    return total


def slack_and_gaps(
    features: Features, labels: np.ndarray, coefficients: scipy.sparse.csr_array, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slack of every row, and sum_j -alpha_ij (max_k z_ik - z_ij) over the classes j that are not its label.

    Args:
        features: F, shape (n, d).
        labels: y, shape (n,).
        coefficients: alpha, canonical, shape (n, c).
        weights: W, shape (d, c), float64.

    Returns:
        Two arrays (n,), float64.
    """
    slack, gaps = np.empty(len(labels)), np.empty(len(labels))
    for start in range(0, len(labels), CHUNK):
        rows = slice(start, min(start + CHUNK, len(labels)))
        z, own = features[rows].astype(np.float64) @ weights, labels[rows]
        z += 1.0
        place = np.arange(len(own))
        z[place, own] -= 1.0
        top, alpha = z.max(axis=1), coefficients[rows]
        slack[rows] = top - z[place, own]
        row = np.repeat(place, np.diff(alpha.indptr))
        # Those of the label, positive, are left out.
        lag = np.maximum(-alpha.data, 0.0) * (top[row] - z[row, alpha.indices])
        gaps[rows] = np.bincount(row, weights=lag, minlength=len(own))
    return slack, gaps
