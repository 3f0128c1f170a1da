"""Leverage-corrected influence: one Newton step without the example, against naive twins."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_first_order import REGULARISATION, all_values, convex, first_order, losses

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
)
from deel_dualview.calculators.leverage import _changes_of_cross_entropy

__all__ = ["convex", "first_order"]


@pytest.fixture(scope="session")
def corrected(convex):
    return LeverageCorrectedInfluenceCalculator(convex.model, convex.train, convex.ihvp, target="label")


def parts(convex):
    logits = convex.inputs @ convex.weights.reshape(3, 4).T
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    gradients = np.einsum("nc,nd->ncd", p - np.eye(3)[convex.labels], convex.inputs).reshape(90, 12)
    hessians = [
        np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, convex.inputs, strict=True)
    ]
    return gradients, np.stack(hessians) / 90


def test_values_are_losses_after_a_newton_step_without_the_example(convex, corrected):
    gradients, hessians = parts(convex)
    full = hessians.sum(axis=0) + REGULARISATION * np.eye(12)
    before = losses(convex.weights, convex.test_inputs, convex.test_labels)
    values = all_values(corrected, convex.test)
    for index in (0, 3, 40, 89):
        step = np.linalg.solve(full - hessians[index], gradients[index] / 90)
        expected = losses(convex.weights + step, convex.test_inputs, convex.test_labels) - before
        np.testing.assert_allclose(values[:, index], expected, rtol=1e-3, atol=1e-5)


def test_leverages_are_traces(convex, corrected):
    _, hessians = parts(convex)
    inverse = np.linalg.inv(hessians.sum(axis=0) + REGULARISATION * np.eye(12))
    expected = np.einsum("nij,ji->n", hessians, inverse)
    found = np.concatenate([corrected.leverages(element) for element in convex.train])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_without_leverage_it_is_the_first_order(convex, first_order, corrected):
    leverages = np.concatenate([corrected.leverages(element) for element in convex.train])
    low = np.argsort(leverages)[:20]
    first, newton = (all_values(calculator, convex.test)[:, low] for calculator in (first_order, corrected))
    assert np.linalg.norm(first - newton) < 0.05 * np.linalg.norm(first)


def test_tiny_changes_of_the_loss_keep_their_digits(convex):
    few = np.repeat(convex.inputs[40:41] * 1e-4, 3, axis=0), np.array([0, 1, 2])
    train = tf.data.Dataset.from_tensor_slices(few).batch(2)
    ihvp = ExactIHVP(convex.model, train, damping=1.0)
    values = all_values(LeverageCorrectedInfluenceCalculator(convex.model, train, ihvp), train)
    assert np.all(values != 0)


def test_a_huge_change_of_the_loss_is_a_number():
    outputs = np.array([[0.0, 300.0, -5.0], [300.0, 0.0, 0.0], [0.02, 0.01, -0.04], [3.0, 2.0, 1.0]])
    p = np.array([[0.5, 0.25, 0.25]] * 4)
    found = _changes_of_cross_entropy(
        *(tf.constant(part, tf.float32) for part in (outputs, p, np.eye(3)[[0] * 4]))
    )
    expected = np.log(np.sum(p * np.exp(outputs - outputs[:, :1]), axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_with_one_output_agrees_with_its_two_logits(rng):
    inputs, labels = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 2, 20)
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(6)
    one, two = (keras.Sequential([keras.Input((3,)), layers.Dense(units)]) for units in (1, 2))
    kernel, bias = one.get_weights()
    two.set_weights([np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2])
    values = []
    # One weight of the single output moves two of the pair, each by half: their squared norms differ by two.
    for model, damping in ((one, 0.1), (two, 0.2)):
        split = InfluenceModel(model)
        ihvp = ExactIHVP(split, train, damping=damping)
        values.append(all_values(LeverageCorrectedInfluenceCalculator(split, train, ihvp), train))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3, atol=1e-6)


def test_many_queries_are_computed_in_pieces(convex, corrected, monkeypatch):
    whole = all_values(corrected, convex.test)
    monkeypatch.setattr("deel_dualview.calculators.leverage._NUMBERS_AT_ONCE", 300)
    np.testing.assert_allclose(all_values(corrected, convex.test), whole, rtol=1e-4, atol=1e-7)


def test_an_inverse_that_is_not_exact_is_refused(convex):
    ihvp = ConjugateGradientDescentIHVP(convex.model, convex.train)
    with pytest.raises(ValueError, match="needs ExactIHVP"):
        LeverageCorrectedInfluenceCalculator(convex.model, convex.train, ihvp)
