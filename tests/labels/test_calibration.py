"""Temperatures, biases and weights are those of the largest likelihood."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from deel_dualview.labels.calibration import best_temperature, calibrate, log_loss, mixture_weights


def sampled(rng, temperature, biases, num_examples=4000):
    scores = rng.normal(size=(num_examples, len(biases)))
    probabilities = softmax(scores / temperature + biases, axis=1)
    return scores, np.array([rng.choice(len(biases), p=row) for row in probabilities])


def test_the_best_temperature_is_the_best_of_a_fine_grid(rng):
    scores, labels = sampled(rng, 0.3, np.zeros(3), 500)
    grid = np.geomspace(0.01, 10, 500)
    losses = [-log_softmax(scores / t, axis=1)[np.arange(500), labels].mean() for t in grid]
    temperature, loss = best_temperature(scores, labels)
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=0.05)
    assert loss == pytest.approx(min(losses), abs=1e-3)


def test_log_loss_is_that_of_scikit_learn(rng):
    from sklearn import metrics

    scores, labels = sampled(rng, 1.0, np.zeros(4), 50)
    expected = metrics.log_loss(labels, softmax(scores, axis=1), labels=range(4))
    assert log_loss(scores, labels) == pytest.approx(expected)


def test_calibration_recovers_temperature_and_biases(rng):
    biases = np.array([0.8, -0.3, -0.5])
    scores, labels = sampled(rng, 0.5, biases)
    found = calibrate(scores, labels)
    assert found.temperature == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(found.biases - found.biases.mean(), biases, atol=0.15)


def test_calibrated_probabilities_are_a_softmax(rng):
    scores, labels = sampled(rng, 0.5, np.array([0.5, -0.5]), 200)
    found = calibrate(scores, labels)
    np.testing.assert_allclose(
        np.exp(found.log_probabilities(scores)), softmax(scores / found.temperature + found.biases, axis=1)
    )


def test_mixture_weights_cannot_be_bettered(rng):
    probabilities = rng.random((3, 200)) * np.array([[1.0], [0.7], [0.9]])
    weights = mixture_weights(probabilities)

    def objective(point):
        # A pseudo-count of one example for each head is a Dirichlet prior of parameters 2.
        return np.log(point @ probabilities).sum() + np.log(point).sum()

    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    for direction in rng.normal(size=(50, 3)):
        moved = weights * np.exp(0.05 * direction)
        assert objective(moved / moved.sum()) <= objective(weights) + 1e-4


def test_a_head_that_is_always_right_gets_most_of_the_weight(rng):
    probabilities = np.stack([np.full(300, 0.9), np.full(300, 0.3)])
    assert mixture_weights(probabilities)[0] > 0.95
