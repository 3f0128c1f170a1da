"""Support vector machines without offset, one for each output: regression and binary, in the dual with certificates.

For every output j alone, with K_i = K w_i and w_i the sample weights:

    primal       P(w) = 1/2 ||w||^2 + sum_i K_i loss_i(w . phi_i)
    dual         D(beta) = sum_i t_i beta_i - epsilon sum_i |beta_i| - 1/2 ||w_b||^2,   low_i <= beta_i <= high_i
    surrogate    w_b = sum_i beta_i phi_i,   output(x) = sum_i beta_i <phi_i, phi(x)>
    certificate  P(w_b) - D = sum_i [ K_i loss_i - beta_i r_i + epsilon |beta_i| ],   r_i = t_i - w_b . phi_i,
                 every term >= 0,   ||w_b - w*||^2 <= 2 (P(w_b) - D)

    regression   loss = max(0, |r_i| - epsilon),   beta_i in [-K_i, K_i]
    binary       t = y, one of -1 and +1, epsilon = 0:   loss = max(0, 1 - y_i w . phi_i),   y_i beta_i in [0, K_i]

A binary machine at K is the Crammer-Singer machine of two classes at K / 2: there W = (u, -u) / 2 at the optimum, with
objective 1/2 (1/2 ||u||^2 + K sum_i max(0, 1 - y_i u . phi_i)), so u = w_1 - w_2 = w*, and beta_i = 2 alpha_i1.

The method is that of `dual.py`: a proximal point method on the dual, whose inner problems are solved by
semismooth Newton steps, here on the rows with low_i < beta_i < high_i alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, require
from deel_dualview._summaries import Summarised
from deel_dualview.svm.box_newton import BoxProblem
from deel_dualview.svm.box_stages import BoxSolution, BoxStages
from deel_dualview.svm.duplicates import first_equal_rows
from deel_dualview.svm.problem import check_features, check_weights
from deel_dualview.svm.solution import ConvergenceWarning

# Outputs are solved in groups of this many numbers n t: a dozen such arrays are held.
_GROUP = 4_000_000


@dataclass(frozen=True, repr=False)
class PerOutputSVMSolution(Summarised):
    """Surrogate of every output together with its certificate.

    Attributes:
        K: penalty of one unit of loss.
        coefficients: beta, shape (n, t), float64; exactly 0, K_i or -K_i where they are not in between.
        weights: w_b of every output, shape (d, t), float64.
        primal: P(w_b), shape (t,).
        gap: P(w_b) - D(beta), shape (t,), a sum of terms that are not negative, in float64.
        is_converged: whether the gap is within the tolerance times min(P, 4 ||w_b||^2), shape (t,).
        num_iterations: Newton steps, shape (t,).
        tolerance: largest relative gap that counts as converged.
    """

    K: float
    coefficients: scipy.sparse.csr_array
    weights: np.ndarray
    primal: np.ndarray
    gap: np.ndarray
    is_converged: np.ndarray
    num_iterations: np.ndarray
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether every output has converged."""
        return bool(self.is_converged.all())

    @property
    def dual(self) -> np.ndarray:
        """D(beta), a lower bound of the optimum, shape (t,)."""
        return self.primal - self.gap

    @property
    def relative_gap(self) -> np.ndarray:
        """(P(w_b) - D) / P(w_b), shape (t,); 0 where both are 0."""
        return self.gap / np.where(self.primal > 0, self.primal, 1.0)

    @property
    def weight_error_bound(self) -> np.ndarray:
        """sqrt(2 (P(w_b) - D)): certified bound of ||w_b - w*||, by strong convexity, shape (t,).

        The surrogate's output at x is within this bound times ||phi(x)|| of the exact one.
        """
        return np.sqrt(2.0 * self.gap)


@dataclass(frozen=True)
class PerOutputSVMSolver:
    """Solver of support vector machines without offset in the dual, one for each output, all simultaneously.

    The certificate is that of `DualSVMSolver`: it bounds how far w_b, the surrogate that the attributions
    beta_ij <phi_i, phi(x)> add up to, is from the optimum. The same input gives the same bits. Examples with
    equal features and equal targets get coefficients in proportion to their sample weights.

    Args:
        tolerance: relative gap of every output to reach, next to P and, at any K, next to 4 ||w_b||^2.
        max_iterations: most Newton steps of one output. A solve takes 5 to 150.

    Example:
        >>> import numpy as np
        >>> from deel_dualview import PerOutputSVMSolver
        >>> features = np.random.default_rng(0).normal(size=(50, 3))
        >>> targets = features @ np.ones((3, 2))
        >>> solution = PerOutputSVMSolver().solve_regression(features, targets, K=1.0, epsilon=0.1)
        >>> solution.converged, solution.weights.shape
        (True, (3, 2))

    Source: Ho and Lin (2012), "Large-scale linear support vector regression", for both problems; Li, Sun and
        Toh (2018) for the semismooth Newton augmented Lagrangian method.
    """

    tolerance: float = 1e-4
    max_iterations: int = 1_000

    def __post_init__(self) -> None:
        check_positive("tolerance", self.tolerance)
        check_count("max_iterations", self.max_iterations)

    def solve_regression(
        self,
        features: Any,
        targets: Any,
        K: float,
        *,
        epsilon: Any = 0.0,
        sample_weight: Any = None,
        warm_start: PerOutputSVMSolution | None = None,
    ) -> PerOutputSVMSolution:
        """Solve support vector regression with the epsilon-insensitive loss for every output.

        Args:
            features: phi, shape (n, d), finite; computed with in float32, never modified.
            targets: t, shape (n, t), finite.
            K: penalty of one unit of loss. What matters is K E||phi||^2 next to the size of the targets.
            epsilon: half width of the zone without loss, not negative, a number or one for each output.
            sample_weight: w, shape (n,), not negative; 1 by default.
            warm_start: solution of the same examples at this or another K.

        Returns:
            The solution, certified even where it has not converged.

        Raises:
            TypeError: `K` is not a number.
            ValueError: shapes or values are unusable.

        Warns:
            ConvergenceWarning: an output stopped above the tolerance.
        """
        rows, K = check_features(features), check_positive("K", K)
        values = _check_targets("targets", targets, len(rows))
        zone = np.asarray(epsilon, np.float64)
        require(
            zone.shape in ((), (values.shape[1],)) and bool(np.all((zone >= 0) & np.isfinite(zone))),
            "`epsilon` must not be negative, a number or one for each output.",
            {"epsilon": epsilon},
        )
        epsilons = np.broadcast_to(zone, values.shape[1])
        given = _Given(rows, values, K, epsilons, check_weights(sample_weight, len(rows)), False)
        return self._solve(given, warm_start)

    def solve_binary(
        self,
        features: Any,
        labels: Any,
        K: float,
        *,
        sample_weight: Any = None,
        warm_start: PerOutputSVMSolution | None = None,
    ) -> PerOutputSVMSolution:
        """Solve a binary support vector machine with the hinge loss for every output.

        Args:
            features: phi, shape (n, d), finite; computed with in float32, never modified.
            labels: y, shape (n, t), of -1 and +1.
            K: penalty of one unit of loss. What matters is K E||phi||^2.
            sample_weight: w, shape (n,), not negative; 1 by default.
            warm_start: solution of the same examples at this or another K.

        Returns:
            The solution, certified even where it has not converged.

        Raises:
            TypeError: `K` is not a number.
            ValueError: shapes or values are unusable.

        Warns:
            ConvergenceWarning: an output stopped above the tolerance.
        """
        rows, K = check_features(features), check_positive("K", K)
        values = _check_targets("labels", labels, len(rows))
        wrong = np.flatnonzero((np.abs(values) != 1.0).any(axis=1))
        require(len(wrong) == 0, "`labels` must be -1 or +1 at every output.", {"rows": wrong.tolist()})
        epsilons = np.zeros(values.shape[1])
        given = _Given(rows, values, K, epsilons, check_weights(sample_weight, len(rows)), True)
        return self._solve(given, warm_start)

    def _solve(self, given: _Given, warm_start: PerOutputSVMSolution | None) -> PerOutputSVMSolution:
        shape = given.targets.shape
        if warm_start is not None:
            require(
                warm_start.coefficients.shape == shape,
                f"`warm_start` must solve the same examples and outputs, coefficients of shape {shape}.",
                {"shape": warm_start.coefficients.shape},
            )
        if not (given.rows.any(axis=1) & (given.sample_weight > 0)).any():
            return _nothing(given, self.tolerance)
        scaled = _Scaled(given)
        size = max(1, _GROUP // shape[0])
        groups = [np.arange(start, min(start + size, shape[1])) for start in range(0, shape[1], size)]
        parts = [self._solve_group(scaled, group, warm_start) for group in groups]
        solution = PerOutputSVMSolution(
            given.K,
            scipy.sparse.hstack([part.coefficients for part in parts], format="csr"),
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.primal for part in parts]),
            np.concatenate([part.gap for part in parts]),
            np.concatenate([part.is_converged for part in parts]),
            np.concatenate([part.num_iterations for part in parts]),
            self.tolerance,
        )
        if not solution.converged:
            _warn(solution, self.max_iterations)
        return solution

    def _solve_group(
        self, scaled: _Scaled, outputs: np.ndarray, warm_start: PerOutputSVMSolution | None
    ) -> PerOutputSVMSolution:
        start = None if warm_start is None else scaled.start(warm_start, outputs)
        found = BoxStages(scaled.problem(outputs), self.tolerance, self.max_iterations).run(start)
        return scaled.solution(found, outputs, self.tolerance)


class _Given(NamedTuple):
    """Checked input: features (n, d) float32, targets (n, t), K, epsilon (t,), sample weights (n,)."""

    rows: np.ndarray
    targets: np.ndarray
    K: float
    epsilon: np.ndarray
    sample_weight: np.ndarray
    is_binary: bool


class _Scaled:
    """The input as the solver wants it, and the way back.

    Equal examples are merged: their weights add up. Rows of zeros, which no w can fit, and rows without weight are left
    out. Features, weights and targets are divided by powers of two, which is exact, so that E||phi||^2, E w and the
    mean target are about 1: with phi / c, w / m and t / s, b is beta c^2 / s per unit of w / m, and K is K m c^2 / s.
    """

    def __init__(self, given: _Given) -> None:
        self.given = given
        self.used = np.flatnonzero(given.rows.any(axis=1) & (given.sample_weight > 0))
        leaders = first_equal_rows(given.rows, given.targets)[self.used]
        kept, self.member = np.unique(leaders, return_inverse=True)
        rows = given.rows if len(kept) == len(given.rows) else given.rows[kept]
        self.masses = np.bincount(self.member, given.sample_weight[self.used], len(kept))
        self.targets = given.targets[kept]
        squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
        self.feature_scale = _power_of_two(np.sqrt(squares.mean()))
        self.mass_scale = _power_of_two(self.masses.mean())
        self.target_scale = np.array([_power_of_two(size) for size in np.abs(self.targets).mean(axis=0)])
        # How much of K one unit of the scaled K is, shape (t,).
        self.unit = self.target_scale / (self.mass_scale * self.feature_scale**2)
        # A power of two may be beyond what float32 holds where its product with the features is not.
        self.rows = tf.constant(np.ldexp(rows, -int(np.log2(self.feature_scale))))

    def problem(self, outputs: np.ndarray) -> BoxProblem:
        """Return the problem of some outputs."""
        bound = (self.given.K / self.unit[outputs])[None, :]
        targets = self.targets[:, outputs] / self.target_scale[outputs]
        low, high = -bound, bound
        if self.given.is_binary:
            low, high = np.minimum(bound * targets, 0.0), np.maximum(bound * targets, 0.0)
        epsilon = (self.given.epsilon[outputs] / self.target_scale[outputs])[None, :]
        parts = (self.masses[:, None] / self.mass_scale, targets, low, high, epsilon)
        return BoxProblem(self.rows, *(tf.constant(part, tf.float64) for part in parts))

    def start(self, warm_start: PerOutputSVMSolution, outputs: np.ndarray) -> tf.Tensor:
        """Return b of another K in proportion, within the bounds."""
        coefficients = warm_start.coefficients[:, outputs].toarray()[self.used]
        sums = np.zeros((len(self.masses), len(outputs)))
        np.add.at(sums, self.member, coefficients)
        problem = self.problem(outputs)
        b = sums / self.masses[:, None] * (self.given.K / warm_start.K) / self.unit[outputs]
        return tf.clip_by_value(tf.constant(b), problem.low, problem.high)

    def solution(self, found: BoxSolution, outputs: np.ndarray, tolerance: float) -> PerOutputSVMSolution:
        """Return the solution in the units of the input."""
        b, losses = _at_zero(self.given, outputs)
        b[self.used] = found.values[self.member] * self.unit[outputs]
        losses[self.used] = 0.0
        scale = self.target_scale[outputs] / self.feature_scale
        return PerOutputSVMSolution(
            self.given.K,
            scipy.sparse.csr_array(self.given.sample_weight[:, None] * b),
            found.weights * scale,
            found.primal * scale**2 + losses.sum(axis=0),
            found.gap * scale**2,
            found.is_within(tolerance),
            found.num_iterations,
            tolerance,
        )


def _at_zero(given: _Given, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return b and the losses of rows whose score is 0 whatever the weights are, shape (n, t) each."""
    targets = given.targets[:, outputs]
    excess = np.maximum(np.abs(targets) - given.epsilon[outputs], 0.0)
    return np.where(excess > 0, given.K * np.sign(targets), 0.0), given.K * given.sample_weight[
        :, None
    ] * excess


def _nothing(given: _Given, tolerance: float) -> PerOutputSVMSolution:
    """Return the solution where no example has both features and a weight."""
    num_outputs = given.targets.shape[1]
    b, losses = _at_zero(given, np.arange(num_outputs))
    return PerOutputSVMSolution(
        given.K,
        scipy.sparse.csr_array(given.sample_weight[:, None] * b),
        np.zeros((given.rows.shape[1], num_outputs)),
        losses.sum(axis=0),
        np.zeros(num_outputs),
        np.ones(num_outputs, bool),
        np.zeros(num_outputs, int),
        tolerance,
    )


def _power_of_two(size: float) -> float:
    """Return the power of two next to a size; 1 for a size of 0."""
    return float(np.exp2(np.round(np.log2(size)))) if size > 0 else 1.0


def _check_targets(name: str, targets: Any, num_examples: int) -> np.ndarray:
    values = np.asarray(targets)
    require(
        values.ndim == 2 and len(values) == num_examples and values.shape[1] > 0,
        f"`{name}` must hold one row an example and one column an output, shape ({num_examples}, t).",
        {"shape": values.shape},
    )
    require(
        np.issubdtype(values.dtype, np.number) and not np.issubdtype(values.dtype, np.complexfloating),
        f"`{name}` must hold real numbers.",
        {"dtype": str(values.dtype)},
    )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    require(len(bad) == 0, f"`{name}` must be finite: drop or repair these rows.", {"rows": bad.tolist()})
    return values.astype(np.float64)


def _warn(solution: PerOutputSVMSolution, max_iterations: int) -> None:
    failed = np.flatnonzero(~solution.is_converged)
    worst = failed[np.argmax(solution.relative_gap[failed])]
    warnings.warn(
        f"{len(failed)} of {len(solution.gap)} outputs stopped above the tolerance of {solution.tolerance:.2e}, output "
        f"{worst} at a relative gap of {solution.relative_gap[worst]:.2e} with weights that may be off by "
        f"{solution.weight_error_bound[worst]:.2e}, after {solution.num_iterations[worst]} iterations: raise "
        "`max_iterations` or `tolerance`, or choose a less extreme K. "
        f"Received: max_iterations={max_iterations}, K={solution.K}.",
        ConvergenceWarning,
        stacklevel=4,
    )
