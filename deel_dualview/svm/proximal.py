"""The outer loop: stages of the proximal point method, working sets, certificates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deel_dualview.svm.newton import complementarity
from deel_dualview.svm.passes import RowScan, adjoint, margins, scan_rows
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.solution import Certificate, gap_scale
from deel_dualview.svm.working_set import (
    SETTLED,
    DualPoint,
    SolverMemory,
    WorkingSet,
    alpha_of,
    frozen_weights,
)

# Widths K / sigma of the smoothed maximum on nested random subsets of the rows, in units of the margin or
# of the largest scores that K allows, whichever is smaller.
_LEVELS = ((2_000, 4.0), (6_000, 1.0))
# A level only has to lead the next one: its residual may stay this much larger than that of a stage.
_LEVEL_LOOSENESS = 30.0
_NARROWING = 2.5
_NARROWEST = 1e-8
# How much a nearly separating W_a is stretched: a multiple of its largest slack, and more than rounding can undo.
_STRETCH = 2.0
_LEAST_STRETCH = 1e-9
# Rows whose runner-up is within this many widths of the lead may become tied in the next stage.
_REACH = 4.0
_LEAST_REACH = 0.03
_STEPS_PER_STAGE = 40
_STEPS_PER_CERTIFICATE = 20
# Stages without any progress: float32 increments have nothing left to give.
_MAX_IDLE_STAGES = 5
# Stages that settle, but gain nothing: as many may change the working set, and no more.
_MAX_STUCK_STAGES = 12


def primal_objective(problem: Problem, weights: tf.Tensor, slack: np.ndarray) -> float:
    """P(W) = 1/2 ||W||^2 + K sum of the slacks, each times its mass."""
    return float(0.5 * tf.reduce_sum(tf.square(weights))) + problem.K * float(problem.weighted(slack).sum())


def frozen_gap(problem: Problem, point: DualPoint, scan: RowScan) -> np.ndarray:
    """What every frozen row adds to the gap, shape (n,); 0 on active rows."""
    gaps = problem.K * problem.weighted(scan.shortfall)
    gaps[point.active] = 0.0
    return gaps


def _first_point(problem: Problem, weights: tf.Tensor, width: float) -> tuple[DualPoint, float]:
    """Where a smoothing of `width` starts, at given weights: rows that may be tied, or err. And `gap_scale`."""
    scan = scan_rows(problem, problem.labels, weights)
    is_near = scan.lead < max(_REACH * width, _LEAST_REACH)
    active = np.flatnonzero(is_near | (scan.winner != problem.labels))
    point = DualPoint(scan.winner, active, np.zeros((len(active), problem.num_classes)))
    return point, gap_scale(primal_objective(problem, weights, scan.slack), weights)


class ProximalPoint:
    """One solve: call `run` once."""

    def __init__(
        self,
        problem: Problem,
        tolerance: float,
        max_iterations: int,
        report: Callable[[int, float, float, int], None],
        num_iterations: int = 0,
    ) -> None:
        self._problem, self._tolerance, self._report = problem, tolerance, report
        self._max_iterations = max_iterations
        # Scores cannot exceed K sum ||f||^2 by much: widths in units of the margin would be blind below it.
        self._unit = min(1.0, problem.K * problem.total_squared_norm) or 1.0
        self._memory = SolverMemory()
        self.num_iterations = num_iterations
        self.best: Certificate[DualPoint] | None = None
        # Relative gap of the last stage's iterate, certified or not: what is known before the first certificate.
        self._estimate = np.inf

    def run(self, start: Certificate[DualPoint] | None, width: float) -> Certificate[DualPoint]:
        """Solve from scratch, or from a certified point at a smoothing of `width`.

        Returns:
            The best certified point; its gap is above the tolerance if the iterations ran out.
        """
        if start is None:
            weights, width = self._levels()
            point, scale = _first_point(self._problem, weights, width)
        else:
            self.best, width = start, width * self._unit
            weights, point, scale = tf.constant(start.weights), start.point, start.scale
            if start.is_within(self._tolerance):
                return start
        return self._stages(weights, point, scale, width)

    def _levels(self) -> tuple[tf.Tensor, float]:
        problem = self._problem
        weights = tf.zeros((problem.features.shape[1], problem.num_classes), tf.float64)
        order = np.random.default_rng(0).permutation(problem.num_examples)
        for size, relative_width in _LEVELS:
            width = relative_width * self._unit
            index = np.sort(order[:size])
            subset = problem.subset(index)
            point, _ = _first_point(subset, weights, width)
            level = WorkingSet(subset, point, weights, problem.K / width, self._memory)
            self._settle(level, 1e-4 * self._unit * problem.K * problem.mean_mass, _LEVEL_LOOSENESS)
            weights = level.weights
        return weights, width

    def _settle(self, inner: WorkingSet, floor: float, looseness: float = 1.0) -> None:
        for _ in range(_STEPS_PER_STAGE):
            if inner.is_settled(floor, looseness) or self._is_exhausted():
                return
            self._step(inner)

    def _step(self, inner: WorkingSet) -> None:
        inner.step()
        self.num_iterations += 1
        self._report_state(inner)

    def _report_state(self, inner: WorkingSet) -> None:
        gap = self._best_gap()
        self._report(self.num_iterations, gap, min(gap, self._estimate), len(inner.point.active))

    def _is_done(self) -> bool:
        return self.best is not None and self.best.is_within(self._tolerance)

    def _best_gap(self) -> float:
        return self.best.relative_gap if self.best else np.inf

    def _is_exhausted(self) -> bool:
        return self.num_iterations >= self._max_iterations

    def _stages(
        self, weights: tf.Tensor, point: DualPoint, scale: float, width: float
    ) -> Certificate[DualPoint]:
        problem, idle, stuck, last, lowest = self._problem, 0, 0, np.inf, np.inf
        support: np.ndarray | None = None
        while True:
            before, steps = (self._best_gap(), width), self.num_iterations
            target = 0.5 * self._tolerance * scale
            inner = WorkingSet(problem, point, weights, problem.K / width, self._memory, support=support)
            self._settle(inner, target)
            certificate = self._certificate(inner, target)
            if certificate is None and (self._is_exhausted() or idle >= _MAX_IDLE_STAGES):
                certificate = inner.certify()
            at = certificate[0] if certificate else inner.weights
            scan = scan_rows(problem, point.vertex, at)
            primal = primal_objective(problem, at, scan.slack)
            scale = gap_scale(primal, at)
            gaps = frozen_gap(problem, point, scan)
            if certificate:
                self._keep(inner, at, primal, float(gaps.sum()) + certificate[1], scan)
            if not self._is_done() and float(scan.slack.max()) <= self._tolerance:
                self._keep_stretched(inner)
            self._estimate = (inner.residual + inner.complementarity + float(gaps.sum())) / primal
            self._report_state(inner)
            if self.best and (self._is_done() or self._is_exhausted() or idle >= _MAX_IDLE_STAGES):
                return self.best
            narrower = self._is_narrower(inner, target, float(gaps.sum()), certificate is not None)
            if narrower:
                width = max(width / _NARROWING, _NARROWEST * self._unit)
            weights = inner.weights
            point, support = self._next_point(inner, scan, gaps, width, narrower)
            # A stage that spent all its steps without settling is no progress: arithmetic has nothing left to give.
            settled = self.num_iterations > steps and inner.is_settled(target)
            narrowed = before != (self._best_gap(), width)
            stuck = 0 if narrowed or inner.complementarity < 0.9 * lowest else stuck + 1
            moved = narrowed or settled or inner.complementarity < 0.9 * last
            idle = 0 if moved and stuck < _MAX_STUCK_STAGES else idle + 1
            lowest = min(lowest, inner.complementarity)
            last = inner.complementarity

    @staticmethod
    def _is_narrower(inner: WorkingSet, target: float, frozen: float, certified: bool) -> bool:
        """Whether the next stage may sharpen: the working set held, and its rows own a gap to close."""
        if certified:
            return inner.complementarity > 0.2 * target
        held = frozen <= SETTLED * max(inner.complementarity, target) and inner.is_settled(target)
        return held and (inner.complementarity > target or inner.residual <= 0.01 * inner.complementarity)

    def _certificate(self, inner: WorkingSet, target: float) -> tuple[tf.Tensor, float] | None:
        """Polish until W_a itself is good on the working set; None when the stage has to sharpen first."""
        if inner.complementarity > target:
            return None
        demand = SETTLED * target
        for _ in range(_STEPS_PER_CERTIFICATE):
            if inner.residual <= demand:
                weights, gap = inner.certify()
                if gap <= 1.5 * target:
                    return weights, gap
                if inner.complementarity > 0.2 * target and inner.residual <= 0.01 * inner.complementarity:
                    return None
                demand = min(demand, inner.residual) / 4
            if self._is_exhausted():
                return None
            self._step(inner)
        return None

    def _keep(self, inner: WorkingSet, weights: tf.Tensor, primal: float, gap: float, scan: RowScan) -> None:
        """Remember the best certificate."""
        if self.best is None or gap < self.best.primal - self.best.dual:
            point = inner.point._replace(multipliers=inner.multipliers.numpy())
            self.best = Certificate(point, weights.numpy(), primal, primal - gap, scan.slack)

    def _keep_stretched(self, inner: WorkingSet) -> None:
        """Remember the certificate of alpha, slightly longer, where W_a separates all but a rounding.

        At a hard margin K times the rounding of a slack would be all of the gap.
        """
        point = inner.point._replace(multipliers=inner.multipliers.numpy())
        slack = float(certify(self._problem, point).slack.max())
        candidate = certify(
            self._problem, stretched(self._problem, point, 1.0 + _STRETCH * slack + _LEAST_STRETCH)
        )
        if self.best is None or candidate.primal - candidate.dual < self.best.primal - self.best.dual:
            self.best = candidate

    def _next_point(
        self, inner: WorkingSet, scan: RowScan, gaps: np.ndarray, width: float, narrower: bool
    ) -> tuple[DualPoint, np.ndarray]:
        """Anchor and working set of the next stage: violators, near-ties and rows off the vertices.

        Returns:
            The point, and the classes expected to stay tied, shape (b, c); none where nothing is known.
        """
        old, multipliers = inner.point, inner.multipliers.numpy()
        vertex = old.vertex.copy()
        vertex[old.active] = multipliers.argmax(axis=1)
        chosen = (scan.lead < max(_REACH * width, _LEAST_REACH)) | (gaps > 0)
        chosen[old.active[np.count_nonzero(multipliers, axis=1) > 1]] = True
        active = np.flatnonzero(chosen)
        anchor = np.zeros((len(active), self._problem.num_classes))
        np.put_along_axis(anchor, vertex[active][:, None], self._problem.K, axis=1)
        kept = chosen[old.active]
        source = multipliers if narrower else old.multipliers
        place = np.searchsorted(active, old.active[kept])
        anchor[place] = source[kept]
        support = np.zeros(anchor.shape, bool)
        support[place] = multipliers[kept] > 0
        return DualPoint(vertex, active, anchor), support


def stretched(problem: Problem, point: DualPoint, factor: float) -> DualPoint:
    """The point whose alpha is `factor` times that of `point`, or as much longer as is feasible.

    Frozen rows that are off their label stand on a vertex and allow nothing.
    """
    frozen = point.vertex != problem.labels
    frozen[point.active] = False
    labels = problem.labels[point.active][:, None]
    own = point.multipliers.sum(axis=1, keepdims=True) - np.take_along_axis(point.multipliers, labels, axis=1)
    longest = 1.0 if frozen.any() else problem.K / max(float(own.max(initial=0.0)), np.finfo(float).tiny)
    multipliers = point.multipliers * max(min(factor, longest), 1.0)
    others = multipliers.sum(axis=1, keepdims=True) - np.take_along_axis(multipliers, labels, axis=1)
    np.put_along_axis(multipliers, labels, np.maximum(problem.K - others, 0.0), axis=1)
    return point._replace(multipliers=multipliers)


def certify(problem: Problem, point: DualPoint) -> Certificate[DualPoint]:
    """Certificate of a feasible lambda, everything in float64."""
    rows = problem.features.gather(point.active)
    labels = problem.labels[point.active]
    alpha = alpha_of(tf.constant(problem.weighted(point.multipliers, point.active)), labels)
    weights = frozen_weights(problem, point) + adjoint(rows, alpha)
    scan = scan_rows(problem, point.vertex, weights)
    multipliers, masses = tf.constant(point.multipliers), problem.masses_of(point.active)
    gap = float(complementarity(multipliers, margins(rows, labels, weights), masses))
    gap += float(frozen_gap(problem, point, scan).sum())
    primal = primal_objective(problem, weights, scan.slack)
    return Certificate(point, weights.numpy(), primal, primal - gap, scan.slack)
