"""Small networks that are trained hundreds of times in seconds, for `bench_retraining_lds.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

BATCH, LEARNING_RATE = 32, 1e-3
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7


class Arrays(NamedTuple):
    """Training and evaluated examples, inputs float32 and labels int64."""

    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


class Network(NamedTuple):
    """Data, a model and the number of epochs that it is trained for.

    Attributes:
        seeds: trainings of each half.
    """

    arrays: Arrays
    layers: Sequence[keras.layers.Layer]
    epochs: int
    seeds: int

    def build(self) -> keras.Model:
        """Return a compiled model of the network, with weights of its own."""
        shape = self.arrays.inputs.shape[1:]
        copies = [type(layer).from_config(layer.get_config()) for layer in self.layers]
        model = keras.Sequential([keras.Input(shape), *copies])
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model


def network(name: str, data_dir: str | None) -> Network:
    """Return "digits" (MLP 64-32-10), "fashion_mnist" (MLP 196-32-10) or "mnist" (two convolutions, Dense 10).

    Args:
        name: of the network.
        data_dir: of TensorFlow Datasets, for the last two: images are halved in width and height.
    """
    layers = keras.layers
    mlp = [layers.Dense(32, "relu"), layers.Dense(10)]
    if name == "digits":
        inputs, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        return Network(_arrays(inputs[order] / 16, labels[order], 1000, 300), mlp, epochs=42, seeds=6)
    import tensorflow_datasets as tfds

    num_test = 100
    loaded = tfds.load(
        name,
        split=f"train[:{2000 + num_test}]",
        data_dir=data_dir,
        batch_size=-1,
        as_supervised=True,
        download=False,
    )
    images, labels = (tensor.numpy() for tensor in loaded)
    halved = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
    if name == "fashion_mnist":
        return Network(_arrays(halved.reshape(-1, 196), labels, 2000, num_test), mlp, epochs=25, seeds=6)
    convolutions = [layers.Conv2D(8, 3, 2, activation="relu"), layers.Conv2D(16, 3, activation="relu")]
    arrays = _arrays(halved[..., np.newaxis], labels, 2000, num_test)
    return Network(arrays, [*convolutions, layers.Flatten(), layers.Dense(10)], epochs=12, seeds=4)


def _arrays(inputs: np.ndarray, labels: np.ndarray, num_train: int, num_test: int) -> Arrays:
    inputs, labels = inputs.astype(np.float32), labels.astype(np.int64)
    stop = num_train + num_test
    return Arrays(inputs[:num_train], labels[:num_train], inputs[num_train:stop], labels[num_train:stop])


class Trainer:
    """Trains a network again and again, by Adam at 1e-3 in batches of 32, in one traced function.

    Args:
        chosen: the network.
        inputs: of the training examples.
        labels: of them.
    """

    def __init__(self, chosen: Network, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.chosen, self.model = chosen, chosen.build()
        self._inputs, self._labels = tf.constant(inputs), tf.constant(labels)
        self._values = [variable.value for variable in self.model.trainable_variables]
        self._moments = [[tf.Variable(tf.zeros_like(value)) for value in self._values] for _ in range(2)]
        self._steps = tf.Variable(0.0)
        self._epoch = tf.function(self._run, reduce_retracing=True)

    def train(self, rows: np.ndarray, seed: int) -> list[list[np.ndarray]]:
        """Return the weights after a third, two thirds and all of the epochs of training on some examples."""
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self.chosen.build().get_weights())
        for state in (*self._moments[0], *self._moments[1], self._steps):
            state.assign(tf.zeros_like(state))
        random, kept = np.random.default_rng(seed), []
        for epoch in range(1, self.chosen.epochs + 1):
            self._epoch(tf.constant(random.permutation(rows)))
            if epoch % (self.chosen.epochs // 3) == 0:
                kept.append(self.model.get_weights())
        return [*kept[:2], self.model.get_weights()]

    def log_probabilities(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the log-probability of each label by the model trained last, shape (m,)."""
        logits = np.asarray(self.model(inputs), np.float64)
        own = logits[np.arange(len(labels)), labels]
        return own - np.logaddexp.reduce(logits, axis=1)

    def _run(self, order: tf.Tensor) -> None:
        for start in tf.range(0, tf.size(order), BATCH):
            rows = order[start : start + BATCH]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._values)
                logits = self.model(tf.gather(self._inputs, rows), training=True)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(self._labels, rows), logits)
                )
            self._steps.assign_add(1.0)
            corrections = [1 - beta**self._steps for beta in (_BETA1, _BETA2)]
            for value, gradient, *moments in zip(
                self._values, tape.gradient(loss, self._values), *self._moments, strict=True
            ):
                for moment, beta, part in zip(
                    moments, (_BETA1, _BETA2), (gradient, gradient**2), strict=True
                ):
                    moment.assign(beta * moment + (1 - beta) * part)
                first, second = (moment / one for moment, one in zip(moments, corrections, strict=True))
                value.assign_sub(LEARNING_RATE * first / (tf.sqrt(second) + _EPSILON))
