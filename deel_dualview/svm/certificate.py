"""The certificate of sparse coefficients, everything in float64; no dense (n, c) array."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from deel_dualview.svm.canonical import point_from_coefficients
from deel_dualview.svm.passes import slack_and_gaps, sparse_adjoint
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.proximal import certify
from deel_dualview.svm.solution import Certificate


def certify_coefficients(
    problem: Problem, alpha: scipy.sparse.csr_array
) -> Certificate[scipy.sparse.csr_array]:
    """Certificate of a feasible alpha: P - D as a sum of terms that are never negative."""
    if problem.features.is_on_gpu:
        return Certificate(alpha, *certify(problem, point_from_coefficients(problem, alpha))[1:])
    rows, labels = np.flatnonzero(np.diff(alpha.indptr)), problem.labels
    weights = sparse_adjoint(problem.features, rows, alpha[rows], np.float64).T
    slack, gaps = slack_and_gaps(problem.features, labels, alpha, weights)
    own = problem.penalties
    primal = 0.5 * float(np.square(weights).sum()) + float(own @ slack)
    row = np.repeat(np.arange(len(labels)), np.diff(alpha.indptr))
    is_own = alpha.indices == labels[row]
    own[row[is_own]] -= alpha.data[is_own]
    gap = float(gaps.sum() + np.maximum(own, 0.0) @ slack)
    return Certificate(alpha, weights, primal, primal - gap, slack)
