"""The outer loop for dual problems with bounds: stages of the proximal point method and certificates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.svm.box_newton import (
    BoxProblem,
    BoxReport,
    BoxState,
    at_anchor,
    newton_step,
    proximal_values,
    row_gaps,
)
from deel_dualview.svm.passes import adjoint, scores
from deel_dualview.svm.solution import WEIGHT_SHARE
from deel_dualview.svm.working_set import SETTLED

# Sizes of nested random subsets of the rows that lead to a start, and how many rows a feature they have at least.
_LEVELS = (2_000, 8_000)
_ROWS_PER_FEATURE = 4
# Widths high / sigma of the smoothed loss in the levels, in units of the targets: as wide as the residuals are.
_WIDTH = 1.0
_LEVEL_NARROWING = 4.0
# A level only has to lead the next one.
_STEPS_PER_LEVEL = 6
# sigma E||f||^2 of the first stage at most: at a hard margin the bounds say nothing about the size of b.
_SIGMA = 100.0
_LARGEST_SIGMA = 1e10
# Bounds above this, times E||f||^2 over the targets, are approached by way of the solution there: where it fits all
# examples, no larger bound changes it.
_HARD = 1e5
# A surrogate that nearly separates is stretched by this multiple of what it lacks, and more than rounding can undo.
_STRETCH, _LEAST_STRETCH = 2.0, 1e-9
# From stage to stage sigma grows by the first factor, and by the second after a stage of few steps.
_GROWTH, _FAST_GROWTH, _FEW_STEPS = 2.0, 9.0, 2
# Where the rows own little of the gap, 1/2 ||w - F' (k b)||^2 has to come down to this share of the target before
# the gap at F' (k b) itself is computed, and after a failure to so much less each time: Newton steps gain digits fast.
_DEMAND = 1e-2
_TIGHTENING = 1e-2
# Weights as close as this, in terms of the rows' part of the gap, have no part in a failure: the rows have to gain.
_POLISHED = 1e-9
# The state is recomputed in float64 after as many float32 increments.
_REFRESH = 10
# Steps of an output without a gain of a tenth in its gap, after which float arithmetic has nothing left to give.
_MAX_IDLE_STEPS = 30


class BoxSolution(NamedTuple):
    """What a run found for every output.

    Attributes:
        values: b, shape (n, t).
        weights: F' (k b), shape (d, t).
        primal: P at the weights, shape (t,).
        gap: P - D there, shape (t,).
        num_iterations: Newton steps, shape (t,).
    """

    values: np.ndarray
    weights: np.ndarray
    primal: np.ndarray
    gap: np.ndarray
    num_iterations: np.ndarray

    def is_within(self, tolerance: float) -> np.ndarray:
        """Whether the gap of an output is small next to P and next to ||w||^2, shape (t,)."""
        return self.gap <= tolerance * _gap_scale(self.primal, self.weights)


def _gap_scale(primal: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.minimum(primal, WEIGHT_SHARE * np.sum(np.square(weights), axis=0))


def certify(problem: BoxProblem, values: tf.Tensor) -> BoxSolution:
    """Return the certificate of feasible b, everything in float64."""
    weights = adjoint(problem.rows, problem.masses * values)
    residuals = problem.targets - scores(problem.rows, weights)
    gap, loss = (
        np.sum(problem.masses.numpy() * part.numpy(), axis=0) for part in row_gaps(problem, values, residuals)
    )
    primal = 0.5 * np.sum(np.square(weights.numpy()), axis=0) + loss
    return BoxSolution(values.numpy(), weights.numpy(), primal, gap, np.zeros(len(gap), int))


def _columns(problem: BoxProblem, chosen: np.ndarray) -> BoxProblem:
    each = (tf.gather(part, chosen, axis=1) for part in problem[2:])
    return BoxProblem(problem.rows, problem.masses, *each)


def _subset(problem: BoxProblem, index: np.ndarray) -> BoxProblem:
    """Return the problem of some rows, each of which stands for as many as are left out."""
    low, high = (
        part if part.shape[0] == 1 else tf.gather(part, index) for part in (problem.low, problem.high)
    )
    masses = tf.gather(problem.masses, index) * (problem.rows.shape[0] / len(index))
    rows, targets = tf.gather(problem.rows, index), tf.gather(problem.targets, index)
    return BoxProblem(rows, masses, targets, low, high, problem.epsilon)


def _state(problem: BoxProblem, weights: tf.Tensor, values: tf.Tensor) -> BoxState:
    residuals = problem.targets - scores(problem.rows, weights)
    return BoxState(weights, adjoint(problem.rows, problem.masses * values), residuals, values)


def _reach(problem: BoxProblem) -> np.ndarray:
    """Return the largest |b| that every output allows, shape (t,)."""
    return np.maximum(problem.high.numpy(), -problem.low.numpy()).max(axis=0)


def _first_sigma(problem: BoxProblem, width: float) -> np.ndarray:
    return np.minimum(_reach(problem) / width, _SIGMA)


def _stretched(problem: BoxProblem, values: tf.Tensor) -> tf.Tensor:
    """Return b so much longer that no row is short of its target any more, where only that has a loss.

    Times a huge bound the rounding of a residual would be all of the gap.
    """
    weights = adjoint(problem.rows, problem.masses * values)
    residuals = problem.targets - scores(problem.rows, weights)
    short = tf.reduce_max(tf.where(problem.high > 0.0, residuals, -residuals), axis=0)
    longer = values * (1.0 + _STRETCH * tf.nn.relu(short) + _LEAST_STRETCH)
    return tf.minimum(tf.maximum(longer, problem.low), problem.high)


class BoxStages:
    """One solve: call `run` once. Features of mean squared norm 1 and targets of about 1 are expected."""

    def __init__(self, problem: BoxProblem, tolerance: float, max_iterations: int) -> None:
        self._whole, self._tolerance, self._max_iterations = problem, tolerance, max_iterations

    def run(self, start: tf.Tensor | None) -> BoxSolution:
        """Solve from nothing, or from feasible b, shape (n, t).

        Returns:
            The best certified point; the gap of an output is above the tolerance if its iterations ran out.
        """
        problem = self._whole
        anchor = tf.zeros_like(problem.targets) if start is None else start
        self._best = certify(problem, anchor)
        weights, width = tf.constant(self._best.weights), _WIDTH
        if start is None and not self._is_done().all():
            softer = np.maximum(_reach(problem) / _HARD, 1.0)
            if softer.max() > 1.0:
                weights, anchor = self._soft_start(softer)
            else:
                weights, width = self._levels()
        self._stages(weights, anchor, _first_sigma(problem, width))
        return self._best

    def _soft_start(self, softer: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """Solve with bounds `softer` times closer, and return the weights and the better of two starts.

        Where the margin is hard b stays as it is; otherwise it grows in proportion.
        """
        problem = self._whole
        soft = problem._replace(low=problem.low / softer, high=problem.high / softer)
        found = BoxStages(soft, self._tolerance, self._max_iterations).run(None)
        self._best.num_iterations[:] += found.num_iterations
        starts = [tf.constant(found.values), tf.constant(found.values * softer)]
        starts[1] = tf.clip_by_value(starts[1], problem.low, problem.high)
        for values in (*starts, _stretched(problem, starts[0])):
            self._keep(certify(problem, values), np.arange(len(softer)))
        return tf.constant(found.weights), tf.constant(self._best.values)

    def _is_done(self) -> np.ndarray:
        return self._best.is_within(self._tolerance)

    def _levels(self) -> tuple[tf.Tensor, float]:
        problem, width = self._whole, _WIDTH
        num_rows, size = problem.rows.shape
        weights = tf.zeros((size, problem.targets.shape[1]), tf.float64)
        order = np.random.default_rng(0).permutation(num_rows)
        for level in _LEVELS:
            level = max(level, _ROWS_PER_FEATURE * size)
            if 2 * level > num_rows:
                break
            index = np.sort(order[:level])
            weights = self._settle(_subset(problem, index), weights, _first_sigma(problem, width))
            width /= _LEVEL_NARROWING
        return weights, width

    def _settle(self, problem: BoxProblem, weights: tf.Tensor, sigma: np.ndarray) -> tf.Tensor:
        anchor = tf.zeros_like(problem.targets)
        strength = tf.constant(sigma[None, :])
        state, report = at_anchor(problem, _state(problem, weights, anchor), anchor, strength)
        for _ in range(_STEPS_PER_LEVEL):
            if np.all(report.distance <= SETTLED * report.complementarity):
                break
            state, report = newton_step(problem, state, anchor, strength)
            self._best.num_iterations[:] += 1
        return state.weights

    def _stages(self, weights: tf.Tensor, anchor: tf.Tensor, sigma: np.ndarray) -> None:
        """Run the proximal point method on all outputs that are not done; each has its own stages."""
        batch = _Batch(self._whole, weights, anchor, sigma).keep(~self._is_done())
        while len(batch.outputs):
            report = batch.step()
            self._best.num_iterations[batch.outputs] += 1
            target = 0.5 * self._tolerance * _gap_scale(*batch.primal_and_weights(report))
            given_up = batch.is_idle(report) | (
                self._best.num_iterations[batch.outputs] >= self._max_iterations
            )
            comp, distance = report.complementarity.numpy(), report.distance.numpy()
            settled = distance <= SETTLED * np.maximum(comp, target)
            ready = (comp <= target) & (distance <= batch.demand * target)
            self._certify(batch, ready | given_up)
            done = self._is_done()[batch.outputs]
            batch.tighten(ready & ~done)
            batch.sharpen(~done & settled & ((comp > target) | (distance <= _POLISHED * comp)))
            batch = batch.keep(~(done | given_up))

    def _certify(self, batch: _Batch, chosen: np.ndarray) -> None:
        """Certify some outputs of a batch and keep what is better than the best certificate so far."""
        index = np.flatnonzero(chosen)
        if len(index):
            found = certify(_columns(batch.problem, index), tf.gather(batch.state.values, index, axis=1))
            self._keep(found, batch.outputs[index])

    def _keep(self, found: BoxSolution, outputs: np.ndarray) -> None:
        better = found.gap < self._best.gap[outputs]
        place = outputs[better]
        for old, new in zip(self._best[:4], found[:4], strict=True):
            old[..., place] = new[..., better]


class _Batch:
    """Outputs that are not done, with their iterates and what controls their stages."""

    def __init__(self, problem: BoxProblem, weights: tf.Tensor, anchor: tf.Tensor, sigma: np.ndarray) -> None:
        num_outputs = len(sigma)
        self.problem, self.anchor, self.sigma = problem, anchor, sigma
        self.outputs = np.arange(num_outputs)
        self.demand = np.full(num_outputs, _DEMAND)
        self._lowest = np.full(num_outputs, np.inf)
        self._idle = np.zeros(num_outputs, int)
        self._stage = np.zeros(num_outputs, int)
        self._age = 0
        self.state = BoxState(weights, tf.zeros_like(weights), tf.zeros_like(anchor), anchor)
        self._refresh()

    def keep(self, chosen: np.ndarray) -> _Batch:
        """Return the batch with some of its outputs alone."""
        if chosen.all():
            return self
        index = np.flatnonzero(chosen)
        self.problem = _columns(self.problem, index)
        self.anchor = tf.gather(self.anchor, index, axis=1)
        self.state = BoxState(*(tf.gather(part, index, axis=1) for part in self.state))
        for name in ("outputs", "sigma", "demand", "_lowest", "_idle", "_stage"):
            setattr(self, name, getattr(self, name)[index])
        return self

    @property
    def _strength(self) -> tf.Tensor:
        return tf.constant(self.sigma[None, :])

    def tighten(self, chosen: np.ndarray) -> None:
        """Ask for closer weights of some outputs, whose certificates failed; rounding may be what is in the way."""
        self.demand[chosen] *= _TIGHTENING
        if chosen.any():
            self._refresh()

    def _refresh(self) -> None:
        """Recompute the state from its weights, the anchor and sigma in float64."""
        self._age = 0
        residuals = self.problem.targets - scores(self.problem.rows, self.state.weights)
        values = proximal_values(self.problem, self.anchor, self._strength, residuals)
        pull = adjoint(self.problem.rows, self.problem.masses * values)
        self.state = BoxState(self.state.weights, pull, residuals, values)

    def step(self) -> BoxReport:
        """Take a Newton step."""
        self._age += 1
        self._stage += 1
        if self._age > _REFRESH:
            self._refresh()
        self.state, report = newton_step(self.problem, self.state, self.anchor, self._strength)
        return report

    def primal_and_weights(self, report: BoxReport) -> tuple[np.ndarray, np.ndarray]:
        """Return the objectives P(w) and w."""
        weights = self.state.weights.numpy()
        return 0.5 * np.sum(np.square(weights), axis=0) + report.loss.numpy(), weights

    def is_idle(self, report: BoxReport) -> np.ndarray:
        """Count the steps without a gain, and return which outputs have taken too many."""
        gap = report.distance.numpy() + report.complementarity.numpy()
        gained = gap < 0.9 * self._lowest
        self._lowest = np.minimum(gap, self._lowest)
        self._idle = np.where(gained, 0, self._idle + 1)
        return self._idle > _MAX_IDLE_STEPS

    def sharpen(self, chosen: np.ndarray) -> None:
        """Move the anchor of some outputs to their b, and enlarge their sigma."""
        if not chosen.any():
            return
        growth = np.where(self._stage <= _FEW_STEPS, _FAST_GROWTH, _GROWTH)
        self.sigma = np.where(chosen, np.minimum(growth * self.sigma, _LARGEST_SIGMA), self.sigma)
        self._stage[chosen] = 0
        self.anchor = tf.where(chosen, self.state.values, self.anchor)
        self.state, _ = at_anchor(self.problem, self.state, self.anchor, self._strength)
