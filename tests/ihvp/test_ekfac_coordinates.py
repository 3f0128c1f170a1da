"""Influence by EK-FAC in its eigenbasis equals what multiplying everything out gives."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import EkfacIHVP, FirstOrderInfluenceCalculator, InfluenceModel
from deel_dualview.linalg import blocks


@pytest.fixture(scope="module")
def made():
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    layers = [
        keras.Input((6, 6, 1)),
        keras.layers.Conv2D(2, 3, activation="tanh"),
        keras.layers.DepthwiseConv2D(2, depth_multiplier=2),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="tanh"),
        keras.layers.Dense(3),
    ]
    model = InfluenceModel(keras.Sequential(layers))
    inputs, labels = rng.normal(size=(30, 6, 6, 1)).astype("float32"), rng.integers(0, 3, 30)
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(8)
    inverse = EkfacIHVP(model, train, weights="all")
    return inverse, FirstOrderInfluenceCalculator(model, train, inverse), inputs, labels


def dense_values(inverse, inputs, labels, classes):
    rows = blocks.to_dense(inverse.gradients(inputs, classes))
    gradients = blocks.to_dense(inverse.gradients(inputs, labels)).numpy()
    return inverse.solve(rows).value.numpy() @ gradients.T / len(labels)


def test_values_are_those_of_solutions_multiplied_out(made):
    inverse, calculator, inputs, labels = made
    classes = inverse.model.logits(inputs).numpy().argmax(1)
    expected = dense_values(inverse, inputs, labels, classes)
    queries = tf.data.Dataset.from_tensor_slices(inputs).batch(30)
    (values,) = calculator.estimate_influence_values_in_batches(queries)
    np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max())
    self_influence = np.concatenate(list(calculator.compute_influence_values()))
    expected = np.diag(dense_values(inverse, inputs, labels, labels))
    np.testing.assert_allclose(self_influence, expected, atol=1e-4 * expected.max())


def test_few_queries_at_once_give_the_same_values(made, monkeypatch):
    _, calculator, inputs, _ = made
    queries = tf.data.Dataset.from_tensor_slices(inputs[:7]).batch(7)
    (values,) = calculator.estimate_influence_values_in_batches(queries)
    ((best, indices),) = calculator.top_k_indices(queries, k=4)
    monkeypatch.setattr(
        "deel_dualview.calculators.inverse_hessian._NUMBERS_AT_ONCE", 3 * calculator.ihvp.size
    )
    (again,) = calculator.estimate_influence_values_in_batches(queries)
    np.testing.assert_allclose(values, again, rtol=1e-5, atol=1e-6 * np.abs(values).max())
    ((best_again, indices_again),) = calculator.top_k_indices(queries, k=4)
    np.testing.assert_array_equal(indices, indices_again)
    np.testing.assert_allclose(best, best_again, rtol=1e-4)
    np.testing.assert_array_equal(indices, np.argsort(-values.numpy(), axis=1, kind="stable")[:, :4])


def test_the_norms_bound_every_value_and_are_met_by_equals(made):
    inverse, calculator, inputs, labels = made
    coordinates = inverse.coordinates(inverse.gradients(inputs, labels))
    solutions = inverse.solve_coordinates(coordinates)
    norms, duals = inverse.vector_norms(coordinates).numpy(), inverse.solution_norms(solutions).numpy()
    values = blocks.inner_products(solutions, coordinates).numpy()
    assert (np.abs(values) <= duals[:, np.newaxis] * norms * (1 + 1e-5)).all()
    np.testing.assert_allclose(np.diag(values), duals * norms, rtol=1e-4)


def test_a_groups_influence_is_the_sum_of_its_members(made):
    _, calculator, inputs, labels = made
    group = tf.data.Dataset.from_tensor_slices((inputs[:9], labels[:9])).batch(4)
    queries = tf.data.Dataset.from_tensor_slices(inputs[20:]).batch(10)
    (values,) = calculator.estimate_influence_values_in_batches(queries)
    (of_group,) = calculator.estimate_influence_values_group(queries, group)
    expected = values.numpy()[:, :9].sum(axis=1)
    np.testing.assert_allclose(of_group, expected, atol=1e-4 * np.abs(values).max() * 9)
