"""Which models are the same: settings, wiring and code count, the names of layers do not."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from deel_dualview import (
    DiskStore,
    DualView,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    StoreError,
)

INPUTS = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
# Labels that features of any network tell apart: else the surrogate's weights are zero.
LABELS = INPUTS[:, :3].argmax(axis=1)
TRAIN = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(30)


class Gain(layers.Layer):
    """A layer whose setting Keras does not know."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def call(self, inputs):
        return self.gain * inputs

    def get_config(self):
        raise NotImplementedError


class Hidden(layers.Layer):
    """A layer whose settings say too little."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def call(self, inputs):
        return ops.abs(inputs) ** self.power

    def get_config(self):
        return super(layers.Layer, self).get_config()


class Residual(keras.Model):
    def __init__(self, share):
        super().__init__()
        self.first, self.second, self.scores = layers.Dense(6), layers.Dense(6), layers.Dense(3)
        self.share = share

    def call(self, inputs):
        hidden = self.first(inputs)
        return self.scores(hidden + self.share * self.second(hidden))


class Counter(layers.Layer):
    """Counts its calls, to no effect."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs


def doubled(x):
    return 2.0 * x


def tripled(x):
    return 3.0 * x


def sequential(*middle, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *middle, layers.Dense(3)])


def images(*middle):
    return sequential(*middle, layers.GlobalAveragePooling2D(), shape=(9, 9, 2))


def functional(connect):
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(3)(connect(inputs)))


def two_inputs(is_swapped):
    inputs = [keras.Input((8,)), keras.Input((8,))]
    hidden = [layer(part) for layer, part in zip([layers.Dense(4), layers.Dense(4)], inputs, strict=True)]
    merged = layers.Concatenate()(hidden)
    return keras.Model(inputs[::-1] if is_swapped else inputs, layers.Dense(3)(merged))


def shared(is_twice):
    first, second = layers.Dense(8, activation="tanh"), layers.Dense(8, activation="tanh")
    return functional(lambda x: second(first(first(x))) if is_twice else second(second(first(x))))


def texts(words):
    encode = layers.TextVectorization(output_mode="multi_hot", vocabulary=None, max_tokens=6)
    encode.adapt(words)
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, layers.Dense(3)(encode(inputs)))


def with_attribute(name, value):
    model = sequential(layers.Dense(6), layers.BatchNormalization(), layers.LeakyReLU())
    setattr(next(layer for layer in model.layers if hasattr(layer, name)), name, value)
    return model


def wrapped(rate):
    return sequential(layers.TimeDistributed(layers.LeakyReLU(rate)), layers.Flatten(), shape=(4, 2))


DIFFERENT = {
    "slope": lambda i: sequential(layers.Dense(6), layers.LeakyReLU([0.3, 0.01][i])),
    "strides": lambda i: images(layers.Conv2D(4, 3, strides=[1, 2][i])),
    "dilation": lambda i: images(layers.Conv2D(4, 3, dilation_rate=[1, 2][i])),
    "padding": lambda i: images(layers.Conv2D(4, 3, padding=["same", "valid"][i])),
    "pool size": lambda i: images(layers.MaxPooling2D([2, 3][i])),
    "kind of pooling": lambda i: images([layers.MaxPooling2D, layers.AveragePooling2D][i](2)),
    "epsilon": lambda i: sequential(layers.BatchNormalization(epsilon=[1e-3, 1e-5][i])),
    "rescaling": lambda i: sequential(layers.Rescaling([1 / 255, 1.0][i])),
    "activation": lambda i: sequential(layers.Dense(6, activation=["relu", "gelu"][i])),
    "shared layers": lambda i: shared(i == 0),
    "wiring": lambda i: functional(lambda x: layers.Add()([x, layers.ReLU()(x)][: 2 - i] + [x] * i)),
    "order of arguments": lambda i: functional(
        lambda x: layers.Subtract()([x, layers.ReLU()(x)][:: 1 - 2 * i])
    ),
    "order of inputs": lambda i: two_inputs(i == 0),
    "operation": lambda i: functional(lambda x: x * [2.0, 3.0][i]),
    "axis of an operation": lambda i: functional(lambda x: ops.roll(x, 1, axis=[0, 1][i])),
    "lambda closure": lambda i: sequential(layers.Lambda(lambda x: x * [2.0, 3.0][i])),
    "lambda arguments": lambda i: sequential(
        layers.Lambda(lambda x, by: x * by, arguments={"by": [2.0, 3.0][i]})
    ),
    "function": lambda i: sequential(layers.Dense(6, activation=[doubled, tripled][i])),
    "layer without settings": lambda i: sequential(Gain([1.0, 1.01][i])),
    "layer with too few settings": lambda i: sequential(Hidden([1, 2][i])),
    "subclassed": lambda i: Residual([1.0, 0.5][i]),
    "attribute": lambda i: with_attribute("negative_slope", [0.3, 0.1][i]),
    "attribute of a normalisation": lambda i: with_attribute("epsilon", [1e-3, 1e-2][i]),
    "wrapped layer": lambda i: wrapped([0.3, 0.1][i]),
    "adapted vocabulary": lambda i: texts([["a b", "c d"], ["e f", "g h"]][i]),
    "patched call": lambda i: _patched([1.0, 2.0][i]),
}


def _patched(scale):
    model = sequential(layers.ReLU())
    layer = model.layers[0]
    layer.call = lambda inputs: scale * inputs
    return model


EQUAL = {
    **DIFFERENT,
    "convolutional": lambda i: images(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.5)),
    "recurrent": lambda i: sequential(layers.Bidirectional(layers.LSTM(3)), shape=(4, 2)),
    "augmented": lambda i: images(layers.RandomFlip(), layers.Conv2D(2, 3)),
    "attention": lambda i: functional(
        lambda x: layers.Flatten()(layers.MultiHeadAttention(2, 2)(*[layers.Reshape((4, 2))(x)] * 2))
    ),
    "nested": lambda i: sequential(sequential(layers.Dense(5)), layers.ReLU()),
    "tokens": lambda i: sequential(layers.Embedding(9, 4), layers.GlobalAveragePooling1D()),
    "masked tokens": lambda i: sequential(layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)),
    "arrays": lambda i: sequential(
        layers.Normalization(mean=np.arange(8.0), variance=np.ones(8)), layers.LeakyReLU(np.float32(0.3))
    ),
    "counter": lambda i: sequential(Counter(), layers.Dense(4)),
}


def fingerprint(model, weights):
    specs = [None if shape is None else shape[1:] for shape in _shapes(model)]
    batch = [np.ones((2, *shape), np.float32) for shape in specs]
    if model.built and model.inputs[0].dtype == "string":
        batch = [np.array(["a b", "c"])]
    influence = InfluenceModel(model)
    model(batch if len(batch) > 1 else batch[0])
    _set_weights(model, weights)
    influence.prepare(tf.nest.map_structure(tf.constant, batch if len(batch) > 1 else batch[0]))
    return influence.fingerprint


def _shapes(model):
    return [(None, 8)] if not model.built else [tensor.shape for tensor in model.inputs]


def _set_weights(model, seed):
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.uniform(0.2, 0.7, weight.shape))


@pytest.mark.filterwarnings("ignore:The model was not built")
@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT)
def test_equal_weights_with_other_settings_or_wiring_or_code_are_another_model(make):
    assert fingerprint(make(0), 0) != fingerprint(make(1), 0)


@pytest.mark.filterwarnings("ignore:The model was not built")
@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_a_model_that_is_built_again_is_the_same(make):
    assert fingerprint(make(0), 0) == fingerprint(make(0), 0)


SAVED = ("convolutional", "recurrent", "attention", "nested", "operation", "slope", "wrapped layer")
SAVED += ("masked tokens", "arrays")


@pytest.mark.parametrize("name", SAVED)
def test_a_model_that_is_saved_and_loaded_is_the_same(tmp_path, name):
    model = EQUAL[name](0)
    before = fingerprint(model, 0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert fingerprint(loaded, 0) == before


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {folder!r})
import test_identity as cases
cases.sequential(cases.layers.Dense(2))
print([cases.fingerprint(cases.EQUAL[name](0), 0) for name in cases.IN_PROCESSES])
"""
IN_PROCESSES = ("convolutional", "attention", "subclassed", "lambda closure", "layer without settings")


@pytest.mark.filterwarnings("ignore:The model was not built")
def test_a_model_is_the_same_in_another_process():
    script = IN_ANOTHER_PROCESS.format(folder=str(__file__).rpartition("/")[0])
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    own = [fingerprint(EQUAL[name](0), 0) for name in IN_PROCESSES]
    assert found.stdout.splitlines()[-1] == str(own)


def with_slope(slope):
    model = sequential(layers.Dense(6), layers.LeakyReLU(slope))
    _set_weights(model, 0)
    return model


def test_a_store_of_gradients_of_a_model_that_is_built_again_is_taken(tmp_path):
    for _ in range(2):
        GradDot(InfluenceModel(with_slope(0.3)), TRAIN, weights="all", store=DiskStore(tmp_path / "all"))
        model = with_slope(0.3)
        names = [model.layers[0].name]
        GradDot(InfluenceModel(model), TRAIN, weights=names, store=DiskStore(tmp_path / "named"))
    with pytest.raises(StoreError, match="weights"):
        names = [model.layers[-1].name]
        GradDot(InfluenceModel(model), TRAIN, weights=names, store=DiskStore(tmp_path / "named"))


def test_a_frozen_model_is_the_same_but_not_its_gradients_in_all_weights(tmp_path):
    model = sequential(layers.Dense(6), layers.ReLU())
    DualView(InfluenceModel(model), TRAIN, store=DiskStore(tmp_path / "features"))
    GradDot(InfluenceModel(model), TRAIN, weights="all", store=DiskStore(tmp_path / "gradients"))
    model.layers[0].trainable = False
    DualView(InfluenceModel(model), TRAIN, store=DiskStore(tmp_path / "features"))
    with pytest.raises(StoreError, match="another weights"):
        GradDot(InfluenceModel(model), TRAIN, weights="all", store=DiskStore(tmp_path / "gradients"))


def test_a_store_of_a_model_with_other_settings_is_refused(tmp_path):
    DualView(InfluenceModel(with_slope(0.3)), TRAIN, store=DiskStore(tmp_path))
    DualView(InfluenceModel(with_slope(0.3)), TRAIN, store=DiskStore(tmp_path))
    with pytest.raises(StoreError, match="model"):
        DualView(InfluenceModel(with_slope(0.01)), TRAIN, store=DiskStore(tmp_path))


def test_an_inverse_hessian_of_a_model_with_other_settings_is_refused():
    ihvp = ExactIHVP(InfluenceModel(with_slope(0.3)), TRAIN)
    FirstOrderInfluenceCalculator(InfluenceModel(with_slope(0.3)), TRAIN, ihvp)
    with pytest.raises(ValueError, match="with the model that is explained"):
        FirstOrderInfluenceCalculator(InfluenceModel(with_slope(0.01)), TRAIN, ihvp)
