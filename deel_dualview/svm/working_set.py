"""The inner problem of the proximal point method on a working set of rows, and the frozen rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.svm.newton import InnerState, block_inverses, complementarity, newton_step
from deel_dualview.svm.passes import adjoint, margins
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.simplex import project_onto_simplex

# A Newton system is solved to this relative residual; below it more Newton steps are the better buy.
_ETA = 0.1
_MAX_CONJUGATE_GRADIENTS = 300
# More iterations than this, and the next step gets fresh diagonal blocks.
_STALE_AFTER = 30
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


def frozen_weights(problem: Problem, point: DualPoint) -> tf.Tensor:
    """The part of W_a = F' alpha that rows outside the working set contribute, shape (d, c)."""
    moved = point.vertex != problem.labels
    moved[point.active] = False
    index = np.flatnonzero(moved)
    alpha = np.zeros((len(index), problem.num_classes))
    np.put_along_axis(alpha, point.vertex[index][:, None], -problem.K, axis=1)
    np.put_along_axis(alpha, problem.labels[index][:, None], problem.K, axis=1)
    return adjoint(tf.gather(problem.features, index), tf.constant(alpha))


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

    def __init__(self, problem: Problem, point: DualPoint, weights: tf.Tensor, sigma: float) -> None:
        index = point.active
        everything = len(index) == problem.num_examples
        self.problem, self.point, self.sigma = problem, point, sigma
        self._rows = problem.features if everything else tf.gather(problem.features, index)
        self._labels = problem.labels[index]
        self._size = tf.constant(problem.K, tf.float64)
        self._sigma = tf.constant(sigma, tf.float64)
        self._vertices = problem.K * tf.one_hot(self._labels, problem.num_classes, dtype=tf.float64)
        self._frozen = frozen_weights(problem, point)
        self._anchor = tf.constant(point.multipliers, tf.float64)
        self._inverse: tf.Tensor | None = None
        z = margins(self._rows, self._labels, weights)
        multipliers = project_onto_simplex(self._anchor + self._sigma * z, self._size)
        self._state = InnerState(weights, self.dual_weights(multipliers), z, multipliers)
        self.residual = float(0.5 * tf.reduce_sum(tf.square(weights - self._state.dual_weights)))
        self.complementarity = float(complementarity(multipliers, z))

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
        return self._frozen + adjoint(self._rows, self._vertices - multipliers)

    def step(self) -> None:
        """Take one semismooth Newton step."""
        if self._inverse is None:
            self._inverse = block_inverses(self._rows, self.multipliers, self._sigma)
        self._state, report = newton_step(
            self._rows,
            self._state,
            self._anchor,
            self._size,
            self._sigma,
            self._inverse,
            tf.constant(_ETA),
            tf.constant(_MAX_CONJUGATE_GRADIENTS),
        )
        self.residual = float(report.residual)
        self.complementarity = float(report.complementarity)
        if int(report.num_iterations) > _STALE_AFTER:
            self._inverse = None

    def is_settled(self, floor: float) -> bool:
        """Whether the inner problem is solved well enough for its stage."""
        return self.residual <= SETTLED * max(self.complementarity, floor)

    def certify(self) -> tuple[tf.Tensor, float]:
        """W_a in float64, and the active rows' part of the gap at it."""
        weights = self.dual_weights(self.multipliers)
        z = margins(self._rows, self._labels, weights)
        return weights, float(complementarity(self.multipliers, z))
