"""The dual support vector machine behind DualView, solved to a certificate.

    primal       P(W) = 1/2 ||W||^2 + sum_i K_i max_j c_ij,   c_ij = s_ij - s_{i,y_i} + 1[j != y_i],   s = F W
    dual         D(lambda) = sum_i alpha_{i,y_i} - 1/2 ||W_a||^2,   every lambda_i on the simplex of size K_i
    surrogate    W_a = F' alpha,   alpha_ij = K_i 1[j = y_i] - lambda_ij
    certificate  P(W_a) - D = sum_ij lambda_ij (max_k c_ik - c_ij) at W_a,   ||W_a - W*||^2 <= 2 (P(W_a) - D)

K_i = K w_i with w_i the sample weights; K where there are none.

Small problems, and large K, go by a projected gradient in implicit form: a proximal point method on the dual, whose
inner problems are solved by semismooth Newton steps on a working set of rows. Large problems begin with blocked dual
ascent on the rows that have a gap, and go over to Newton steps where these are likely to need less arithmetic.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from deel_dualview._checks import check_bytes, check_count, check_positive, require
from deel_dualview.svm.ascent import Ascent
from deel_dualview.svm.canonical import canonical_coefficients, point_from_coefficients, sparse_coefficients
from deel_dualview.svm.certificate import certify_coefficients
from deel_dualview.svm.checkpoints import Checkpoint, check_directory
from deel_dualview.svm.problem import Problem, check_problem
from deel_dualview.svm.proximal import ProximalPoint, certify
from deel_dualview.svm.solution import Certificate, ConvergenceWarning, DualSVMSolution, SolverProgress
from deel_dualview.svm.weighting import Weighting
from deel_dualview.svm.working_set import DualPoint

# A support vector has more than this share of the largest alpha_i,y_i: K itself at small K, far less at a hard margin.
_SUPPORT = 1e-4
# Smoothing at which a warm start enters: at another penalty, and at the same one.
_WARM_WIDTH = 0.25
_SAME_WIDTH = 0.01
# K E||f||^2 above which a cold start goes by way of the solution there: where that separates all examples, no
# larger penalty changes it, and from nothing lambda would have to come down from far above.
_HARD = 1e6
# n d c from which blocked ascent wins back what compiling it takes, and the largest K E||f||^2 at which it leads: with
# many classes, and with fewer.
_LARGE = 2e7
_MANY_CLASSES, _STRONGEST_OF_MANY, _STRONGEST = 32, 20.0, 2.0
# Smoothing at which Newton steps take over from the ascent, above a relative gap and below.
_FAR, _FAR_WIDTH, _NEAR_WIDTH = 0.1, 0.1, 0.03
Report = Callable[[int, float, float, int], None]
# Bytes of Newton steps on features that are on the disk.
_ROOM = 2**30
# Largest slack, in units of the margin, of a surrogate that separates all examples but for a rounding.
_SEPARATED = 1e-6


@dataclass(frozen=True)
class DualSVMSolver:
    """Solver of the Crammer-Singer support vector machine without offset, in the dual.

    The certificate is the strong one: it bounds how far W_a = F' alpha itself, the surrogate that the
    attributions add up to, is from the optimum, in objective and in norm. The same input gives the
    same bits; permuting the examples permutes the result, to the tolerance. Exact duplicates get equal
    coefficients.

    Memory: the features and, of a large problem, a sparse lambda and chunks; for Newton steps a float32 copy of the
    rows of the working set, and less than 2 n c numbers.

    Args:
        tolerance: relative gap (P(W_a) - D) / P(W_a) to reach. The weights are held to it too, at any K:
            ||W_a - W*|| <= sqrt(8 tolerance) ||W_a||. At 1e-4 attributions correlate at .998 or better with
            the exact ones; 1e-3 is a preview. Below 1e-7, float32 arithmetic makes progress slow.
        max_iterations: most passes of ascent and Newton steps of one solve, levels included. A solve takes 20 to 500.
        progress: called after each of them; may raise to abort.
        checkpoints: directory in which a large fit keeps how far it has come. An interrupted one goes on from there, to
            the same bits; one that ended is found. Delete it when no fit has to go on.
        memory_budget: bytes that a large fit may take besides features, coefficients and a few numbers an example: how
            many rows may go to Newton steps at once. By default no limit, but 1 GiB where the features are on the disk.

    Source: Crammer and Singer (2001); DualView, appendix A, equations 8 to 16; Li, Sun and Toh (2018)
        for the semismooth Newton augmented Lagrangian method; Keerthi, Sundararajan, Chang, Hsieh and Lin (2008) for
        dual ascent row by row.
    """

    tolerance: float = 1e-4
    max_iterations: int = 5_000
    _: KW_ONLY
    progress: Callable[[SolverProgress], None] | None = None
    checkpoints: str | os.PathLike[str] | None = None
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoints is not None:
            check_directory("checkpoints", self.checkpoints)
        if self.memory_budget is not None:
            object.__setattr__(self, "memory_budget", check_bytes("memory_budget", self.memory_budget))
        check_positive("tolerance", self.tolerance)
        check_count("max_iterations", self.max_iterations)

    def solve(
        self,
        features: Any,
        labels: Any,
        num_classes: int,
        K: float,
        *,
        sample_weight: Any = None,
        warm_start: DualSVMSolution | None = None,
    ) -> DualSVMSolution:
        """Solve one problem.

        Args:
            features: F, shape (n, d), finite; computed with in float32, never modified. A `numpy.memmap` of float32 is
                not copied.
            labels: y, integers in 0 .. num_classes - 1, shape (n,). Classes without examples warn.
            num_classes: c, at least 2.
            K: absolute penalty of one unit of slack. What matters is K E||f||^2.
            sample_weight: w, shape (n,), not negative; 1 by default. Examples of weight 0 are left out.
            warm_start: solution of the same examples at this or another K.

        Returns:
            The solution, certified even where it has not converged.

        Raises:
            TypeError: `labels` are not integers, or a number is not a number.
            ValueError: shapes or values are unusable; the message says which rows.

        Warns:
            ConvergenceWarning: `max_iterations` or the precision of the arithmetic ran out above the tolerance.
        """
        return self._solve_all(
            check_problem(features, labels, num_classes, K), sample_weight, [K], warm_start
        )[0]

    def fit_path(
        self, features: Any, labels: Any, num_classes: int, Ks: Sequence[float], *, sample_weight: Any = None
    ) -> list[DualSVMSolution]:
        """Solve for several penalties, each warm started from the next smaller one.

        Args:
            features: F, shape (n, d).
            labels: y, shape (n,).
            num_classes: c.
            Ks: penalties, in any order.
            sample_weight: w, shape (n,), not negative; 1 by default.

        Returns:
            One solution for each of `Ks`, in their order.

        Raises:
            TypeError: as `solve`.
            ValueError: as `solve`, or `Ks` is empty.
        """
        require(len(Ks) > 0, "`Ks` must hold at least one penalty.", {"Ks": Ks})
        penalties = [check_positive("K", K) for K in Ks]
        problem = check_problem(features, labels, num_classes, min(penalties))
        return self._solve_all(problem, sample_weight, penalties, None)

    def _solve_all(
        self, problem: Problem, sample_weight: Any, Ks: Sequence[float], last: DualSVMSolution | None
    ) -> list[DualSVMSolution]:
        """Solve for penalties, each warm started from the next smaller one, the smallest from `last`."""
        weighting = None if sample_weight is None else Weighting(problem, sample_weight)
        if weighting is not None:
            problem = weighting.problem
            last = None if last is None else weighting.inside(last)
        solutions: dict[float, DualSVMSolution] = {}
        for K in sorted(set(Ks)):
            last = solutions[K] = self._solve(problem._replace(K=K), last)
        return [solutions[K] if weighting is None else weighting.outside(solutions[K]) for K in Ks]

    def _solve(self, problem: Problem, warm_start: DualSVMSolution | None) -> DualSVMSolution:
        strength = problem.K * problem.total_squared_norm / problem.num_examples
        if warm_start is None and strength > _HARD:
            warm_start = self._search(problem._replace(K=problem.K * _HARD / strength), None)
        solution = self._search(problem, warm_start)
        if not solution.converged:
            _warn(solution, self.max_iterations)
        return solution

    def _search(self, problem: Problem, warm_start: DualSVMSolution | None) -> DualSVMSolution:
        def report(iteration: int, relative_gap: float, estimated_gap: float, num_active: int) -> None:
            if self.progress is not None:
                self.progress(
                    SolverProgress(
                        problem.K,
                        iteration,
                        self.max_iterations,
                        relative_gap,
                        self.tolerance,
                        num_active,
                        estimated_gap,
                    )
                )

        alpha = None if warm_start is None else _starting_coefficients(problem, warm_start)
        width = _SAME_WIDTH if warm_start is not None and warm_start.K == problem.K else _WARM_WIDTH
        if not _is_large(problem):
            start = None if alpha is None else certify(problem, point_from_coefficients(problem, alpha))
            found, num_iterations = self._newton(problem, start, width, report, 0)
            return _solution(problem, found, num_iterations, self.tolerance)
        checkpoint = self._checkpoint(problem, alpha)
        ended = checkpoint.solution(problem) if checkpoint else None
        if ended is None:
            ended = self._ascend(problem, alpha, report, checkpoint)
            if checkpoint and ended[1] < self.max_iterations:
                checkpoint.save_solution(*ended)
        return _solution(problem, *ended, self.tolerance)

    def _ascend(
        self,
        problem: Problem,
        alpha: scipy.sparse.csr_array | None,
        report: Report,
        checkpoint: Checkpoint | None,
    ) -> tuple[Certificate[scipy.sparse.csr_array], int]:
        """Solve by ascent, and by Newton steps from where it ends; the number of iterations beside the result."""
        room = self._room(problem)
        ascent = Ascent(problem, self.tolerance, self.max_iterations, report, alpha, checkpoint, room)
        alpha = canonical_coefficients(problem, ascent.run())
        found, num_iterations = certify_coefficients(problem, alpha), ascent.num_iterations
        is_over = found.is_within(self.tolerance) or num_iterations >= self.max_iterations
        if is_over or not ascent.leaves_room:
            return found, num_iterations
        width = _FAR_WIDTH if found.relative_gap > _FAR else _NEAR_WIDTH
        start = Certificate(point_from_coefficients(problem, alpha), *found[1:])
        return self._newton(problem, start, width, report, num_iterations)

    def _newton(
        self,
        problem: Problem,
        start: Certificate[DualPoint] | None,
        width: float,
        report: Report,
        num_iterations: int,
    ) -> tuple[Certificate[scipy.sparse.csr_array], int]:
        method = ProximalPoint(problem, self.tolerance, self.max_iterations, report, num_iterations)
        newton = method.run(start, width)
        alpha = sparse_coefficients(problem, newton.point)
        found = Certificate(alpha, *newton[1:])
        canonical = canonical_coefficients(problem, alpha)
        if canonical is not alpha:
            found = certify_coefficients(problem, canonical)
        return found, method.num_iterations

    def _room(self, problem: Problem) -> float:
        if self.memory_budget is not None:
            return self.memory_budget
        return np.inf if problem.features.is_in_memory else _ROOM

    def _checkpoint(self, problem: Problem, alpha: scipy.sparse.csr_array | None) -> Checkpoint | None:
        if self.checkpoints is None:
            return None
        start = None if alpha is None else hashlib.sha256(alpha.data.tobytes() + alpha.indices.tobytes())
        settings = {"tolerance": self.tolerance, "start": start and start.hexdigest()}
        settings["room"] = str(self._room(problem))
        return Checkpoint(Path(self.checkpoints), problem, settings)


def _is_large(problem: Problem) -> bool:
    """Whether blocked ascent is worth a try, and what it takes to compile."""
    n, (_, d), c = problem.num_examples, problem.features.shape, problem.num_classes
    squared_norm = problem.total_squared_norm / n
    # Scores below the margin, or numbers near the ends of their range, are lost in float32.
    strongest = _STRONGEST_OF_MANY if c >= _MANY_CLASSES else _STRONGEST
    is_gentle = 1.0 / n <= problem.K * squared_norm <= strongest and 1e-12 < squared_norm < 1e12
    is_large = n * d * c >= _LARGE and is_gentle and not problem.features.is_on_gpu
    return is_large or not problem.features.is_in_memory


def _starting_coefficients(problem: Problem, warm_start: DualSVMSolution) -> scipy.sparse.csr_array:
    """The alpha of another penalty in proportion to K; as it is where it separates all examples already."""
    shape = (problem.num_examples, problem.num_classes)
    require(
        warm_start.coefficients.shape == shape,
        f"`warm_start` must solve the same examples and classes, coefficients of shape {shape}.",
        {"shape": warm_start.coefficients.shape},
    )
    scale = problem.K / warm_start.K
    if float(warm_start.slack.max()) <= _SEPARATED:
        scale = min(scale, 1.0)
    return warm_start.coefficients * scale


def _solution(
    problem: Problem, found: Certificate[scipy.sparse.csr_array], num_iterations: int, tolerance: float
) -> DualSVMSolution:
    coefficients = found.point
    own = np.zeros(problem.num_examples)
    entry_rows = np.repeat(np.arange(problem.num_examples), np.diff(coefficients.indptr))
    is_own = coefficients.indices == problem.labels[entry_rows]
    own[entry_rows[is_own]] = coefficients.data[is_own]
    return DualSVMSolution(
        K=problem.K,
        coefficients=coefficients,
        weights=found.weights,
        primal=found.primal,
        dual=found.dual,
        converged=found.is_within(tolerance),
        num_iterations=num_iterations,
        slack=found.slack,
        support_vectors=np.flatnonzero(own > _SUPPORT * own.max()),
        mean_squared_norm=problem.total_squared_norm / problem.num_examples,
        tolerance=tolerance,
    )


def _warn(solution: DualSVMSolution, max_iterations: int) -> None:
    received = f"Received: max_iterations={max_iterations}, K={solution.K}."
    if solution.relative_gap <= solution.tolerance and solution.relative_weight_error >= 1:
        warnings.warn(
            f"The surrogate cannot be distinguished from nothing: its weights may be off by "
            f"{solution.relative_weight_error:.2e} of their norm, so that influence values explain little. Either the "
            f"features do not tell the labels apart (is the model trained, on these labels?), or choose a less extreme "
            f"K. {received}",
            ConvergenceWarning,
            stacklevel=4,
        )
        return
    ran_out = solution.num_iterations >= max_iterations
    knob = (
        "raise `max_iterations` or `tolerance`"
        if ran_out
        else "raise `tolerance`: float arithmetic has no more"
    )
    warnings.warn(
        f"The dual solver stopped at a relative gap of {solution.relative_gap:.2e} for a tolerance of "
        f"{solution.tolerance:.2e}, and its weights may be off by {solution.relative_weight_error:.2e} of their norm "
        f"where {solution.weight_tolerance:.2e} is the most, after {solution.num_iterations} iterations: {knob}, or "
        f"choose a less extreme K. {received}",
        ConvergenceWarning,
        stacklevel=4,
    )
