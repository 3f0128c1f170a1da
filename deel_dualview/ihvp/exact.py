"""ExactIHVP: the curvature's matrix, factorised once."""

from functools import cached_property

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.curvature import CurvatureKind
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct
from deel_dualview.linalg.operators import DampedOperator, DenseOperator
from deel_dualview.linalg.solvers import LinearSolution, judge
from deel_dualview.models import InfluenceModel

SIZE_LIMIT = 12_000
_TOLERANCE = 1e-6


class ExactIHVP(InverseHessianVectorProduct):
    """Inverse by a Cholesky factorisation in float64 of the whole matrix, formed in the constructor.

    The matrix of the last layer has a closed form: one pass over the training set and a few matrix products.
    That of other layers takes p products of a pass each. Memory is O(p^2), whatever n: three matrices of p^2
    float64.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers; up to 12,000 parameters.
        curvature: `"hessian"` or `"gauss-newton"`.
        damping: absolute, or `RelativeDamping`.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.

    Raises:
        ValueError: a matrix that is not positive definite after damping (its smallest eigenvalue is told), or
            too many parameters.
    """

    def __init__(
        self,
        model: InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        curvature: CurvatureKind = "hessian",
        damping: Damping = None,
        regularisation: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature=curvature,
            damping=damping,
            regularisation=regularisation,
        )
        require(
            self.size <= SIZE_LIMIT,
            f"An exact inverse holds p x p matrices, for p up to {SIZE_LIMIT}: choose fewer `weights` or "
            "another inverse, for instance EkfacIHVP or ConjugateGradientDescentIHVP.",
            {"p": self.size, "weights": weights},
        )
        matrix = tf.cast(self._curvature.to_dense(), tf.float64)
        self._mean = float(tf.linalg.trace(matrix)) / self.size
        self.hessian = DampedOperator(DenseOperator(matrix), self.regularisation + self.damping)
        self._factor = _cholesky(self.hessian.to_dense())

    @cached_property
    def inverse(self) -> tf.Tensor:
        """The inverse itself, shape (p, p), float64."""
        inverse = tf.linalg.cholesky_solve(self._factor, tf.eye(self.size, dtype=tf.float64))
        return (inverse + tf.transpose(inverse)) / 2

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        rows = tf.cast(rows, tf.float64)
        value = _cholesky_solve(self._factor, rows)
        return judge(self.hessian, rows, value, _TOLERANCE)

    def _mean_eigenvalue(self) -> float:
        return self._mean


@tf.function(reduce_retracing=True, autograph=False)
def _cholesky_solve(factor: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tf.linalg.cholesky_solve(factor, tf.transpose(rows)))


def _cholesky(matrix: tf.Tensor) -> tf.Tensor:
    """Return the Cholesky factor; a matrix singular to the precision of its float32 products is refused.

    Raises:
        ValueError: the matrix is not positive definite.
    """
    try:
        factor = tf.linalg.cholesky(matrix)
        pivots = tf.linalg.diag_part(factor).numpy() ** 2
        if np.isfinite(pivots).all() and pivots.min() > 1e-4 * pivots.max():
            return factor
    except tf.errors.InvalidArgumentError:
        factor = None
    eigenvalues = tf.linalg.eigvalsh(matrix).numpy()
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if factor is None or not smallest > np.finfo(np.float32).eps * largest:
        raise ValueError(
            describe(
                "The Hessian is not positive definite after damping: raise `damping` (by more than minus the "
                "smallest eigenvalue), or take curvature='gauss-newton'.",
                {"smallest eigenvalue": smallest, "largest eigenvalue": largest},
            )
        )
    return factor
