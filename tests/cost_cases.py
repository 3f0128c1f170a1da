"""A network that counts the examples which pass through it, for tests of the cost contract."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

NUM_TRAIN, NUM_TEST, BATCH = 600, 60, 10
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(NUM_TRAIN, 5)).astype("float32")
TRAIN = tf.data.Dataset.from_tensor_slices((INPUTS, INPUTS[:, :3].argmax(axis=1))).batch(BATCH)
TEST = tf.data.Dataset.from_tensor_slices(RNG.normal(size=(NUM_TEST, 5)).astype("float32")).batch(BATCH)


class Counting(layers.Layer):
    """Passes its inputs on, and counts the examples as they pass, in traces too."""

    def __init__(self):
        super().__init__()
        self.num_examples = 0

    def call(self, inputs):
        with tf.control_dependencies([tf.numpy_function(self._count, [tf.shape(inputs)[0]], [])]):
            return tf.identity(inputs)

    def _count(self, number):
        self.num_examples += int(number)


def counting_model():
    """Return an untrained classifier of three classes, and the layer that counts."""
    keras.utils.set_random_seed(0)
    counter = Counting()
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, activation="relu")(counter(inputs))
    return keras.Model(inputs, layers.Dense(3)(hidden)), counter
