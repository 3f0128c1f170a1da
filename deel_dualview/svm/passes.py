"""Passes over rows in float64, a chunk at a time: margins at given weights, and F' alpha."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.svm.problem import CHUNK, Problem


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


def _margins(rows: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    scores = tf.matmul(tf.cast(rows, tf.float64), weights)
    return scores + 1.0 - tf.one_hot(labels, tf.shape(weights)[1], dtype=tf.float64)


@tf.function(reduce_retracing=True)
def _scan_chunk(
    rows: tf.Tensor, labels: tf.Tensor, vertex: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    z = _margins(rows, labels, weights)
    winner = tf.argmax(z, axis=1, output_type=tf.int32)
    top = tf.reduce_max(z, axis=1)
    is_winner = tf.one_hot(winner, tf.shape(z)[1], on_value=True, off_value=False)
    lead = top - tf.reduce_max(tf.where(is_winner, z.dtype.min, z), axis=1)
    slack = top - tf.gather(z, labels, batch_dims=1)
    return slack, lead, winner, top - tf.gather(z, vertex, batch_dims=1)


@tf.function(reduce_retracing=True)
def _margins_chunk(rows: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return _margins(rows, labels, weights)


@tf.function(reduce_retracing=True)
def _adjoint_chunk(rows: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tf.matmul(coefficients, tf.cast(rows, tf.float64), transpose_a=True))


def _chunks(size: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]


def scan_rows(problem: Problem, vertex: np.ndarray, weights: tf.Tensor) -> RowScan:
    """Pass over all rows at `weights`; `vertex` (n,) int32 is the class that a frozen row stands on."""
    parts = [
        _scan_chunk(problem.features[chunk], problem.labels[chunk], vertex[chunk], weights)
        for chunk in _chunks(problem.num_examples)
    ]
    return RowScan(*(np.concatenate([part[k].numpy() for part in parts]) for k in range(4)))


def margins(rows: tf.Tensor, labels: np.ndarray, weights: tf.Tensor) -> tf.Tensor:
    """z = F W + 1[j != y] for some rows (b, d), shape (b, c) float64."""
    parts = [_margins_chunk(rows[chunk], labels[chunk], weights) for chunk in _chunks(len(labels))]
    return tf.concat(parts, axis=0) if parts else tf.zeros((0, weights.shape[1]), tf.float64)


def adjoint(rows: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """F' alpha for some rows (b, d) and their alpha (b, c) float64, shape (d, c) float64."""
    total = tf.zeros((rows.shape[1], coefficients.shape[1]), tf.float64)
    for chunk in _chunks(rows.shape[0]):
        total += _adjoint_chunk(rows[chunk], coefficients[chunk])
    return total
