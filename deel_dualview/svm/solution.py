"""What the dual solver returns and reports while it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import scipy.sparse

from deel_dualview._summaries import Summarised

# The gap is also held to tolerance times this times ||W_a||^2. P alone is no measure of W where K is tiny or labels
# contradict each other: nearly all of it is slack. At 4, influences correlate at .998 or better with the exact
# ones, and the usual problems (K n of 30 and more) are no slower.
WEIGHT_SHARE = 4.0

Point = TypeVar("Point")


def resolved_gap(primal: float, dual: float, scale: float) -> float:
    """P - D, but no less than float64 resolves of P; only weights of exact zeros (`scale` 0) may have no gap."""
    return max(primal - dual, float(np.finfo(np.float64).eps) * primal if scale > 0 else 0.0)


def gap_scale(primal: float, weights: np.ndarray) -> float:
    """What the gap is measured against: the objective, or the weights where they are a small part of it."""
    return min(primal, WEIGHT_SHARE * float(np.square(weights).sum()))


class Certificate(NamedTuple, Generic[Point]):
    """A feasible dual point, the weights W_a = F' alpha that belong to it, and what they prove.

    Attributes:
        point: alpha, CSR (n, c), or lambda with the rows that may move apart.
        weights: W_a, shape (d, c), float64.
        primal: P(W_a).
        dual: D(lambda).
        slack: max_j c_ij at W_a for every example, shape (n,).
    """

    point: Point
    weights: np.ndarray
    primal: float
    dual: float
    slack: np.ndarray

    @property
    def relative_gap(self) -> float:
        """(P(W_a) - D) / P(W_a)."""
        return (self.primal - self.dual) / self.primal

    @property
    def scale(self) -> float:
        """The yardstick of the gap, see `gap_scale`."""
        return gap_scale(self.primal, self.weights)

    def is_within(self, tolerance: float) -> bool:
        """Whether the gap is small both next to P(W_a) and next to ||W_a||^2."""
        return resolved_gap(self.primal, self.dual, self.scale) <= tolerance * self.scale


class ConvergenceWarning(UserWarning):
    """The solver stopped above the tolerance: at its iteration limit, or at the limit of float arithmetic."""


class SolverProgress(NamedTuple):
    """State of a running solve, handed to the `progress` callback after every pass of ascent or Newton step.

    Attributes:
        K: the penalty being solved for.
        iteration: passes and Newton steps so far.
        max_iterations: as many as are allowed.
        relative_gap: best certified relative gap so far (inf before the first certificate).
        tolerance: relative gap asked for.
        num_active: rows of the current working set, or of the last pass.
        estimated_gap: relative gap of the last stage's smoothed iterate, or the certified one where that is smaller
            (inf before the end of the first stage).
    """

    K: float
    iteration: int
    max_iterations: int
    relative_gap: float
    tolerance: float
    num_active: int
    estimated_gap: float = float("inf")


@dataclass(frozen=True, repr=False)
class DualSVMSolution(Summarised):
    """Solution of the Crammer-Singer dual together with its certificate.

    The certificate is on `weights` themselves, W_a = F' alpha: the surrogate whose logits the
    attributions alpha_ij <f_i, f(x)> add up to.

    Attributes:
        K: absolute penalty of the problem.
        coefficients: alpha, shape (n, c), float64, canonical; every row sums to 0.
        weights: W_a = F' alpha, shape (d, c), float64.
        primal: P(W_a), the primal objective at `weights`.
        dual: D(lambda), a lower bound of the optimum.
        converged: whether `relative_gap` <= `tolerance` and `relative_weight_error` <= `weight_tolerance`.
        num_iterations: passes and Newton steps taken, levels included.
        slack: max_j c_ij at W_a for every example, shape (n,): 0 outside the margin.
        support_vectors: indices whose alpha_i,y_i is above 1e-4 of the largest one, ascending.
        mean_squared_norm: E||f||^2. The problem behaves according to K E||f||^2, not to K.
        tolerance: largest relative gap that counts as converged.
    """

    K: float
    coefficients: scipy.sparse.csr_array
    weights: np.ndarray
    primal: float
    dual: float
    converged: bool
    num_iterations: int
    slack: np.ndarray
    support_vectors: np.ndarray
    mean_squared_norm: float
    tolerance: float

    def summary(self) -> dict[str, str]:
        """Return the settings, the certificate and the shapes, by name."""
        return super().summary() | {"relative_gap": f"{self.relative_gap:.3g}"}

    @property
    def relative_gap(self) -> float:
        """(P(W_a) - D) / P(W_a)."""
        return (self.primal - self.dual) / self.primal

    @property
    def num_support_vectors(self) -> int:
        """Number of examples whose attributions are not (almost) zero."""
        return len(self.support_vectors)

    @property
    def weight_error_bound(self) -> float:
        """sqrt(2 (P(W_a) - D)): certified bound of ||W_a - W*||_F, by strong convexity.

        Every logit of the surrogate at x is within this bound times ||f(x)|| of the exact one.
        """
        return float(np.sqrt(2.0 * resolved_gap(self.primal, self.dual, np.abs(self.weights).max())))

    @property
    def relative_weight_error(self) -> float:
        """`weight_error_bound` over ||W_a||; 1 or more says that W* cannot be distinguished from zero."""
        bound, norm = self.weight_error_bound, float(np.linalg.norm(self.weights))
        if norm == 0.0:
            return np.inf if bound else 0.0
        return bound / norm

    @property
    def weight_tolerance(self) -> float:
        """Largest `relative_weight_error` that counts as converged: sqrt(8 tolerance)."""
        return float(np.sqrt(2.0 * WEIGHT_SHARE * self.tolerance))
