"""The inner problem of the proximal point method on a working set of rows, and the frozen rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.svm.newton import (
    InnerState,
    complementarity,
    newton_step,
    proximal_multipliers,
    with_masses,
)
from deel_dualview.svm.passes import adjoint, margins
from deel_dualview.svm.preconditioner import Preconditioner, build_cost, build_preconditioner
from deel_dualview.svm.problem import Problem

# A Newton system is solved to this relative residual; below it more Newton steps are the better buy.
_ETA = 0.1
_MAX_CONJUGATE_GRADIENTS = 300
# Tied differences up to which a dense factorisation is cheaper: always, and once iterations get long.
_DIRECT_SIZE = 768
_LARGE_DIRECT_SIZE = 1536
_LONG = 150
# The inner problem is solved far enough once its residual is this small next to the row part of the gap.
SETTLED = 0.3


class DualPoint(NamedTuple):
    """A feasible lambda: most rows stand on a vertex of their simplex, few need numbers.

    Attributes:
        vertex: class that holds the whole of K, shape (n,) int32; meaningless on active rows.
        active: indices of the rows with explicit numbers, ascending, shape (b,).
        multipliers: lambda of the active rows, shape (b, c) float64.
    """

    vertex: np.ndarray
    active: np.ndarray
    multipliers: np.ndarray


class SolverMemory:
    """The preconditioner that one working set leaves to the next, and whether it still pays.

    Attributes:
        preconditioner: none until conjugate gradients have cost as much as building one.
        is_stale: whether the next step should build another.
        direct_size: tied differences up to which the next step factorises.
    """

    def __init__(self) -> None:
        self.preconditioner: Preconditioner = None
        self.is_stale = False
        self.direct_size = _DIRECT_SIZE
        self._fresh, self._excess, self._last = 0, 0.0, 0

    def enter(self, cost: float) -> None:
        """Begin a working set on which a new preconditioner costs `cost` iterations."""
        self.is_stale = self.is_stale or self._last > cost

    def note(self, num_iterations: int, cost: float) -> None:
        """Count the iterations beyond those of the fresh preconditioner; `cost` of them buy a new one."""
        if num_iterations > _LONG:
            self.direct_size = _LARGE_DIRECT_SIZE
        if self.is_stale:
            self._fresh, self._excess = num_iterations, 0.0
        self._last = max(num_iterations - self._fresh, 0)
        self._excess += self._last
        self.is_stale = self._excess > cost


def frozen_weights(problem: Problem, point: DualPoint) -> tf.Tensor:
    """The part of W_a = F' alpha that rows outside the working set contribute, shape (d, c)."""
    moved = point.vertex != problem.labels
    moved[point.active] = False
    index = np.flatnonzero(moved)
    alpha = np.zeros((len(index), problem.num_classes))
    np.put_along_axis(alpha, point.vertex[index][:, None], -problem.K, axis=1)
    np.put_along_axis(alpha, problem.labels[index][:, None], problem.K, axis=1)
    return adjoint(problem.features.gather(index), tf.constant(problem.weighted(alpha, index)))


def alpha_of(multipliers: tf.Tensor, labels: np.ndarray) -> tf.Tensor:
    """alpha of rows of lambda (b, c) of mass 1: K - lambda_y as the sum of the others, without rounding K."""
    is_own = tf.one_hot(labels, tf.shape(multipliers)[1], on_value=True, off_value=False)
    others = tf.where(is_own, tf.zeros_like(multipliers), multipliers)
    return tf.where(is_own, tf.reduce_sum(others, axis=1, keepdims=True), -others)


class WorkingSet:
    """Rows that may move, with the current iterate of the inner problem.

    Products with the features run in float32 on increments only: whatever is long-lived (W, W_a,
    margins, lambda) is a float64 sum, rebuilt in float64 with every new working set.

    Attributes:
        point: the anchor lambda_0 of the proximal term.
        sigma: weight of the proximal term.
        residual: 1/2 ||W - W_a||^2, the weights' part of the gap.
        complementarity: sum lambda (max z - z), the rows' part of the gap.
    """

    def __init__(
        self,
        problem: Problem,
        point: DualPoint,
        weights: tf.Tensor,
        sigma: float,
        memory: SolverMemory,
        *,
        support: np.ndarray | None = None,
    ) -> None:
        index = point.active
        self.problem, self.point, self.sigma = problem, point, sigma
        self._rows = problem.features.gather(index)
        self._labels = problem.labels[index]
        self._masses = problem.masses_of(index)
        self._size = tf.constant(problem.K, tf.float64)
        self._sigma = tf.constant(sigma, tf.float64)
        self._frozen = frozen_weights(problem, point)
        self._anchor = tf.constant(point.multipliers, tf.float64)
        self._memory = memory
        memory.enter(build_cost(self._rows.shape[1], len(index)))
        z = margins(self._rows, self._labels, weights)
        multipliers = proximal_multipliers(self._anchor, self._sigma, z, self._size)
        self._state = InnerState(weights, self.dual_weights(multipliers), z, multipliers)
        self._guess = multipliers > 0
        if support is not None:
            self._guess = tf.where(support.any(axis=1, keepdims=True), support, self._guess)
        self.residual = float(0.5 * tf.reduce_sum(tf.square(weights - self._state.dual_weights)))
        self.complementarity = float(complementarity(multipliers, z, self._masses))

    @property
    def weights(self) -> tf.Tensor:
        """W, the implicit iterate."""
        return self._state.weights

    @property
    def multipliers(self) -> tf.Tensor:
        """lambda of the working set's rows, shape (b, c)."""
        return self._state.multipliers

    def dual_weights(self, multipliers: tf.Tensor) -> tf.Tensor:
        """W_a in float64, frozen rows included."""
        alpha = with_masses(alpha_of(multipliers, self._labels), self._masses)
        return self._frozen + adjoint(self._rows, alpha)

    def step(self) -> None:
        """Take one semismooth Newton step."""
        memory = self._memory
        if memory.is_stale:
            rows = self._rows if self._masses is None else with_masses(self._rows, tf.sqrt(self._masses))
            memory.preconditioner = build_preconditioner(rows, self.multipliers, self._sigma)
        self._state, report = newton_step(
            self._rows,
            self._state,
            self._guess,
            self._anchor,
            self._size,
            self._sigma,
            memory.preconditioner,
            tf.constant(_ETA),
            tf.constant(_MAX_CONJUGATE_GRADIENTS),
            tf.constant(memory.direct_size),
            self._masses,
        )
        self._guess = self._state.multipliers > 0
        self.residual = float(report.residual)
        self.complementarity = float(report.complementarity)
        memory.note(int(report.num_iterations), build_cost(self._rows.shape[1], int(report.num_tied)))

    def is_settled(self, floor: float, looseness: float = 1.0) -> bool:
        """Whether the inner problem is solved well enough for its stage."""
        return self.residual <= looseness * SETTLED * max(self.complementarity, floor)

    def certify(self) -> tuple[tf.Tensor, float]:
        """W_a in float64, and the active rows' part of the gap at it."""
        weights = self.dual_weights(self.multipliers)
        z = margins(self._rows, self._labels, weights)
        return weights, float(complementarity(self.multipliers, z, self._masses))
