"""GradDot and GradCos: the formulas, in NumPy, on a model whose gradients are written out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import FactoredProjection, GaussianProjection, GradCos, GradDot, InfluenceModel

CLOSE = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture(scope="module")
def split(problem):
    return InfluenceModel(problem.model)


def values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def gradients_by_hand(model, inputs, classes, function="loss", layers_from=0):
    """Gradients of Dense(relu), Dense by the chain rule, float64."""
    (first, first_bias), (last, last_bias) = [
        [weight.numpy().astype(np.float64) for weight in layer.weights] for layer in model.layers
    ]
    hidden = np.maximum(inputs @ first + first_bias, 0)
    logits = hidden @ last + last_bias
    delta = np.eye(3)[classes]
    if function == "loss":
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta = shifted / shifted.sum(axis=1, keepdims=True) - delta
    inner = (delta @ last.T) * (hidden > 0)
    parts = [(inputs[:, :, None] * inner[:, None]), inner, hidden[:, :, None] * delta[:, None], delta]
    return np.concatenate([part.reshape(len(inputs), -1) for part in parts[layers_from:]], axis=1)


@pytest.mark.parametrize("function", ["loss", "logit"])
@pytest.mark.parametrize(("weights", "layers_from"), [("last", 2), ("all", 0)])
def test_values_are_inner_products_of_gradients(weights, layers_from, function, split, problem):
    calculator = GradDot(split, problem.train(), weights=weights, function=function, target="label")
    train = gradients_by_hand(
        problem.model, problem.train_inputs, problem.train_labels, function, layers_from
    )
    test = gradients_by_hand(problem.model, problem.test_inputs, problem.test_labels, function, layers_from)
    np.testing.assert_allclose(values(calculator, problem.test()), test @ train.T, **CLOSE)


def test_a_proponent_lowers_the_loss_of_the_evaluated_example(split, problem):
    """Sign and scale: a tiny step on one training example against the value."""
    calculator = GradDot(split, problem.train(), weights="all", target="label")
    predicted = values(calculator, problem.test())[:, 7]
    twin = keras.models.clone_model(problem.model)
    twin.set_weights(problem.model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    before = loss(problem.test_labels, twin(problem.test_inputs)).numpy()
    with tf.GradientTape() as tape:
        own = loss(problem.train_labels[7:8], twin(problem.train_inputs[7:8]))
    rate = 1e-3
    for weight, gradient in zip(
        twin.trainable_weights, tape.gradient(own, twin.trainable_weights), strict=True
    ):
        weight.assign_sub(rate * gradient)
    after = loss(problem.test_labels, twin(problem.test_inputs)).numpy()
    np.testing.assert_allclose(
        before - after,
        rate * predicted,
        atol=0.05 * rate * np.abs(predicted).max(),
        err_msg="first order in the step",
    )


def test_cosines_are_cosines(split, problem):
    found = values(GradCos(split, problem.train(), weights="all", target="label"), problem.test())
    train = gradients_by_hand(problem.model, problem.train_inputs, problem.train_labels)
    test = gradients_by_hand(problem.model, problem.test_inputs, problem.test_labels)
    norms = np.linalg.norm(test, axis=1)[:, None] * np.linalg.norm(train, axis=1)
    np.testing.assert_allclose(found, test @ train.T / norms, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("projection", [None, FactoredProjection(4), GaussianProjection(4)])
def test_cosines_stay_within_one(projection, split, problem):
    found = values(GradCos(split, problem.train(), weights="all", projection=projection), problem.train())
    assert np.abs(found).max() <= 1 + 1e-5


def test_similarity_of_the_paper_normalizes_the_training_side_only(split, problem):
    """Equation 3 of the DualView paper."""
    calculator = GradCos(split, problem.train(), normalize="train", function="logit", target=1, weights="all")
    train = gradients_by_hand(problem.model, problem.train_inputs, problem.train_labels, "logit")
    test = gradients_by_hand(problem.model, problem.test_inputs, np.ones(15, int), "logit")
    expected = test @ train.T / np.linalg.norm(train, axis=1)
    np.testing.assert_allclose(values(calculator, problem.test()), expected, **CLOSE)


def test_many_projections_come_near_the_exact_values(split, problem):
    exact = values(GradDot(split, problem.train(), weights="all"), problem.test())
    found = values(
        GradDot(split, problem.train(), weights="all", projection=FactoredProjection(8192)), problem.test()
    )
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.99


def test_a_gradient_that_is_zero_stays_zero():
    """Every unit of the penultimate layer is off, and there is no bias."""
    model = keras.Sequential([keras.Input((2,)), layers.ReLU(), layers.Dense(2, use_bias=False)])
    inputs = np.array([[1, 0], [0, 1], [-1, -1], [2, 0.5]], np.float32)
    train = tf.data.Dataset.from_tensor_slices((inputs, np.array([0, 1, 0, 0]))).batch(4)
    found = values(GradCos(InfluenceModel(model), train), train)
    assert np.isfinite(found).all() and not found[:, 2].any() and not found[2].any()


def test_evaluated_examples_that_are_not_finite_are_named(split, problem):
    inputs = problem.test_inputs.copy()
    inputs[3] = np.inf
    calculator = GradDot(split, problem.train(), weights="all")
    with pytest.raises(ValueError, match=r"`dataset_to_evaluate` has NaN or infinity.*indices=\[3\]"):
        values(calculator, problem._replace(test_inputs=inputs).test(15))


def test_settings_key_the_store(split, problem):
    options = [
        {},
        {"weights": "all"},
        {"function": "logit"},
        {"weights": "all", "projection": FactoredProjection(4)},
    ]
    options.append({"weights": "all", "projection": FactoredProjection(4, seed=1)})
    settings = [str(GradDot(split, problem.train(), **option)._settings()) for option in options]
    assert len(set(settings)) == len(options)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"normalize": "test"}, ValueError),
        ({"function": "accuracy"}, ValueError),
        ({"weights": ["nowhere"]}, ValueError),
        ({"weights": "first"}, TypeError),
        ({"projection": 128}, TypeError),
    ],
)
def test_unknown_options_are_refused(option, error, split, problem):
    with pytest.raises(error, match=next(iter(option))):
        GradCos(split, problem.train(), **option)
