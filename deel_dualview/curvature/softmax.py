"""The matrix (diag(p) - p p') (x) phi phi' of softmax cross-entropy: products, traces and sums over examples.

With a single output the probability p of its class is given alone, and p (1 - p) takes the place of the
matrix in the logits.
"""

import numpy as np
import tensorflow as tf

_ROWS_PER_PRODUCT = 4096
_NEGLIGIBLE = 1e-10


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

    Examples are collected until there are enough for fast products, in float32 and added up in float64. Of
    each collection, examples whose trace is below 1e-10 of the mean trace (which a well fitted model has many
    of) are left out: together they change no eigenvalue by more than 1e-10 of the trace.

    Args:
        num_outputs: c.
        num_inputs: d.
    """

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        self.num_examples = 0
        self._sum = np.zeros((num_outputs, num_inputs, num_outputs, num_inputs))
        self._waiting: list[tuple[tf.Tensor, tf.Tensor]] = []

    def add(self, features: tf.Tensor, probabilities: tf.Tensor) -> None:
        """Add examples: features (b, d), probabilities (b, c) in float64."""
        self.num_examples += len(features)
        self._waiting.append((features, probabilities))
        if sum(len(waiting) for waiting, _ in self._waiting) >= _ROWS_PER_PRODUCT:
            self._flush()

    def mean(self) -> tf.Tensor:
        """Return the mean matrix, shape (c * d, c * d), float64."""
        self._flush()
        num_outputs, num_inputs = self._sum.shape[:2]
        size = num_outputs * num_inputs
        upper = np.triu(self._sum.reshape(size, size))
        full = upper + np.triu(upper, 1).T
        return tf.constant(full / self.num_examples)

    def _flush(self) -> None:
        if not self._waiting:
            return
        features, probabilities = (tf.concat(parts, axis=0) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        sizes = traces(features, probabilities)
        matters = sizes > _NEGLIGIBLE * tf.reduce_mean(sizes)
        features, probabilities = tf.boolean_mask(features, matters), tf.boolean_mask(probabilities, matters)
        for output in range(probabilities.shape[1]):
            blocks = _block_row(features, probabilities, tf.constant(output))
            self._sum[output, :, output:] += blocks.numpy()


@tf.function(reduce_retracing=True, autograph=False)
def _block_row(features: tf.Tensor, probabilities: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Return the blocks of one output from the diagonal on, shape (d, c - output, d), float32."""
    num_examples, num_inputs = tf.unstack(tf.shape(features))
    own, others = probabilities[:, output, tf.newaxis], probabilities[:, output + 1 :]
    weights = tf.cast(tf.concat([own * (1 - own), -own * others], axis=1), tf.float32)
    weighted = weights[:, :, tf.newaxis] * features[:, tf.newaxis, :]
    num_blocks = tf.shape(weights)[1]
    product = tf.matmul(
        features, tf.reshape(weighted, (num_examples, num_blocks * num_inputs)), transpose_a=True
    )
    return tf.reshape(product, (num_inputs, num_blocks, num_inputs))
