"""A linear layer with an L2 penalty, fitted to stationarity by Newton's method on cached features.

    minimise over W   1/n sum_i w_i loss(t_i, W phi_i) + lambda ||W||^2,       w_i = 1 without sample weights
    gradient          1/n sum_i w_i e_i phi_i' + 2 lambda W,       e_i the gradient of the loss in the outputs W phi_i
    Newton step       (1/n sum_i w_i B_i (x) phi_i phi_i' + 2 lambda I) step = -gradient,       B_i its Hessian there

Of softmax regression e_i = p_i - t_i and B_i = diag(p_i) - p_i p_i'.

Gradients are in float64. Steps are solved by conjugate gradients with products in float32, as exactly as the
distance to the optimum asks for, preconditioned by the one (d, d) matrix 1/n sum_i w_i b_i phi_i phi_i' + 2
lambda I, where b_i is the mean of the diagonal of B_i.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, describe, require
from deel_dualview.svm.solution import ConvergenceWarning

_BLOCK_SIZE = 8192
_MAX_PRODUCTS_PER_STEP = 1000
_SUFFICIENT_DECREASE = 1e-4
_SHORTEST_STEP = 1e-8
_ROUNDING = 1e-13


@dataclass(frozen=True)
class PenalisedLayer:
    """A fitted last layer.

    Attributes:
        weights: W, shape (d, c), float64; one column where the targets have one.
        coefficients: alpha = -w e / (2 lambda n) at W, shape (n, c), float32: W is features' @ alpha.
        objective: mean loss + lambda ||W||^2.
        gradient_norm: Euclidean norm of the objective's gradient at W; 0 at the exact solution.
        relative_residual: ||W - features' @ alpha|| / ||W||, which is gradient_norm / (2 lambda ||W||).
        num_iterations: Newton steps.
        converged: whether the relative residual reached the tolerance.
    """

    weights: np.ndarray
    coefficients: np.ndarray
    objective: float
    gradient_norm: float
    relative_residual: float
    num_iterations: int
    converged: bool


class OutputLoss(Protocol):
    """A loss as a function of the outputs of the layer, used while tracing; equal ones share traces."""

    def terms(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the losses (b,), e (b, c) and what B is made from, (b, ...), float64."""

    def product(self, factor: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return B v for a vector of every example, shape (b, c)."""

    def mean_diagonal(self, factor: tf.Tensor) -> tf.Tensor:
        """Return the mean of the diagonal of every B, shape (b, 1)."""


@dataclass(frozen=True)
class _CrossEntropy:
    """Of a softmax over c classes, or (`is_binary`) of the sigmoid of one output."""

    is_binary: bool

    def terms(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if self.is_binary:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, outputs)[:, 0]
            probabilities = tf.nn.sigmoid(outputs)
        else:
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, outputs)
            probabilities = tf.nn.softmax(outputs)
        return losses, probabilities - targets, probabilities

    def product(self, factor: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        if self.is_binary:
            return vectors * factor * (1 - factor)
        return factor * (vectors - tf.reduce_sum(factor * vectors, axis=1, keepdims=True))

    def mean_diagonal(self, factor: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(factor * (1 - factor), axis=1, keepdims=True)


# Kept: traces are found by the loss itself.
_SOFTMAX, _SIGMOID = _CrossEntropy(is_binary=False), _CrossEntropy(is_binary=True)


class _Point(NamedTuple):
    """The objective at W (c, d): value, gradient (c, d), and the factors of B of every block."""

    weights: np.ndarray
    value: float
    gradient: np.ndarray
    factors: list[tf.Tensor]

    @property
    def gradient_norm(self) -> float:
        return float(np.linalg.norm(self.gradient))


def fit_softmax_regression(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    penalty: float,
    tolerance: float = 1e-7,
    max_iterations: int = 100,
    sample_weight: np.ndarray | None = None,
    initial_weights: np.ndarray | None = None,
) -> PenalisedLayer:
    """Fit a softmax regression without offset; append a constant feature for one, penalised like the rest.

    Args:
        features: phi, shape (n, d), float32.
        targets: t, probabilities of the classes, shape (n, c), rows adding up to 1; or, shape (n, 1), the
            probability of the second of two classes, whose logit W phi alone is modelled.
        penalty: lambda of lambda ||W||^2, > 0.
        tolerance: on the relative residual of W = features' @ alpha.
        max_iterations: most Newton steps; fewer than 20 are usual.
        sample_weight: w, shape (n,), not negative; 1 by default.
        initial_weights: where the iteration starts, shape (d, c), such as the optimum of nearly the same data; 0 by
            default.

    Raises:
        ValueError: bad settings, or shapes that do not fit.

    Warns:
        ConvergenceWarning: the tolerance was not reached.
    """
    loss = _SIGMOID if targets.ndim == 2 and targets.shape[1] == 1 else _SOFTMAX
    return fit_penalised_layer(
        features,
        targets,
        loss,
        penalty=penalty,
        tolerance=tolerance,
        max_iterations=max_iterations,
        sample_weight=sample_weight,
        initial_weights=initial_weights,
    )


def fit_penalised_layer(
    features: np.ndarray,
    targets: np.ndarray,
    loss: OutputLoss,
    *,
    penalty: float,
    tolerance: float = 1e-7,
    max_iterations: int = 100,
    num_outputs: int | None = None,
    sample_weight: np.ndarray | None = None,
    initial_weights: np.ndarray | None = None,
) -> PenalisedLayer:
    """Fit a linear layer without offset for any loss of its outputs; see `fit_softmax_regression`.

    Args:
        features: phi, shape (n, d), float32.
        targets: t, shape (n, t), in the form of the loss.
        loss: convex, or the layer found is a stationary one.
        penalty: lambda of lambda ||W||^2, > 0.
        tolerance: on the relative residual of W = features' @ alpha.
        max_iterations: most Newton steps.
        num_outputs: c; by default the width of the targets.
        sample_weight: w, shape (n,), not negative; 1 by default.
        initial_weights: where the iteration starts, shape (d, c); 0 by default.
    """
    problem = _Problem(features, targets, loss, check_positive("penalty", penalty), sample_weight)
    check_positive("tolerance", tolerance)
    shape = num_outputs or targets.shape[1], features.shape[1]
    point = problem.evaluate(np.zeros(shape) if initial_weights is None else initial_weights.T)
    num_iterations, moved = 0, True
    while (
        moved
        and not problem.is_stationary(point, tolerance)
        and num_iterations < check_count("max_iterations", max_iterations)
    ):
        found = _search_line(problem, point, _newton_step(problem, point))
        point, moved = found or point, found is not None
        num_iterations += 1
    return _report(problem, point, num_iterations, tolerance)


class _Problem:
    """The objective, over blocks of rows so that no (n, d) array in float64 is made."""

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        loss: OutputLoss,
        penalty: float,
        sample_weight: np.ndarray | None,
    ) -> None:
        require(
            features.ndim == targets.ndim == 2
            and len(features) == len(targets) > 0
            and (sample_weight is None or sample_weight.shape == (len(features),)),
            "Features (n, d) and targets (n, c) need one row, and sample weights one number, for every example.",
            {
                "features": features.shape,
                "targets": targets.shape,
                "weights": None if sample_weight is None else sample_weight.shape,
            },
        )
        self.loss, self.penalty = loss, penalty
        self.num_examples = len(features)
        slices = [slice(start, start + _BLOCK_SIZE) for start in range(0, len(features), _BLOCK_SIZE)]
        self.features = [tf.constant(features[rows], tf.float32) for rows in slices]
        self.targets = [tf.constant(targets[rows], tf.float64) for rows in slices]
        self.weights: list[tf.Tensor | None] = [None] * len(slices)
        # Products of these rows with themselves are weighted.
        self.rooted = self.features
        if sample_weight is not None:
            self.weights = [tf.constant(sample_weight[rows, np.newaxis], tf.float64) for rows in slices]
            roots = np.sqrt(sample_weight).astype(np.float32)[:, np.newaxis]
            self.rooted = [rows * roots[part] for rows, part in zip(self.features, slices, strict=True)]
        # What gradients of rounded probabilities differ by.
        self._noise = _ROUNDING * float(
            np.sqrt(np.einsum("nd,nd->", features, features, dtype=np.float64) / len(features))
        )

    def evaluate(self, weights: np.ndarray) -> _Point:
        value, gradient = self.penalty * float((weights**2).sum()), 2 * self.penalty * weights
        factors = []
        for block in self._blocks():
            loss, part, own, _ = _terms(*block, tf.constant(weights), self.loss, len(weights))
            value += float(loss) / self.num_examples
            gradient = gradient + part.numpy() / self.num_examples
            factors.append(own)
        return _Point(weights, value, gradient, factors)

    def errors(self, point: _Point) -> np.ndarray:
        """Return w e of every example, shape (n, c), float64."""
        weights = tf.constant(point.weights)
        return np.concatenate(
            [_terms(*block, weights, self.loss, len(weights))[3].numpy() for block in self._blocks()]
        )

    def _blocks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]]:
        return zip(self.features, self.targets, self.weights, strict=True)

    def is_stationary(self, point: _Point, tolerance: float) -> bool:
        scale = 2 * self.penalty * float(np.linalg.norm(point.weights))
        return point.gradient_norm <= max(tolerance * scale, self._noise)

    def hessian_product(self, point: _Point, direction: np.ndarray) -> np.ndarray:
        rows = tf.constant(direction, tf.float32)
        product = 2 * self.penalty * direction
        for features, factor in zip(self.rooted, point.factors, strict=True):
            part = _hessian_product(features, factor, rows, self.loss, len(direction))
            product = product + part.numpy() / self.num_examples
        return product

    def preconditioner(self, point: _Point) -> tuple[np.ndarray, bool]:
        """Return the Cholesky factor of the (d, d) matrix."""
        matrix = 2 * self.penalty * np.eye(point.weights.shape[1])
        for features, factor in zip(self.rooted, point.factors, strict=True):
            matrix += _weighted_gram(features, factor, self.loss).numpy() / self.num_examples
        return scipy.linalg.cho_factor(matrix)


@tf.function(reduce_retracing=True, autograph=False)
def _terms(
    features: tf.Tensor,
    targets: tf.Tensor,
    sample_weight: tf.Tensor | None,
    weights: tf.Tensor,
    loss: OutputLoss,
    num_outputs: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the summed loss, its gradient (c, d), the factors of B and w e (b, c), all in float64.

    Each number of outputs has a graph of its own: static shapes are lost when widths vary.
    """
    features = tf.cast(features, tf.float64)
    outputs = tf.ensure_shape(tf.matmul(features, weights, transpose_b=True), (None, num_outputs))
    losses, errors, factor = loss.terms(outputs, targets)
    if sample_weight is not None:
        losses, errors = losses * sample_weight[:, 0], errors * sample_weight
    return tf.reduce_sum(losses), tf.matmul(errors, features, transpose_a=True), factor, errors


@tf.function(reduce_retracing=True, autograph=False)
def _hessian_product(
    features: tf.Tensor, factor: tf.Tensor, direction: tf.Tensor, loss: OutputLoss, num_outputs: int
) -> tf.Tensor:
    """Return the product of a block's summed Hessian with a direction, both (c, d), float32."""
    outputs = tf.ensure_shape(tf.matmul(features, direction, transpose_b=True), (None, num_outputs))
    products = loss.product(tf.cast(factor, tf.float32), outputs)
    return tf.matmul(products, features, transpose_a=True)


@tf.function(reduce_retracing=True, autograph=False)
def _weighted_gram(features: tf.Tensor, factor: tf.Tensor, loss: OutputLoss) -> tf.Tensor:
    weights = loss.mean_diagonal(factor)
    return tf.matmul(features, features * tf.cast(weights, features.dtype), transpose_a=True)


def _newton_step(problem: _Problem, point: _Point) -> np.ndarray:
    """Solve for the step by preconditioned conjugate gradients, the more exactly the nearer the optimum."""
    factor = problem.preconditioner(point)
    goal = min(0.1, np.sqrt(point.gradient_norm)) * point.gradient_norm
    step, residual = np.zeros_like(point.gradient), -point.gradient
    conditioned = scipy.linalg.cho_solve(factor, residual.T).T
    direction, product = conditioned, float((residual * conditioned).sum())
    for _ in range(_MAX_PRODUCTS_PER_STEP):
        curved = problem.hessian_product(point, direction)
        curvature = float((direction * curved).sum())
        if not curvature > 0:
            # Not convex here: as far as it was, or down the slope.
            return step if step.any() else direction
        length = product / curvature
        step, residual = step + length * direction, residual - length * curved
        if np.linalg.norm(residual) <= goal:
            break
        conditioned = scipy.linalg.cho_solve(factor, residual.T).T
        previous, product = product, float((residual * conditioned).sum())
        direction = conditioned + product / previous * direction
    return step


def _search_line(problem: _Problem, point: _Point, step: np.ndarray) -> _Point | None:
    """Return the first of W + step, W + step / 2... that is low enough; None if none is."""
    slope = float((point.gradient * step).sum())
    length = 1.0
    while length > _SHORTEST_STEP:
        candidate = problem.evaluate(point.weights + length * step)
        slack = _ROUNDING * abs(point.value)
        is_lower = candidate.value <= point.value + _SUFFICIENT_DECREASE * length * slope + slack
        # Next to the optimum differences of values are rounding errors: there only the gradient tells.
        if is_lower and (abs(slope) > 10 * slack or candidate.gradient_norm < point.gradient_norm):
            return candidate
        length /= 2
    return None


def _report(problem: _Problem, point: _Point, num_iterations: int, tolerance: float) -> PenalisedLayer:
    scale = 2 * problem.penalty * float(np.linalg.norm(point.weights))
    errors = problem.errors(point)
    converged = problem.is_stationary(point, tolerance)
    if not converged:
        warnings.warn(
            describe(
                "The penalised last layer stopped before it was stationary, so contributions add up to its "
                "logits only as far as the residual says. Allow more `max_iterations`, or a larger penalty.",
                {
                    "gradient_norm": point.gradient_norm,
                    "tolerance": tolerance,
                    "num_iterations": num_iterations,
                },
            ),
            ConvergenceWarning,
            stacklevel=3,
        )
    return PenalisedLayer(
        weights=point.weights.T.copy(),
        coefficients=(-errors / (2 * problem.penalty * problem.num_examples)).astype(np.float32),
        objective=point.value,
        gradient_norm=point.gradient_norm,
        relative_residual=point.gradient_norm / scale if scale else 0.0,
        num_iterations=num_iterations,
        converged=converged,
    )
