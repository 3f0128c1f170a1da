"""The models behind the shipped ground truth: how one is trained on some of MNIST's first 10,000 examples.

`make_ground_truth.py` trains them on 100 halves, `reproduce_lds.py` on all 10,000.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.evaluation.networks import paper_cnn
from deel_dualview.svm.penalised_layer import fit_softmax_regression

PENALTY = 5e-4
"""lambda of lambda ||W||^2; the regularisation of `ExactIHVP` is twice it."""
EPOCHS, BATCH_SIZE, LEARNING_RATE = 4, 50, 1e-3


def pixels(images: np.ndarray) -> np.ndarray:
    """Return images as the rows that the logistic regression takes, (n, 784), 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


class Logistic:
    """Softmax regression on pixels without offset, to a relative residual of 1e-7: its optimum is unique."""

    name = "mnist-logistic"

    def train(self, images: np.ndarray, labels: np.ndarray, seed: int) -> keras.Model:
        """Return the model at its optimum; the seed does not matter."""
        del seed
        fitted = fit_softmax_regression(pixels(images), np.eye(10, dtype=np.float32)[labels], penalty=PENALTY)
        layers = keras.layers
        dense = layers.Dense(10, use_bias=False)
        model = keras.Sequential(
            [keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), layers.Flatten(), dense]
        )
        dense.set_weights([fitted.weights.astype(np.float32)])
        return model


class CNN:
    """The DualView paper's network, Adam at 1e-3, 4 epochs in batches of 50, whose order the seed draws.

    One network is compiled and used for all trainings.
    """

    name = "mnist-cnn"

    def __init__(self) -> None:
        self.model = paper_cnn((28, 28, 1), 10)
        self.optimizer = keras.optimizers.Adam(LEARNING_RATE)
        self.optimizer.build(self.model.trainable_variables)
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._run_epoch = tf.function(self._epoch, reduce_retracing=True)

    def train(self, images: np.ndarray, labels: np.ndarray, seed: int) -> keras.Model:
        """Return the network trained on these examples; the next training changes it."""
        keras.utils.set_random_seed(seed)
        self.model.set_weights(paper_cnn((28, 28, 1), 10).get_weights())
        for variable in self.optimizer.variables:
            if variable is not self.optimizer._learning_rate:
                variable.assign(tf.zeros_like(variable))
        inputs, targets = tf.constant(images, tf.float32), tf.constant(labels, tf.int64)
        generator = np.random.default_rng(seed)
        for _ in range(EPOCHS):
            self._run_epoch(inputs, targets, tf.constant(generator.permutation(len(labels))))
        return self.model

    def _epoch(self, inputs: tf.Tensor, targets: tf.Tensor, order: tf.Tensor) -> None:
        for start in tf.range(0, tf.size(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            with tf.GradientTape() as tape:
                loss = self.loss(tf.gather(targets, rows), self.model(tf.gather(inputs, rows), training=True))
            variables = self.model.trainable_variables
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            self.optimizer.apply(gradients, variables)


KINDS = {kind.name: kind for kind in (Logistic, CNN)}


def log_probabilities(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log-probability of each label, shape (m,), float64 until it is rounded to float32."""
    logits = np.asarray(model(tf.constant(images, tf.float32)), np.float64)
    own = logits[np.arange(len(labels)), labels]
    return (own - np.logaddexp.reduce(logits, axis=1)).astype(np.float32)
