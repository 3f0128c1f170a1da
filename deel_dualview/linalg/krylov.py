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
    # NumPy's products of long rows with views of the basis copy nothing, a tenth of the time of tf.Variable's.
    basis = np.empty((num_iterations, operator.size), operator.dtype.as_numpy_dtype)
    projected, remainder = _explore(operator, basis, seed)
    values, vectors = np.linalg.eigh(projected)
    order = np.argsort(-np.abs(values), kind="stable")
    rotation = vectors[:, order[:rank]].T.astype(basis.dtype)
    return Spectrum(
        values[order[:rank]],
        tf.constant(_with_fixed_signs(rotation @ basis, seed)),
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


def _explore(operator: LinearOperator, basis: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Fill the rows of a basis; return A in that basis (k, k), float64, and the norm of what leads out."""
    num_iterations = len(basis)
    projected = np.zeros((num_iterations, num_iterations))
    negligible = 10 * np.finfo(basis.dtype).eps
    direction, norm = _random_direction(basis[:0], seed, 0), 0.0
    for step in range(num_iterations):
        basis[step] = direction
        known = basis[: step + 1]
        outside = operator.matmul(tf.constant(direction[np.newaxis])).numpy()[0]
        require(
            bool(np.isfinite(outside).all()),
            "Products with the matrix must be finite: check the training set, and the model's weights, for "
            "NaN, infinity or huge numbers.",
            {"iteration": step},
        )
        outside, projected[: step + 1, step] = _orthogonalised(known, outside)
        norm = float(np.linalg.norm(outside))
        if norm > negligible * np.abs(projected).max():
            direction = outside / norm
        elif step + 1 < num_iterations:
            direction, norm = _random_direction(known, seed, step + 1), 0.0
    # A column was computed before later rows of the basis were known: its lower part is still zero.
    return np.triu(projected) + np.triu(projected, 1).T, norm


def _with_fixed_signs(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Turn every row (r, p) to the side of one random direction, so that rounding errors do not choose it."""
    vectors[vectors @ _random_row(vectors, seed, -1) < 0] *= -1
    return vectors


def _random_direction(basis: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Return a random unit row (p,) orthogonal to the basis."""
    row = _random_row(basis, seed, stream)
    outside, _ = _orthogonalised(basis, row / np.linalg.norm(row))
    outside, _ = _orthogonalised(basis, outside / np.linalg.norm(outside))
    return outside / np.linalg.norm(outside)


def _random_row(like: np.ndarray, seed: int, stream: int) -> np.ndarray:
    return tf.random.stateless_normal((like.shape[1],), (seed, stream), dtype=like.dtype).numpy()


def _orthogonalised(basis: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a row (p,) orthogonal to the basis (k, p), and the row's coefficients in it (k,)."""
    first = basis @ row
    row = row - first @ basis
    # Once more: the first time leaves rounding errors of the size of what was taken away.
    second = basis @ row
    return row - second @ basis, first + second
