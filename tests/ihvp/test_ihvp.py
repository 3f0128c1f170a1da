"""Inverse Hessians: all algorithms against each other, and what they refuse."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    ConvergenceWarning,
    ExactIHVP,
    IdentityIHVP,
    LissaIHVP,
    RelativeDamping,
)


@pytest.fixture(scope="module")
def gradients(model, data):
    return ExactIHVP(model, tf.data.Dataset.from_tensor_slices(data).batch(7)).gradients(
        data[0][:6], data[1][:6]
    )


ALGORITHMS = {
    "exact": ExactIHVP,
    "conjugate gradients": ConjugateGradientDescentIHVP,
    "LiSSA": lambda *arguments, **settings: LissaIHVP(*arguments, tolerance=1e-4, **settings),
}


@pytest.fixture(params=ALGORITHMS.values(), ids=ALGORITHMS)
def algorithm(request):
    return request.param


def naive_inverse(keras_model, data, damping):
    """The closed form, example by example, in float64."""
    features = keras_model.get_layer("hidden")(data[0]).numpy().astype(np.float64)
    features = np.hstack([features, np.ones((len(features), 1))])
    logits = keras_model(data[0]).numpy().astype(np.float64)
    hessian = 0
    for phi, z in zip(features, logits, strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        hessian = hessian + np.kron(np.diag(p) - np.outer(p, p), np.outer(phi, phi)) / len(features)
    return np.linalg.inv(hessian + damping * np.eye(len(hessian))), hessian


def cosines(first, second):
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return np.sum(first * second, axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def test_every_algorithm_agrees_with_the_naive_inverse(
    algorithm, model, keras_model, data, train_set, gradients
):
    ((left, right),) = gradients
    dense = np.einsum("nc,nd->ncd", left, right).reshape(6, -1)
    inverse, _ = naive_inverse(keras_model, data, 0.02)
    solution = algorithm(model, train_set, damping=0.02).solve(gradients)
    np.testing.assert_allclose(
        solution.value, dense @ inverse, rtol=1e-3, atol=1e-3 * np.abs(dense @ inverse).max()
    )
    assert np.all(solution.converged)


def test_every_algorithm_agrees_in_chosen_layers(algorithm, model, train_set, data):
    settings = {"weights": ["hidden"], "curvature": "gauss-newton", "damping": 0.02}
    expected = ExactIHVP(model, train_set, **settings)
    rows = expected.gradients(data[0][:2], data[1][:2])
    found = algorithm(model, train_set, **settings).solve(rows).value
    assert cosines(found, expected.solve(rows).value).min() > 0.999


def test_stochastic_lissa_is_near(model, train_set, gradients):
    exact = ExactIHVP(model, train_set).solve(gradients).value
    lissa = LissaIHVP(model, train_set, batch_size=16, max_iterations=2000, tolerance=0.5)
    assert cosines(lissa.solve(gradients).value, exact).min() > 0.99


def test_stochastic_lissa_is_the_same_whatever_the_batch_of_rows(model, train_set, gradients):
    lissa = LissaIHVP(model, train_set, batch_size=16, max_iterations=50, tolerance=10.0)
    rows = lissa.solve(gradients).value
    np.testing.assert_allclose(lissa.solve(rows[:2]).value, lissa.solve(rows).value[:2], rtol=1e-5)


def test_lissa_with_too_small_a_scale_is_refused_with_numbers(model, train_set, gradients):
    with pytest.raises(ValueError, match=r"diverges.*scale=0\.01"):
        LissaIHVP(model, train_set, scale=0.01).solve(gradients)


def test_the_default_damping_is_a_tenth_of_the_mean_eigenvalue(
    algorithm, model, keras_model, data, train_set
):
    _, hessian = naive_inverse(keras_model, data, 0.0)
    inverse = algorithm(model, train_set)
    np.testing.assert_allclose(inverse.damping, 0.1 * np.trace(hessian) / len(hessian), rtol=1e-5)


def test_the_default_damping_of_other_weights_is_three_mean_eigenvalues(algorithm, model, train_set):
    found = [
        algorithm(model, train_set, weights="all", curvature="gauss-newton", **one)
        for one in ({}, {"damping": RelativeDamping(1.0)})
    ]
    np.testing.assert_allclose(found[0].damping, 3 * found[1].damping, rtol=1e-5)
    assert (
        algorithm(model, train_set, weights="all", curvature="gauss-newton", regularisation=0.1).damping == 0
    )


def test_relative_damping_scales_with_its_factor(model, train_set):
    half, tenth = (
        ExactIHVP(model, train_set, damping=RelativeDamping(factor)).damping for factor in (0.5, 0.1)
    )
    np.testing.assert_allclose(half, 5 * tenth)


def test_a_regularisation_is_part_of_the_hessian_and_replaces_the_default_damping(
    algorithm, model, train_set, gradients
):
    regularised = algorithm(model, train_set, regularisation=0.02)
    assert regularised.damping == 0
    np.testing.assert_allclose(
        regularised.solve(gradients).value,
        ExactIHVP(model, train_set, damping=0.02).solve(gradients).value,
        rtol=1e-2,
        atol=1e-3,
        err_msg="LiSSA to its tolerance",
    )


def test_a_singular_hessian_is_refused_with_its_smallest_eigenvalue(model, train_set):
    with pytest.raises(ValueError, match=r"not positive definite after damping.*smallest eigenvalue="):
        ExactIHVP(model, train_set, damping=0.0)


def test_a_tiny_gradient_is_solved_like_any_other(algorithm, model, train_set, gradients):
    ((left, right),) = gradients
    inverse = algorithm(model, train_set)
    tiny = inverse.solve((type(gradients[0])(1e-7 * left, right),)).value
    np.testing.assert_allclose(1e7 * tiny.numpy(), inverse.solve(gradients).value, rtol=1e-3, atol=1e-5)


def test_a_zero_gradient_stays_zero(algorithm, model, train_set):
    solution = algorithm(model, train_set).solve(tf.zeros((2, 18)))
    np.testing.assert_array_equal(solution.value, np.zeros((2, 18)))
    assert np.all(solution.converged)


def test_batches_of_the_training_set_change_nothing(algorithm, model, data, train_set, gradients):
    others = tf.data.Dataset.from_tensor_slices(data).batch(41).filter(lambda *_: True)
    np.testing.assert_allclose(
        algorithm(model, others).solve(gradients).value,
        algorithm(model, train_set).solve(gradients).value,
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_shortfall_is_told_once_with_numbers(model, train_set, gradients):
    inverse = ConjugateGradientDescentIHVP(model, train_set, max_iterations=2)
    with pytest.warns(ConvergenceWarning, match=r"6 of 6 rows after 2 iterations"):
        inverse.solve(gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.any(inverse.solve(gradients).converged)


def test_an_inverse_is_a_preconditioner(model, train_set, gradients):
    exact = ExactIHVP(model, train_set)
    plain = ConjugateGradientDescentIHVP(model, train_set).solve(gradients)
    helped = ConjugateGradientDescentIHVP(model, train_set, preconditioner=exact).solve(gradients)
    assert helped.num_iterations <= 2 < plain.num_iterations


def test_a_last_layer_that_is_too_large_to_be_formed_is_solved_by_products(
    model, train_set, gradients, monkeypatch
):
    formed = ConjugateGradientDescentIHVP(model, train_set).solve(gradients).value
    monkeypatch.setattr("deel_dualview.ihvp.base.DENSE_LIMIT", 1)
    np.testing.assert_allclose(
        ConjugateGradientDescentIHVP(model, train_set).solve(gradients).value, formed, rtol=1e-3, atol=1e-4
    )


def test_an_exact_inverse_of_too_many_weights_is_refused(model, train_set, monkeypatch):
    monkeypatch.setattr("deel_dualview.ihvp.exact.SIZE_LIMIT", 10)
    with pytest.raises(ValueError, match="EkfacIHVP"):
        ExactIHVP(model, train_set)


def test_the_inverse_times_the_hessian_is_the_identity(model, train_set):
    exact = ExactIHVP(model, train_set)
    np.testing.assert_allclose(exact.inverse @ exact.hessian.to_dense(), np.eye(18), atol=1e-8)


def test_the_identity_leaves_rows_alone(model, train_set, gradients):
    ((left, right),) = gradients
    expected = np.einsum("nc,nd->ncd", left, right).reshape(6, -1)
    np.testing.assert_allclose(IdentityIHVP(model, train_set).solve(gradients).value, expected, rtol=1e-6)


def test_an_inverse_is_a_linear_operator(algorithm, model, train_set, rng):
    rows = tf.constant(rng.normal(size=(2, 18)), tf.float32)
    inverse = algorithm(model, train_set)
    np.testing.assert_allclose(
        inverse.matmul(rows[:1] + rows[1:]),
        inverse.matmul(rows[:1]) + inverse.matmul(rows[1:]),
        rtol=1e-2,
        atol=1e-2,
    )


BAD_SETTINGS = [
    ({"damping": -1.0}, ValueError, "damping"),
    ({"damping": RelativeDamping(0.0)}, ValueError, "factor"),
    ({"regularisation": float("nan")}, ValueError, "regularisation"),
    ({"curvature": "fisher"}, ValueError, "curvature"),
    ({"weights": ["nothing"]}, ValueError, "nothing"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(settings, error, message, algorithm, model, train_set):
    with pytest.raises(error, match=message):
        algorithm(model, train_set, **settings).size  # noqa: B018


def test_rows_that_are_not_finite_or_too_short_are_refused(model, train_set):
    exact = ExactIHVP(model, train_set)
    with pytest.raises(ValueError, match=r"rows=\[1\]"):
        exact.solve(tf.constant([[0.0] * 18, [float("nan")] * 18]))
    with pytest.raises(ValueError, match="18 parameters"):
        exact.solve(tf.zeros((1, 17)))


def test_a_shuffled_training_set_is_refused(algorithm, model, data):
    shuffled = tf.data.Dataset.from_tensor_slices(data).shuffle(41).batch(41)
    with pytest.raises(ValueError, match="reshuffle_each_iteration=False"):
        algorithm(model, shuffled)
