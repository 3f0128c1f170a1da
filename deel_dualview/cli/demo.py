"""The audit that needs no argument: a small CNN on the embedded digits, with label errors made on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.data.digits import load_digits, swap_labels

NUM_SWAPPED = 30
_NUM_CLASSES = 10
_EPOCHS = 12


class Demo(NamedTuple):
    """Everything `audit` needs, and the truth that it should find.

    Attributes:
        model: a CNN trained on the wrong labels too.
        train: batches of images and labels, some of them swapped.
        test: batches of images and (right) labels.
        class_names: the ten digits.
        original_labels: the labels of the training set before the swap, (n,).
        swapped_indices: positions of the swapped labels in the training set.
        swapped_labels: the wrong labels that stand there, in the same order.
    """

    model: keras.Model
    train: tf.data.Dataset
    test: tf.data.Dataset
    class_names: list[str]
    original_labels: np.ndarray
    swapped_indices: np.ndarray
    swapped_labels: np.ndarray


def make_demo(
    *, seed: int = 0, batch_size: int = 256, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Demo:
    """Swap a few labels of the digits and train a small CNN on the result, in seconds.

    Sets the global seeds of Python, NumPy and Keras.

    Args:
        seed: chooses the swapped labels and the network's first weights.
        batch_size: of both datasets.
        callbacks: of the training, for instance `SaveCheckpoints`.
    """
    keras.utils.set_random_seed(seed)
    (images, labels), (test_images, test_labels) = load_digits()
    swapped = swap_labels(labels, NUM_SWAPPED, num_classes=_NUM_CLASSES, seed=seed)
    return Demo(
        model=_train(images, swapped.labels, callbacks),
        train=tf.data.Dataset.from_tensor_slices((images, swapped.labels)).batch(batch_size),
        test=tf.data.Dataset.from_tensor_slices((test_images, test_labels)).batch(batch_size),
        class_names=[str(digit) for digit in range(_NUM_CLASSES)],
        original_labels=labels,
        swapped_indices=swapped.indices,
        swapped_labels=swapped.labels[swapped.indices],
    )


def _train(
    images: np.ndarray, labels: np.ndarray, callbacks: Sequence[keras.callbacks.Callback]
) -> keras.Model:
    """Train the CNN, quietly; it ends in logits."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="features"),
            layers.Dropout(0.25),
            layers.Dense(_NUM_CLASSES, name="logits"),
        ],
        name="digits",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    model.fit(images, labels, batch_size=32, epochs=_EPOCHS, verbose=0, callbacks=list(callbacks))
    return model
