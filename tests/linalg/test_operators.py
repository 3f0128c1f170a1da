"""Linear operators: products, traces and largest eigenvalues."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.linalg.operators import DampedOperator, DenseOperator, LinearOperator, largest_eigenvalue


class ProductsOnly(LinearOperator):
    """A matrix that hides behind its products."""

    def __init__(self, matrix):
        self._matrix = tf.constant(matrix, tf.float32)

    @property
    def size(self):
        return len(self._matrix)

    def matmul(self, rows):
        return rows @ self._matrix


@pytest.fixture
def matrix(rng):
    factor = rng.normal(size=(7, 7))
    return factor @ factor.T


def test_a_dense_operator_multiplies_rows(matrix, rng):
    rows = rng.normal(size=(3, 7))
    np.testing.assert_allclose(DenseOperator(matrix).matmul(tf.constant(rows)), rows @ matrix)


def test_damping_adds_to_every_eigenvalue(matrix, rng):
    damped = DampedOperator(DenseOperator(matrix), 0.5)
    rows = rng.normal(size=(3, 7))
    expected = matrix + 0.5 * np.eye(7)
    np.testing.assert_allclose(damped.matmul(tf.constant(rows)), rows @ expected)
    np.testing.assert_allclose(damped.to_dense(), expected)
    np.testing.assert_allclose(damped.trace(), np.trace(expected))


def test_an_operator_of_products_gives_its_matrix(matrix):
    np.testing.assert_allclose(ProductsOnly(matrix).to_dense(), matrix, rtol=1e-5)


def test_the_estimated_trace_is_near_and_the_same_at_every_call(matrix):
    operator = ProductsOnly(matrix + 20 * np.eye(7))
    assert operator.trace() == operator.trace()
    np.testing.assert_allclose(operator.trace(), np.trace(matrix) + 140, rtol=0.1, err_msg="an estimate")


def test_the_largest_eigenvalue_is_estimated_from_below(rng):
    basis, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    operator = ProductsOnly(basis @ np.diag(np.linspace(0.1, 9.0, 40)) @ basis.T)
    estimate = largest_eigenvalue(operator)
    assert 0.99 * 9.0 <= estimate <= 9.0 * (1 + 1e-5)
