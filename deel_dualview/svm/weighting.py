"""Sample weights of the Crammer-Singer machine: the problem without examples of weight 0, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from deel_dualview._checks import require
from deel_dualview.svm.passes import scan_rows
from deel_dualview.svm.problem import Problem, check_weights
from deel_dualview.svm.solution import DualSVMSolution


class Weighting:
    """A problem whose masses are the weights.

    Args:
        whole: the problem of all examples, without masses.
        sample_weight: w, shape (n,).

    Raises:
        ValueError: weights of another shape, negative, not finite or all 0.
    """

    def __init__(self, whole: Problem, sample_weight: Any) -> None:
        weights = check_weights(sample_weight, whole.num_examples)
        require(
            bool(weights.any()),
            "`sample_weight` must be positive for one example at least.",
            {"weights": 0.0},
        )
        self.whole, self.used = whole, np.flatnonzero(weights > 0)
        problem = whole if len(self.used) == whole.num_examples else whole.subset(self.used)
        self.problem = problem._replace(masses=weights[self.used])

    def inside(self, solution: DualSVMSolution) -> DualSVMSolution:
        """Return a solution of all examples as one of those of positive weight."""
        coefficients, slack = solution.coefficients[self.used], solution.slack[self.used]
        return replace(solution, coefficients=coefficients, slack=slack)

    def outside(self, solution: DualSVMSolution) -> DualSVMSolution:
        """Return a solution of the examples of positive weight as one of all."""
        if len(self.used) == self.whole.num_examples:
            return solution
        counts = np.zeros(self.whole.num_examples + 1, np.int64)
        counts[self.used + 1] = np.diff(solution.coefficients.indptr)
        alpha = solution.coefficients
        coefficients = scipy.sparse.csr_array(
            (alpha.data, alpha.indices, counts.cumsum()), shape=(self.whole.num_examples, alpha.shape[1])
        )
        return replace(
            solution,
            coefficients=coefficients,
            slack=scan_rows(self.whole, self.whole.labels, solution.weights).slack,
            support_vectors=self.used[solution.support_vectors],
        )
