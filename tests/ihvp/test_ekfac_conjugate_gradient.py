"""EK-FAC with conjugate gradients: the damped Gauss-Newton system of all layers, against a dense twin in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import (
    ConvergenceWarning,
    EkfacConjugateGradientIHVP,
    EkfacIHVP,
    FirstOrderInfluenceCalculator,
    LayerwiseDamping,
    NamedMethod,
)

NUM_HIDDEN = 5 * (4 + 1)
# All examples and the exact expectation over classes: without chance, as the twin is.
EXACT = {
    "damping": LayerwiseDamping(0.1),
    "num_curvature_examples": None,
    "num_samples": None,
    "tolerance": 1e-5,
}


@pytest.fixture(scope="module")
def train_set(data):
    return tf.data.Dataset.from_tensor_slices(data).batch(41)


@pytest.fixture(scope="module")
def inverse(model, train_set):
    return EkfacConjugateGradientIHVP(model, train_set, **EXACT)


@pytest.fixture(scope="module")
def rows(inverse, data):
    gradients = inverse.gradients(data[0][:4], data[1][:4])
    return tf.concat([tf.reshape(tf.einsum("nc,nd->ncd", *block), (4, -1)) for block in gradients], axis=1)


def naive_gauss_newton(keras_model, inputs):
    """J' (diag p - p p') J, example by example; of each layer outputs x (inputs, bias)."""
    (w1, b1), (w2, b2) = (
        [weight.astype(np.float64) for weight in layer.get_weights()] for layer in keras_model.layers
    )
    total = 0
    for x in inputs.astype(np.float64):
        h = np.tanh(x @ w1 + b1)
        z = h @ w2 + b2
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        of_hidden = np.einsum("hc,h,d->chd", w2, 1 - h**2, np.append(x, 1)).reshape(3, -1)
        of_head = np.kron(np.eye(3), np.append(h, 1))
        jacobian = np.hstack([of_hidden, of_head])
        total = total + jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian / len(inputs)
    return total


def with_layerwise_damping(matrix, factor):
    means = [
        np.trace(block) / len(block)
        for block in (matrix[:NUM_HIDDEN, :NUM_HIDDEN], matrix[NUM_HIDDEN:, NUM_HIDDEN:])
    ]
    return matrix + factor * np.diag(np.repeat(means, [NUM_HIDDEN, len(matrix) - NUM_HIDDEN]))


@pytest.fixture(scope="module")
def damped(keras_model, data):
    return with_layerwise_damping(naive_gauss_newton(keras_model, data[0]), 0.1)


@pytest.fixture(scope="module")
def solution(inverse, rows):
    return inverse.solve(rows)


def test_it_solves_the_damped_system_of_all_layers(solution, rows, damped):
    expected = np.linalg.solve(damped, rows.numpy().astype(np.float64).T).T
    np.testing.assert_allclose(
        solution.value, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg="to its tolerance"
    )


def test_the_residuals_are_those_of_the_twin_and_within_the_tolerance(model, train_set, rows, damped):
    short = EkfacConjugateGradientIHVP(model, train_set, **EXACT | {"tolerance": 0.2}).solve(rows)
    differences = rows.numpy() - short.value.numpy() @ damped
    expected = np.linalg.norm(differences, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(short.relative_residual, expected, rtol=1e-2)
    assert np.all(short.converged) and 1e-4 < expected.max() <= 0.2


def test_the_first_step_goes_along_the_solution_of_ekfac(inverse, model, train_set, rows):
    one = EkfacConjugateGradientIHVP(model, train_set, max_iterations=1, **EXACT)
    with pytest.warns(ConvergenceWarning, match=r"4 of 4 rows after 1 iterations.*Raise `max_iterations`"):
        found = one.solve(rows).value.numpy()
    start = inverse.ekfac.solve(rows).value.numpy()
    cosines = np.sum(found * start, 1) / np.linalg.norm(found, axis=1) / np.linalg.norm(start, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-4)


def test_steps_are_told_of_each_row(inverse, solution, rows):
    with_zero = inverse.solve(tf.concat([rows[:1] * 0, rows], axis=0))
    np.testing.assert_array_equal(with_zero.row_iterations, [0, *solution.row_iterations])
    assert solution.row_iterations.max() == solution.num_iterations


def test_the_examples_of_the_curvature_are_drawn_once(keras_model, model, train_set, data, rows):
    settings = EXACT | {"num_curvature_examples": 10, "seed": 3}
    few = EkfacConjugateGradientIHVP(model, train_set, **settings)
    drawn = np.sort(np.random.default_rng(3).choice(41, 10, replace=False))
    all_of_them = with_layerwise_damping(naive_gauss_newton(keras_model, data[0]), 0.1)
    damping = all_of_them - naive_gauss_newton(keras_model, data[0])
    expected = np.linalg.solve(naive_gauss_newton(keras_model, data[0][drawn]) + damping, rows.numpy().T).T
    np.testing.assert_allclose(few.solve(rows).value, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_a_damping_of_each_layer_is_a_tenth_of_its_mean_eigenvalue(
    inverse, model, train_set, damped, keras_model, data
):
    diagonal = np.diag(damped - naive_gauss_newton(keras_model, data[0]))
    np.testing.assert_allclose(inverse.ekfac.added, diagonal, rtol=1e-4)
    np.testing.assert_allclose(inverse.damping, diagonal.mean(), rtol=1e-4)
    ekfac = EkfacIHVP(model, train_set, weights="all", damping=LayerwiseDamping(0.1), num_samples=None)
    product = ekfac.solve(ekfac.hessian.to_dense()).value
    np.testing.assert_allclose(product, np.eye(ekfac.size), atol=1e-3)


def test_a_dead_layer_has_a_little_damping_too(data, train_set):
    keras.utils.set_random_seed(0)
    dead = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, bias_initializer=keras.initializers.Constant(-100.0)),
            layers.ReLU(),
            layers.Dense(3),
        ]
    )
    ekfac = EkfacIHVP(dead, train_set, weights="all", damping=LayerwiseDamping(0.1), num_samples=None)
    np.testing.assert_allclose(ekfac.added[0], 1e-3 * ekfac.damping, rtol=1e-5)


def test_every_query_has_its_residual_and_steps(inverse, model, train_set, data):
    calculator = FirstOrderInfluenceCalculator(model, train_set, inverse, target="label")
    queries = tf.data.Dataset.from_tensor_slices(data).batch(3).take(2)
    found = list(calculator.solve_queries(queries))
    assert [len(one.row_iterations) for one in found] == [3, 3]
    for one in found:
        assert np.all(one.relative_residual <= 1e-5) and np.all(one.row_iterations > 0)
    values = np.concatenate(list(calculator.estimate_influence_values_in_batches(queries)))
    vectors = np.concatenate([block for (block, *_) in [one[:1] for one in found]])
    gradients = inverse.gradients(*data)
    dense = np.hstack([np.einsum("nc,nd->ncd", *block).reshape(41, -1) for block in gradients])
    np.testing.assert_allclose(values, vectors @ dense.T / 41, rtol=1e-3, atol=1e-3 * np.abs(values).max())


def test_its_name_stands_for_all_layers(model, train_set):
    made = NamedMethod("ekfac-cg")(model, train_set)
    assert type(made.ihvp) is EkfacConjugateGradientIHVP and made.ihvp.weights == "all"
