"""Recorded trainings: repeated to the bit, without some examples, and differentiated exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview.evaluation import record_training
from deel_dualview.models.training_steps import has_only_matrix_products

NUM, WIDTH, CLASSES = 14, 3, 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIMIZERS = {
    "descent": lambda: keras.optimizers.SGD(0.3),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.8, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 20)),
    "adamw": lambda: keras.optimizers.AdamW(0.03, weight_decay=0.02),
}


def make_arrays():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, NUM)
    return generator.normal(size=(NUM, WIDTH)) + np.eye(WIDTH)[labels], labels


def make_train(arrays=None, batch_size=4):
    return tf.data.Dataset.from_tensor_slices(make_arrays() if arrays is None else arrays).batch(batch_size)


def make_model(*extra, dtype="float64"):
    """Return a small network of weights that are always the same."""
    hidden = layers.Dense(4, activation="tanh", dtype=dtype)
    model = keras.Sequential(
        [keras.Input((WIDTH,), dtype=dtype), hidden, *extra, layers.Dense(CLASSES, dtype=dtype)]
    )
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    return model


def record(model=None, optimizer="momentum", train=None, **settings):
    settings = {"epochs": 3, "batch_size": 5, "seed": 3, "loss_function": LOSS} | settings
    chosen = OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer
    return record_training(
        make_model() if model is None else model, train or make_train(), optimizer=chosen, **settings
    )


def with_dropout():
    return make_model(layers.Dropout(0.3, seed=5, dtype="float64"))


@pytest.fixture(scope="module")
def recorded():
    return record(with_dropout())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_derivatives_are_finite_differences(optimizer):
    training = record(with_dropout(), optimizer)
    functions = np.random.default_rng(2).normal(size=(2, len(training.parameters)))
    expected = np.empty((2, NUM))
    for example in range(NUM):
        change = 1e-5 * np.eye(NUM)[example]
        difference = training.retrain(training.weights + change) - training.retrain(training.weights - change)
        expected[:, example] = functions @ difference / 2e-5
    found = training.derivatives(functions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("is_vectorised", [True, False])
def test_derivatives_together_are_those_alone_and_finite_differences(is_vectorised):
    """Through layers whose products go together, and through one that is not known to allow it."""
    inputs = keras.Input((WIDTH,), dtype="float64")
    hidden = layers.LayerNormalization(dtype="float64")(layers.Dense(WIDTH, dtype="float64")(inputs))
    joined = layers.Add(dtype="float64")([inputs, layers.Activation("gelu", dtype="float64")(hidden)])
    other = layers.LeakyReLU() if is_vectorised else layers.ELU()
    other.dtype_policy = keras.DTypePolicy("float64")
    model = keras.Model(inputs, layers.Dense(CLASSES, dtype="float64")(other(joined)))
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    assert has_only_matrix_products(model) == is_vectorised
    training = record(model, "nesterov", epochs=2)
    functions = generator.normal(size=(3, len(training.parameters)))
    together = training.derivatives(functions)
    alone = np.concatenate([training.derivatives(function[np.newaxis]) for function in functions])
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12 * np.abs(alone).max())
    change = 1e-5 * np.eye(NUM)[4]
    difference = training.retrain(training.weights + change) - training.retrain(training.weights - change)
    np.testing.assert_allclose(together[:, 4], functions @ difference / 2e-5, rtol=1e-5)


def unrolled_by_hand(weights, rate, momentum, orders):
    """The same training as one expression of the weights, by NumPy's formulas for an explicit network."""
    inputs, labels = make_arrays()
    one_hot = tf.one_hot(labels, CLASSES, dtype=tf.float64)
    values = [tf.constant(variable.numpy()) for variable in make_model().trainable_variables]
    velocities = [tf.zeros_like(value) for value in values]
    for rows in orders:
        batch, own = tf.constant(inputs[rows]), tf.gather(weights, rows)
        kernel, bias, last, offset = values
        hidden = tf.tanh(batch @ kernel + bias)
        errors = tf.nn.softmax(hidden @ last + offset) - tf.gather(one_hot, rows)
        errors *= own[:, tf.newaxis] / len(rows)
        before = (errors @ tf.transpose(last)) * (1 - hidden**2)
        gradients = [tf.transpose(batch) @ before, tf.reduce_sum(before, 0)]
        gradients += [tf.transpose(hidden) @ errors, tf.reduce_sum(errors, 0)]
        velocities = [momentum * v - rate * g for v, g in zip(velocities, gradients, strict=True)]
        values = [value + v for value, v in zip(values, velocities, strict=True)]
    return tf.concat([tf.reshape(value, [-1]) for value in values], 0)


def test_derivatives_are_those_of_the_unrolled_loop():
    training = record(optimizer=keras.optimizers.SGD(0.125, momentum=0.9), batch_size=NUM)
    orders = [np.arange(NUM)] * 3
    functions = np.random.default_rng(2).normal(size=len(training.parameters))
    weights = tf.constant(training.weights, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        trained = unrolled_by_hand(weights, 0.125, 0.9, orders)
        value = tf.reduce_sum(trained * functions)
    np.testing.assert_allclose(training.parameters, trained, rtol=1e-12)
    expected = tf.convert_to_tensor(tape.gradient(value, weights))
    np.testing.assert_allclose(training.derivatives(functions[np.newaxis])[0], expected, rtol=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_keras(optimizer):
    """The optimizer that a model was compiled with is left as `fit` leaves it, too."""
    model = make_model()
    model.compile(OPTIMIZERS[optimizer](), LOSS)
    training = record(model, model.optimizer, batch_size=NUM)
    twin = make_model()
    twin.compile(OPTIMIZERS[optimizer](), LOSS)
    twin.fit(make_train(batch_size=NUM), epochs=3, verbose=0, shuffle=False)
    for own, other in zip(training.model.get_weights(), twin.get_weights(), strict=True):
        # Keras keeps learning rates in float32.
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)
    assert int(model.optimizer.iterations) == 3
    for own, other in zip(model.optimizer.variables, twin.optimizer.variables, strict=True):
        np.testing.assert_allclose(own.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)


def test_a_recording_repeats_to_the_bit_and_a_seed_changes_it(recorded):
    again = record(with_dropout())
    np.testing.assert_array_equal(again.parameters, recorded.parameters)
    np.testing.assert_array_equal(recorded.retrain(recorded.weights), recorded.parameters)
    assert not np.array_equal(record(with_dropout(), seed=4).parameters, recorded.parameters)


def test_an_example_of_weight_0_has_no_effect(recorded):
    inputs, labels = make_arrays()
    inputs[3], labels[3] = 9.0, (labels[3] + 1) % CLASSES
    other = record(with_dropout(), train=make_train((inputs, labels)))
    without = recorded.without([3])
    assert not np.array_equal(other.parameters, recorded.parameters)
    np.testing.assert_array_equal(other.retrain(without), recorded.retrain(without))


def test_the_denominator_stays_when_examples_leave():
    """Half of all weights is half of the learning rate, not the same training."""
    training = record(optimizer="descent", epochs=1, batch_size=NUM)
    whole = training.parameters - training.initial_parameters
    half = training.retrain(training.weights / 2) - training.initial_parameters
    np.testing.assert_allclose(half, whole / 2, rtol=1e-9)


def test_outputs_and_copies_are_of_the_training_that_is_given(recorded):
    inputs, _ = make_arrays()
    trained = recorded.retrain(recorded.without([0, 1]))
    copy = recorded.model_with(trained)
    np.testing.assert_allclose(recorded.outputs(inputs, trained), copy(inputs), rtol=1e-12)
    np.testing.assert_allclose(recorded.outputs(inputs), recorded.model(inputs), rtol=1e-12)
    assert not np.allclose(recorded.outputs(inputs, trained), recorded.outputs(inputs))


def test_checkpoints_are_states_on_the_way(recorded):
    np.testing.assert_array_equal(recorded.parameters_after(recorded.num_steps), recorded.parameters)
    # The plan of the first step does not depend on how many follow.
    one_step = record(with_dropout(), batch_size=NUM, epochs=1)
    first = record(with_dropout(), batch_size=NUM, epochs=3).parameters_after(1)
    np.testing.assert_array_equal(first, one_step.parameters)
    with pytest.raises(ValueError, match="num_steps=10"):
        recorded.parameters_after(10)


def test_sample_weights_of_the_training_set_are_the_weights():
    weights = np.linspace(0.5, 1.5, NUM).astype(np.float32)
    from_set = record(train=make_train((*make_arrays(), weights)))
    np.testing.assert_array_equal(from_set.weights, weights)
    np.testing.assert_array_equal(from_set.parameters, record(weights=weights).parameters)


def test_augmentation_depends_on_example_and_epoch_alone():
    def augment(inputs, seed):
        return inputs + tf.random.stateless_normal(inputs.shape, seed, dtype=inputs.dtype)

    inputs, labels = make_arrays()
    one = make_train((inputs[:1], labels[:1]))
    twice = make_train((np.repeat(inputs[:1], 2, 0), np.repeat(labels[:1], 2)))
    plain, noisy = (record(train=one, augment=own, batch_size=1) for own in (None, augment))
    both = record(train=twice, augment=augment, batch_size=2)
    assert not np.array_equal(plain.parameters, noisy.parameters)
    # Alone in its batch or with an example of weight 0, it gets the same noise: half of a mean of two.
    first_only = both.retrain(np.array([2.0, 0.0]))
    np.testing.assert_allclose(first_only, noisy.parameters, rtol=1e-9)
    second_only = both.retrain(np.array([0.0, 2.0]))
    assert not np.allclose(second_only, first_only)


def test_what_cannot_be_repeated_raises_an_error():
    class Noise(layers.Layer):
        def call(self, inputs, training=None):
            return inputs + keras.random.normal((1,), dtype="float64") if training else inputs

    with pytest.raises(ValueError, match=r"cannot be repeated.*SeedGenerator"):
        record(make_model(Noise(dtype="float64")))
    with pytest.raises(ValueError, match=r"Layers change these variables.*moving_mean"):
        record(make_model(layers.BatchNormalization(dtype="float64")))
    with pytest.raises(ValueError, match=r"Penalties of activations.*own"):
        record(make_model(layers.Activation("relu", activity_regularizer="l2", name="own", dtype="float64")))


def test_frozen_batch_normalisation_is_a_fixed_layer():
    frozen = layers.BatchNormalization(dtype="float64", trainable=False)
    training = record(make_model(frozen), epochs=1)
    assert not np.array_equal(training.parameters, training.initial_parameters)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"optimizer": keras.optimizers.RMSprop()}, TypeError, "SGD"),
        ({"optimizer": keras.optimizers.SGD(clipnorm=1.0)}, ValueError, "clipnorm=1.0"),
        ({"optimizer": keras.optimizers.Adam(amsgrad=True)}, ValueError, "amsgrad=True"),
        ({"loss_function": None}, TypeError, "not compiled"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"weights": np.ones(3)}, ValueError, r"shape=\(3,\)"),
        ({"optimizer": keras.optimizers.SGD(1e300)}, ValueError, "diverged"),
    ],
)
def test_wrong_settings_raise_an_error(settings, error, text):
    with pytest.raises(error, match=text):
        record(**settings)


def test_weights_left_out_of_the_decay_raise_an_error():
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="weight decay"):
        record(optimizer=optimizer)


def test_wrong_positions_and_gradients_raise_an_error(recorded):
    with pytest.raises(ValueError, match=r"0\.\.13.*indices=\[14\]"):
        recorded.without([14])
    with pytest.raises(ValueError, match="one column for each"):
        recorded.derivatives(np.ones((1, 2)))
