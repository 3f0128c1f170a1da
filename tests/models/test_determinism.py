"""Models that are random at inference, or keep state, are refused by name; eager mode and graphs are, too."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualView, InfluenceModel
from deel_dualview.models.determinism import check_repeatable, check_traced

INPUTS = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
TRAIN = tf.data.Dataset.from_tensor_slices((INPUTS, np.arange(20) % 3)).batch(10)


class AlwaysDropout(layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AlwaysNoise(layers.GaussianNoise):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class Stateful(layers.Layer):
    """Its outputs grow with every call."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs * self.count


class Nested(layers.Layer):
    def __init__(self):
        super().__init__()
        self.noise = AlwaysNoise(0.1, name="random")

    def call(self, inputs):
        return 2.0 * self.noise(inputs)


class CountsInPython(layers.Layer):
    """A trace keeps the count that it saw."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.counter = itertools.count(1)

    def call(self, inputs):
        return inputs * float(next(self.counter))


RANDOM = {
    "dropout": lambda: AlwaysDropout(0.5, name="random"),
    "noise": lambda: AlwaysNoise(0.1, name="random"),
    "lambda": lambda: layers.Lambda(lambda x: x + keras.random.normal(keras.ops.shape(x)), name="random"),
    "NumPy": lambda: layers.Lambda(lambda x: x * np.random.default_rng().uniform(0.5, 1.0), name="random"),
    "state": lambda: Stateful(name="random"),
    "state in Python": lambda: CountsInPython(name="random"),
    "nested": Nested,
}


def network(layer):
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layer]
        + [layers.Dense(8, activation="relu", name="embedding"), layers.Dense(4), layers.Dense(3)]
    )


@pytest.mark.parametrize("feature_layer", [None, "embedding", "dense"])
@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_a_model_that_is_random_at_inference_is_refused_by_the_name_of_the_layer(make, feature_layer):
    keras.utils.clear_session()
    with pytest.raises(ValueError, match=r"random at inference.*layer='random'"):
        DualView(InfluenceModel(network(make()), feature_layer), TRAIN)


def test_noise_after_the_head_is_random_too():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3), AlwaysNoise(0.5, name="random")])
    with pytest.raises(ValueError, match="layer='random'"):
        InfluenceModel(model).features(INPUTS)


def test_random_parts_are_refused():
    extractor = keras.Sequential([keras.Input((8,)), layers.Dense(5), AlwaysDropout(0.5, name="random")])
    head = layers.Dense(3)
    head(extractor(INPUTS))
    with pytest.raises(ValueError, match="layer='random'"):
        InfluenceModel.from_parts(extractor, head).features(INPUTS)


@pytest.mark.parametrize(
    "make",
    [lambda: layers.Dropout(0.5), lambda: layers.Lambda(lambda x: x + keras.random.normal((16,), seed=3))],
)
def test_what_is_random_in_training_alone_or_has_a_fixed_seed_is_taken(make):
    InfluenceModel(network(make())).features(INPUTS)


class Switch(layers.Layer):
    """Computes something else in traces that are made after it was switched."""

    is_on = False

    def call(self, inputs):
        if tf.executing_eagerly():
            return inputs
        return inputs * (2.0 if self.is_on else 1.0)


def test_every_new_trace_is_compared_with_the_model():
    switch = Switch()
    influence = InfluenceModel(network(switch))
    influence.features(INPUTS)
    switch.is_on = True
    influence.features(INPUTS)
    with pytest.raises(ValueError, match="computes something else in a `tf.function`"):
        influence.features(INPUTS.astype("float64"))


def test_eager_mode_is_refused():
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(TypeError, match="run_functions_eagerly"):
            DualView(InfluenceModel(network(layers.ReLU())), TRAIN)
    finally:
        tf.config.run_functions_eagerly(False)


def test_use_inside_a_tf_function_or_a_map_is_refused():
    influence = InfluenceModel(network(layers.ReLU()))
    influence.features(INPUTS)
    with pytest.raises(TypeError, match="cannot be part of a `tf.function`"):
        tf.function(influence.features)(INPUTS)
    with pytest.raises(TypeError, match=r"Dataset.map"):
        TRAIN.map(lambda inputs, labels: influence.logits(inputs))


def test_a_thousandth_of_the_largest_output_is_no_rounding_error_and_a_hundred_thousandth_is():
    model, outputs = keras.Sequential([keras.Input((8,)), layers.Dense(2)]), tf.constant([[1.0, -200.0]])
    check_repeatable(model, INPUTS[:1], outputs, outputs + 0.002)
    with pytest.raises(ValueError, match="random at inference"):
        check_repeatable(model, INPUTS[:1], outputs, outputs + 0.2)


def test_a_trace_one_hundredth_off_is_refused_and_one_ten_thousandth_off_is_not():
    model, outputs = keras.Sequential([keras.Input((8,)), layers.Dense(2)]), tf.constant([[1.0, -200.0]])
    check_traced(model, INPUTS[:1], [outputs], [outputs + 0.02])
    with pytest.raises(ValueError, match=r"something else in a `tf\.function`"):
        check_traced(model, INPUTS[:1], [outputs], [outputs + 2.0])
