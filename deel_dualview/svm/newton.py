"""One semismooth Newton step of the proximal point method, on the rows of a working set.

inner problem   minimise over W  1/2 ||W||^2 - K sum_i m_i s_{i,y_i} + sum_i m_i max_l h(l, z_i),
                h = <l, z_i> - ||l - anchor_i||^2 / (2 sigma),   l on the simplex of size K,  z = F W + E
its solution    lambda = Project(anchor + sigma z),   W = W_a(lambda)
Newton step     (I + sigma F' M J F) V = W_a - W,   J = derivative of the projection, on tied classes only

m_i is the mass of a row, 1 without sample weights; M is the diagonal matrix of them.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deel_dualview.svm.direct import direct_solve
from deel_dualview.svm.preconditioner import Preconditioner, precondition
from deel_dualview.svm.simplex import project_onto_simplex

_LINE_SEARCH_STEPS = 12
_LINE_SEARCH_SLOPE = 0.1
_LONGEST_STEP = 2.0


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
    """What a Newton step achieved: both parts of the gap at W, its length, and what it took."""

    residual: tf.Tensor
    complementarity: tf.Tensor
    step_size: tf.Tensor
    num_iterations: tf.Tensor
    num_tied: tf.Tensor


def complementarity(multipliers: tf.Tensor, margins: tf.Tensor, masses: tf.Tensor | None = None) -> tf.Tensor:
    """sum_ij m_i lambda_ij (max_k z_ik - z_ij): the part of the gap that the rows own, never negative."""
    shortfall = tf.reduce_max(margins, axis=1, keepdims=True) - margins
    return tf.reduce_sum(with_masses(multipliers * shortfall, masses))


def with_masses(values: tf.Tensor, masses: tf.Tensor | None) -> tf.Tensor:
    """Return values (b, c) of rows times their masses (b, 1), if they have any."""
    return values if masses is None else values * tf.cast(masses, values.dtype)


def proximal_multipliers(
    anchor: tf.Tensor, sigma: tf.Tensor, margins: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """lambda = Project(anchor + sigma z), shape (b, c).

    A shift of a row changes nothing but the rounding: the entries that matter are small after it.
    """
    lag = margins - tf.reduce_max(margins, axis=1, keepdims=True)
    return project_onto_simplex(anchor + sigma * lag, size)


def _project_tied(values: tf.Tensor, tied: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Apply J: centre every row on its tied classes, zero elsewhere."""
    masked = values * tied
    return masked - tied * (tf.reduce_sum(masked, axis=1, keepdims=True) / counts)


def hessian_product(
    rows: tf.Tensor, tied: tf.Tensor, counts: tf.Tensor, sigma: tf.Tensor, v: tf.Tensor
) -> tf.Tensor:
    """Return (I + sigma F' J F) v, shape (d, c); `counts` (r, 1) is the number of tied classes of a row."""
    inner = _project_tied(tf.matmul(rows, v), tied, counts)
    return v + sigma * tf.transpose(tf.matmul(inner, rows, transpose_a=True))


def conjugate_gradient(
    rows: tf.Tensor,
    tied: tf.Tensor,
    sigma: tf.Tensor,
    rhs: tf.Tensor,
    preconditioner: Preconditioner,
    eta: tf.Tensor,
    limit: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solve (I + sigma F' J F) V = rhs in float32 until the residual falls below eta ||rhs||.

    Args:
        rows: features of the tied rows, shape (r, d).
        tied: 1 where lambda > 0, shape (r, c).
        sigma: weight of the proximal term.
        rhs: right-hand side, shape (d, c).
        preconditioner: approximate inverse.
        eta: relative residual to reach.
        limit: most iterations.
    """
    counts = tf.maximum(tf.reduce_sum(tied, axis=1, keepdims=True), 1.0)

    rhs = rhs - tf.reduce_mean(rhs, axis=1, keepdims=True)
    goal = tf.square(eta) * tf.reduce_sum(tf.square(rhs))
    z = precondition(preconditioner, rhs)

    def advance(
        i: tf.Tensor, v: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rz: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        hp = hessian_product(rows, tied, counts, sigma, p)
        step = rz / tf.maximum(tf.reduce_sum(p * hp), tf.constant(1e-37))
        v += step * p
        r -= step * hp
        z = precondition(preconditioner, r)
        rz_next = tf.reduce_sum(r * z)
        p = z + (rz_next / tf.maximum(rz, tf.constant(1e-37))) * p
        return i + 1, v, r, p, rz_next

    def unfinished(i: tf.Tensor, v: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rz: tf.Tensor) -> tf.Tensor:
        return (tf.reduce_sum(tf.square(r)) > goal) & (i < limit)

    state = (tf.constant(0), tf.zeros_like(rhs), rhs, z, tf.reduce_sum(rhs * z))
    i, v, *_ = tf.while_loop(unfinished, advance, state)
    return v, i


def find_movers(
    state: InnerState, anchor: tf.Tensor, size: tf.Tensor, sigma: tf.Tensor, change: tf.Tensor
) -> tf.Tensor:
    """Indices of the rows whose lambda may change on the way to the longest step.

    A row on a vertex stays there until another entry of anchor + sigma z comes within `size` of its own.
    """
    values = anchor + sigma * state.margins
    is_vertex = state.multipliers == size
    top = tf.reduce_sum(tf.where(is_vertex, values, 0.0), axis=1)
    rival = tf.reduce_max(tf.where(is_vertex, values.dtype.min, values), axis=1)
    own = tf.reduce_sum(tf.where(is_vertex, change, 0.0), axis=1)
    approach = tf.reduce_max(change, axis=1) - own
    stays = tf.reduce_any(is_vertex, axis=1) & (top - rival - size > _LONGEST_STEP * sigma * approach)
    return tf.where(~stays)[:, 0]


def line_search(
    state: InnerState,
    anchor: tf.Tensor,
    size: tf.Tensor,
    sigma: tf.Tensor,
    direction: tf.Tensor,
    change: tf.Tensor,
    masses: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Step along `direction` at which the inner objective is stationary, without a matrix product.

    Args:
        state: iterate; its margins and multipliers are those of the movers alone.
        anchor: centre of the proximal term, the movers' rows.
        size: sum of a row of lambda.
        sigma: weight of the proximal term.
        direction: change of the weights, shape (d, c).
        change: change of the margins, the movers' rows.
        masses: of the movers, shape (b, 1); None where all are 1.

    Returns:
        The step and the movers' multipliers there.
    """
    slope0 = tf.reduce_sum(direction * (state.weights - state.dual_weights))
    curvature = tf.reduce_sum(tf.square(direction))

    def slope(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        multipliers = proximal_multipliers(anchor, sigma, state.margins + step * change, size)
        moved = tf.reduce_sum(with_masses(change * (multipliers - state.multipliers), masses))
        return slope0 + step * curvature + moved, multipliers

    def unfinished(*loop: tf.Tensor) -> tf.Tensor:
        i, step, f_step = loop[0], loop[5], loop[6]
        is_longest = (f_step < 0) & (step >= _LONGEST_STEP)
        return (i < _LINE_SEARCH_STEPS) & (tf.abs(f_step) > _LINE_SEARCH_SLOPE * tf.abs(slope0)) & ~is_longest

    def advance(*loop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        i, low, f_low, high, f_high, step, f_step, _ = loop
        left = f_step < 0
        # Illinois: the end that stays put counts half, so neither end can stall.
        f_high = tf.where(left, tf.where(i > 0, f_high / 2, f_high), f_step)
        f_low = tf.where(left, f_step, tf.where(i > 0, f_low / 2, f_low))
        low, high = tf.where(left, step, low), tf.where(left, high, step)
        bounded = tf.math.is_finite(f_high)
        secant = (low * f_high - high * f_low) / (f_high - f_low)
        inside = tf.clip_by_value(secant, low + 0.02 * (high - low), high - 0.02 * (high - low))
        step = tf.where(bounded, inside, high)
        f_step, multipliers = slope(step)
        return i + 1, low, f_low, high, f_high, step, f_step, multipliers

    one = tf.constant(1.0, tf.float64)
    f_one, multipliers = slope(one)
    infinite, zero = tf.constant(float("inf"), tf.float64), tf.constant(0.0, tf.float64)
    longest = tf.constant(_LONGEST_STEP, tf.float64)
    loop = (tf.constant(0), zero, slope0, longest, infinite, one, f_one, multipliers)
    result = tf.while_loop(unfinished, advance, loop)
    return result[5], result[7]


def _continuation(
    rows: tf.Tensor,
    state: InnerState,
    support: tf.Tensor,
    anchor: tf.Tensor,
    size: tf.Tensor,
    sigma: tf.Tensor,
    masses: tf.Tensor | None,
) -> tf.Tensor:
    """What W_a gains where lambda is continued affinely on `support`: nothing if that is its own."""
    differs = tf.where(tf.reduce_any(support != (state.multipliers > 0), axis=1))[:, 0]
    inside = tf.cast(tf.gather(support, differs), tf.float64)
    values = inside * tf.gather(anchor + sigma * state.margins, differs)
    excess = tf.reduce_sum(values, axis=1, keepdims=True) - size
    continued = values - inside * (excess / tf.reduce_sum(inside, axis=1, keepdims=True))
    moved = with_masses(tf.gather(state.multipliers, differs) - continued, _gathered(masses, differs))
    return tf.matmul(tf.cast(tf.gather(rows, differs), tf.float64), moved, transpose_a=True)


def _gathered(masses: tf.Tensor | None, index: tf.Tensor) -> tf.Tensor | None:
    return None if masses is None else tf.gather(masses, index)


@tf.function(reduce_retracing=True, autograph=False)
def newton_step(
    rows: tf.Tensor,
    state: InnerState,
    support: tf.Tensor,
    anchor: tf.Tensor,
    size: tf.Tensor,
    sigma: tf.Tensor,
    preconditioner: Preconditioner,
    eta: tf.Tensor,
    limit: tf.Tensor,
    direct_size: tf.Tensor,
    masses: tf.Tensor | None = None,
) -> tuple[InnerState, StepReport]:
    """One semismooth Newton step with line search; matrix products in float32, sums in float64.

    `support` (b, c) says which classes of a row are taken to be tied: those with lambda > 0, or a guess
    that is better, in which case lambda stands for its affine continuation there. Up to `direct_size` tied
    differences the system is solved exactly, beyond by conjugate gradients.
    """
    multipliers = state.multipliers
    index = tf.where(tf.math.count_nonzero(support, axis=1) > 1)[:, 0]
    tied_rows, tied = tf.gather(rows, index), tf.cast(tf.gather(support, index), tf.float32)
    if masses is not None:
        tied_rows = with_masses(tied_rows, tf.sqrt(tf.gather(masses, index)))
    rhs = state.dual_weights - state.weights
    rhs += _continuation(rows, state, support, anchor, size, sigma, masses)

    def exact() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(direct_solve(tied_rows, tied, sigma, rhs), tf.float32), tf.constant(0)

    def iterative() -> tuple[tf.Tensor, tf.Tensor]:
        single = tf.cast(sigma, tf.float32), tf.cast(rhs, tf.float32)
        return conjugate_gradient(tied_rows, tied, *single, preconditioner, eta, limit)

    num_differences = tf.cast(tf.reduce_sum(tied), tf.int32) - tf.shape(index)[0]
    is_small = (num_differences > 0) & (num_differences <= direct_size)
    direction, num_iterations = tf.cond(is_small, exact, iterative)
    # A direction that float32 could not hold is no direction: the gradient always is one.
    is_sound = tf.reduce_all(tf.math.is_finite(direction))
    direction = tf.where(is_sound, direction, tf.cast(state.dual_weights - state.weights, tf.float32))
    change = tf.cast(tf.matmul(rows, direction), tf.float64)
    direction = tf.cast(direction, tf.float64)
    movers = find_movers(state, anchor, size, sigma, change)
    before = tf.gather(multipliers, movers)
    moving = state._replace(margins=tf.gather(state.margins, movers), multipliers=before)
    path = tf.gather(change, movers)
    moving_masses = _gathered(masses, movers)
    step, after = line_search(moving, tf.gather(anchor, movers), size, sigma, direction, path, moving_masses)
    moved = tf.cast(with_masses(before - after, moving_masses), tf.float32)
    pull = tf.matmul(moved, tf.gather(rows, movers), transpose_a=True)
    state = InnerState(
        state.weights + step * direction,
        state.dual_weights + tf.transpose(tf.cast(pull, tf.float64)),
        state.margins + step * change,
        tf.tensor_scatter_nd_update(multipliers, movers[:, None], after),
    )
    residual = 0.5 * tf.reduce_sum(tf.square(state.weights - state.dual_weights))
    gap = complementarity(state.multipliers, state.margins, masses)
    return state, StepReport(residual, gap, step, num_iterations, tf.shape(index)[0])
