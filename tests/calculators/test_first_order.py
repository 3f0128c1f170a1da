"""Influence functions against naive twins and leave-one-out retraining; groups; saturated examples."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    IdentityIHVP,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
)

REGULARISATION = 0.05


def trained(inputs, labels, present, start):
    """Minimise the loss of the examples present (each of weight 1 / n) and its penalty by Newton's method."""
    flat, inputs = start, inputs.astype(np.float64)
    for _ in range(50):
        logits = inputs @ flat.reshape(3, -1).T
        p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        errors = present[:, np.newaxis] * (p - np.eye(3)[labels])
        gradient = (errors.T @ inputs).ravel() / len(labels) + REGULARISATION * flat
        if np.linalg.norm(gradient) < 1e-12:
            return flat
        curvatures = np.einsum("n,na,ab->nab", present, p, np.eye(3)) - np.einsum(
            "n,na,nb->nab", present, p, p
        )
        hessian = np.einsum("nab,ni,nj->aibj", curvatures, inputs, inputs).reshape(12, 12) / len(labels)
        step = np.linalg.solve(hessian + REGULARISATION * np.eye(12), gradient)
        flat = flat - step * min(1, 2 / np.linalg.norm(step))
    raise RuntimeError(np.linalg.norm(gradient))


def losses(flat, inputs, labels):
    logits = inputs @ flat.reshape(3, -1).T
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]


class Convex:
    """A softmax regression at the optimum of its regularised objective, and what removals change."""

    def __init__(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 120)
        inputs = rng.normal(size=(120, 4)) + 1.5 * np.eye(4)[labels]
        inputs[:4] *= 4
        self.inputs, self.labels = inputs[:90].astype(np.float32), labels[:90]
        self.test_inputs, self.test_labels = inputs[90:].astype(np.float32), labels[90:]
        self.weights = trained(self.inputs, self.labels, np.ones(90), np.zeros(12))
        layer = layers.Dense(3, use_bias=False)
        self.model = InfluenceModel(keras.Sequential([keras.Input((4,)), layer]))
        layer.set_weights([self.weights.reshape(3, 4).T])
        self.train = tf.data.Dataset.from_tensor_slices((self.inputs, self.labels)).batch(32)
        self.test = tf.data.Dataset.from_tensor_slices((self.test_inputs, self.test_labels)).batch(7)
        self.ihvp = ExactIHVP(self.model, self.train, regularisation=REGULARISATION)

    def changes(self, removed):
        """Return the changes of the test losses when examples are left out."""
        present = np.ones(90)
        present[removed] = 0
        without = trained(self.inputs, self.labels, present, self.weights)
        before = losses(self.weights, self.test_inputs, self.test_labels)
        return losses(without, self.test_inputs, self.test_labels) - before

    def with_fitted_example(self, index):
        """Return the training set with an example whose label has probability 1 in float32."""
        inputs, labels = self.inputs.copy(), self.labels.copy()
        inputs[index] *= 1e5
        labels[index] = np.argmax(inputs[index] @ self.weights.reshape(3, 4).T)
        return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(32)

    def group(self, indices, batch_size=4):
        return tf.data.Dataset.from_tensor_slices((self.inputs[indices], self.labels[indices])).batch(
            batch_size
        )


@pytest.fixture(scope="session")
def convex():
    return Convex()


@pytest.fixture(scope="session")
def first_order(convex):
    return FirstOrderInfluenceCalculator(convex.model, convex.train, convex.ihvp, target="label")


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def group_values(calculator, convex, indices):
    return np.concatenate(
        list(calculator.estimate_influence_values_group(convex.test, convex.group(indices)))
    )


def test_values_are_the_papers_formula(convex, first_order):
    logits = convex.inputs @ convex.weights.reshape(3, 4).T
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    hessian = np.mean(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, convex.inputs, strict=True)],
        axis=0,
    ) + REGULARISATION * np.eye(12)
    train = np.einsum("nc,nd->ncd", p - np.eye(3)[convex.labels], convex.inputs).reshape(90, 12)
    logits = convex.test_inputs @ convex.weights.reshape(3, 4).T
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    test = np.einsum("nc,nd->ncd", p - np.eye(3)[convex.test_labels], convex.test_inputs).reshape(30, 12)
    expected = test @ np.linalg.solve(hessian, train.T) / 90
    np.testing.assert_allclose(all_values(first_order, convex.test), expected, rtol=1e-3, atol=1e-6)


def test_a_value_is_the_change_of_the_loss_when_the_example_is_removed(convex, first_order):
    removed = np.arange(20, 45)
    actual = np.stack([convex.changes(index) for index in removed], axis=1)
    predicted = all_values(first_order, convex.test)[:, removed]
    slope = np.polyfit(predicted.ravel(), actual.ravel(), 1)[0]
    assert abs(slope - 1) < 0.1
    assert np.corrcoef(predicted.ravel(), actual.ravel())[0, 1] > 0.99


def test_the_first_order_underestimates_high_leverage_and_the_corrected_variant_does_not(convex, first_order):
    corrected = LeverageCorrectedInfluenceCalculator(convex.model, convex.train, convex.ihvp, target="label")
    leverages = np.concatenate([corrected.leverages(element) for element in convex.train])
    removed = np.argsort(-leverages)[:10]
    actual = np.stack([convex.changes(index) for index in removed], axis=1)
    first, second = (all_values(c, convex.test)[:, removed] for c in (first_order, corrected))
    errors = [np.linalg.norm(actual - values) / np.linalg.norm(actual) for values in (first, second)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


def test_a_group_is_the_sum_of_its_examples(convex, first_order):
    expected = all_values(first_order, convex.test)[:, 20:31].sum(axis=1)
    np.testing.assert_allclose(
        group_values(first_order, convex, range(20, 31)), expected, rtol=1e-4, atol=1e-6
    )


def test_the_vector_of_a_group_is_the_sum_of_vectors(convex, first_order):
    (vector,) = first_order.compute_influence_vector_group(convex.group(range(32)))
    ((left, right),) = next(iter(first_order.compute_influence_vector()))
    expected = np.einsum("nc,nd->cd", left[:32], right[:32]).reshape(1, 12)
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_group_of_unknown_size_counts_every_example(convex, first_order):
    group = convex.group(range(20, 31)).filter(lambda *_: True)
    (values,) = first_order.estimate_influence_values_group(convex.test.take(1), group)
    np.testing.assert_allclose(values, group_values(first_order, convex, range(20, 31))[:7], rtol=1e-5)


BAD_GROUPS = {
    "empty": (lambda group: group.take(0), "empty"),
    "empty, of unknown size": (lambda group: group.filter(lambda *_: False), "at least one example"),
    "endless": (lambda group: group.repeat(), "must end"),
    "unlabelled": (lambda group: group.map(lambda x, y: x), "labels"),
    "unbatched": (lambda group: group.unbatch(), "batch"),
    "repeated": (lambda group: group.concatenate(group), "num_repeated=3"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_a_bad_group_gets_a_clear_error(spoil, message, convex, first_order):
    with pytest.raises(ValueError, match=message):
        list(first_order.estimate_influence_values_group(convex.test, spoil(convex.group([1, 2, 3]))))


def test_a_group_that_never_ends_is_refused_once_it_is_larger_than_the_training_set(convex, first_order):
    members = convex.group([1, 2, 3])
    group = tf.data.Dataset.from_generator(
        lambda: itertools.cycle(members), output_signature=members.element_spec
    )
    with pytest.raises(ValueError, match="more examples than the training set"):
        first_order.compute_influence_vector_group(group)


def test_examples_of_a_group_that_are_not_in_the_training_set_are_named(convex, first_order):
    group = tf.data.Dataset.from_tensor_slices(
        (
            np.concatenate([convex.inputs[:3], convex.test_inputs[:2]]),
            np.concatenate([convex.labels[:3], convex.test_labels[:2]]),
        )
    ).batch(9)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        first_order.compute_influence_vector_group(group)


def test_algorithms_for_the_inverse_give_the_same_values(convex, first_order):
    ihvp = ConjugateGradientDescentIHVP(convex.model, convex.train, regularisation=REGULARISATION)
    other = FirstOrderInfluenceCalculator(convex.model, convex.train, ihvp, target="label")
    np.testing.assert_allclose(
        all_values(other, convex.test), all_values(first_order, convex.test), rtol=1e-3, atol=1e-6
    )


def test_the_identity_gives_gradient_products_over_n(convex):
    calculator = FirstOrderInfluenceCalculator(
        convex.model, convex.train, IdentityIHVP(convex.model, convex.train)
    )
    (values,) = calculator.estimate_influence_values_in_batches(convex.test.take(1))
    ((left, right),) = calculator.ihvp.gradients(
        convex.test_inputs[:7], tf.argmax(convex.model.logits(convex.test_inputs[:7]), axis=1)
    )
    ((train_left, train_right),) = calculator.ihvp.gradients(convex.inputs, convex.labels)
    expected = (left @ tf.transpose(train_left)) * (right @ tf.transpose(train_right)) / 90
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_an_example_fitted_exactly_has_no_influence_and_spoils_nothing(convex):
    values = all_values(
        FirstOrderInfluenceCalculator(convex.model, convex.with_fitted_example(5)), convex.test
    )
    np.testing.assert_array_equal(values[:, 5], np.zeros(30))
    assert np.isfinite(values).all()


def test_self_influence_is_never_negative(first_order):
    assert np.concatenate(list(first_order.compute_influence_values())).min() >= 0


def test_an_inverse_in_other_layers_gives_the_exact_values(rng):
    keras.utils.set_random_seed(0)
    labels = rng.integers(0, 3, 20)
    inputs = (rng.normal(size=(20, 4)) + np.eye(4)[labels]).astype(np.float32)
    model = InfluenceModel(
        keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="hidden"), layers.Dense(3)])
    )
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(10)
    settings = {"weights": ["hidden"], "curvature": "gauss-newton", "damping": 0.05}
    exact, other = (
        all_values(FirstOrderInfluenceCalculator(model, train, kind(model, train, **settings)), train)
        for kind in (ExactIHVP, ConjugateGradientDescentIHVP)
    )
    np.testing.assert_allclose(other, exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())


def test_a_gradient_that_is_not_finite_is_named(convex):
    calculator = FirstOrderInfluenceCalculator(
        convex.model, convex.train, IdentityIHVP(convex.model, convex.train)
    )
    inputs = convex.inputs.copy()
    inputs[41] = np.nan
    spoilt = tf.data.Dataset.from_tensor_slices((inputs, convex.labels)).batch(32)
    with pytest.raises(ValueError, match=r"\[41\]"):
        FirstOrderInfluenceCalculator(convex.model, spoilt, IdentityIHVP(convex.model, spoilt))
    with pytest.raises(ValueError, match=r"\[9\]"):
        list(calculator.estimate_influence_values_group(spoilt.skip(1), convex.group([1])))


def test_a_hessian_that_is_not_positive_definite_is_refused_with_its_smallest_eigenvalue(convex):
    with pytest.raises(ValueError, match=r"smallest eigenvalue=-?\d"):
        FirstOrderInfluenceCalculator(
            convex.model, convex.train, ExactIHVP(convex.model, convex.train, damping=0.0)
        )


def test_the_inverse_of_another_model_is_refused(convex):
    other = InfluenceModel(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    with pytest.raises(ValueError, match="built with the model"):
        FirstOrderInfluenceCalculator(convex.model, convex.train, ExactIHVP(other, convex.train))


def test_the_inverse_of_fewer_examples_is_told_of(convex):
    ihvp = ExactIHVP(convex.model, convex.group(range(30)), damping=0.1)
    with pytest.warns(UserWarning, match="of 30 other examples"):
        FirstOrderInfluenceCalculator(convex.model, convex.train, ihvp)


def test_equal_training_examples_may_all_be_in_a_group(convex):
    twice = convex.group([1, 2, 1])
    calculator = FirstOrderInfluenceCalculator(
        convex.model, twice, ExactIHVP(convex.model, twice, damping=0.1)
    )
    assert calculator.compute_influence_vector_group(twice)[0].shape == (1, 12)


def test_something_else_than_an_inverse_is_refused(convex):
    with pytest.raises(TypeError, match="ExactIHVP"):
        FirstOrderInfluenceCalculator(convex.model, convex.train, np.eye(12))
