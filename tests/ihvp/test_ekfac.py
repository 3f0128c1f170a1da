"""EK-FAC as an inverse: where it is exact, near the exact inverse elsewhere, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import ConjugateGradientDescentIHVP, EkfacIHVP, ExactIHVP, InfluenceModel, RelativeDamping


def batched(inputs, labels, size=5):
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(size)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 41)
    return (rng.normal(size=(41, 4)) + np.eye(4)[labels]).astype(np.float32), labels


def classifier(data, epochs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="tanh", name="hidden"), layers.Dense(3, name="head")]
    )
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    if epochs:
        model.fit(*data, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def model(data):
    return InfluenceModel(classifier(data, 5))


@pytest.fixture(scope="module")
def train_set(data):
    return batched(*data, size=7)


def cosines(first, second):
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return np.sum(first * second, axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def test_one_example_has_a_kronecker_product_as_curvature_and_ekfac_is_exact(model, data):
    one = batched(data[0][:1], data[1][:1])
    exact = ExactIHVP(model, one, damping=0.01)
    rows = exact.gradients(data[0][:6], data[1][:6])
    ekfac = EkfacIHVP(model, one, damping=0.01, num_samples=None)
    np.testing.assert_allclose(ekfac.solve(rows).value, exact.solve(rows).value, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def undecided(data):
    """Zero weights: the logits' curvature is the same for all inputs, as that of a squared error is."""
    keras_model = classifier(data, 0)
    keras_model.get_layer("head").kernel.assign(np.zeros((5, 3)))
    return InfluenceModel(keras_model)


def test_equal_predictions_make_it_linear_regression_and_ekfac_is_exact(undecided, data, train_set):
    exact = ExactIHVP(undecided, train_set, damping=0.01)
    ekfac = EkfacIHVP(undecided, train_set, damping=0.01, num_samples=None)
    rows = exact.gradients(*data)
    np.testing.assert_allclose(ekfac.solve(rows).value, exact.solve(rows).value, rtol=1e-3, atol=1e-3)


def test_where_it_is_exact_it_solves_conjugate_gradients_at_once(undecided, train_set, data):
    plain = ConjugateGradientDescentIHVP(undecided, train_set)
    ekfac = EkfacIHVP(undecided, train_set, damping=plain.damping, num_samples=None)
    helped = ConjugateGradientDescentIHVP(undecided, train_set, preconditioner=ekfac)
    rows = plain.gradients(*data)
    assert helped.solve(rows).num_iterations <= 2 < plain.solve(rows).num_iterations


@pytest.mark.parametrize("num_samples", [None, 1])
def test_it_is_near_the_exact_inverse_of_a_last_layer_with_equal_damping(num_samples, model, train_set, data):
    exact = ExactIHVP(model, train_set)
    rows = exact.gradients(*data)
    ekfac = EkfacIHVP(model, train_set, damping=exact.damping, num_samples=num_samples)
    found = cosines(ekfac.solve(rows).value, exact.solve(rows).value)
    assert np.median(found) >= 0.9


def test_it_is_near_the_exact_inverse_of_a_hidden_layer(model, train_set, data):
    exact = ExactIHVP(model, train_set, weights=["hidden"], curvature="gauss-newton")
    rows = exact.gradients(*data)
    ekfac = EkfacIHVP(model, train_set, weights=["hidden"], damping=exact.damping, num_samples=None)
    assert np.median(cosines(ekfac.solve(rows).value, exact.solve(rows).value)) >= 0.8


def test_eigenvalues_are_the_diagonal_of_the_exact_curvature_in_the_basis(model, train_set):
    exact = ExactIHVP(model, train_set, damping=1.0)._undamped.to_dense().numpy()
    ekfac = EkfacIHVP(model, train_set, num_samples=None).approximation
    (basis,), (eigenvalues,) = ekfac.bases, ekfac.eigenvalues
    vectors = np.kron(basis.left[0].numpy().T, basis.right[0].numpy().T)
    diagonal = np.einsum("ij,jk,ik->i", vectors, exact, vectors)
    np.testing.assert_allclose(eigenvalues[0].numpy().reshape(-1), diagonal, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("num_copies", "num_samples"), [(100, 1), (10, 10)])
def test_many_random_directions_give_the_exact_expectation(num_copies, num_samples, model, train_set, data):
    settings = {"weights": "all", "damping": 1.0}
    exact = EkfacIHVP(model, train_set, num_samples=None, **settings).approximation
    copies = batched(*data, size=41).repeat(num_copies)
    sampled = EkfacIHVP(model, copies, num_samples=num_samples, **settings).approximation
    np.testing.assert_allclose(sampled.trace(), exact.trace(), rtol=0.05, err_msg="random")
    difference = sampled.to_dense() - exact.to_dense()
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(exact.to_dense())


def test_the_size_of_batches_changes_no_value(model, data, monkeypatch):
    rows = tf.constant(np.random.default_rng(1).normal(size=(2, 43)), tf.float32)
    expected = EkfacIHVP(model, batched(*data, size=41), weights="all").solve(rows).value
    monkeypatch.setattr("deel_dualview.curvature.ekfac_passes._CHUNK", 4)
    unknown_size = batched(*data, size=7).filter(lambda *_: True)
    found = EkfacIHVP(model, unknown_size, weights="all").solve(rows).value
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("num_samples", [None, 5])
def test_the_directions_in_work_at_once_change_no_value(num_samples, model, train_set, monkeypatch):
    expected = EkfacIHVP(model, train_set, weights="all", num_samples=num_samples).approximation.to_dense()
    monkeypatch.setattr("deel_dualview.curvature.ekfac_passes._DIRECTIONS", 2)
    found = EkfacIHVP(model, train_set, weights="all", num_samples=num_samples).approximation.to_dense()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(model, train_set):
    first, again, other = (EkfacIHVP(model, train_set, seed=seed).approximation for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.to_dense(), again.to_dense())
    assert not np.array_equal(first.to_dense(), other.to_dense())


def test_the_inverse_times_the_hessian_is_the_identity(model, train_set):
    ekfac = EkfacIHVP(model, train_set, weights="all", damping=0.1)
    np.testing.assert_allclose(ekfac.matmul(ekfac.hessian.to_dense()), np.eye(43), atol=1e-4)


def test_relative_damping_refers_to_the_mean_eigenvalue(model, train_set):
    exact = ExactIHVP(model, train_set, damping=RelativeDamping(0.3))
    ekfac = EkfacIHVP(model, train_set, damping=RelativeDamping(0.3), num_samples=None)
    np.testing.assert_allclose(ekfac.damping, exact.damping, rtol=1e-4)


def test_a_regularisation_replaces_the_default_damping(model, train_set):
    rows = tf.ones((1, 18))
    regularised = EkfacIHVP(model, train_set, regularisation=0.02)
    damped = EkfacIHVP(model, train_set, damping=0.02)
    np.testing.assert_allclose(regularised.solve(rows).value, damped.solve(rows).value, rtol=1e-5)


@pytest.mark.parametrize(
    "part",
    [
        lambda inverse, rows: inverse.hessian.matmul(rows),
        lambda inverse, rows: inverse.solve_coordinates((rows,))[0],
        lambda inverse, rows: inverse.vector_norms((rows,)),
        lambda inverse, rows: inverse.solution_norms((rows,)),
    ],
    ids=["hessian", "solve_coordinates", "vector_norms", "solution_norms"],
)
def test_a_regularisation_counts_as_damping_everywhere(model, train_set, part):
    rows = tf.reshape(tf.range(18.0), (1, 18))
    regularised = EkfacIHVP(model, train_set, regularisation=0.02)
    damped = EkfacIHVP(model, train_set, damping=0.02)
    np.testing.assert_allclose(part(regularised, rows), part(damped, rows), rtol=1e-5)


def test_all_names_of_layers_and_weights_all_agree(model, train_set):
    settings = {"damping": 0.1}
    everything = EkfacIHVP(model, train_set, weights="all", **settings).hessian.to_dense()
    named = EkfacIHVP(model, train_set, weights=["hidden", "head"], **settings).hessian.to_dense()
    last = EkfacIHVP(model, train_set, **settings).hessian.to_dense()
    np.testing.assert_array_equal(everything, named)
    np.testing.assert_allclose(everything[25:, 25:], last, rtol=1e-5, atol=1e-7)


def test_a_singular_curvature_without_damping_is_refused(model, train_set):
    with pytest.raises(ValueError, match="singular and there is no damping"):
        EkfacIHVP(model, train_set, damping=0.0)


def test_examples_that_are_not_finite_are_named(model, data):
    inputs = data[0].copy()
    inputs[[3, 29]] = np.nan
    with pytest.raises(ValueError, match=r"\[3, 29\]"):
        EkfacIHVP(model, batched(inputs, data[1], size=41))


def test_layers_that_are_too_wide_are_refused_by_name(model, train_set, monkeypatch):
    monkeypatch.setattr("deel_dualview.ihvp.ekfac._LARGEST_FACTOR", 5)
    with pytest.raises(ValueError, match=r"layers=\['head'\]"):
        EkfacIHVP(model, train_set, weights="all")


BAD_SETTINGS = [
    ({"num_samples": 0}, ValueError, "num_samples"),
    ({"num_samples": 1.5}, TypeError, "num_samples"),
    ({"damping": -1.0}, ValueError, "damping"),
    ({"weights": ["nothing"]}, ValueError, "nothing"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(settings, error, message, model, train_set):
    with pytest.raises(error, match=message):
        EkfacIHVP(model, train_set, **settings)
