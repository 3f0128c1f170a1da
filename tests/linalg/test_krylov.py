"""Eigenpairs of largest magnitude, against NumPy's."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.linalg.krylov import deflated_trace, lanczos
from deel_dualview.linalg.operators import DenseOperator, LinearOperator

EIGENVALUES = np.array([9.0, -7.0, 5.0, 3.0, -2.0, 1.0, *np.linspace(-0.1, 0.1, 24)])


class Counted(LinearOperator):
    """A matrix that counts the rows that it was multiplied with."""

    def __init__(self, matrix):
        self._matrix, self.num_products = tf.constant(matrix, tf.float32), 0

    @property
    def size(self):
        return len(self._matrix)

    def matmul(self, rows):
        self.num_products += len(rows)
        return rows @ self._matrix


@pytest.fixture
def basis(rng):
    return np.linalg.qr(rng.normal(size=(30, 30)))[0]


@pytest.fixture
def matrix(basis):
    return basis @ np.diag(EIGENVALUES) @ basis.T


def test_the_largest_eigenvalues_by_magnitude_are_found_with_their_signs(matrix):
    spectrum = lanczos(DenseOperator(matrix), rank=4, num_iterations=15)
    np.testing.assert_allclose(spectrum.eigenvalues, [9.0, -7.0, 5.0, 3.0], rtol=1e-4)


def test_eigenvectors_are_orthonormal_rows_of_their_eigenvalues(matrix):
    values, vectors, residuals, _ = lanczos(DenseOperator(matrix), rank=5, num_iterations=20)
    np.testing.assert_allclose(vectors @ tf.transpose(vectors), np.eye(5), atol=1e-12)
    np.testing.assert_allclose(vectors @ matrix, values[:, np.newaxis] * vectors, atol=1e-6)
    assert residuals.max() < 1e-6


def test_the_residuals_told_are_the_true_ones(matrix):
    values, vectors, residuals, _ = lanczos(DenseOperator(matrix), rank=5, num_iterations=6)
    expected = np.linalg.norm(vectors @ matrix - values[:, np.newaxis] * vectors, axis=1)
    assert expected.max() > 0.01
    np.testing.assert_allclose(residuals, expected, rtol=1e-6)


def test_as_many_iterations_as_dimensions_give_the_whole_matrix(matrix):
    values, vectors, _, _ = lanczos(DenseOperator(matrix), rank=30)
    np.testing.assert_allclose(tf.transpose(vectors) @ (values[:, np.newaxis] * vectors), matrix, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeated_eigenvalues_are_found_as_often_as_they_occur(basis, dtype):
    eigenvalues = np.repeat([4.0, 2.0, 0.0], [3, 2, 25])
    matrix = (basis @ np.diag(eigenvalues) @ basis.T).astype(dtype)
    found = lanczos(DenseOperator(matrix), rank=30).eigenvalues
    np.testing.assert_allclose(found, eigenvalues, atol=1e-5)


def test_the_matrix_zero_has_eigenvalues_zero():
    np.testing.assert_array_equal(lanczos(DenseOperator(np.zeros((4, 4))), rank=4).eigenvalues, np.zeros(4))


def test_float32_products_keep_the_basis_orthonormal(matrix):
    vectors = lanczos(DenseOperator(matrix.astype(np.float32)), rank=30).eigenvectors
    np.testing.assert_allclose(vectors @ tf.transpose(vectors), np.eye(30), atol=1e-5)


def test_an_iteration_is_one_product(matrix):
    operator = Counted(matrix)
    lanczos(operator, rank=3, num_iterations=11)
    assert operator.num_products == 11


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(matrix):
    first, again, other = (lanczos(DenseOperator(matrix), rank=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.eigenvectors, again.eigenvectors)
    assert not np.array_equal(first.eigenvalues, other.eigenvalues)


def test_the_trace_is_exact_where_all_eigenvalues_are_known(matrix):
    operator = Counted(matrix)
    spectrum = lanczos(operator, rank=30)
    np.testing.assert_allclose(deflated_trace(operator, spectrum), np.trace(matrix), rtol=1e-5)
    assert operator.num_products == 30


def test_the_trace_of_what_was_not_found_is_estimated(matrix):
    shifted = matrix + 0.5 * np.eye(30)
    operator = DenseOperator(shifted)
    spectrum = lanczos(operator, rank=6, num_iterations=20)
    np.testing.assert_allclose(deflated_trace(operator, spectrum), np.trace(shifted), rtol=0.02)


@pytest.mark.parametrize(("rank", "num_iterations"), [(31, None), (3, 2), (3, 31), (0, None)])
def test_impossible_numbers_are_refused(rank, num_iterations, matrix):
    with pytest.raises(ValueError, match="rank"):
        lanczos(DenseOperator(matrix), rank=rank, num_iterations=num_iterations)


def test_products_that_are_not_finite_are_refused(matrix):
    matrix[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        lanczos(DenseOperator(matrix), rank=2)
