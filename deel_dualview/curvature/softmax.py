"""The matrix (diag(p) - p p') (x) phi phi' of softmax cross-entropy: products, traces and sums over examples.

With a single output the probability p of its class is given alone, and p (1 - p) takes the place of the
matrix in the logits.
"""

import numpy as np
import tensorflow as tf

from deel_dualview.data import to_array

_ROWS_PER_PRODUCT = 4096
_NEGLIGIBLE = 1e-9


@tf.function(reduce_retracing=True, autograph=False)
def mean_products(features: tf.Tensor, probabilities: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return the products of rows (m, c * d) with the mean matrix of a batch, shape (m, c * d).

    Args:
        features: phi, shape (b, d).
        probabilities: p, shape (b, c).
        rows: of the dtype to compute in.
    """
    features, probabilities = tf.cast(features, rows.dtype), tf.cast(probabilities, rows.dtype)
    num_rows, num_outputs, num_inputs = tf.shape(rows)[0], tf.shape(probabilities)[1], tf.shape(features)[1]
    matrices = tf.reshape(rows, (num_rows * num_outputs, num_inputs))
    logits = tf.matmul(features, matrices, transpose_b=True)
    logits = tf.reshape(logits, (tf.shape(features)[0], num_rows, num_outputs))
    logits = logit_products(probabilities[:, tf.newaxis], logits)
    logits = tf.reshape(logits, (tf.shape(features)[0], num_rows * num_outputs))
    products = tf.matmul(logits, features, transpose_a=True) / tf.cast(tf.shape(features)[0], rows.dtype)
    return tf.reshape(products, (num_rows, num_outputs * num_inputs))


def logit_products(probabilities: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Return (diag(p) - p p') v along the last axis, of size c, which is p (1 - p) v where c is one."""
    mean = tf.reduce_sum(probabilities * vectors, axis=-1, keepdims=True)
    return probabilities * (vectors - mean)


@tf.function(reduce_retracing=True, autograph=False)
def traces(features: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Return the trace of every example's matrix, shape (b,), float64."""
    features, probabilities = tf.cast(features, tf.float64), tf.cast(probabilities, tf.float64)
    return tf.reduce_sum(probabilities * (1 - probabilities), axis=1) * tf.reduce_sum(features**2, axis=1)


class SoftmaxGram:
    """Sum of the matrices of examples that come in batches of any size.

    Examples are collected until there are enough for fast products, in float32 and added up in float64. In
    each block of the matrix, those of each collection are left out whose share of its trace is below 1e-9 of
    the mean trace: a well fitted model gives most classes so small a probability. Together they change no
    eigenvalue by more than c^2 * 1e-9 of the trace.

    Args:
        num_outputs: c.
        num_inputs: d.
    """

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        self.num_examples = 0
        self._pairs = [(row, column) for row in range(num_outputs) for column in range(row, num_outputs)]
        # Of every two outputs; each is symmetric, being a sum of multiples of phi phi'.
        self._sums = np.zeros((len(self._pairs), num_inputs, num_inputs))
        self._waiting: list[tuple[tf.Tensor, tf.Tensor]] = []

    def add(self, features: tf.Tensor, probabilities: tf.Tensor) -> None:
        """Add examples: features (b, d), probabilities (b, c) in float64."""
        self.num_examples += len(features)
        self._waiting.append((features, probabilities))
        if sum(len(waiting) for waiting, _ in self._waiting) >= _ROWS_PER_PRODUCT:
            self._flush()

    def mean(self) -> np.ndarray:
        """Return the mean matrix, shape (c * d, c * d), float64."""
        self._flush()
        num_outputs, num_inputs = self._pairs[-1][0] + 1, self._sums.shape[1]
        mean = np.empty((num_outputs, num_inputs, num_outputs, num_inputs))
        for (row, column), block in zip(self._pairs, self._sums, strict=True):
            np.divide(block, self.num_examples, out=mean[row, :, column])
            mean[column, :, row] = mean[row, :, column]
        return mean.reshape(num_outputs * num_inputs, -1)

    def _flush(self) -> None:
        if not self._waiting:
            return
        parts = zip(*self._waiting, strict=True)
        features, probabilities = (np.concatenate([to_array(part) for part in group]) for group in parts)
        self._waiting = []
        squares = np.einsum("nd,nd->n", features, features)
        by_output = np.ascontiguousarray(probabilities.T)
        shares = np.sum(by_output * (1 - by_output), axis=0)
        negligible = _NEGLIGIBLE * float(np.mean(shares * squares, dtype=np.float64))
        for (row, column), total in zip(self._pairs, self._sums, strict=True):
            if row == column:
                total += _block(features, squares, by_output[row] * (1 - by_output[row]), negligible)
            else:
                total -= _block(features, squares, by_output[row] * by_output[column], negligible)


def _block(features: np.ndarray, squares: np.ndarray, weights: np.ndarray, negligible: float) -> np.ndarray:
    """Return the sum of weights (b,) >= 0 times phi phi', shape (d, d), float32, without negligible traces.

    In NumPy, whose calls for these many small products cost a fifth of TensorFlow's on a CPU, and which computes
    half of a matrix times its own transpose.
    """
    indices = np.flatnonzero(weights * squares > negligible)
    rows = features[indices] * np.sqrt(weights[indices, np.newaxis]).astype(np.float32)
    return rows.T @ rows
