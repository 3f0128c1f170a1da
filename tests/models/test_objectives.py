"""Objectives: their derivatives in the outputs, the labels that they take, and which one a model has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    CustomLoss,
    Huber,
    IndependentSigmoids,
    InfluenceModel,
    SoftmaxCrossEntropy,
    SquaredError,
)


def log_cosh_of_weighted(labels, outputs):
    return tf.reduce_sum(tf.math.log(tf.cosh(outputs * [1.0, 2.0, 0.5] - labels)), axis=1)


OBJECTIVES = [
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy(label_smoothing=0.3),
    IndependentSigmoids(),
    IndependentSigmoids(label_smoothing=0.3),
    SquaredError(),
    Huber(0.7),
    CustomLoss(log_cosh_of_weighted),
    CustomLoss(keras.losses.categorical_crossentropy, "softmax"),
]


@pytest.fixture(scope="module")
def outputs() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(7, 3)))


def labels_of(objective) -> np.ndarray:
    generator = np.random.default_rng(1)
    if isinstance(objective, SoftmaxCrossEntropy | IndependentSigmoids) or "categorical" in repr(objective):
        return np.eye(3)[generator.integers(0, 3, 7)]
    return generator.normal(size=(7, 3))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_gradient_is_the_derivative_of_the_loss(objective, outputs):
    targets = tf.constant(objective.targets(labels_of(objective), 3))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = objective.loss(outputs, targets)
    np.testing.assert_allclose(
        objective.gradient(outputs, targets), tape.gradient(losses, outputs), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(objective.evaluate(outputs, targets), losses, rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_hessian_is_the_derivative_of_the_gradient(objective, outputs):
    targets = tf.constant(objective.targets(labels_of(objective), 3))
    step = 1e-5
    for output in range(3):
        shift = step * tf.one_hot(output, 3, dtype=tf.float64)
        ahead, behind = (
            objective.loss_gradient(outputs + sign * shift, targets).numpy() for sign in (1.0, -1.0)
        )
        expected = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(
            objective.hessian(outputs, targets)[:, output], expected, rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        (IndependentSigmoids(), keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)),
        (
            IndependentSigmoids(label_smoothing=0.3),
            keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None),
        ),
        (SquaredError(), keras.losses.MeanSquaredError(reduction=None)),
        (Huber(0.7), keras.losses.Huber(0.7, reduction=None)),
    ],
    ids=["sigmoids", "smoothed sigmoids", "squared", "huber"],
)
def test_the_loss_is_that_of_keras(objective, loss, outputs):
    targets = objective.targets(labels_of(objective), 3)
    expected = loss(targets, tf.cast(outputs, tf.float32))
    np.testing.assert_allclose(objective.loss(outputs, tf.constant(targets)), expected, rtol=1e-5)


def test_the_loss_of_smoothed_classes_is_that_of_keras(outputs):
    objective, classes = SoftmaxCrossEntropy(label_smoothing=0.3), np.arange(7) % 3
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None)
    expected = loss(np.eye(3)[classes], tf.cast(outputs, tf.float32))
    np.testing.assert_allclose(objective.loss(outputs, tf.constant(classes)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "activation", "objective"),
    [
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "softmax", "SoftmaxCrossEntropy"),
        (keras.losses.BinaryCrossentropy(label_smoothing=0.1), "sigmoid", "IndependentSigmoids"),
    ],
    ids=["softmax", "sigmoids"],
)
def test_label_smoothing_is_found_in_the_loss_that_a_model_was_compiled_with(loss, activation, objective):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation)])
    network.compile(loss=loss)
    assert repr(InfluenceModel(network).objective) == f"{objective}(label_smoothing=0.1)"
    assert repr(InfluenceModel(network, loss_function=loss).objective) == f"{objective}(label_smoothing=0.1)"


@pytest.mark.parametrize("wrong", [-0.1, 1.0, np.nan, "0.1"])
def test_label_smoothing_outside_of_0_to_1_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        SoftmaxCrossEntropy(label_smoothing=wrong)


@pytest.mark.parametrize("objective", OBJECTIVES[2:], ids=repr)
def test_an_output_is_explained_by_minus_its_value(objective, outputs):
    explained = tf.constant([0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(
        objective.evaluate(outputs, explained), -tf.gather(outputs, explained, batch_dims=1)
    )
    np.testing.assert_array_equal(objective.gradient(outputs, explained), -np.eye(3)[explained])


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_label_that_is_fitted_to_the_last_digit_keeps_a_precise_gradient(target):
    outputs = tf.constant([[40.0 * (2 * target - 1)]])
    gradient = float(IndependentSigmoids().gradient(outputs, tf.constant([[target]]))[0, 0])
    np.testing.assert_allclose(gradient, (1 - 2 * target) * np.exp(-40.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        (SquaredError(), np.zeros((4, 2)), r"shape \(b, 3\)"),
        (SquaredError(), np.zeros(4), r"shape \(b, 3\)"),
        (SquaredError(), np.array([["a"] * 3]), "numbers"),
        (Huber(), np.array([[0, np.nan, 0.0]]), "finite"),
        (IndependentSigmoids(), np.array([[0, 1, 2]]), "zeros and ones"),
        (CustomLoss(log_cosh_of_weighted), np.zeros((2, 2, 2)), r"shape \(b, t\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(objective, labels, message):
    with pytest.raises(ValueError, match=message):
        objective.targets(labels, 3)


def test_labels_of_one_number_may_have_one_dimension():
    assert SquaredError().targets(np.array([1, 2]), 1).tolist() == [[1.0], [2.0]]


def test_a_custom_loss_of_many_outputs_is_refused():
    with pytest.raises(ValueError, match="output by output"):
        CustomLoss(log_cosh_of_weighted).targets(np.zeros((1, 100)), 100)


def test_a_custom_loss_that_averages_over_the_batch_is_refused(outputs):
    objective = CustomLoss(lambda labels, given: tf.reduce_mean((labels - given) ** 2))
    with pytest.raises(ValueError, match="one number for every example"):
        objective.loss(outputs, tf.zeros((7, 3)))


def test_a_custom_loss_must_be_a_function():
    with pytest.raises(TypeError, match="function"):
        CustomLoss("mean")


def network(width: int, activation: str | None = None, loss: object = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(width, activation)]
    )
    if loss is not None:
        model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("width", "activation", "loss", "expected"),
    [
        (3, None, "mse", SquaredError()),
        (1, None, keras.losses.MeanSquaredError(), SquaredError()),
        (2, None, keras.losses.Huber(0.5), Huber(0.5)),
        (2, None, "huber", Huber(1.0)),
        (3, "sigmoid", "binary_crossentropy", IndependentSigmoids()),
        (3, None, keras.losses.BinaryCrossentropy(from_logits=True), IndependentSigmoids()),
        (1, "sigmoid", "binary_crossentropy", SoftmaxCrossEntropy()),
        (3, "softmax", "sparse_categorical_crossentropy", SoftmaxCrossEntropy()),
        (3, "softmax", None, SoftmaxCrossEntropy()),
        (1, None, "log_cosh", CustomLoss(keras.losses.log_cosh, "logits")),
    ],
)
def test_the_objective_is_found_by_the_compiled_loss_and_the_last_activation(
    width, activation, loss, expected
):
    model = InfluenceModel(network(width, activation, loss))
    assert model.objective == expected
    assert repr(expected) in repr(model)


@pytest.mark.parametrize(
    ("given", "width", "activation", "expected"),
    [
        ("mse", 2, None, SquaredError()),
        (keras.losses.MeanSquaredError(), 1, None, SquaredError()),
        ("mse", 1, "sigmoid", CustomLoss(keras.losses.mean_squared_error, "sigmoid")),
        ("binary_crossentropy", 3, "sigmoid", IndependentSigmoids()),
        ("binary_crossentropy", 1, "sigmoid", SoftmaxCrossEntropy()),
        (Huber(2.0), 1, None, Huber(2.0)),
        (log_cosh_of_weighted, 3, None, CustomLoss(log_cosh_of_weighted, "logits")),
    ],
)
def test_a_loss_that_is_given_is_used(given, width, activation, expected):
    assert InfluenceModel(network(width, activation), loss_function=given).objective == expected


@pytest.mark.parametrize(
    ("given", "activation", "error", "message"),
    [
        (SquaredError(), "softmax", ValueError, "loss_function=keras.losses.mean_squared_error"),
        (IndependentSigmoids(), "softmax", ValueError, "sigmoid"),
        (SquaredError, None, TypeError, r"SquaredError\(\)"),
        (3, None, TypeError, "Keras loss"),
        ("mean_squared_eror", None, ValueError, "mean_squared_eror"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(given, activation, error, message):
    with pytest.raises(error, match=message):
        InfluenceModel(network(3, activation), loss_function=given).objective  # noqa: B018


@pytest.mark.parametrize(
    "loss", ["mse", "binary_crossentropy", lambda labels, outputs: tf.reduce_sum(outputs, axis=1)]
)
def test_a_compiled_loss_that_is_not_used_is_warned_of(loss):
    model = InfluenceModel(network(3, "softmax", loss))
    with pytest.warns(UserWarning, match="loss_function=LOSS"):
        assert model.objective == SoftmaxCrossEntropy()


def test_outputs_are_those_before_the_sigmoid_of_independent_labels():
    keras_model = network(3, "sigmoid", "binary_crossentropy")
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    outputs = InfluenceModel(keras_model).logits(inputs)
    np.testing.assert_allclose(tf.sigmoid(outputs), keras_model(inputs), rtol=1e-5)


def test_numbers_of_a_regression_are_its_outputs_with_and_without_a_linear_head():
    keras_model = network(1, None, "mse")
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for layer in (None, keras_model.layers[0].name):
        model = InfluenceModel(keras_model, layer)
        np.testing.assert_allclose(model.logits(inputs), keras_model(inputs), rtol=1e-5)
        assert model.num_outputs == 1


def test_losses_are_those_of_the_labels():
    keras_model = network(2, None, "mse")
    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(6, 4)).astype(np.float32), generator.normal(size=(6, 2))
    expected = keras.losses.mean_squared_error(labels, keras_model(inputs))
    np.testing.assert_allclose(InfluenceModel(keras_model).losses(inputs, labels), expected, rtol=1e-5)


def test_a_regression_has_no_classes():
    with pytest.raises(ValueError, match="classifier"):
        InfluenceModel(network(2, None, "mse")).num_classes  # noqa: B018


def test_models_that_differ_in_their_loss_have_other_fingerprints():
    keras_model = network(2)
    inputs = np.zeros((3, 4), np.float32)
    losses = [
        None,
        "mse",
        Huber(1.0),
        Huber(2.0),
        lambda y, z: tf.reduce_sum(z, 1),
        lambda y, z: tf.reduce_sum(z**2, 1),
    ]
    fingerprints = []
    for loss in losses:
        model = InfluenceModel(keras_model, loss_function=loss)
        model.prepare(inputs)
        fingerprints.append(model.fingerprint)
    assert len(set(fingerprints)) == len(losses)
