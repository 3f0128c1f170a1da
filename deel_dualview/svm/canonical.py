"""From the solver's lambda to the canonical, sparse coefficients that the caller gets."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from deel_dualview.svm.duplicates import first_equal_rows
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.working_set import DualPoint


def canonical_coefficients(problem: Problem, alpha: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Settle what the optimum leaves open: exact duplicates share equally, zero rows stand off their label.

    Neither changes W_a. Two equal rows with one label can shift lambda between each other at will, the
    equal split (by mass) is the answer that does not depend on the order of the rows. A zero row has
    c_ij = 1[j != y] whatever W, so lambda_y > 0 would leave a gap of K.

    Returns:
        The canonical alpha; `alpha` itself where it is canonical already.
    """
    labels, c = problem.labels, problem.num_classes
    masses = problem.weighted(np.ones(len(labels)))
    zero = np.flatnonzero(problem.features.is_zero)
    leaders = first_equal_rows(problem.features, labels[:, np.newaxis].astype(np.float64))
    is_shared = np.isin(leaders, leaders[leaders != np.arange(len(labels))])
    is_shared[zero] = False
    shared = np.flatnonzero(is_shared)
    first, group = np.unique(leaders[shared], return_inverse=True)
    member = scipy.sparse.csr_array(
        (np.ones(len(shared)), group, np.arange(len(shared) + 1)), shape=(len(shared), len(first))
    )
    parts = masses[shared] / (member.T @ masses[shared])[group]
    halves = scipy.sparse.diags_array(parts) @ (member @ (member.T @ alpha[shared]))
    off_label = np.full((len(zero), c), -1 / (c - 1))
    off_label[np.arange(len(zero)), labels[zero]] = 1.0
    settled = scipy.sparse.vstack([halves, problem.K * masses[zero, np.newaxis] * off_label], format="csr")
    moved = np.concatenate([shared, zero])
    if (settled != alpha[moved]).nnz == 0:
        return alpha
    settled.sum_duplicates()
    return replace_rows(alpha, moved, settled)


def replace_rows(
    matrix: scipy.sparse.csr_array, rows: np.ndarray, new: scipy.sparse.csr_array
) -> scipy.sparse.csr_array:
    """Return a sparse matrix whose `rows`, in any order, are `new`."""
    is_kept = np.ones(matrix.shape[0], bool)
    is_kept[rows] = False
    kept = np.flatnonzero(is_kept)
    place = np.argsort(np.concatenate([kept, rows]))
    return scipy.sparse.vstack([matrix[kept], new], format="csr")[place]


def sparse_coefficients(problem: Problem, point: DualPoint) -> scipy.sparse.csr_array:
    """alpha_ij = m_i (K 1[j = y_i] - lambda_ij) as a canonical CSR array (n, c), every row summing to 0."""
    vertex = point.vertex.copy()
    vertex[point.active] = problem.labels[point.active]
    frozen = np.flatnonzero(vertex != problem.labels)
    row, column = np.nonzero(point.multipliers)
    values = point.multipliers[row, column]
    row = np.concatenate([point.active[row], frozen])
    column = np.concatenate([column, vertex[frozen]])
    values = np.concatenate([values, np.full(len(frozen), problem.K)])
    return coefficients_of(row, column, problem.weighted(values, row), problem.labels, problem.num_classes)


def coefficients_of(
    row: np.ndarray, column: np.ndarray, values: np.ndarray, labels: np.ndarray, num_classes: int
) -> scipy.sparse.csr_array:
    """alpha, canonical CSR (n, c), from the entries of lambda, those of the labels left out or not."""
    wrong = column != labels[row]
    row, column, values = row[wrong], column[wrong], values[wrong]
    # alpha_y is the sum of what went to the other classes: K - lambda_y without its rounding.
    own = np.bincount(row, weights=values, minlength=len(labels))
    owners = np.flatnonzero(own)
    alpha = scipy.sparse.csr_array(
        (
            np.concatenate([-values, own[owners]]),
            (np.concatenate([row, owners]), np.concatenate([column, labels[owners]])),
        ),
        shape=(len(labels), num_classes),
    )
    alpha.sum_duplicates()
    alpha.eliminate_zeros()
    return alpha


def point_from_coefficients(problem: Problem, coefficients: scipy.sparse.csr_array) -> DualPoint:
    """lambda of alpha, made feasible for `problem` if it is not."""
    counts = np.diff(coefficients.indptr)
    active = np.flatnonzero(counts)
    multipliers = -coefficients[active].toarray()
    if problem.masses is not None:
        multipliers /= problem.masses[active, np.newaxis]
    own = problem.labels[active][:, None]
    others = multipliers.sum(axis=1) - np.take_along_axis(multipliers, own, axis=1)[:, 0]
    np.put_along_axis(multipliers, own, np.maximum(problem.K - others, 0.0)[:, None], axis=1)
    return DualPoint(problem.labels.copy(), active, multipliers)
