"""One semismooth Newton step of the proximal point method, on the rows of a working set.

    inner problem   minimise over W  1/2 ||W||^2 - K sum_i s_{i,y_i} + sum_i max_l <l, z_i> - ||l - anchor_i||^2 / (2 sigma)
    its solution    lambda = Project(anchor + sigma z),  z = F W + E,  W = W_a(lambda)     (l, lambda on the simplex of size K)
    Newton step     (I + sigma F' J F) V = W_a - W,      J = derivative of the projection: tied classes of a row only
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deel_dualview.svm.simplex import project_onto_simplex

_LINE_SEARCH_STEPS = 12
_LINE_SEARCH_SLOPE = 0.1


class InnerState(NamedTuple):
    """Iterate on a working set of b rows, float64.

    Attributes:
        weights: W, shape (d, c).
        dual_weights: W_a = F' alpha, shape (d, c).
        margins: z = F W + 1[j != y], shape (b, c).
        multipliers: lambda, shape (b, c).
    """

    weights: tf.Tensor
    dual_weights: tf.Tensor
    margins: tf.Tensor
    multipliers: tf.Tensor


class StepReport(NamedTuple):
    """What a Newton step achieved: the two parts of the gap at W, its length, its inner iterations."""

    residual: tf.Tensor
    complementarity: tf.Tensor
    step_size: tf.Tensor
    num_iterations: tf.Tensor


def complementarity(multipliers: tf.Tensor, margins: tf.Tensor) -> tf.Tensor:
    """sum_ij lambda_ij (max_k z_ik - z_ij): the part of the gap that the rows own, never negative."""
    shortfall = tf.reduce_max(margins, axis=1, keepdims=True) - margins
    return tf.reduce_sum(multipliers * shortfall)


def _project_tied(values: tf.Tensor, tied: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Apply J: centre every row on its tied classes, zero elsewhere."""
    masked = values * tied
    return masked - tied * (tf.reduce_sum(masked, axis=1, keepdims=True) / counts)


def conjugate_gradient(
    rows: tf.Tensor, tied: tf.Tensor, sigma: tf.Tensor, rhs: tf.Tensor, inverse: tf.Tensor, eta: tf.Tensor, limit: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solve (I + sigma F' J F) V = rhs in float32 until the residual falls below eta ||rhs||.

    Args:
        rows: features of the tied rows, shape (r, d).
        tied: 1 where lambda > 0, shape (r, c).
        sigma: weight of the proximal term.
        rhs: right-hand side, shape (d, c).
        inverse: inverses of the diagonal blocks, shape (c, d, d), or (0, d, d) for none.
        eta: relative residual to reach.
        limit: most iterations.
    """
    counts = tf.maximum(tf.reduce_sum(tied, axis=1, keepdims=True), 1.0)

    def apply(v: tf.Tensor) -> tf.Tensor:
        inner = _project_tied(tf.matmul(rows, v), tied, counts)
        return v + sigma * tf.transpose(tf.matmul(inner, rows, transpose_a=True))

    def precondition(r: tf.Tensor) -> tf.Tensor:
        if inverse is None:
            return r
        solved = tf.transpose(tf.linalg.matvec(inverse, tf.transpose(r)))
        return solved - tf.reduce_mean(solved, axis=1, keepdims=True)

    rhs = rhs - tf.reduce_mean(rhs, axis=1, keepdims=True)
    goal = tf.square(eta) * tf.reduce_sum(tf.square(rhs))
    z = precondition(rhs)

    def advance(i, v, r, p, rz):
        hp = apply(p)
        step = rz / tf.maximum(tf.reduce_sum(p * hp), tf.constant(1e-37))
        v += step * p
        r -= step * hp
        z = precondition(r)
        rz_next = tf.reduce_sum(r * z)
        p = z + (rz_next / tf.maximum(rz, tf.constant(1e-37))) * p
        return i + 1, v, r, p, rz_next

    def unfinished(i, v, r, p, rz):
        return (tf.reduce_sum(tf.square(r)) > goal) & (i < limit)

    state = (tf.constant(0), tf.zeros_like(rhs), rhs, z, tf.reduce_sum(rhs * z))
    i, v, *_ = tf.while_loop(unfinished, advance, state)
    return v, i


def line_search(
    state: InnerState, anchor: tf.Tensor, size: tf.Tensor, sigma: tf.Tensor, direction: tf.Tensor, change: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Step along `direction` at which the inner objective is stationary, without a matrix product.

    Returns:
        The step and the multipliers there.
    """
    slope0 = tf.reduce_sum(direction * (state.weights - state.dual_weights))
    curvature = tf.reduce_sum(tf.square(direction))

    def slope(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        multipliers = project_onto_simplex(anchor + sigma * (state.margins + step * change), size)
        moved = tf.reduce_sum(change * (multipliers - state.multipliers))
        return slope0 + step * curvature + moved, multipliers

    def unfinished(i, low, f_low, high, f_high, step, f_step, multipliers):
        return (i < _LINE_SEARCH_STEPS) & (tf.abs(f_step) > _LINE_SEARCH_SLOPE * tf.abs(slope0))

    def advance(i, low, f_low, high, f_high, step, f_step, multipliers):
        left = f_step < 0
        # Illinois: the end that stays put counts half, so neither end can stall.
        f_high = tf.where(left, tf.where(i > 0, f_high / 2, f_high), f_step)
        f_low = tf.where(left, f_step, tf.where(i > 0, f_low / 2, f_low))
        low, high = tf.where(left, step, low), tf.where(left, high, step)
        bounded = tf.math.is_finite(high)
        secant = (low * f_high - high * f_low) / (f_high - f_low)
        step = tf.where(bounded, tf.clip_by_value(secant, low + 0.02 * (high - low), high - 0.02 * (high - low)), 2 * step)
        f_step, multipliers = slope(step)
        return i + 1, low, f_low, high, f_high, step, f_step, multipliers

    one = tf.constant(1.0, tf.float64)
    f_one, multipliers = slope(one)
    infinite = tf.constant(float("inf"), tf.float64)
    zero = tf.constant(0.0, tf.float64)
    loop = (tf.constant(0), zero, slope0, infinite, infinite, one, f_one, multipliers)
    result = tf.while_loop(unfinished, advance, loop)
    return result[5], result[7]


@tf.function(reduce_retracing=True)
def newton_step(
    rows: tf.Tensor,
    state: InnerState,
    anchor: tf.Tensor,
    size: tf.Tensor,
    sigma: tf.Tensor,
    inverse: tf.Tensor,
    eta: tf.Tensor,
    limit: tf.Tensor,
) -> tuple[InnerState, StepReport]:
    """One semismooth Newton step with line search; matrix products in float32, sums in float64."""
    tied = state.multipliers > 0
    index = tf.where(tf.reduce_sum(tf.cast(tied, tf.int32), axis=1) > 1)[:, 0]
    direction, num_iterations = conjugate_gradient(
        tf.gather(rows, index),
        tf.cast(tf.gather(tied, index), tf.float32),
        tf.cast(sigma, tf.float32),
        tf.cast(state.dual_weights - state.weights, tf.float32),
        inverse,
        eta,
        limit,
    )
    change = tf.cast(tf.matmul(rows, direction), tf.float64)
    direction = tf.cast(direction, tf.float64)
    step, multipliers = line_search(state, anchor, size, sigma, direction, change)
    moved = tf.cast(state.multipliers - multipliers, tf.float32)
    state = InnerState(
        state.weights + step * direction,
        state.dual_weights + tf.transpose(tf.cast(tf.matmul(moved, rows, transpose_a=True), tf.float64)),
        state.margins + step * change,
        multipliers,
    )
    residual = 0.5 * tf.reduce_sum(tf.square(state.weights - state.dual_weights))
    return state, StepReport(residual, complementarity(multipliers, state.margins), step, num_iterations)


@tf.function(reduce_retracing=True)
def block_inverses(rows: tf.Tensor, multipliers: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Inverses of the diagonal blocks I + sigma sum_i (1 - 1/k_i) f_i f_i', one a class, shape (c, d, d)."""
    tied = multipliers > 0
    counts = tf.reduce_sum(tf.cast(tied, tf.float32), axis=1)
    size = tf.shape(rows)[1]
    scale = tf.sqrt(tf.cast(sigma, tf.float32) * (1 - 1 / tf.maximum(counts, 1.0)))

    def block(j: tf.Tensor) -> tf.Tensor:
        index = tf.where(tied[:, j] & (counts > 1))[:, 0]
        weighted = tf.gather(rows, index) * tf.gather(scale, index)[:, None]
        gram = tf.cast(tf.matmul(weighted, weighted, transpose_a=True), tf.float64)
        # The Gram matrix carries float32 rounding, relative to its largest eigenvalue.
        shift = 1.0 + 1e-6 * tf.linalg.trace(gram)
        factor = tf.linalg.cholesky(gram + shift * tf.eye(size, dtype=tf.float64))
        return tf.cast(tf.linalg.cholesky_solve(factor, tf.eye(size, dtype=tf.float64)), tf.float32)

    return tf.map_fn(block, tf.range(tf.shape(multipliers)[1]), fn_output_signature=tf.float32)
