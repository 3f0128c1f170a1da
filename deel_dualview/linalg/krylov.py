"""Eigenvalues of largest magnitude of a symmetric operator, by Arnoldi (Lanczos) iteration."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, require
from deel_dualview.linalg.operators import LinearOperator

_NUM_TRACE_PROBES = 16


class Spectrum(NamedTuple):
    """Eigenpairs of largest magnitude that an iteration found for a symmetric matrix A of size p.

    Attributes:
        eigenvalues: by decreasing magnitude, with their signs, shape (r,), float64.
        eigenvectors: orthonormal rows in the same order, shape (r, p).
        residuals: ||A v - eigenvalue v|| of each pair: how far its eigenvalue is from one of A at most, shape
            (r,).
        ritz_values: all eigenvalues of A in the space that was explored, by decreasing magnitude, shape (k,).
    """

    eigenvalues: np.ndarray
    eigenvectors: tf.Tensor
    residuals: np.ndarray
    ritz_values: np.ndarray

    @property
    def rank(self) -> int:
        """Number of eigenpairs r."""
        return len(self.eigenvalues)


def lanczos(
    operator: LinearOperator, *, rank: int, num_iterations: int | None = None, seed: int = 0
) -> Spectrum:
    """Find eigenpairs of largest magnitude with one product of A and a vector an iteration.

    Every new direction is orthogonalised twice against all earlier ones. Where they span a space that A does
    not leave (fewer different eigenvalues than iterations), the iteration goes on from another random
    direction, so that as many iterations as dimensions give all eigenpairs. Memory is (k + r) p numbers.

    Args:
        operator: A, symmetric, of size p.
        rank: number of eigenpairs r to keep.
        num_iterations: k, at least r; 2 r (p at most) by default. Eigenvalues that stand out converge first.
        seed: of the random directions.

    Raises:
        ValueError: not 1 <= r <= k <= p, or products that are not finite.

    Source: Arnoldi (1951); Golub and Van Loan (2013), section 10.3; Schioppa et al. (2022), algorithm 1.
    """
    rank = check_count("rank", rank)
    num_iterations = min(2 * rank, operator.size) if num_iterations is None else num_iterations
    num_iterations = check_count("num_iterations", num_iterations)
    require(
        rank <= num_iterations <= operator.size,
        "There must be at least as many iterations as eigenvalues to keep, and no more than dimensions.",
        {"rank": rank, "num_iterations": num_iterations, "dimensions": operator.size},
    )
    basis = tf.Variable(tf.zeros((num_iterations, operator.size), operator.dtype), trainable=False)
    projected, remainder = _explore(operator, basis, seed)
    values, vectors = np.linalg.eigh(projected)
    order = np.argsort(-np.abs(values), kind="stable")
    rotation = tf.constant(vectors[:, order[:rank]].T, operator.dtype)
    return Spectrum(
        values[order[:rank]],
        _with_fixed_signs(tf.matmul(rotation, basis), seed),
        remainder * np.abs(vectors[-1, order[:rank]]),
        values[order],
    )


def deflated_trace(operator: LinearOperator, spectrum: Spectrum, *, seed: int = 0) -> float:
    """Return an estimate of the trace of A: the eigenvalues found, and random probes of the rest.

    The rest varies far less than A itself where the eigenvalues found stand out. Costs 16 products, none
    where all eigenvalues are known.

    Source: Meyer et al. (2021), Hutch++.
    """
    known = float(spectrum.eigenvalues.sum())
    if spectrum.rank == operator.size:
        return known
    shape = (min(_NUM_TRACE_PROBES, operator.size), operator.size)
    probes = tf.sign(tf.random.stateless_uniform(shape, (seed, 2), -1.0, 1.0, operator.dtype))
    vectors = spectrum.eigenvectors
    probes -= tf.matmul(tf.matmul(probes, vectors, transpose_b=True), vectors)
    return known + float(tf.reduce_sum(probes * operator.matmul(probes))) / shape[0]


def _explore(operator: LinearOperator, basis: tf.Variable, seed: int) -> tuple[np.ndarray, float]:
    """Fill the rows of a basis; return A in that basis (k, k), float64, and the norm of what leads out."""
    num_iterations = int(basis.shape[0])
    projected = np.zeros((num_iterations, num_iterations))
    negligible = 10 * np.finfo(operator.dtype.as_numpy_dtype).eps
    direction, norm = _random_direction(basis, seed, 0), 0.0
    for step in range(num_iterations):
        basis[step].assign(direction[0])
        product = operator.matmul(direction)
        coefficients, outside, size = _orthogonalise(basis, product)
        require(
            bool(np.isfinite(coefficients).all()),
            "Products with the matrix must be finite: check the training set, and the model's weights, for NaN, "
            "infinity or huge numbers.",
            {"iteration": step},
        )
        projected[:, step] = coefficients
        norm = float(size)
        if norm > negligible * np.abs(projected).max():
            direction = outside / size
        elif step + 1 < num_iterations:
            direction, norm = _random_direction(basis, seed, step + 1), 0.0
    # A column was computed before later rows of the basis were known: its lower part is still zero.
    return np.triu(projected) + np.triu(projected, 1).T, norm


def _with_fixed_signs(vectors: tf.Tensor, seed: int) -> tf.Tensor:
    """Turn every row (r, p) to the side of one random direction, so that rounding errors do not choose it."""
    random = tf.random.stateless_normal((vectors.shape[1], 1), (seed, -1), dtype=vectors.dtype)
    return tf.where(tf.matmul(vectors, random) < 0, -vectors, vectors)


def _random_direction(basis: tf.Variable, seed: int, stream: int) -> tf.Tensor:
    """Return a random unit row (1, p) orthogonal to the basis."""
    random = tf.random.stateless_normal((1, basis.shape[1]), (seed, stream), dtype=basis.dtype)
    _, outside, _ = _orthogonalise(basis, random)
    _, outside, size = _orthogonalise(basis, outside / tf.norm(outside))
    return outside / size


@tf.function(reduce_retracing=True, autograph=False)
def _orthogonalise(basis: tf.Variable, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return coefficients of a row (1, p) in the basis (k,), the rest (1, p) and its norm.

    Rows of the basis that are not known yet are zero, and take no part.
    """
    first = tf.matmul(row, basis, transpose_b=True)
    row -= tf.matmul(first, basis)
    # Once more: the first time leaves rounding errors of the size of what was taken away.
    second = tf.matmul(row, basis, transpose_b=True)
    row -= tf.matmul(second, basis)
    return (first + second)[0], row, tf.norm(row)
