"""Projections onto the simplex, against a sort-based twin in float64."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.svm.simplex import project_onto_simplex


def twin(values: np.ndarray, size: float) -> np.ndarray:
    """Held, Wolfe and Crowder (1974): sort, find the threshold, clip."""
    ordered = -np.sort(-values, axis=1)
    thresholds = (np.cumsum(ordered, axis=1) - size) / np.arange(1, values.shape[1] + 1)
    count = (ordered > thresholds).sum(axis=1)
    return np.maximum(values - thresholds[np.arange(len(values)), count - 1][:, None], 0.0)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_projection_equals_the_sort_based_twin(num_classes, scale):
    values = scale * np.random.default_rng(0).normal(size=(50, num_classes))
    for size in (0.01, 1.0, 30.0):
        found = project_onto_simplex(tf.constant(values), size).numpy()
        np.testing.assert_allclose(found, twin(values, size), atol=1e-12 * max(scale, size), rtol=0)


def test_rows_sum_to_the_size_and_are_not_negative():
    values = np.random.default_rng(1).normal(size=(200, 300))
    found = project_onto_simplex(tf.constant(values), 2.5).numpy()
    assert found.min() == 0.0
    np.testing.assert_allclose(found.sum(axis=1), 2.5, rtol=1e-12)


def test_equal_values_share_equally():
    found = project_onto_simplex(tf.constant(np.full((2, 8), 3.0)), 4.0).numpy()
    np.testing.assert_array_equal(found, np.full((2, 8), 0.5))


def test_a_dominant_value_takes_everything():
    found = project_onto_simplex(tf.constant([[5.0, 0.0, 1.0]], tf.float64), 2.0).numpy()
    np.testing.assert_array_equal(found, [[2.0, 0.0, 0.0]])


def test_the_projection_is_idempotent():
    once = project_onto_simplex(tf.constant(np.random.default_rng(2).normal(size=(50, 7))), 1.0)
    np.testing.assert_allclose(project_onto_simplex(once, 1.0).numpy(), once.numpy(), atol=1e-14)


def test_float32_rows_keep_their_type():
    values = np.random.default_rng(3).normal(size=(50, 100)).astype(np.float32)
    found = project_onto_simplex(tf.constant(values), 1.0)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found.numpy(), twin(values.astype(np.float64), 1.0), atol=1e-5)


def test_no_rows_give_no_rows():
    assert project_onto_simplex(tf.zeros((0, 4), tf.float64), 1.0).shape == (0, 4)
