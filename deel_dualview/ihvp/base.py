"""The inverse of a curvature as a linear operator: what every algorithm promises."""

import threading
import warnings
from abc import abstractmethod
from functools import cached_property
from typing import Any, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_choice, check_instance, check_positive, is_number, require
from deel_dualview._summaries import Summarised
from deel_dualview.curvature import Curvature, CurvatureKind, curvature_of
from deel_dualview.gradients import PerExampleGradients, Weights
from deel_dualview.gradients.groups import describe_weights
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.operators import DampedOperator, DenseOperator, LinearOperator
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import check_train_set
from deel_dualview.stores import MemoryStore, Store
from deel_dualview.svm import ConvergenceWarning

DENSE_LIMIT = 4096
"""Up to this many parameters of the last layer, iterative solvers form the matrix: its products are cheap."""


class RelativeDamping(NamedTuple):
    """Damping as a multiple of the mean eigenvalue of the curvature.

    Attributes:
        factor: of the mean eigenvalue, > 0. Grosse et al. (2023) take 0.1.
    """

    factor: float = 0.1


_LAST_LAYER, _OTHER_WEIGHTS = RelativeDamping(0.1), RelativeDamping(3.0)
"""Defaults. The second was chosen on a network of digits and confirmed on two others (`bench_retraining_lds.py`)."""


class LayerwiseDamping(NamedTuple):
    """Damping of each layer as a multiple of the mean eigenvalue of its own curvature, for EK-FAC.

    Attributes:
        factor: of the mean eigenvalue, > 0. Grosse et al. (2023) take 0.1.
    """

    factor: float = 0.1


Damping = float | RelativeDamping | None
"""What is added to every eigenvalue: a number, a multiple of their mean, or None for the default."""


class InverseHessianVectorProduct(Summarised, LinearOperator):
    """(C + (regularisation + damping) I)^-1, where C is the curvature of the mean loss over the training set.

    The Hessian of softmax cross-entropy is singular without any damping: adding one vector to the weights of
    every class changes no probability. Equal damping makes all algorithms agree.

    Subclasses implement `_solve`, and `_describe_algorithm` if they have settings.

    Args:
        model: the classifier: a Keras model or an InfluenceModel.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        weights: in which weights: `"last"` for the last Dense layer, `"all"`, or names of layers.
        curvature: `"hessian"` or `"gauss-newton"` (never negative; the same in the last layer).
        damping: added to every eigenvalue: a number >= 0, or `RelativeDamping(factor)` for a multiple of the
            mean eigenvalue of C. By default none where there is a `regularisation`, else `RelativeDamping(0.1)`
            for the last layer and `RelativeDamping(3.0)` for other weights, which predicts retraining better there.
        regularisation: lambda of a penalty lambda / 2 ||w||^2 on these weights (biases too) in the objective
            that was minimised, beside the *mean* loss: part of the Hessian. Keras' `L2(l2)` is regularisation
            = 2 * l2.
        store: where the features of the training set are kept that the curvature of the last layer follows from; in
            memory by default. Calculators with the same store, or none of their own, share them.

    Attributes:
        gradients: per-example gradients of the loss in the same weights and the same order.
        record: of the model's weights when this was built, whose curvature it is.

    Raises:
        TypeError: `model` is not a Keras model, or `train_set` is not a dataset.
        ValueError: bad settings, or a training set that is not batched, empty, unlabelled or shuffled at
            every pass.
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
        check_instance("store", store, Store, "DiskStore(directory) or MemoryStore()")
        check_choice("curvature", curvature, get_args(CurvatureKind))
        self.gradients = PerExampleGradients(model, weights)
        self.model, self.train_set = self.gradients.model, train_set
        self.weights, self.kind = weights, curvature
        self.regularisation = check_not_negative("regularisation", regularisation)
        self._damping: float | RelativeDamping | LayerwiseDamping = _check_damping(
            damping, self.regularisation, weights
        )
        self.store = MemoryStore() if store is None else store
        check_train_set(self.model, train_set, self._read_first)
        self.record = self.model.record_weights()
        self._lock = threading.Lock()
        self._has_warned = False

    @abstractmethod
    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        """Apply the inverse to rows (n, p), float32 or float64."""

    def _describe_algorithm(self) -> dict[str, str]:
        """Return the settings of the algorithm that its solutions depend on, as text."""
        return {}

    @property
    def size(self) -> int:
        return self.gradients.size

    @property
    def num_train(self) -> int:
        """Number of examples n that the curvature is a mean over."""
        return self._curvature.num_examples

    @cached_property
    def damping(self) -> float:
        """What is added to every eigenvalue, the regularisation apart; of a `LayerwiseDamping` the mean."""
        if isinstance(self._damping, float):
            return self._damping
        return max(0.0, self._damping.factor * self._mean_eigenvalue())

    @cached_property
    def hessian(self) -> LinearOperator:
        """The damped curvature that this operator inverts, as a matrix for a last layer of moderate size."""
        return DampedOperator(self._undamped, self.regularisation + self.damping)

    def shares_features(self, train_set: tf.data.Dataset) -> bool:
        """Return whether a calculator on a training set needs the features in `store`, which need no second pass."""
        is_last = self.gradients.is_closed_last_layer and not self.describe_coordinates()
        return is_last and train_set is self.train_set

    def solve(self, rows: tf.Tensor | Blocks) -> LinearSolution:
        """Apply the inverse to every row.

        A shortfall is warned of once, with numbers; the solution says how well each row was solved.

        Args:
            rows: shape (n, p), or blocks of vectors as per-example gradients come in.

        Returns:
            The solution, its value of shape (n, p) and of the dtype of the rows.

        Raises:
            ValueError: rows of another size, or not finite, or a model whose weights have changed.
        """
        self.record.check("inverse Hessian")
        dense = tf.convert_to_tensor(rows) if not isinstance(rows, tuple) else blocks.to_dense(rows)
        require(
            dense.shape.rank == 2 and dense.shape[1] == self.size,
            f"Rows must have one column for each of the {self.size} parameters.",
            {"shape": tuple(dense.shape)},
        )
        is_finite = tf.reduce_all(tf.math.is_finite(dense), axis=1).numpy()
        require(
            bool(is_finite.all()),
            "Gradients must be finite: check these examples, and the model's weights, for NaN or infinity.",
            {"rows": np.flatnonzero(~is_finite).tolist()},
        )
        solution = self._solve(dense)
        self._warn_of_shortfall(solution)
        return solution._replace(value=tf.cast(solution.value, dense.dtype))

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the solutions of `solve`, shape (n, p)."""
        return self.solve(rows).value

    def coordinates(self, gradients: Blocks) -> Blocks:
        """Return gradients in orthonormal coordinates in which the inverse is cheap; by default unchanged.

        Inner products are the same; blocks that are factored stay so.
        """
        return gradients

    def solve_coordinates(self, coordinates: Blocks) -> Blocks:
        """Return the inverse times vectors given in `coordinates`, in the same, as matrices (n, p_k)."""
        return blocks.from_dense(self.solve(coordinates).value, coordinates)

    def vector_norms(self, coordinates: Blocks) -> tf.Tensor:
        """Return a norm of every vector in `coordinates`, shape (n,).

        Its product with `solution_norms` of another bounds the inner product of the two.
        """
        return blocks.norms(coordinates)

    def solution_norms(self, solutions: Blocks) -> tf.Tensor:
        """Return the dual norm of what `solve_coordinates` returned, shape (n,)."""
        return blocks.norms(solutions)

    def describe_coordinates(self) -> dict[str, str]:
        """Return what `coordinates` depend on besides the weights, as text that keys a store."""
        return {}

    def curvature_of(self, examples: tf.data.Dataset) -> Curvature:
        """Return the curvature of the mean loss over other examples, in the same weights, without damping."""
        # Those of other examples than the training set's are needed once.
        store = self.store if examples is self.train_set else None
        return curvature_of(self.model, examples, weights=self.weights, kind=self.kind, store=store)

    def describe(self) -> dict[str, str]:
        """Return everything besides the model and the training set that solutions depend on, as text."""
        return {
            "inverse": type(self).__name__,
            "weights": describe_weights(self.model, self.weights),
            "curvature": self.kind,
            "damping": str(self._damping),
            "regularisation": str(self.regularisation),
            **self._describe_algorithm(),
        }

    @property
    def _is_formed(self) -> bool:
        """Whether the matrix itself is held."""
        return self.weights == "last" and self.size <= DENSE_LIMIT

    @cached_property
    def _curvature(self) -> Curvature:
        return self.curvature_of(self.train_set)

    @cached_property
    def _undamped(self) -> LinearOperator:
        return DenseOperator(self._curvature.to_dense()) if self._is_formed else self._curvature

    def _mean_eigenvalue(self) -> float:
        """Return the mean eigenvalue of the curvature, to which relative damping refers."""
        if self._is_formed:
            self._curvature.to_dense()
        return self._curvature.trace() / self.size

    def _read_first(self, dataset: tf.data.Dataset, name: str) -> Any:
        """Return the first batch of the training set; one that changes is refused."""
        return data.check_same_twice(dataset, name)

    def _warn_of_shortfall(self, solution: LinearSolution) -> None:
        is_short = ~np.asarray(solution.converged)
        with self._lock:
            if self._has_warned or not is_short.any():
                return
            self._has_warned = True
        worst = float(np.max(solution.relative_residual))
        warnings.warn(
            f"{type(self).__name__} did not reach its tolerance in {is_short.sum()} of {len(is_short)} rows "
            f"after {solution.num_iterations} iterations: the largest relative residual is {worst:.2g}. "
            "Raise `max_iterations`, `tolerance` or `damping` (said once).",
            ConvergenceWarning,
            stacklevel=3,
        )


def check_not_negative(name: str, value: float) -> float:
    """Return a number that is not negative, as a float."""
    if is_number(value) and not value > 0:
        require(value == 0, f"`{name}` must not be negative, and finite.", {name: value})
        return 0.0
    return check_positive(name, value)


def default_damping(regularisation: float, weights: Weights) -> float | RelativeDamping:
    """Return the damping of weights where none is given."""
    if regularisation:
        return 0.0
    return _LAST_LAYER if isinstance(weights, str) and weights == "last" else _OTHER_WEIGHTS


def _check_damping(damping: Damping, regularisation: float, weights: Weights) -> float | RelativeDamping:
    if damping is None:
        return default_damping(regularisation, weights)
    if isinstance(damping, RelativeDamping):
        return RelativeDamping(check_positive("factor", damping.factor))
    return check_not_negative("damping", damping)


def check_layerwise(damping: Damping | LayerwiseDamping) -> LayerwiseDamping | None:
    """Return a damping of each layer, checked; None for another one."""
    if not isinstance(damping, LayerwiseDamping):
        return None
    return LayerwiseDamping(check_positive("factor", damping.factor))
