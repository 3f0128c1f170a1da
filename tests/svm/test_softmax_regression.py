"""The penalised last layer: stationary, and the same as a plain optimiser finds."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from deel_dualview import ConvergenceWarning
from deel_dualview.svm.penalised_layer import fit_softmax_regression


def random_problem(rng, num_classes=3, scale=1.0):
    labels = rng.integers(0, num_classes, 50)
    features = (scale * (rng.normal(size=(50, 6)) + np.eye(6)[labels])).astype(np.float32)
    return features, np.eye(num_classes)[labels]


def objective(weights, features, targets, penalty):
    """The objective written out, float64."""
    logits = features.astype(np.float64) @ weights
    losses = scipy.special.logsumexp(logits, axis=1) - (targets * logits).sum(axis=1)
    return losses.mean() + penalty * (weights**2).sum()


def gradient_by_hand(weights, features, targets, penalty):
    probabilities = scipy.special.softmax(features.astype(np.float64) @ weights, axis=1)
    return features.T.astype(np.float64) @ (probabilities - targets) / len(features) + 2 * penalty * weights


@pytest.mark.parametrize("penalty", [1e-4, 0.003, 1.0])
def test_the_layer_is_the_one_that_a_plain_optimiser_finds(penalty, rng):
    features, targets = random_problem(rng)
    found = fit_softmax_regression(features, targets, penalty=penalty)

    def value_and_gradient(flat):
        weights = flat.reshape(6, 3)
        return (
            objective(weights, features, targets, penalty),
            gradient_by_hand(weights, features, targets, penalty).ravel(),
        )

    settings = {"gtol": 1e-12, "ftol": 1e-16, "maxiter": 10_000, "maxfun": 100_000}
    twin = scipy.optimize.minimize(
        value_and_gradient, np.zeros(18), jac=True, method="L-BFGS-B", options=settings
    )
    np.testing.assert_allclose(found.weights, twin.x.reshape(6, 3), atol=1e-4 * np.abs(twin.x).max())
    assert found.objective <= twin.fun + 1e-12


@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
def test_the_reported_gradient_norm_is_that_of_the_penalised_objective(scale, rng):
    features, targets = random_problem(rng, scale=scale)
    found = fit_softmax_regression(features, targets, penalty=0.003)
    gradient = np.linalg.norm(gradient_by_hand(found.weights, features, targets, 0.003))
    assert found.converged and found.relative_residual <= 1e-7
    assert gradient <= found.gradient_norm + 1e-12 * scale


@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
def test_the_weights_are_the_coefficients_times_the_features(scale, rng):
    features, targets = random_problem(rng, scale=scale)
    found = fit_softmax_regression(features, targets, penalty=0.003)
    # Coefficients are kept in float32, which counts where large terms cancel.
    rounding = 1e-6 * (np.abs(features.T) @ np.abs(found.coefficients)).max()
    sums = features.T.astype(np.float64) @ found.coefficients
    np.testing.assert_allclose(sums, found.weights, atol=rounding)


def test_a_larger_penalty_makes_smaller_weights(rng):
    features, targets = random_problem(rng)
    norms = [
        np.linalg.norm(fit_softmax_regression(features, targets, penalty=penalty).weights)
        for penalty in (0.1, 0.01, 0.001)
    ]
    assert norms[0] < norms[1] < norms[2]


def test_one_output_is_logistic_regression_with_half_of_the_penalty_of_two(rng):
    features, targets = random_problem(rng, num_classes=2)
    one = fit_softmax_regression(features, targets[:, 1:], penalty=0.01).weights[:, 0]
    two = fit_softmax_regression(features, targets, penalty=0.02).weights
    np.testing.assert_allclose(two[:, 1] - two[:, 0], one, atol=1e-6)


def test_soft_targets_that_a_layer_can_reach_are_reached(rng):
    features, _ = random_problem(rng)
    weights = rng.normal(size=(6, 3))
    targets = scipy.special.softmax(features @ weights, axis=1)
    found = fit_softmax_regression(features, targets, penalty=1e-7).weights
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True), weights - weights.mean(axis=1, keepdims=True), atol=1e-3
    )


def test_features_that_are_zero_give_zero_weights(rng):
    targets = random_problem(rng)[1]
    found = fit_softmax_regression(np.zeros((50, 4), np.float32), targets, penalty=0.01)
    assert found.converged and not found.weights.any()


def test_balanced_opposites_give_zero_weights():
    features = np.array([[1, 2], [1, 2], [-3, 1], [-3, 1]], np.float32)
    found = fit_softmax_regression(features, np.eye(2)[[0, 1, 0, 1]], penalty=0.01)
    assert found.converged
    np.testing.assert_allclose(found.weights, 0, atol=1e-12)


def test_more_rows_than_a_block_change_nothing(rng):
    features, targets = random_problem(rng)
    once = fit_softmax_regression(features, targets, penalty=0.01)
    often = fit_softmax_regression(np.tile(features, (200, 1)), np.tile(targets, (200, 1)), penalty=0.01)
    np.testing.assert_allclose(often.weights, once.weights, atol=1e-6)


def test_stopping_early_is_told_with_numbers(rng):
    features, targets = random_problem(rng)
    with pytest.warns(ConvergenceWarning, match="gradient_norm=.*num_iterations=1"):
        found = fit_softmax_regression(features, targets, penalty=1e-4, max_iterations=1)
    assert not found.converged


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_a_penalty_must_be_positive(penalty, rng):
    with pytest.raises(ValueError, match="penalty"):
        fit_softmax_regression(*random_problem(rng), penalty=penalty)
