"""Conjugate gradients and Neumann series for many right-hand sides at once."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.linalg.operators import DenseOperator, LinearOperator
from deel_dualview.linalg.solvers import (
    conjugate_gradient,
    neumann_series,
    neumann_series_by_doubling,
    stochastic_neumann_series,
)


class Counted(LinearOperator):
    """A dense operator that notes how many rows each product had."""

    def __init__(self, matrix):
        self.operator = DenseOperator(tf.constant(matrix))
        self.num_rows = []

    @property
    def size(self):
        return self.operator.size

    def matmul(self, rows):
        self.num_rows.append(len(rows))
        return self.operator.matmul(rows)


@pytest.fixture
def matrix(rng):
    basis, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    return basis @ np.diag(np.geomspace(0.1, 10.0, 12)) @ basis.T


@pytest.fixture
def rows(rng):
    return rng.normal(size=(5, 12))


def solve(method, operator, rows, **settings):
    settings = {"max_iterations": 3000, "tolerance": 1e-8, **settings}
    if method is not conjugate_gradient:
        settings.setdefault("scale", 10.0)
    return method(operator, tf.constant(rows), **settings)


METHODS = [conjugate_gradient, neumann_series, neumann_series_by_doubling]


def test_rows_that_conjugate_gradients_call_solved_are_so_in_float32():
    """Their residual by recurrence drifts from the true one, by which rows are judged in the end."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    operator = DenseOperator(tf.constant(basis @ np.diag(np.geomspace(1, 100, 30)) @ basis.T, tf.float32))
    rows = rng.normal(size=(40, 30)).astype(np.float32)
    assert np.all(solve(conjugate_gradient, operator, rows, tolerance=1e-5).converged)


@pytest.mark.parametrize("method", METHODS)
def test_the_solution_is_that_of_a_direct_solver(method, matrix, rows):
    solution = solve(method, DenseOperator(tf.constant(matrix)), rows)
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, rows.T).T, rtol=1e-5)
    assert np.all(solution.converged)


@pytest.mark.parametrize("method", METHODS)
def test_a_zero_row_stays_zero(method, matrix, rows):
    rows[2] = 0
    solution = solve(method, DenseOperator(tf.constant(matrix)), rows)
    np.testing.assert_array_equal(solution.value[2], np.zeros(12))
    assert np.all(solution.converged)
    assert solution.relative_residual[2] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_any_size_is_solved_alike(method, matrix, rows):
    rows[1] = 1e-12 * rows[0]
    solution = solve(method, DenseOperator(tf.constant(matrix)), rows)
    np.testing.assert_allclose(solution.value[1], 1e-12 * solution.value[0].numpy(), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_converged_row_takes_no_more_part_in_products(method, matrix, rows):
    rows[3] = np.linalg.eigh(matrix)[1][:, -1]
    operator = Counted(matrix)
    solve(method, operator, rows)
    assert operator.num_rows[0] == 5
    assert operator.num_rows[3] == 4


@pytest.mark.parametrize("method", METHODS)
def test_too_few_iterations_are_told(method, matrix, rows):
    solution = solve(method, DenseOperator(tf.constant(matrix)), rows, max_iterations=2)
    residual = np.linalg.norm(rows - solution.value @ matrix, axis=1) / np.linalg.norm(rows, axis=1)
    assert not np.any(solution.converged)
    assert solution.num_iterations == 2
    np.testing.assert_allclose(solution.relative_residual, residual)


def test_conjugate_gradients_stop_at_negative_curvature(matrix, rows):
    indefinite = matrix - 1.0 * np.eye(12)
    solution = solve(conjugate_gradient, DenseOperator(tf.constant(indefinite)), rows)
    assert np.isfinite(solution.value).all()
    assert not np.any(solution.converged)
    assert np.linalg.eigvalsh(indefinite)[0] <= solution.negative_curvature < 0


def test_no_negative_curvature_is_told_of_a_singular_matrix(matrix, rows):
    values, vectors = np.linalg.eigh(matrix)
    singular = (vectors * np.where(np.arange(12) < 3, 0.0, values)) @ vectors.T
    operator = DenseOperator(tf.constant(singular))
    assert solve(conjugate_gradient, operator, rows @ singular).negative_curvature is None


def test_a_preconditioner_saves_iterations(matrix, rows):
    operator = DenseOperator(tf.constant(matrix))
    inverse = DenseOperator(tf.constant(np.linalg.inv(matrix + 0.01 * np.eye(12))))
    plain = solve(conjugate_gradient, operator, rows)
    helped = solve(conjugate_gradient, operator, rows, preconditioner=inverse)
    assert helped.num_iterations < plain.num_iterations
    np.testing.assert_allclose(helped.value, plain.value, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_solved_alike_in_any_company(method, matrix, rows):
    rows[3] = np.linalg.eigh(matrix)[1][:, -1]
    operator = DenseOperator(tf.constant(matrix))
    whole, alone = (solve(method, operator, part, tolerance=1e-2).value for part in (rows, rows[3:4]))
    np.testing.assert_allclose(whole[3], alone[0], rtol=1e-12, atol=1e-12)


def test_doubling_sums_the_same_terms(matrix, rows):
    operator = DenseOperator(tf.constant(matrix))
    settings = {"max_iterations": 64, "tolerance": 1e-12}
    by_term, doubled = (solve(method, operator, rows, **settings).value for method in METHODS[1:])
    np.testing.assert_allclose(doubled, by_term, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_series_with_too_small_a_scale_is_refused(method, matrix, rows):
    with pytest.raises(ValueError, match="scale=4.0"):
        solve(method, DenseOperator(tf.constant(matrix)), rows, scale=4.0)


def test_a_stochastic_series_with_too_small_a_scale_is_refused(matrix, rows):
    operator = DenseOperator(tf.constant(matrix))
    with pytest.raises(ValueError, match="diverges"):
        stochastic_neumann_series(
            itertools.repeat(operator),
            operator,
            tf.constant(rows),
            scale=4.0,
            max_iterations=500,
            tolerance=1e-3,
        )


def test_a_stochastic_series_averages_its_samples(matrix, rows, rng):
    noise = [rng.normal(size=(12, 12)) for _ in range(20)]
    samples = [
        DenseOperator(tf.constant(matrix + 0.05 * sign * (part + part.T)))
        for part in noise
        for sign in (1, -1)
    ]
    solution = stochastic_neumann_series(
        itertools.cycle(samples),
        DenseOperator(tf.constant(matrix)),
        tf.constant(rows),
        scale=12.0,
        max_iterations=4000,
        tolerance=0.05,
    )
    expected = np.linalg.solve(matrix, rows.T).T
    cosines = np.sum(expected * solution.value, axis=1) / (
        np.linalg.norm(expected, axis=1) * np.linalg.norm(solution.value, axis=1)
    )
    assert cosines.min() > 0.99
