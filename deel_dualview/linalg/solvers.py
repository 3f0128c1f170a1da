"""Iterative solvers of A x = b for many right-hand sides at once, with one product with A a step."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe
from deel_dualview._summaries import briefly, to_text
from deel_dualview.linalg.operators import LinearOperator

_DIVERGED = 1e3
_ROUNDING = 1e-5


class LinearSolution(NamedTuple):
    """What a solver found for n right-hand sides, and how well.

    Attributes:
        value: x, shape (n, p).
        converged: whether the residual of each row is within the tolerance, shape (n,), bool.
        num_iterations: products with A that were made (of the rows that had not converged yet), or terms of a
            series.
        relative_residual: ||b - A x|| / ||b|| of each row, 0 for a zero row, shape (n,).
        negative_curvature: the least d'Ad / d'd < 0 that conjugate gradients met, which bounds the smallest
            eigenvalue from above; None where A looked positive definite.
        row_iterations: products with A that each row took part in, shape (n,), int64; None of other solvers than
            conjugate gradients.
    """

    value: tf.Tensor
    converged: tf.Tensor
    num_iterations: int
    relative_residual: tf.Tensor
    negative_curvature: float | None = None
    row_iterations: np.ndarray | None = None

    def __repr__(self) -> str:
        return to_text("LinearSolution", briefly(self._asdict()))


def conjugate_gradient(
    operator: LinearOperator,
    rows: tf.Tensor,
    *,
    max_iterations: int,
    tolerance: float,
    preconditioner: LinearOperator | None = None,
) -> LinearSolution:
    """Solve A x = b by conjugate gradients, for every row b at once.

    A row stops moving, and takes no more part in products, once ||b - A x|| <= tolerance * ||b||. In
    particular a zero row (an example that the model fits exactly) stays zero, where the textbook loop would
    compute 0 / 0. A row that meets a direction of negative curvature (A is not positive definite) stops
    there, not converged.

    Args:
        operator: A, symmetric positive definite, of size p.
        rows: right-hand sides, shape (n, p), of the operator's dtype.
        max_iterations: stop after this many products with A, converged or not.
        tolerance: relative to the norm of each right-hand side.
        preconditioner: an approximation P of the inverse of A, symmetric positive definite; none by default. The first
            iterate is P b, times the length that is best in the norm of A.

    Source: Hestenes and Stiefel (1952), section 3.
    """
    # Half the tolerance, so that the true residual, which drifts from the recurred one, keeps the promise.
    unsolved = _Unsolved(rows, tolerance / 2)
    direction = preconditioned = _precondition(rows, preconditioner)
    state = (tf.zeros_like(rows), rows, direction, tf.reduce_sum(rows * preconditioned, axis=1))
    state = unsolved.retire(state, tf.norm(rows, axis=1))
    num_iterations, least, largest = 0, 0.0, 0.0
    row_iterations = np.zeros(len(rows), np.int64)
    while num_iterations < max_iterations and unsolved:
        num_iterations += 1
        row_iterations[unsolved.indices] += 1
        value, residual, direction, inner = state
        product = operator.matmul(direction)
        value, residual, sizes, curvatures = _step(value, residual, direction, inner, product)
        least, largest = min(least, curvatures.numpy().min()), max(largest, curvatures.numpy().max())
        preconditioned = _precondition(residual, preconditioner)
        direction, inner = _next_direction(residual, direction, inner, preconditioned)
        state = unsolved.retire((value, residual, direction, inner), sizes)
    solution = _judge(operator, rows, unsolved.finish(state[0]), num_iterations, tolerance)
    solution = solution._replace(row_iterations=row_iterations)
    # Less is rounding.
    is_negative = least < -_ROUNDING * largest or (largest == 0 and least < 0)
    return solution._replace(negative_curvature=float(least)) if is_negative else solution


def neumann_series(
    operator: LinearOperator, rows: tf.Tensor, *, scale: float, max_iterations: int, tolerance: float
) -> LinearSolution:
    """Solve A x = b by the series x = sum_k (I - A / scale)^k b / scale, for every row b at once.

    Args:
        operator: A, symmetric positive definite, of size p.
        rows: right-hand sides, shape (n, p), of the operator's dtype.
        scale: more than half the largest eigenvalue of A; the series is fastest near that eigenvalue.
        max_iterations: stop after this many products with A, converged or not.
        tolerance: relative to the norm of each right-hand side.

    Raises:
        LinAlgError: the series diverges.
    """
    unsolved = _Unsolved(rows, tolerance)
    state = unsolved.retire((tf.zeros_like(rows), rows), tf.norm(rows, axis=1))
    num_iterations = 0
    while num_iterations < max_iterations and unsolved:
        num_iterations += 1
        value, residual = state
        part = residual / tf.cast(scale, rows.dtype)
        value, residual, sizes = _term(value, residual, part, operator.matmul(part))
        _check_bounded(sizes.numpy(), _DIVERGED * unsolved.norms, scale, num_iterations)
        state = unsolved.retire((value, residual), sizes)
    return _judge(operator, rows, unsolved.finish(state[0]), num_iterations, tolerance)


def neumann_series_by_doubling(
    operator: LinearOperator, rows: tf.Tensor, *, scale: float, max_iterations: int, tolerance: float
) -> LinearSolution:
    """Sum the series of `neumann_series` for a matrix in memory, doubling the number of terms at each step.

    After k terms the residual is M^k b with M = I - A / scale, and x_2k = x_k + M^k x_k, where M^2k is the
    square of M^k. See `neumann_series` for the rest.
    """
    unsolved = _Unsolved(rows, tolerance)
    (rest,) = unsolved.retire((rows,), tf.norm(rows, axis=1))
    power = tf.eye(operator.size, dtype=rows.dtype) - operator.to_dense() / tf.cast(scale, rows.dtype)
    value, residual, num_terms = rest / tf.cast(scale, rows.dtype), tf.matmul(rest, power), 1
    while True:
        sizes = tf.norm(residual, axis=1)
        _check_bounded(sizes.numpy(), _DIVERGED * unsolved.norms, scale, num_terms)
        value, residual = unsolved.retire((value, residual), sizes)
        if not unsolved or 2 * num_terms > max_iterations:
            return _judge(operator, rows, unsolved.finish(value), num_terms, tolerance)
        if num_terms > 1:
            power = tf.matmul(power, power)
        value, residual = value + tf.matmul(value, power), tf.matmul(residual, power)
        num_terms *= 2


def stochastic_neumann_series(
    samples: Iterator[LinearOperator],
    operator: LinearOperator,
    rows: tf.Tensor,
    *,
    scale: float,
    max_iterations: int,
    tolerance: float,
) -> LinearSolution:
    """Solve A x = b by the series with a random sample of A at each step (LiSSA), for every row b at once.

    All rows see the same samples. The iterates of the second half are averaged, which takes out most of the
    noise.

    Args:
        samples: operators of mean A, endless.
        operator: A itself, for one product at the end that tells how well each row was solved.
        rows: right-hand sides, shape (n, p), of the operators' dtype.
        scale: more than half the largest eigenvalue of the samples.
        max_iterations: how many samples are taken.
        tolerance: what counts as converged, relative to the norm of each right-hand side.

    Raises:
        LinAlgError: the series diverges.

    Source: Agarwal et al. (2017); Koh and Liang (2017), section 3.
    """
    bounds = _DIVERGED / scale * tf.norm(rows, axis=1).numpy()
    value, total, num_averaged = tf.zeros_like(rows), tf.zeros_like(rows), 0
    for step in range(max_iterations):
        change = (rows - next(samples).matmul(value)) / tf.cast(scale, rows.dtype)
        value += change
        _check_bounded(tf.norm(change, axis=1).numpy(), bounds, scale, step + 1)
        if step >= max_iterations // 2:
            total, num_averaged = total + value, num_averaged + 1
    average = total / tf.cast(max(1, num_averaged), rows.dtype)
    return _judge(operator, rows, average, max_iterations, tolerance)


def judge(operator: LinearOperator, rows: tf.Tensor, value: tf.Tensor, tolerance: float) -> LinearSolution:
    """Return a direct solution with its residuals, for one product with A."""
    return _judge(operator, rows, value, 1, tolerance)


def _judge(
    operator: LinearOperator, rows: tf.Tensor, value: tf.Tensor, num_iterations: int, tolerance: float
) -> LinearSolution:
    residual = tf.math.divide_no_nan(tf.norm(rows - operator.matmul(value), axis=1), tf.norm(rows, axis=1))
    return LinearSolution(value, residual <= tf.cast(tolerance, residual.dtype), num_iterations, residual)


def _precondition(residual: tf.Tensor, preconditioner: LinearOperator | None) -> tf.Tensor:
    if preconditioner is None:
        return residual
    return tf.cast(preconditioner.matmul(tf.cast(residual, preconditioner.dtype)), residual.dtype)


@tf.function(reduce_retracing=True, autograph=False)
def _step(
    value: tf.Tensor, residual: tf.Tensor, direction: tf.Tensor, inner: tf.Tensor, product: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Return value, residual, its norm and d'Ad / d'd after a step; NaN norm, no move, at negative curvature."""
    curvature = tf.reduce_sum(direction * product, axis=1)
    is_positive = curvature > 0
    length = tf.where(is_positive, tf.math.divide_no_nan(inner, curvature), 0)[:, tf.newaxis]
    value, residual = value + length * direction, residual - length * product
    sizes = tf.norm(residual, axis=1)
    quotient = tf.math.divide_no_nan(curvature, tf.reduce_sum(tf.square(direction), axis=1))
    return value, residual, tf.where(is_positive, sizes, np.nan), quotient


@tf.function(reduce_retracing=True, autograph=False)
def _next_direction(
    residual: tf.Tensor, direction: tf.Tensor, inner: tf.Tensor, preconditioned: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    new_inner = tf.reduce_sum(residual * preconditioned, axis=1)
    ratio = tf.math.divide_no_nan(new_inner, inner)[:, tf.newaxis]
    return preconditioned + ratio * direction, new_inner


@tf.function(reduce_retracing=True, autograph=False)
def _term(
    value: tf.Tensor, residual: tf.Tensor, part: tf.Tensor, product: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    residual = residual - product
    return value + part, residual, tf.norm(residual, axis=1)


class _Unsolved:
    """The rows that still move, and the results of those that do not any more.

    Args:
        rows: right-hand sides, shape (n, p).
        tolerance: relative to the norm of each.

    Attributes:
        indices: of the rows that still move.
        norms: of their right-hand sides.
    """

    def __init__(self, rows: tf.Tensor, tolerance: float) -> None:
        self.norms = tf.norm(rows, axis=1).numpy()
        self._tolerance = tolerance
        self.indices = np.arange(len(self.norms))
        self._found = np.zeros(rows.shape, rows.dtype.as_numpy_dtype)

    def __len__(self) -> int:
        return len(self.indices)

    def retire(self, state: tuple[tf.Tensor, ...], sizes: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the state of the rows whose residuals are still too large; NaN retires a row too.

        Args:
            state: values first, each tensor with one row for each that moves.
            sizes: norms of their residuals.
        """
        moves = sizes.numpy() > self._tolerance * self.norms
        if moves.all():
            return state
        self._found[self.indices[~moves]] = tf.boolean_mask(state[0], ~moves)
        self.indices, self.norms = self.indices[moves], self.norms[moves]
        return tuple(tf.boolean_mask(part, moves) for part in state)

    def finish(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values of all rows, given those of the rows that still move."""
        self._found[self.indices] = values
        return tf.constant(self._found)


def _check_bounded(sizes: np.ndarray, bounds: np.ndarray, scale: float, num_iterations: int) -> None:
    if np.all(sizes <= bounds):
        return
    raise np.linalg.LinAlgError(
        describe(
            "The Neumann series diverges: its scale is less than half the largest eigenvalue of the Hessian "
            "(or of its samples), or an eigenvalue is negative. Raise `scale`, or leave it out to have it "
            "estimated; larger batches vary less; more `damping`, or the Gauss-Newton curvature, leaves no "
            "negative eigenvalue.",
            {"scale": scale, "num_iterations": num_iterations},
        )
    )
