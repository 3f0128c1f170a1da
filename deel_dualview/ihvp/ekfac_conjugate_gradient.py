"""EkfacConjugateGradientIHVP: the Gauss-Newton system itself, solved by conjugate gradients from EK-FAC's solution."""

from functools import cached_property

import keras
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import (
    Damping,
    InverseHessianVectorProduct,
    LayerwiseDamping,
    check_not_negative,
    default_damping,
)
from deel_dualview.ihvp.ekfac import EkfacIHVP
from deel_dualview.linalg.operators import DampedOperator, LinearOperator
from deel_dualview.linalg.solvers import LinearSolution, conjugate_gradient
from deel_dualview.models import InfluenceModel
from deel_dualview.search.gathering import draw_examples
from deel_dualview.stores import Store

_BATCH_SIZE = 512


class EkfacConjugateGradientIHVP(InverseHessianVectorProduct):
    """Inverse of the Gauss-Newton matrix of fixed random examples + damping of each layer, by EK-FAC and then by steps.

    EK-FAC takes each layer by itself, and a basis of Kronecker products in it: its inverse is fast and no inverse of
    the curvature. Here it is the preconditioner of conjugate gradients on the curvature, with the same damping. The
    first step goes along EK-FAC's solution, as far as is best, so that no other start is needed; every further
    one takes away some of what the approximation left out.

    Every step is a product with the curvature, for all queries of a batch that have not converged: four gradients of
    each of `num_curvature_examples`, which stay the same in every solve. Memory is that of `EkfacIHVP`, these
    examples, and some five vectors of p numbers a query. `solve` reports for each row the residual and the number of
    steps, and warns once of rows that have not reached the tolerance.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"all"`, `"last"` or names of layers that `EkfacIHVP` knows.
        damping: absolute; `RelativeDamping`, a multiple of the mean eigenvalue over all layers, by EK-FAC; or
            `LayerwiseDamping`, of that of each layer. The default is that of `InverseHessianVectorProduct`, not
            EK-FAC's own, which is too small for the curvature itself.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        num_curvature_examples: size of the random subset whose Gauss-Newton matrix is inverted; all where the
            training set has no more than that, and with None. EK-FAC is of the whole training set.
        max_iterations: steps for one batch of rows.
        tolerance: of the residual, relative to each row.
        num_samples: see `EkfacIHVP`.
        seed: of the subset and of EK-FAC's random directions.
        store: as of all others; nothing is kept in it but a last layer's features.

    Attributes:
        ekfac: the preconditioner, an `EkfacIHVP`.

    Raises:
        ValueError: bad settings, or what `EkfacIHVP` raises.
        LinAlgError: no damping where EK-FAC's curvature is singular.

    Source: Grosse et al. (2023), section 3.1, for EK-FAC and the damping of layers; Hestenes and Stiefel (1952) for the
        steps; of stochastic steps with this preconditioner: Wang et al. (2025), ASTRA.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "all",
        damping: Damping | LayerwiseDamping = None,
        regularisation: float = 0.0,
        num_curvature_examples: int | None = 2048,
        max_iterations: int = 50,
        tolerance: float = 0.01,
        num_samples: int | None = 1,
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        if num_curvature_examples is not None:
            check_count("num_curvature_examples", num_curvature_examples)
        self.num_curvature_examples = num_curvature_examples
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.tolerance = check_positive("tolerance", tolerance)
        if damping is None:
            damping = default_damping(check_not_negative("regularisation", regularisation), weights)
        self.ekfac = EkfacIHVP(
            model,
            train_set,
            weights=weights,
            damping=damping,
            regularisation=regularisation,
            num_samples=num_samples,
            seed=seed,
            store=store,
        )
        super().__init__(
            self.ekfac.model,
            train_set,
            weights=weights,
            curvature="gauss-newton",
            damping=self.ekfac.damping,
            regularisation=regularisation,
            store=self.ekfac.store,
        )

    @property
    def num_train(self) -> int:
        return self.ekfac.num_train

    @cached_property
    def hessian(self) -> LinearOperator:
        """The damped Gauss-Newton matrix of the fixed examples, which this operator inverts."""
        return DampedOperator(self.curvature_of(self._curvature_examples()), self.ekfac.added)

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        return conjugate_gradient(
            self.hessian,
            tf.cast(rows, self.hessian.dtype),
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            preconditioner=self.ekfac,
        )

    def _describe_algorithm(self) -> dict[str, str]:
        names = ("num_curvature_examples", "max_iterations", "tolerance")
        return self.ekfac.describe() | {name: str(getattr(self, name)) for name in names}

    def _curvature_examples(self) -> tf.data.Dataset:
        num_drawn = self.num_curvature_examples
        if num_drawn is None or num_drawn >= self.num_train:
            return self.train_set
        return draw_examples(self.train_set, num_drawn, seed=self.ekfac.seed, batch_size=_BATCH_SIZE)
