"""ArnoldiIHVP: the inverse on the eigenvectors of largest eigenvalues alone."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_seed, require
from deel_dualview.curvature import CurvatureKind
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.krylov import Spectrum, deflated_trace, lanczos
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.search.gathering import draw_examples
from deel_dualview.stores import Store

_RANK = 50
_BATCH_SIZE = 256
_NEGLIGIBLE = 1e-6


class ArnoldiIHVP(InverseHessianVectorProduct):
    """Inverse on the r eigenvectors whose eigenvalues are largest in magnitude, found in the constructor.

    V diag(1 / (eigenvalue + regularisation + damping)) V': what a gradient has outside of these r directions
    is left out, so that any gradient is represented by r numbers. With r = p it is the exact inverse. Other
    algorithms give the directions left out 1 / damping, the largest weight of all; the values agree where
    evaluated and training gradients lie in the r directions, which `relative_residual` of a solution tells:
    the share of a row's norm outside of them.

    A last layer of up to 4,096 parameters is iterated on its matrix, formed by one pass over the training
    set. Otherwise each iteration is a product with the curvature, a pass over the examples it is estimated
    on; memory is (num_iterations + r) p numbers, then r p.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers.
        curvature: `"gauss-newton"`, which has no negative eigenvalues, or `"hessian"`, as published.
        damping: absolute, or `RelativeDamping` (outside of the last layer the mean eigenvalue is estimated
            with 16 more products); 0 as published.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        rank: r, by default 50; at most p.
        num_iterations: products with the curvature, at least r; 2 r by default. Numbers beyond p are reduced
            to p with a warning.
        num_curvature_examples: size of a random subset that the curvature is estimated on; all by default.
        seed: of the first direction and the subset.
        store: where the features of the training set are kept (a last layer's curvature follows from them).

    Attributes:
        spectrum: eigenvalues, without damping, and eigenvectors, with their residuals.
        inverse_eigenvalues: what replaces them in the inverse, shape (r,): 0 where a damped eigenvalue is not
            positive (beyond rounding), of which there is a warning.

    Raises:
        ValueError: bad settings, or losses that are not finite (of which examples).

    Source: Schioppa et al. (2022), section 3 and algorithm 1.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        curvature: CurvatureKind = "gauss-newton",
        damping: Damping = None,
        regularisation: float = 0.0,
        rank: int | None = None,
        num_iterations: int | None = None,
        num_curvature_examples: int | None = None,
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        for name, number in (("rank", rank), ("num_iterations", num_iterations)):
            if number is not None:
                check_count(name, number)
        if num_curvature_examples is not None:
            check_count("num_curvature_examples", num_curvature_examples)
        self.seed, self.num_curvature_examples = check_seed("seed", seed), num_curvature_examples
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature=curvature,
            damping=damping,
            regularisation=regularisation,
            store=store,
        )
        first = data.unpack(data.first_batch(train_set, "train_set"))
        self.gradients.prepare(first.inputs, self.model.training_targets(first.labels))
        self.rank = min(_RANK, self.size) if rank is None else _at_most("rank", rank, self.size)
        if num_iterations is None:
            self.num_iterations = min(2 * self.rank, self.size)
        else:
            self.num_iterations = _at_most("num_iterations", num_iterations, self.size)
        require(
            self.rank <= self.num_iterations,
            "`num_iterations` must be at least `rank`, the number of eigenvectors to keep.",
            {"rank": self.rank, "num_iterations": self.num_iterations},
        )
        self._curvature = self.curvature_of(self._curvature_examples())
        self.spectrum: Spectrum = lanczos(
            self._undamped, rank=self.rank, num_iterations=self.num_iterations, seed=seed
        )
        self._vectors = tf.cast(self.spectrum.eigenvectors, tf.float32)
        self.inverse_eigenvalues = self._inverted()

    def project(self, gradients: Blocks) -> tf.Tensor:
        """Return the coordinates of gradients in the r eigenvectors, shape (n, r), float32.

        Outer products are not multiplied out.
        """
        return _coordinates(blocks.from_dense(self._vectors, gradients), gradients)

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        vectors = tf.cast(self._vectors, rows.dtype)
        return _solve(rows, vectors, tf.constant(self.inverse_eigenvalues, rows.dtype))

    def _describe_algorithm(self) -> dict[str, str]:
        names = ("rank", "num_iterations", "num_curvature_examples", "seed")
        return {name: str(getattr(self, name)) for name in names}

    def _mean_eigenvalue(self) -> float:
        if self.weights == "last":
            return super()._mean_eigenvalue()
        return deflated_trace(self._undamped, self.spectrum, seed=self.seed) / self.size

    def _curvature_examples(self) -> tf.data.Dataset:
        """Return the examples to estimate the curvature on, their losses checked before long work."""
        examples, name = self.train_set, "train_set"
        if self.num_curvature_examples is not None:
            examples = draw_examples(
                examples, self.num_curvature_examples, seed=self.seed, batch_size=_BATCH_SIZE
            )
            name = "examples drawn for the curvature"
        for indices, _, element in data.compared_examples(examples, name) if self.weights != "last" else ():
            batch = data.unpack(element)
            with data.naming_positions(int(indices[0]), name):
                is_finite = np.isfinite(self.model.losses(batch.inputs, batch.labels))
            require(
                bool(is_finite.all()),
                "The model computes NaN or infinite losses for some training examples: mend or filter them "
                "out, or check the model's weights.",
                {"indices": indices[~is_finite].tolist()},
            )
        return examples

    def _inverted(self) -> np.ndarray:
        damped = self.spectrum.eigenvalues + self.regularisation + self.damping
        require(
            bool(self.spectrum.eigenvalues.any()),
            "The Hessian is zero: the loss has no second derivative (as the mean absolute error), or all features are "
            "zero. Take GradDot, GradCos or TracIn.",
            {"rank": self.rank},
        )
        negligible = _NEGLIGIBLE * np.abs(self.spectrum.eigenvalues).max(initial=0.0)
        if (num_negative := int(np.sum(damped < -negligible))) > 0:
            warnings.warn(
                f"{num_negative} of the {self.rank} eigenvalues of largest magnitude are negative after damping "
                f"(the smallest is {damped.min():.3g}) and are left out of the inverse. Take "
                "curvature='gauss-newton', or raise `damping`.",
                stacklevel=3,
            )
        return np.where(damped > negligible, 1 / np.where(damped > negligible, damped, 1.0), 0.0)


def _at_most(name: str, value: int, size: int) -> int:
    if value > size:
        warnings.warn(f"`{name}`={value} is reduced to {size}, the number of parameters.", stacklevel=3)
    return min(value, size)


@tf.function(reduce_retracing=True, autograph=False)
def _coordinates(vectors: Blocks, gradients: Blocks) -> tf.Tensor:
    return tf.transpose(blocks.inner_products(vectors, gradients))


@tf.function(reduce_retracing=True, autograph=False)
def _solve(rows: tf.Tensor, vectors: tf.Tensor, inverse_eigenvalues: tf.Tensor) -> LinearSolution:
    coordinates = tf.matmul(rows, vectors, transpose_b=True)
    outside = tf.norm(rows - tf.matmul(coordinates, vectors), axis=1)
    return LinearSolution(
        tf.matmul(coordinates * inverse_eigenvalues, vectors),
        tf.ones(tf.shape(rows)[0], tf.bool),
        0,
        tf.math.divide_no_nan(outside, tf.norm(rows, axis=1)),
    )
