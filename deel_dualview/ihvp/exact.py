"""ExactIHVP: the curvature's matrix, factorised once."""

from functools import cached_property
from typing import Any

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.curvature import CurvatureKind
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct
from deel_dualview.linalg import spans
from deel_dualview.linalg.operators import DampedOperator, DenseOperator, LinearOperator
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store

SIZE_LIMIT = 12_000
_TOLERANCE = 1e-6


class ExactIHVP(InverseHessianVectorProduct):
    """Inverse by a Cholesky factorisation in float64 of the whole matrix, formed in the constructor.

    The matrix of the last layer has a closed form: one pass over the training set and a few matrix products. That of
    other layers takes p products of a pass each. Memory is O(p^2), the features of a last layer apart
    (`store=NoStore()` keeps none): three matrices of p^2 float64 at most at a time, two afterwards. Where a last layer
    of u units has far more inputs d than there are examples n (d >= 2 n, 1,024 at least), its matrix is formed in the
    span of their features, outside of which it is 0: with u n in the place of p, and d n numbers more.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers; up to 12,000 parameters (p above).
        curvature: `"hessian"` or `"gauss-newton"`.
        damping: absolute, or `RelativeDamping`.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        store: where the features of the training set are kept (a last layer's curvature follows from them).

    Raises:
        LinAlgError: a matrix that is not positive definite after damping (the message has its smallest eigenvalue).
        ValueError: too many parameters.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        curvature: CurvatureKind = "hessian",
        damping: Damping = None,
        regularisation: float = 0.0,
        store: Store | None = None,
    ) -> None:
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature=curvature,
            damping=damping,
            regularisation=regularisation,
            store=store,
        )
        # Without a penalty there is no inverse outside of the span: the whole matrix says so.
        has_penalty = self.regularisation > 0 or self._damping != 0
        self._basis = self._curvature.basis if has_penalty else None
        size = self.size
        if self._basis is not None:
            num_inputs, num_columns = self._basis.shape
            size = size // num_inputs * num_columns
        self._check_size(size)
        self._matrix = self._curvature.to_array() if self._basis is None else self._curvature.in_span()
        self._mean = float(np.trace(self._matrix)) / self.size
        self._factor = _cholesky(self._matrix, self._added)

    @cached_property
    def hessian(self) -> LinearOperator:
        """The damped curvature, whose inverse this is, as a matrix."""
        if self._basis is not None:
            return DampedOperator(self._curvature, self._added)
        return DampedOperator(DenseOperator(tf.constant(self._matrix)), self._added)

    @cached_property
    def inverse(self) -> tf.Tensor:
        """The inverse itself, shape (p, p), float64."""
        self._check_size(self.size)
        if self._basis is not None:
            return self._solve(tf.eye(self.size, dtype=tf.float64)).value
        triangle, _ = scipy.linalg.lapack.dpotri(self._factor, lower=True)
        return tf.constant(np.tril(triangle) + np.tril(triangle, -1).T)

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        rows = tf.cast(rows, tf.float64)
        value = spans.solve(self._solve_formed, rows, self._basis, self._added)
        # Of what a row has outside of the span nothing is left.
        sides, solved = (spans.inside(part, self._basis).numpy() for part in (rows, value))
        residual = np.linalg.norm(sides - solved @ self._matrix - self._added * solved, axis=1)
        norms = tf.norm(rows, axis=1).numpy()
        relative = np.divide(residual, norms, out=np.zeros_like(norms), where=norms > 0)
        return LinearSolution(value, tf.constant(relative <= _TOLERANCE), 1, tf.constant(relative))

    def _solve_formed(self, rows: tf.Tensor) -> tf.Tensor:
        transposed, _ = scipy.linalg.lapack.dpotrs(self._factor, rows.numpy().T, lower=True)
        return tf.constant(np.ascontiguousarray(transposed.T))

    def _check_size(self, size: int) -> None:
        require(
            size <= SIZE_LIMIT,
            f"An exact inverse holds p x p matrices, for p up to {SIZE_LIMIT}: choose fewer `weights` or "
            "another inverse, for instance EkfacIHVP or ConjugateGradientDescentIHVP.",
            {"p": size, "weights": self.weights},
        )

    def _read_first(self, dataset: tf.data.Dataset, name: str) -> Any:
        # The constructor's pass is the second reading.
        return data.first_batch(dataset, name)

    def _mean_eigenvalue(self) -> float:
        return self._mean

    @property
    def _added(self) -> float:
        """What is added to every eigenvalue."""
        return self.regularisation + self.damping


def _cholesky(matrix: np.ndarray, added: float) -> np.ndarray:
    """Return the lower Cholesky factor of a symmetric matrix + added * I; what is above its diagonal is arbitrary.

    LAPACK in float64 takes half the time of TensorFlow's factorisation. A matrix that is singular to the
    precision of its float32 products is refused.

    Raises:
        LinAlgError: the matrix is not positive definite.
    """
    damped = matrix.copy()
    np.fill_diagonal(damped, np.diag(matrix) + added)
    factor, failed = scipy.linalg.lapack.dpotrf(damped.T, lower=True, clean=False, overwrite_a=True)
    pivots = np.diag(factor) ** 2
    if not failed and np.isfinite(pivots).all() and pivots.min() > 1e-4 * pivots.max():
        return factor
    eigenvalues = scipy.linalg.eigvalsh(matrix) + added
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if failed or not smallest > np.finfo(np.float32).eps * largest:
        if not matrix.any():
            needed = (
                "The Hessian is zero: the loss has no second derivative (as the mean absolute error), or all features "
                "are zero. Take GradDot, GradCos or TracIn, or raise `damping`."
            )
            raise np.linalg.LinAlgError(describe(needed, {"damping": added}))
        raise np.linalg.LinAlgError(
            describe(
                "The Hessian is not positive definite after damping: raise `damping` (by more than minus the "
                "smallest eigenvalue), or take curvature='gauss-newton'.",
                {"smallest eigenvalue": smallest, "largest eigenvalue": largest},
            )
        )
    return factor
