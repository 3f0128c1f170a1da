"""Recorded trainings treat losses and models as `fit` does, or refuse them before they train."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview.evaluation import record_training

NUM = 12
SPARSE = keras.losses.SparseCategoricalCrossentropy
INPUTS = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)
CLASSES = np.arange(NUM) % 3
DRAWN = np.random.default_rng(2)


class Own(keras.Model):
    """A model whose call takes no `training`, and that Keras cannot copy."""

    def __init__(self, width):
        super().__init__()
        self.last = layers.Dense(int(width.value))

    def call(self, x):
        return self.last(x)


class Width:
    value = 3


def make_set(labels=CLASSES, inputs=INPUTS):
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(5)


def make_model(loss, units=3, activation=None, optimizer=None):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, activation=activation)])
    model.layers[0].kernel.assign(np.random.default_rng(1).normal(size=(3, units)))
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    return model


def record(model, labels=CLASSES, **settings):
    return record_training(model, make_set(labels), **({"epochs": 2, "batch_size": NUM} | settings))


def squared(labels, outputs):
    return keras.ops.mean((labels - outputs) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("loss", "labels", "units", "activation"),
    [
        ("poisson", np.abs(INPUTS[:, 0]), 1, "softplus"),
        (squared, INPUTS[:, 0], 1, None),
        ("binary_crossentropy", CLASSES % 2, 1, "sigmoid"),
        (SPARSE(from_logits=True, reduction="sum"), CLASSES, 3, None),
        (SPARSE(from_logits=True, ignore_class=2), CLASSES, 3, None),
    ],
)
def test_losses_are_those_of_fit(loss, labels, units, activation):
    own, twin = (make_model(loss, units, activation) for _ in range(2))
    record(own, labels)
    twin.fit(INPUTS, labels, batch_size=NUM, epochs=2, verbose=0, shuffle=False)
    for one, other in zip(own.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "labels", "text"),
    [
        (SPARSE(from_logits=True, reduction="none"), CLASSES, "reduction='none'"),
        (lambda a, b: keras.ops.mean((a - b) ** 2), np.eye(3)[CLASSES], "one number for each example"),
        (SPARSE(), CLASSES.astype(str), "numbers.*string"),
        (SPARSE(), CLASSES + 1, r"0\.\.2"),
        (SPARSE(), np.eye(3)[CLASSES], "one-hot"),
        ("categorical_crossentropy", CLASSES, r"cannot be computed.*shape of labels=\(8,\)"),
    ],
)
def test_losses_and_labels_that_do_not_fit_raise_an_error(loss, labels, text):
    with pytest.raises(ValueError, match=f"(?s){text}"):
        record(make_model(loss), labels)


def test_weights_of_losses_raise_an_error():
    model = make_model("mse")
    model.compile(keras.optimizers.SGD(0.1), SPARSE(), loss_weights=2.0)
    with pytest.raises(ValueError, match=r"loss_weights=2\.0"):
        record(model)


@pytest.mark.parametrize(
    ("augment", "error", "text"),
    [
        (lambda x, seed: x + tf.random.normal(tf.shape(x)), ValueError, "stateless"),
        (lambda x, seed: x + DRAWN.normal(size=3).astype(np.float32), ValueError, "stateless"),
        (lambda x, seed: x[:2], ValueError, r"shape and type.*\(2,\)"),
        (lambda x, seed: None, ValueError, "shape and type.*None"),
        (lambda x, seed: tf.cast(x, tf.float64), ValueError, "shape and type.*float64"),
        (lambda x: x, TypeError, "seed"),
        (3, TypeError, "augment=3"),
    ],
)
def test_augmentations_that_do_not_repeat_or_fit_raise_an_error(augment, error, text):
    with pytest.raises(error, match=text):
        record(make_model(SPARSE(from_logits=True)), augment=augment)


def test_a_model_without_training_is_recorded_and_set_into_another():
    model, other = Own(Width), Own(Width)
    model(INPUTS), other(INPUTS)
    model.compile(keras.optimizers.SGD(0.1), SPARSE(from_logits=True))
    training = record(model)
    np.testing.assert_allclose(training.outputs(INPUTS), model(INPUTS), rtol=1e-5)
    with pytest.raises(ValueError, match="into=MODEL"):
        training.model_with(training.parameters)
    without = training.retrain(training.without([0]))
    copy = training.model_with(without, into=other)
    np.testing.assert_allclose(copy(INPUTS), training.outputs(INPUTS, without), rtol=1e-5)
    with pytest.raises(ValueError, match=r"12 numbers.*shape=\(3,\)"):
        training.model_with(np.zeros(3))
    with pytest.raises(ValueError, match=r"12 numbers.*shape=\(3,\)"):
        training.outputs(INPUTS, np.zeros(3))
    with pytest.raises(TypeError, match="not a dataset"):
        training.outputs(make_set())


def test_optimizers_are_named_and_scaled_losses_explained():
    model = make_model(SPARSE(from_logits=True))
    with pytest.raises(TypeError, match="optimizer='Lion'"):
        record(model, optimizer=keras.optimizers.Lion())
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    with pytest.raises(TypeError, match="whose scale changes"):
        record(model, optimizer=scaled)
