"""EkfacIHVP: the inverse of a Kronecker-factored curvature, for whole networks."""

from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_seed, describe, require
from deel_dualview.curvature.ekfac import KroneckerCurvature
from deel_dualview.curvature.ekfac_layers import EkfacLayer, ekfac_layer
from deel_dualview.curvature.ekfac_passes import estimate_curvature
from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import (
    Damping,
    InverseHessianVectorProduct,
    LayerwiseDamping,
    RelativeDamping,
    check_layerwise,
)
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.operators import DampedOperator, LinearOperator
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import is_split, to_influence_model
from deel_dualview.stores import Store

_LARGEST_FACTOR = 16_384
_LEAST_SHARE = 1e-3
"""Of the mean damping of all layers, at least this is that of a layer whose gradients are next to zero."""


class EkfacIHVP(InverseHessianVectorProduct):
    """Inverse of the Gauss-Newton matrix by EK-FAC: eigenvalue-corrected Kronecker factors of each layer.

    Takes each layer by itself and, of layer l, the basis Q_S (x) Q_A of eigenvectors of E[g g'] and E[a a'] (g:
    gradients in the layer's outputs, a: its inputs) as eigenvectors of its curvature, with the best
    eigenvalues for that basis, E[(Q_S' G Q_A)^2] with the gradient G of an example. It is exact where that is
    true: one example, or outputs' curvature that does not depend on the inputs (linear regression, a softmax
    layer of zero weights); else an approximation, of which `LinearSolution.relative_residual` says nothing.

    Two passes over the training set in the constructor, each of `num_samples` backward passes an example and one
    forward pass for every 16 of them, without labels. Memory is about 25 (c^2 + d^2) + 12 c d bytes for a layer of
    c outputs and d inputs, and 128 examples in work, whatever n; a solve is a few matrix products.

    Known: Dense, Conv1D, Conv2D, EinsumDense (the projections of attention), Embedding, depthwise and grouped
    convolutions (each group of channels by itself), also when called several times in a pass; of
    normalisation layers the diagonal. Other layers with weights are refused: choose those that are known by
    name.

    Args:
        model: see `InverseHessianVectorProduct`, as all others.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers.
        damping: absolute; or `RelativeDamping`, a multiple of the mean eigenvalue over all these layers; or
            `LayerwiseDamping`, of that of each layer. By default none where there is a `regularisation`, else
            `RelativeDamping(0.1)` in any weights.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 of the training objective.
        num_samples: for each example, of how many random directions of the logits the curvature is a mean; None
            for the exact expectation over the model's predicted classes, at c backward passes.
        seed: of the random directions. Values do not depend on the batch size.
        store: as of all others; EK-FAC keeps nothing in it.

    Attributes:
        approximation: the Kronecker-factored curvature, without damping.

    Raises:
        ValueError: bad settings, layers that are not known or have more than 16,384 inputs or outputs (with
            their names), gradients that are not finite (of which examples).
        LinAlgError: no damping where the curvature is singular.

    Source: George et al. (2018), algorithm 1; Grosse et al. (2023), section 3.1; convolutions: Grosse and
        Martens (2016).
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        damping: Damping | LayerwiseDamping = None,
        regularisation: float = 0.0,
        num_samples: int | None = 1,
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        self.num_samples = None if num_samples is None else check_count("num_samples", num_samples)
        self.seed = check_seed("seed", seed)
        layerwise = check_layerwise(damping)
        model = to_influence_model(model)
        if is_split(model):
            model.refuse_positions("EkfacIHVP")
        super().__init__(
            model,
            train_set,
            weights=weights,
            curvature="gauss-newton",
            damping=None if isinstance(damping, LayerwiseDamping) else damping,
            regularisation=regularisation,
            store=store,
        )
        if damping is None and not self.regularisation:
            self._damping = RelativeDamping(0.1)
        self._damping = layerwise or self._damping
        self.model.refuse_positions("EkfacIHVP")
        self.approximation: KroneckerCurvature = estimate_curvature(
            self.model, self._layers(), train_set, num_samples=self.num_samples, seed=seed
        )
        self._check_positive_definite()

    @property
    def num_train(self) -> int:
        return self.approximation.num_examples

    @cached_property
    def hessian(self) -> LinearOperator:
        """The damped approximation, which this operator inverts."""
        return DampedOperator(self.approximation, self.added)

    @property
    def added(self) -> tf.Tensor:
        """What is added to the diagonal of the curvature, regularisation and damping, shape (p,), float32."""
        return self.approximation.diagonal(self._added)

    def coordinates(self, gradients: Blocks) -> Blocks:
        """Return gradients in the eigenbasis; an outer product of a Dense layer stays one.

        The inverse is diagonal there: no solution is ever rotated back, which takes (c + d) c d operations for
        each query and layer.
        """
        return self.approximation.rotated(gradients)

    def solve_coordinates(self, coordinates: Blocks) -> Blocks:
        """Return the inverse times vectors in the eigenbasis, as matrices (n, p_k)."""
        return self.approximation.solve_rotated(coordinates, self._added)

    def vector_norms(self, coordinates: Blocks) -> tf.Tensor:
        """Return sqrt(v' H^-1 v): with it and its dual, Cauchy and Schwarz bound influence tightly."""
        return self.approximation.inverse_norms(coordinates, self._added)

    def solution_norms(self, solutions: Blocks) -> tf.Tensor:
        """Return sqrt(q' H q)."""
        return self.approximation.norms(solutions, self._added)

    def describe_coordinates(self) -> dict[str, str]:
        return self.describe() | {"basis": self.approximation.fingerprint()}

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        num_rows = tf.shape(rows)[0]
        value = self.approximation.solve(rows, self._added)
        return LinearSolution(value, tf.ones(num_rows, tf.bool), 0, tf.zeros(num_rows, rows.dtype))

    def _describe_algorithm(self) -> dict[str, str]:
        return {"num_samples": str(self.num_samples), "seed": str(self.seed)}

    def _mean_eigenvalue(self) -> float:
        return self.approximation.trace() / self.size

    @cached_property
    def _added(self) -> list[float]:
        """What is added to the eigenvalues of every layer."""
        if not isinstance(self._damping, LayerwiseDamping):
            return [self.regularisation + self.damping] * len(self.approximation.layers)
        least = _LEAST_SHARE * self.damping
        means = self.approximation.means()
        return [self.regularisation + max(self._damping.factor * mean, least) for mean in means]

    def _layers(self) -> list[EkfacLayer]:
        """Return the layers of the chosen weights, all of them known and of moderate size."""
        first = data.unpack(data.first_batch(self.train_set, "train_set"))
        self.gradients.prepare(first.inputs, self.model.training_targets(first.labels))
        in_closed_form = {id(group.layer) for group in self.gradients.groups_in_closed_form}
        groups = self.gradients.groups
        found = [ekfac_layer(group) if id(group.layer) in in_closed_form else None for group in groups]
        known = [layer for layer in found if layer is not None]
        unknown = [group.layer for group, layer in zip(groups, found, strict=True) if layer is None]
        names = [layer.group.layer.name for layer in known]
        require(
            not unknown,
            "EK-FAC does not know these layers (or their weights are used elsewhere too): leave them out by "
            f"naming others, weights={names!r}, or take ArnoldiIHVP or ConjugateGradientDescentIHVP.",
            {"layers": ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in unknown)},
        )
        large = [layer.group.layer.name for layer in known if layer.largest_factor > _LARGEST_FACTOR]
        require(
            not large,
            f"EK-FAC holds and decomposes matrices of inputs x inputs and outputs x outputs, up to "
            f"{_LARGEST_FACTOR} of each: leave out these layers by naming others in `weights`.",
            {"layers": large},
        )
        return known

    def _check_positive_definite(self) -> None:
        eigenvalues = self.approximation.eigenvalues
        smallest = min(
            float(tf.reduce_min(values)) + added
            for values, added in zip(eigenvalues, self._added, strict=True)
        )
        largest = max(float(tf.reduce_max(values)) for values in eigenvalues)
        if not smallest > 1e-7 * largest:
            needed = "The curvature is singular and there is no damping: give `damping`, for instance "
            received = {
                "smallest damped eigenvalue": smallest,
                "largest eigenvalue": largest,
                "damping": self._damping,
            }
            raise np.linalg.LinAlgError(describe(f"{needed}RelativeDamping(0.1).", received))
