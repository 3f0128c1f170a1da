"""From the solver's lambda to the canonical, sparse coefficients that the caller gets."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview.svm.problem import Problem
from deel_dualview.svm.working_set import DualPoint


def canonical_point(problem: Problem, point: DualPoint) -> tuple[DualPoint, bool]:
    """Settle what the optimum leaves open: exact duplicates share equally, zero rows stand off their label.

    Neither changes W_a. Two equal rows with one label can shift lambda between each other at will, the
    equal split (by mass) is the answer that does not depend on the order of the rows. A zero row has
    c_ij = 1[j != y] whatever W, so lambda_y > 0 would leave a gap of K.

    Returns:
        The canonical point, and whether anything moved.
    """
    rows = tf.gather(problem.features, point.active).numpy()
    labels = problem.labels[point.active]
    multipliers = point.multipliers.copy()
    for group in _duplicate_groups(rows, labels):
        masses = None if problem.masses is None else problem.masses[point.active[group]]
        multipliers[group] = np.average(multipliers[group], axis=0, weights=masses)
    zero = np.flatnonzero(~rows.any(axis=1))
    multipliers[zero] = problem.K / (problem.num_classes - 1)
    multipliers[zero, labels[zero]] = 0.0
    return point._replace(multipliers=multipliers), not np.array_equal(multipliers, point.multipliers)


def _duplicate_groups(rows: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    members: dict[tuple[int, bytes], list[int]] = {}
    # + 0.0 turns -0.0 into 0.0, which is equal but has other bytes.
    for i, (row, label) in enumerate(zip(rows + np.float32(0), labels, strict=True)):
        members.setdefault((int(label), row.tobytes()), []).append(i)
    return [np.array(group) for group in members.values() if len(group) > 1]


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
    wrong = column != problem.labels[row]
    row, column, values = row[wrong], column[wrong], values[wrong]
    values = problem.weighted(values, row)
    # alpha_y is the sum of what went to the other classes: K - lambda_y without its rounding.
    own = np.bincount(row, weights=values, minlength=problem.num_examples)
    owners = np.flatnonzero(own)
    alpha = scipy.sparse.csr_array(
        (
            np.concatenate([-values, own[owners]]),
            (np.concatenate([row, owners]), np.concatenate([column, problem.labels[owners]])),
        ),
        shape=(problem.num_examples, problem.num_classes),
    )
    alpha.sum_duplicates()
    alpha.eliminate_zeros()
    return alpha


def point_from_coefficients(
    problem: Problem, coefficients: scipy.sparse.csr_array, scale: float
) -> DualPoint:
    """A feasible lambda for `problem` from the alpha of another penalty, scaled by `scale`."""
    counts = np.diff(coefficients.indptr)
    active = np.flatnonzero(counts)
    multipliers = -scale * coefficients[active].toarray()
    if problem.masses is not None:
        multipliers /= problem.masses[active, np.newaxis]
    own = problem.labels[active][:, None]
    others = multipliers.sum(axis=1) - np.take_along_axis(multipliers, own, axis=1)[:, 0]
    np.put_along_axis(multipliers, own, np.maximum(problem.K - others, 0.0)[:, None], axis=1)
    return DualPoint(problem.labels.copy(), active, multipliers)
