"""Solutions in the span of few rows against those with the whole matrix."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.linalg import spans

NUM_PARTS, NUM_INPUTS, DAMPING = 3, 11, 0.3


@pytest.fixture(params=[4, 1], ids=["four rows", "equal rows"])
def rows(request, rng):
    return np.resize(rng.normal(size=(request.param, NUM_INPUTS)), (4, NUM_INPUTS))


@pytest.fixture
def basis(rows, monkeypatch):
    monkeypatch.setattr(spans, "LEAST_WIDE", 0)
    return spans.basis_of([rows[:3], rows[3:]], 4, NUM_INPUTS)


def test_a_solution_in_the_span_is_that_of_the_whole_matrix(rows, basis, rng):
    curvatures = rng.normal(size=(4, NUM_PARTS, NUM_PARTS))
    curvatures = curvatures @ np.swapaxes(curvatures, 1, 2)

    def matrix(given):
        size = NUM_PARTS * given.shape[1]
        return np.einsum("nij,nd,ne->idje", curvatures, given, given).reshape(size, size)

    small = matrix(rows @ basis.numpy()) + DAMPING * np.eye(NUM_PARTS * 4)
    sides = rng.normal(size=(5, NUM_PARTS * NUM_INPUTS))
    found = spans.solve(lambda inner: inner @ np.linalg.inv(small), tf.constant(sides), basis, DAMPING)
    expected = np.linalg.solve(matrix(rows) + DAMPING * np.eye(NUM_PARTS * NUM_INPUTS), sides.T).T
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_rows_of_few_inputs_have_no_basis(rows):
    assert spans.basis_of([rows], 4, NUM_INPUTS) is None
