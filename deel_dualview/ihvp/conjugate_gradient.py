"""ConjugateGradientDescentIHVP: solves for all rows of a batch at once."""

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, describe
from deel_dualview.curvature import CurvatureKind
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct
from deel_dualview.linalg.operators import LinearOperator
from deel_dualview.linalg.solvers import LinearSolution, conjugate_gradient
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store


class ConjugateGradientDescentIHVP(InverseHessianVectorProduct):
    """Inverse by conjugate gradients: one product with the Hessian a step, for all rows not yet converged.

    The constructor does nothing long. In a last layer of up to 4,096 parameters the first solve forms the
    matrix, by one pass over the training set, and steps are then cheap; a larger last layer keeps its
    features; in other weights each step is a pass over the training set (O(p) memory a row), where few large
    batches of queries pay. Negative curvature that a row meets is an error: raise `damping` or take
    `"gauss-newton"`.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers.
        curvature: `"hessian"` or `"gauss-newton"`.
        damping: absolute, or `RelativeDamping`.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        max_iterations: products with the Hessian for one batch of rows.
        tolerance: of the residual, relative to each row; float32 products go down to about 1e-6.
        preconditioner: an operator near the inverse, positive definite: another inverse, an EkfacIHVP for
            instance.
        store: where the features of the training set are kept (a last layer's curvature follows from them).

    Raises:
        LinAlgError: at a solve, a damped Hessian that is not positive definite.
        TypeError: `preconditioner` is not a LinearOperator.
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
        max_iterations: int = 1000,
        tolerance: float = 1e-5,
        preconditioner: LinearOperator | None = None,
        store: Store | None = None,
    ) -> None:
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.tolerance = check_positive("tolerance", tolerance)
        if not isinstance(preconditioner, LinearOperator | None):
            raise TypeError(
                describe(
                    "`preconditioner` must be a LinearOperator.", {"type": type(preconditioner).__name__}
                )
            )
        self.preconditioner = preconditioner
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature=curvature,
            damping=damping,
            regularisation=regularisation,
            store=store,
        )

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        solution = conjugate_gradient(
            self.hessian,
            tf.cast(rows, self.hessian.dtype),
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            preconditioner=self.preconditioner,
        )
        if solution.negative_curvature is not None:
            raise np.linalg.LinAlgError(
                describe(
                    "The damped Hessian is not positive definite: its smallest eigenvalue is at most the curvature "
                    "that conjugate gradients met. Raise `damping` above its size, or take "
                    'curvature="gauss-newton".',
                    {"curvature": solution.negative_curvature, "damping": self.damping},
                )
            )
        return solution

    def _describe_algorithm(self) -> dict[str, str]:
        return {"max_iterations": str(self.max_iterations), "tolerance": str(self.tolerance)}
