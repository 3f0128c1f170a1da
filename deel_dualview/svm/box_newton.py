"""Semismooth Newton steps for dual problems with bounds, one for each output, all outputs simultaneously.

inner problem   minimise over w  1/2 ||w||^2 + sum_i k_i max_b { b r_i - epsilon |b| - (b - anchor_i)^2 / (2 sigma) },
                b in [low_i, high_i],   r = t - F w
its solution    b = clip(soft(anchor + sigma r, sigma epsilon), low, high),   w = F' (k b)
Newton step     (I + sigma F_J' k_J F_J) v = F' (k b) - w,   J = rows whose b is free
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# The line search stops at this share of the slope at its start; a step is never longer than this multiple of v.
_SLOPE_SHARE = 0.1
_LONGEST_STEP = 2.0
_LINE_SEARCH_STEPS = 12
# sigma ||F_J||^2 up to which float32 products resolve the identity of the Newton matrix well enough for a direction.
_SINGLE = 1e6


class BoxProblem(NamedTuple):
    """Checked and scaled problems of t outputs on shared rows; second dimensions are outputs.

    Attributes:
        rows: F, shape (n, d) float32.
        masses: k, weight of a row in all sums, shape (n, 1) float64.
        targets: t, shape (n, t) float64.
        low: lower bounds, not positive, shape (1 or n, t) float64.
        high: upper bounds, not negative, shape (1 or n, t) float64.
        epsilon: half width of the insensitive zone, shape (1, t) float64.
    """

    rows: tf.Tensor
    masses: tf.Tensor
    targets: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    epsilon: tf.Tensor


class BoxState(NamedTuple):
    """Iterate, float64.

    Attributes:
        weights: w, shape (d, t).
        dual_weights: F' (k b), shape (d, t).
        residuals: r = t - F w, shape (n, t).
        values: b, shape (n, t).
    """

    weights: tf.Tensor
    dual_weights: tf.Tensor
    residuals: tf.Tensor
    values: tf.Tensor


class BoxReport(NamedTuple):
    """Both parts of the gap at w and the loss there, shape (t,) each.

    Attributes:
        distance: 1/2 ||w - F' (k b)||^2.
        complementarity: part of the gap that the rows own.
        loss: P(w) - 1/2 ||w||^2.
    """

    distance: tf.Tensor
    complementarity: tf.Tensor
    loss: tf.Tensor


_MATRIX, _SINGLES = tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None, None], tf.float32)
_PROBLEM = BoxProblem(_SINGLES, *[_MATRIX] * 5)
_STATE = BoxState(*[_MATRIX] * 4)


def proximal_values(
    problem: BoxProblem, anchor: tf.Tensor, sigma: tf.Tensor, residuals: tf.Tensor
) -> tf.Tensor:
    """Return b at given residuals, shape (n, t), with exact zeros and exactly at its bounds there."""
    moved, zone = anchor + sigma * residuals, sigma * problem.epsilon
    soft = moved - tf.clip_by_value(moved, -zone, zone)
    return tf.minimum(tf.maximum(soft, problem.low), problem.high)


def row_gaps(problem: BoxProblem, values: tf.Tensor, residuals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what every row adds to the gap, and to the loss, shape (n, t) each, without its mass.

    The gap is h(r) - b r + epsilon |b| with h the loss, as a sum of terms that are not negative: nothing cancels.
    """
    zone, r = problem.epsilon, residuals
    above, below = tf.nn.relu(r - zone), tf.nn.relu(-r - zone)
    positive, negative = tf.nn.relu(values), tf.nn.relu(-values)
    gaps = (problem.high - positive) * above + (-problem.low - negative) * below
    gaps += positive * tf.nn.relu(zone - r) + negative * tf.nn.relu(zone + r)
    return gaps, problem.high * above - problem.low * below


def _report(problem: BoxProblem, state: BoxState) -> BoxReport:
    gaps, losses = row_gaps(problem, state.values, state.residuals)
    distance = 0.5 * tf.reduce_sum(tf.square(state.weights - state.dual_weights), axis=0)
    sums = (tf.reduce_sum(problem.masses * part, axis=0) for part in (gaps, losses))
    return BoxReport(distance, *sums)


def _with_values(problem: BoxProblem, state: BoxState, values: tf.Tensor) -> BoxState:
    """Return the state at other b: its dual weights change by a product with the rows that changed."""
    change = problem.masses * (values - state.values)
    index = tf.where(tf.reduce_any(change != 0.0, axis=1))[:, 0]
    few = tf.cast(tf.gather(change, index), tf.float32)
    pull = tf.matmul(tf.gather(problem.rows, index), few, transpose_a=True)
    return state._replace(dual_weights=state.dual_weights + tf.cast(pull, tf.float64), values=values)


def _direction(
    rows: tf.Tensor, masses: tf.Tensor, is_free: tf.Tensor, sigma: tf.Tensor, rhs: tf.Tensor
) -> tf.Tensor:
    """Solve (I + sigma F_J' k_J F_J) v = rhs for one output, through the smaller of its two systems.

    Args:
        rows: F, shape (n, d) float32.
        masses: k, shape (n,).
        is_free: whether a row is in J, shape (n,).
        sigma: weight of the proximal term, a scalar.
        rhs: right-hand side, shape (d,).
    """
    index = tf.where(is_free)[:, 0]
    scale = tf.cast(tf.sqrt(sigma * tf.gather(masses, index)), tf.float32)
    free = tf.gather(rows, index) * scale[:, None]
    size, width = tf.shape(free)[0], tf.shape(free)[1]
    is_wide = size < width

    def gram(part: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            is_wide,
            lambda: tf.matmul(part, part, transpose_b=True),
            lambda: tf.matmul(part, part, transpose_a=True),
        )

    is_single = tf.reduce_sum(tf.square(free)) <= _SINGLE
    double = tf.cast(free, tf.float64)
    matrix = tf.cond(is_single, lambda: tf.cast(gram(free), tf.float64), lambda: gram(double))
    # The identity may be below the rounding of the products where rows repeat and sigma is large.
    shift = 1.0 + 1e-15 * tf.linalg.trace(matrix)
    factor = tf.linalg.cholesky(tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift))

    def woodbury() -> tf.Tensor:
        image = tf.linalg.cholesky_solve(factor, tf.linalg.matvec(double, rhs)[:, None])
        return rhs - tf.linalg.matvec(double, image[:, 0], transpose_a=True)

    return tf.cond(is_wide, woodbury, lambda: tf.linalg.cholesky_solve(factor, rhs[:, None])[:, 0])


def _directions(problem: BoxProblem, state: BoxState, sigma: tf.Tensor) -> tf.Tensor:
    values = state.values
    is_free = (values > problem.low) & (values < problem.high) & ((values != 0.0) | (problem.epsilon == 0.0))
    rhs = state.dual_weights - state.weights

    def solve(one: tuple[tf.Tensor, ...]) -> tf.Tensor:
        found = _direction(problem.rows, problem.masses[:, 0], *one)
        # A direction that arithmetic could not hold is no direction: the gradient always is one.
        return tf.where(tf.reduce_all(tf.math.is_finite(found)), found, one[2])

    each = tf.transpose(is_free), sigma[0], tf.transpose(rhs)
    return tf.transpose(tf.map_fn(solve, each, fn_output_signature=tf.float64, parallel_iterations=1))


def line_search(
    problem: BoxProblem,
    state: BoxState,
    anchor: tf.Tensor,
    sigma: tf.Tensor,
    direction: tf.Tensor,
    change: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the step along `direction` at which the inner objective is stationary, and b there.

    Args:
        problem: the problems.
        state: iterate.
        anchor: centre of the proximal term, shape (n, t).
        sigma: weight of the proximal term, shape (1, t).
        direction: change of the weights, shape (d, t).
        change: change of the scores F w, shape (n, t).

    Returns:
        The steps, shape (t,), and b, shape (n, t).
    """
    start = tf.reduce_sum(direction * (state.weights - state.dual_weights), axis=0)
    curvature = tf.reduce_sum(tf.square(direction), axis=0)
    weighted = problem.masses * change

    def slope(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = proximal_values(problem, anchor, sigma, state.residuals - step * change)
        moved = tf.reduce_sum(weighted * (values - state.values), axis=0)
        return start + step * curvature - moved, values

    def is_open(step: tf.Tensor, f_step: tf.Tensor) -> tf.Tensor:
        is_longest = (f_step < 0) & (step >= _LONGEST_STEP)
        return (tf.abs(f_step) > _SLOPE_SHARE * tf.abs(start)) & ~is_longest

    def unfinished(*loop: tf.Tensor) -> tf.Tensor:
        return (loop[0] < _LINE_SEARCH_STEPS) & tf.reduce_any(is_open(loop[5], loop[6]))

    def advance(*loop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        i, low, f_low, high, f_high, step, f_step, _ = loop
        searching, left = is_open(step, f_step), f_step < 0
        # Illinois: the end that stays put counts half, so neither end can stall.
        f_high = tf.where(left, tf.where(i > 0, f_high / 2, f_high), f_step)
        f_low = tf.where(left, f_step, tf.where(i > 0, f_low / 2, f_low))
        low, high = tf.where(left, step, low), tf.where(left, high, step)
        secant = (low * f_high - high * f_low) / (f_high - f_low)
        inside = tf.clip_by_value(secant, low + 0.02 * (high - low), high - 0.02 * (high - low))
        # An output that has its step keeps it.
        step = tf.where(searching, tf.where(tf.math.is_finite(f_high), inside, high), step)
        f_step, values = slope(step)
        return i + 1, low, f_low, high, f_high, step, f_step, values

    one, longest = tf.ones_like(start), _LONGEST_STEP * tf.ones_like(start)
    f_one, values = slope(one)
    loop = (0, tf.zeros_like(start), start, longest, float("inf") * one, one, f_one, values)
    result = tf.while_loop(unfinished, advance, loop)
    return result[5], result[7]


@tf.function(input_signature=[_PROBLEM, _STATE, _MATRIX, _MATRIX], autograph=False)
def newton_step(
    problem: BoxProblem, state: BoxState, anchor: tf.Tensor, sigma: tf.Tensor
) -> tuple[BoxState, BoxReport]:
    """Take one semismooth Newton step with line search; products with the rows in float32, sums in float64."""
    direction = tf.cast(_directions(problem, state, sigma), tf.float32)
    change = tf.cast(tf.matmul(problem.rows, direction), tf.float64)
    direction = tf.cast(direction, tf.float64)
    step, values = line_search(problem, state, anchor, sigma, direction, change)
    moved = state._replace(
        weights=state.weights + step * direction, residuals=state.residuals - step * change
    )
    state = _with_values(problem, moved, values)
    return state, _report(problem, state)


@tf.function(input_signature=[_PROBLEM, _STATE, _MATRIX, _MATRIX], autograph=False)
def at_anchor(
    problem: BoxProblem, state: BoxState, anchor: tf.Tensor, sigma: tf.Tensor
) -> tuple[BoxState, BoxReport]:
    """Return the state with b of another anchor or sigma at the same weights."""
    state = _with_values(problem, state, proximal_values(problem, anchor, sigma, state.residuals))
    return state, _report(problem, state)
