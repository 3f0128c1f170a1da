"""Second-order group influence: the paper's formula, the scale of the first order, retraining."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_first_order import REGULARISATION, all_values, convex, first_order, group_values

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    InfluenceModel,
    SecondOrderInfluenceCalculator,
)

__all__ = ["convex", "first_order"]


@pytest.fixture(scope="session")
def second_order(convex):
    return SecondOrderInfluenceCalculator(convex.model, convex.train, convex.ihvp, target="label")


def naive(convex, indices):
    """Basu et al. (2020), equation 7 with epsilon = -1, in float64."""

    def parts(inputs, labels):
        logits = inputs @ convex.weights.reshape(3, 4).T
        p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        gradients = np.einsum("nc,nd->ncd", p - np.eye(3)[labels], inputs).reshape(-1, 12)
        hessians = [
            np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, inputs, strict=True)
        ]
        return gradients, np.stack(hessians)

    gradients, hessians = parts(convex.inputs, convex.labels)
    inverse = np.linalg.inv(hessians.mean(axis=0) + REGULARISATION * np.eye(12))
    share = len(indices) / 90
    first = inverse @ gradients[indices].sum(axis=0) / 90 / (1 - share)
    second = share / (1 - share) * (np.eye(12) - inverse @ hessians[indices].mean(axis=0)) @ first
    return parts(convex.test_inputs, convex.test_labels)[0] @ (first - second)


@pytest.mark.parametrize("indices", [[3], list(range(30)), [0, 7, 50]], ids=["one", "a third", "three"])
def test_values_are_the_papers_formula(indices, convex, second_order):
    np.testing.assert_allclose(
        group_values(second_order, convex, indices), naive(convex, indices), rtol=1e-3, atol=1e-6
    )


def test_a_single_example_is_a_group_of_one(convex, second_order):
    values = all_values(second_order, convex.test)
    for index in (0, 3, 40):
        np.testing.assert_allclose(
            values[:, index], group_values(second_order, convex, [index]), rtol=1e-3, atol=1e-6
        )


def test_the_scale_is_that_of_the_first_order(convex, first_order, second_order):
    ratio = all_values(second_order, convex.test)[:, 40:] / all_values(first_order, convex.test)[:, 40:]
    np.testing.assert_allclose(np.median(ratio), 1, atol=0.1)


def test_large_groups_are_predicted_better_than_to_first_order(convex, first_order, second_order):
    rng = np.random.default_rng(0)
    errors = {"first": [], "second": []}
    for _ in range(4):
        group = rng.choice(np.arange(4, 90), 30, replace=False)
        actual = convex.changes(group)
        errors["first"].append(np.linalg.norm(group_values(first_order, convex, group) - actual))
        errors["second"].append(np.linalg.norm(group_values(second_order, convex, group) - actual))
    assert np.sum(errors["second"]) < 0.7 * np.sum(errors["first"])


def test_other_weights_have_a_second_order_too(rng):
    keras.utils.set_random_seed(0)
    labels = rng.integers(0, 3, 12)
    inputs = rng.normal(size=(12, 4)).astype(np.float32)
    model = InfluenceModel(keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")]))
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(5)
    last = SecondOrderInfluenceCalculator(model, train, ExactIHVP(model, train, damping=0.05))
    ihvp = ConjugateGradientDescentIHVP(model, train, weights=["head"], damping=0.05)
    named = SecondOrderInfluenceCalculator(model, train, ihvp)
    np.testing.assert_allclose(all_values(named, train), all_values(last, train), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        next(iter(named.estimate_influence_values_group(train, train.take(1)))),
        next(iter(last.estimate_influence_values_group(train, train.take(1)))),
        rtol=1e-3,
        atol=1e-5,
    )


def test_a_group_of_everything_is_refused(convex, second_order):
    with pytest.raises(ValueError, match="smaller than the training set"):
        group_values(second_order, convex, range(90))


def test_the_only_training_example_is_refused(convex):
    with pytest.raises(ValueError, match="at least two training examples"):
        SecondOrderInfluenceCalculator(
            convex.model, convex.group([3]), ExactIHVP(convex.model, convex.group([3]), damping=0.1)
        )


def test_the_inverse_of_another_training_set_is_refused(convex):
    ihvp = ExactIHVP(convex.model, convex.train.take(1))
    with pytest.warns(UserWarning, match="of 32 other examples"):
        calculator = SecondOrderInfluenceCalculator(convex.model, convex.train, ihvp)
    with pytest.raises(ValueError, match="of the training set itself"):
        all_values(calculator, convex.test)
