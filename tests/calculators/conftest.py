"""One tiny trained classifier and its data, shared by the tests of calculators."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_contract import CALCULATORS, all_values
from keras import layers

from deel_dualview import InfluenceModel


class Problem(NamedTuple):
    """Arrays of a small classification problem and a model trained on it."""

    model: keras.Model
    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray

    def train(self, batch_size=16):
        return tf.data.Dataset.from_tensor_slices((self.train_inputs, self.train_labels)).batch(batch_size)

    def test(self, batch_size=5):
        return tf.data.Dataset.from_tensor_slices((self.test_inputs, self.test_labels)).batch(batch_size)


@pytest.fixture(scope="session")
def problem():
    """Sixty overlapping points of three classes: some are support vectors, some are not."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 75)
    inputs = (rng.normal(size=(75, 6)) + 1.5 * np.eye(6)[labels]).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs[:60], labels[:60], epochs=15, verbose=0)
    return Problem(model, inputs[:60], labels[:60], inputs[60:], labels[60:])


@pytest.fixture(scope="session", params=CALCULATORS.values(), ids=CALCULATORS)
def make_calculator(request, problem):
    """Return a function from a training set to one kind of calculator."""
    split = InfluenceModel(problem.model)
    return lambda train, **settings: request.param(split, train, **settings)


@pytest.fixture(scope="session")
def calculator(make_calculator, problem):
    """One calculator on the problem's training set, shared."""
    return make_calculator(problem.train())


@pytest.fixture(scope="session")
def values(calculator, problem):
    """What the shared calculator gives for all queries, shape (15, 60)."""
    return all_values(calculator, problem.test())


@pytest.fixture(scope="session")
def by_label(make_calculator, problem):
    """A calculator that explains the labels, shared."""
    return make_calculator(problem.train(), target="label")
