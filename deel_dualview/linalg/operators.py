"""Symmetric linear operators on vectors held as rows: dense, damped, or known by their products only."""

from abc import ABC, abstractmethod

import tensorflow as tf

_NUM_TRACE_PROBES = 64


class LinearOperator(ABC):
    """A symmetric matrix A of size p, known by its products with rows."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of rows and columns p."""

    @property
    def dtype(self) -> tf.DType:
        """Floating-point type in which products are computed."""
        return tf.float32

    @abstractmethod
    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        """Return `rows @ A`, shape (n, p), for rows (n, p), both of this operator's dtype."""

    def to_dense(self) -> tf.Tensor:
        """Return A itself, shape (p, p), by a product with the identity unless the operator knows better."""
        return self.matmul(tf.eye(self.size, dtype=self.dtype))

    def trace(self) -> float:
        """Return the sum of the eigenvalues; estimated (the same at every call) where A is not at hand.

        Source: Hutchinson (1990), with the same 64 sign vectors at every call.
        """
        num_probes = min(_NUM_TRACE_PROBES, self.size)
        uniform = tf.random.stateless_uniform((num_probes, self.size), (0, 0), dtype=self.dtype)
        probes = tf.sign(uniform - 0.5)
        return float(tf.reduce_sum(probes * self.matmul(probes))) / num_probes


class DenseOperator(LinearOperator):
    """A matrix in memory.

    Args:
        matrix: symmetric, shape (p, p).
    """

    def __init__(self, matrix: tf.Tensor) -> None:
        self.matrix = tf.convert_to_tensor(matrix)

    @property
    def size(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def dtype(self) -> tf.DType:
        return self.matrix.dtype

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.matmul(rows, self.matrix)

    def to_dense(self) -> tf.Tensor:
        return self.matrix

    def trace(self) -> float:
        return float(tf.linalg.trace(self.matrix))


class DampedOperator(LinearOperator):
    """A + damping * I, or A + diag(damping).

    Args:
        operator: A.
        damping: >= 0, what is added to every eigenvalue; or to every entry of the diagonal, shape (p,).
    """

    def __init__(self, operator: LinearOperator, damping: float | tf.Tensor) -> None:
        self.operator = operator
        self.damping = damping

    @property
    def size(self) -> int:
        return self.operator.size

    @property
    def dtype(self) -> tf.DType:
        return self.operator.dtype

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return self.operator.matmul(rows) + tf.cast(self.damping, rows.dtype) * rows

    def to_dense(self) -> tf.Tensor:
        dense = self.operator.to_dense()
        return tf.linalg.set_diag(dense, tf.linalg.diag_part(dense) + tf.cast(self.damping, dense.dtype))

    def trace(self) -> float:
        return self.operator.trace() + float(tf.reduce_mean(self.damping)) * self.size


def largest_eigenvalue(operator: LinearOperator, *, num_iterations: int = 30, seed: int = 0) -> float:
    """Return an estimate of the largest eigenvalue in magnitude, from below and mostly within a few per cent.

    Args:
        operator: A.
        num_iterations: products with A of a block of up to eight orthonormal rows.
        seed: of the first rows.

    Source: subspace iteration; Golub and Van Loan (2013), section 8.2.4.
    """
    num_rows = min(8, operator.size)
    rows = tf.random.stateless_normal((operator.size, num_rows), (seed, 1), dtype=operator.dtype)
    norm = tf.zeros((), operator.dtype)
    for _ in range(num_iterations):
        basis, _ = tf.linalg.qr(rows)
        rows = tf.transpose(operator.matmul(tf.transpose(basis)))
        norm = tf.linalg.svd(rows, compute_uv=False)[0]
    return float(norm)
