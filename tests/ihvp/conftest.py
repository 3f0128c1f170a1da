"""The small network and data by which inverse Hessians are tested."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 41)
    return (rng.normal(size=(41, 4)) + np.eye(4)[labels]).astype(np.float32), labels


@pytest.fixture(scope="module")
def keras_model(data):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="tanh", name="hidden"), layers.Dense(3, name="head")]
    )
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, epochs=5, verbose=0)
    return model


@pytest.fixture(scope="module")
def model(keras_model):
    return InfluenceModel(keras_model)


@pytest.fixture(scope="module")
def train_set(data):
    return tf.data.Dataset.from_tensor_slices(data).batch(7)
