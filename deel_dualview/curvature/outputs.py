"""Sums over examples of B (x) phi phi', with B the Hessian of the loss in the outputs: products, traces, matrices.

B is given by its factor, in one of the forms of `Objective.hessian_kind`. Of a binary classifier with a single output
the probability p of its class is given alone, and p (1 - p) takes the place of diag(p) - p p'.
"""

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview.data import to_array
from deel_dualview.models.objectives import HessianKind

_ROWS_PER_PRODUCT = 4096
_NEGLIGIBLE = 1e-9


@tf.function(reduce_retracing=True, autograph=False)
def mean_products(features: tf.Tensor, factor: tf.Tensor, rows: tf.Tensor, kind: HessianKind) -> tf.Tensor:
    """Return the products of rows (m, c * d) with the mean matrix of a batch, shape (m, c * d).

    Args:
        features: phi, shape (b, d).
        factor: of every B, shape (b, c) or (b, c, c).
        rows: of the dtype to compute in.
        kind: what the factor is.
    """
    features, factor = tf.cast(features, rows.dtype), tf.cast(factor, rows.dtype)
    num_rows, num_outputs, num_inputs = tf.shape(rows)[0], tf.shape(factor)[1], tf.shape(features)[1]
    matrices = tf.reshape(rows, (num_rows * num_outputs, num_inputs))
    outputs = tf.matmul(features, matrices, transpose_b=True)
    outputs = tf.reshape(outputs, (tf.shape(features)[0], num_rows, num_outputs))
    outputs = output_products(factor, outputs, kind)
    outputs = tf.reshape(outputs, (tf.shape(features)[0], num_rows * num_outputs))
    products = tf.matmul(outputs, features, transpose_a=True) / tf.cast(tf.shape(features)[0], rows.dtype)
    return tf.reshape(products, (num_rows, num_outputs * num_inputs))


def indicator_products(
    features: scipy.sparse.csr_array, factor: tf.Tensor, rows: tf.Tensor, kind: HessianKind
) -> tf.Tensor:
    """Return what `mean_products` does, for sparse features (n, d): one pass over the entries that are not 0."""
    num_rows, num_outputs, (num_examples, num_inputs) = len(rows), factor.shape[1], features.shape
    matrices = np.ascontiguousarray(np.reshape(rows, (-1, num_inputs)).T)
    outputs = tf.reshape(features @ matrices, (num_examples, num_rows, num_outputs))
    changes = output_products(tf.cast(factor, rows.dtype), tf.cast(outputs, rows.dtype), kind)
    products = features.T @ changes.numpy().reshape(num_examples, -1) / num_examples
    return tf.reshape(tf.constant(products.T, rows.dtype), rows.shape)


def output_products(factor: tf.Tensor, vectors: tf.Tensor, kind: HessianKind) -> tf.Tensor:
    """Return B v for r vectors v of every example, shape (b, r, c)."""
    if kind == "full":
        return tf.matmul(vectors, factor)
    factor = factor[:, tf.newaxis]
    if kind == "diagonal":
        return factor * vectors
    mean = tf.reduce_sum(factor * vectors, axis=-1, keepdims=True)
    return factor * (vectors - mean)


@tf.function(reduce_retracing=True, autograph=False)
def traces(features: tf.Tensor, factor: tf.Tensor, kind: HessianKind) -> tf.Tensor:
    """Return the trace of every example's matrix, shape (b,), float64."""
    features, factor = tf.cast(features, tf.float64), tf.cast(factor, tf.float64)
    return tf.reduce_sum(_diagonal(factor, kind), axis=1) * tf.reduce_sum(features**2, axis=1)


def _diagonal(factor: tf.Tensor, kind: HessianKind) -> tf.Tensor:
    if kind == "softmax":
        return factor * (1 - factor)
    return tf.linalg.diag_part(factor) if kind == "full" else factor


class OutputGram:
    """Sum of the matrices of examples that come in batches of any size.

    Examples are collected until there are enough for fast products, in float32 and added up in float64. In
    each block of the matrix, those of each collection are left out whose share of its trace is below 1e-9 of
    the mean trace: a well fitted model gives most classes so small a probability. Together they change no
    eigenvalue by more than c^2 * 1e-9 of the trace.

    Args:
        num_outputs: c.
        num_inputs: d.
        kind: what the factors are.
    """

    def __init__(self, num_outputs: int, num_inputs: int, kind: HessianKind = "softmax") -> None:
        self.num_examples = 0
        self._kind = kind
        self._num_outputs = num_outputs
        self._pairs = [
            (row, column)
            for row in range(num_outputs)
            for column in range(row, row + 1 if kind == "diagonal" else num_outputs)
        ]
        # Of every two outputs; each is symmetric, being a sum of multiples of phi phi'.
        self._sums = np.zeros((len(self._pairs), num_inputs, num_inputs))
        self._waiting: list[tuple[tf.Tensor, tf.Tensor]] = []

    def add(self, features: tf.Tensor, factor: tf.Tensor) -> None:
        """Add examples: features (b, d), factors (b, c) or (b, c, c) in float64."""
        self.num_examples += len(features)
        self._waiting.append((features, factor))
        if sum(len(waiting) for waiting, _ in self._waiting) >= _ROWS_PER_PRODUCT:
            self._flush()

    def mean(self) -> np.ndarray:
        """Return the mean matrix, shape (c * d, c * d), float64."""
        self._flush()
        num_outputs, num_inputs = self._num_outputs, self._sums.shape[1]
        mean = np.zeros((num_outputs, num_inputs, num_outputs, num_inputs))
        for (row, column), block in zip(self._pairs, self._sums, strict=True):
            np.divide(block, self.num_examples, out=mean[row, :, column])
            mean[column, :, row] = mean[row, :, column]
        return mean.reshape(num_outputs * num_inputs, -1)

    def _flush(self) -> None:
        if not self._waiting:
            return
        parts = zip(*self._waiting, strict=True)
        features, factor = (np.concatenate([to_array(part) for part in group]) for group in parts)
        self._waiting = []
        squares = np.einsum("nd,nd->n", features, features)
        by_output = np.ascontiguousarray(np.moveaxis(factor, 0, -1))
        shares = sum(np.abs(self._weights(by_output, output, output)) for output in range(self._num_outputs))
        negligible = _NEGLIGIBLE * float(np.mean(shares * squares, dtype=np.float64))
        for (row, column), total in zip(self._pairs, self._sums, strict=True):
            weights = self._weights(by_output, row, column)
            # Those of a softmax have one sign, which saves a look at all of them.
            if self._kind != "softmax" or row == column:
                _add_block(total, features, squares, weights, negligible)
            if self._kind != "softmax" or row != column:
                _add_block(total, features, squares, weights, negligible, sign=-1)

    def _weights(self, by_output: np.ndarray, row: int, column: int) -> np.ndarray:
        """Return entry (row, column) of B of every example, shape (b,)."""
        if self._kind == "full":
            return by_output[row, column]
        if self._kind == "diagonal":
            return by_output[row]
        if row == column:
            return by_output[row] * (1 - by_output[row])
        return -by_output[row] * by_output[column]


def _add_block(
    total: np.ndarray,
    features: np.ndarray,
    squares: np.ndarray,
    weights: np.ndarray,
    negligible: float,
    sign: int = 1,
) -> None:
    """Add the sum of the weights (b,) of one sign times phi phi', (d, d), without negligible traces.

    In NumPy, whose calls for these many small products cost a fifth of TensorFlow's on a CPU, and which computes
    half of a matrix times its own transpose.
    """
    indices = np.flatnonzero(sign * weights * squares > negligible)
    if not len(indices):
        return
    rows = features[indices] * np.sqrt(np.abs(weights[indices, np.newaxis])).astype(np.float32)
    if sign > 0:
        total += rows.T @ rows
    else:
        total -= rows.T @ rows
