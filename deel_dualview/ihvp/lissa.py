"""LissaIHVP: the inverse as a Neumann series, with all of the training set or a random batch at each step."""

import itertools
from collections.abc import Iterator
from functools import cached_property

import keras
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, check_seed
from deel_dualview.curvature import CurvatureKind
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct
from deel_dualview.linalg.operators import DampedOperator, LinearOperator, largest_eigenvalue
from deel_dualview.linalg.solvers import (
    LinearSolution,
    neumann_series,
    neumann_series_by_doubling,
    stochastic_neumann_series,
)
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store

_NUM_SCALE_SAMPLES = 8
_FULL_STEP = 0.6


class LissaIHVP(InverseHessianVectorProduct):
    """Inverse by the series sum_k (I - H / scale)^k / scale, for all rows of a batch at once.

    About (largest eigenvalue / damping) * log(1 / tolerance) steps are needed. By default a step uses the
    whole training set; in a last layer of up to 4,096 parameters the matrix is formed, and squaring it
    doubles the number of steps made. With a `batch_size` a step uses a random batch (LiSSA as published):
    cheaper steps and a noise floor that more iterations and larger batches lower, told by the relative
    residual of the solution. Every solve sees the same batches, so that values depend neither on the batch of
    queries nor on the order of solves.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers.
        curvature: `"hessian"` or `"gauss-newton"`.
        damping: absolute, or `RelativeDamping`.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        scale: more than half the largest eigenvalue of the damped curvature (of batches, if they are used);
            by default it is estimated at the first solve and chosen safely.
        batch_size: examples a step, or None for all.
        max_iterations: steps for one batch of rows.
        tolerance: of the residual, relative to each row.
        seed: of the random batches and the first vectors of the estimate.
        store: where the features of the training set are kept (a last layer's curvature follows from them).

    Raises:
        ValueError: bad settings.
        LinAlgError: at a solve, a series that diverges, with the numbers.

    Source: Agarwal et al. (2017); Koh and Liang (2017), section 3.
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
        scale: float | None = None,
        batch_size: int | None = None,
        max_iterations: int = 20_000,
        tolerance: float = 1e-3,
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        self._scale = None if scale is None else check_positive("scale", scale)
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.tolerance = check_positive("tolerance", tolerance)
        self.seed = check_seed("seed", seed)
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature=curvature,
            damping=damping,
            regularisation=regularisation,
            store=store,
        )

    @cached_property
    def scale(self) -> float:
        """What the Hessian is divided by: given, or from estimates of the largest eigenvalue."""
        if self._scale is not None:
            return self._scale
        largest = largest_eigenvalue(self.hessian, seed=self.seed)
        if self.batch_size is None:
            # The best step is near half the largest eigenvalue, which the estimate is a few per cent below.
            return _FULL_STEP * largest
        samples = itertools.islice(self._samples(), _NUM_SCALE_SAMPLES)
        return max(
            largest, *(largest_eigenvalue(sample, num_iterations=10, seed=self.seed) for sample in samples)
        )

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        rows = tf.cast(rows, self.hessian.dtype)
        if self.batch_size is None:
            series = neumann_series_by_doubling if self._is_formed else neumann_series
            return series(
                self.hessian,
                rows,
                scale=self.scale,
                max_iterations=self.max_iterations,
                tolerance=self.tolerance,
            )
        return stochastic_neumann_series(
            self._samples(),
            self.hessian,
            rows,
            scale=self.scale,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )

    def _samples(self) -> Iterator[LinearOperator]:
        """Yield the damped curvatures of random batches, from the first one on."""
        for sample in self._curvature.sampled(self.batch_size or self.num_train, self.seed):
            yield DampedOperator(sample, self.regularisation + self.damping)

    def _describe_algorithm(self) -> dict[str, str]:
        names = ("_scale", "batch_size", "max_iterations", "tolerance", "seed")
        return {name.strip("_"): str(getattr(self, name)) for name in names}
