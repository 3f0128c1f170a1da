"""Networks of the benchmark of label issues, as users build them, and their training."""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from label_issue_data import NUM_TOKENS, load

from deel_dualview import SaveCheckpoints

layers = keras.layers
MEMORISED_ACCURACY = 0.998
_PRETRAINING_EPOCHS = 6


class Network(NamedTuple):
    """What builds a network, and how long it is trained.

    Attributes:
        build: training inputs, number of classes and a folder for what is kept between settings -> a model.
        early: epochs of a training that was stopped early.
        usual: epochs of a usual training.
        longest: most epochs until the labels are memorised.
        rate: learning rate of Adam.
        batch_size: examples a step.
    """

    build: Callable[[np.ndarray, int, pathlib.Path], keras.Model]
    early: int
    usual: int
    longest: int
    rate: float = 1e-3
    batch_size: int = 32


class Training(NamedTuple):
    """How a training went: epochs, accuracy on the given labels, seconds."""

    epochs: int
    train_accuracy: float
    seconds: float


def train(
    model: keras.Model,
    inputs: np.ndarray,
    labels: np.ndarray,
    network: Network,
    training: str,
    checkpoints: pathlib.Path | None,
) -> Training:
    """Train a model on the given labels; with a folder, every epoch's weights are kept there."""
    memorise = training == "memorised"
    epochs = {"early": network.early, "usual": network.usual, "memorised": network.longest}[training]
    callbacks: list[keras.callbacks.Callback] = [_StopWhenMemorised(inputs, labels)] if memorise else []
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
        callbacks.append(SaveCheckpoints(checkpoints))
    start = time.perf_counter()
    # Strings cannot be passed to `fit` as arrays.
    examples = tf.data.Dataset.from_tensor_slices((inputs, labels)).shuffle(len(labels))
    history = model.fit(
        examples.batch(network.batch_size), epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )
    accuracy = accuracy_of(probabilities_of(model, inputs), labels)
    return Training(len(history.epoch), accuracy, time.perf_counter() - start)


def build(name: str, inputs: np.ndarray, num_classes: int, folder: pathlib.Path, seed: int) -> keras.Model:
    """Return an untrained network for a data set, compiled."""
    keras.utils.set_random_seed(seed)
    network = NETWORKS[name]
    model = network.build(inputs, num_classes, folder)
    _compile(model, network.rate)
    return model


def probabilities_of(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Return probabilities (n, c), whatever the model ends in."""
    batches = tf.data.Dataset.from_tensor_slices(inputs).batch(256)
    outputs = model.predict(batches, verbose=0).astype(np.float64)
    if outputs.shape[1] == 1:
        return np.concatenate([1 - outputs, outputs], axis=1)
    if model.layers[-1].activation is keras.activations.softmax:
        return outputs
    shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def accuracy_of(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of labels that have the largest probability."""
    return float((probabilities.argmax(axis=1) == labels).mean())


class _StopWhenMemorised(keras.callbacks.Callback):
    """Ends training when the model gives the given labels, dropout and the like off."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self.inputs, self.labels = inputs, labels

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._every = max(1, self.params["epochs"] // 30)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # Before the running accuracy comes near, a pass would not find more.
        if (logs or {}).get("accuracy", 1.0) < 0.95 or (epoch + 1) % self._every:
            return
        accuracy = accuracy_of(probabilities_of(self.model, self.inputs), self.labels)
        if accuracy >= MEMORISED_ACCURACY:
            self.model.stop_training = True


def _compile(model: keras.Model, rate: float) -> None:
    last = model.layers[-1]
    loss: keras.losses.Loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=last.activation is not keras.activations.softmax
    )
    if last.units == 1:
        loss = keras.losses.BinaryCrossentropy()
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def _grey_images(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 5, strides=2, activation="relu"),
            layers.Conv2D(24, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


def _garments(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(96, activation="relu"),
            layers.Dense(48, activation="relu"),
            layers.Dense(num_classes),
        ]
    )


def _colour_images(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="uint8"),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(48, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes),
        ]
    )


def pretrain_body(data_dir: str, folder: pathlib.Path) -> None:
    """Train the body of `cifar10_pretrained` on right labels of other images, unless it was."""
    path = folder / "cifar10_body.keras"
    if path.exists():
        return
    other = load("cifar10_other", data_dir, folder)
    keras.utils.set_random_seed(3)
    body = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), layers.Rescaling(1 / 127.5, offset=-1)])
    for width in (24, 48, 96):
        for convolution in range(2):
            strides = 2 if width == 24 and convolution == 0 else 1
            body.add(layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False))
            body.add(layers.BatchNormalization())
            body.add(layers.ReLU())
        if width != 96:
            body.add(layers.MaxPooling2D())
    body.add(layers.GlobalAveragePooling2D())
    model = keras.Sequential([body, layers.Dense(10)])
    _compile(model, 2e-3)
    model.fit(other.train_inputs, other.train_labels, batch_size=64, epochs=_PRETRAINING_EPOCHS, verbose=0)
    unfinished = folder / f"unfinished.{os.getpid()}.keras"
    body.save(unfinished)
    unfinished.replace(path)


def _fine_tuned(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    body = keras.models.load_model(folder / "cifar10_body.keras")
    x = layers.Dense(64, activation="relu")(body.outputs[0])
    return keras.Model(body.inputs, layers.Dense(num_classes, activation="softmax")(x))


def _topics(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="int32"),
            layers.Embedding(NUM_TOKENS, 32, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, activation="relu"),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


def _strings(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    vectorize = layers.TextVectorization(NUM_TOKENS, output_sequence_length=60)
    vectorize.adapt(inputs)
    return keras.Sequential(
        [
            keras.Input((), dtype="string"),
            vectorize,
            layers.Embedding(NUM_TOKENS, 24),
            layers.GlobalAveragePooling1D(),
            layers.Dense(num_classes),
        ]
    )


def _reviews(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="int32"),
            layers.Embedding(NUM_TOKENS, 24),
            layers.GlobalAveragePooling1D(),
            layers.Dense(24, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def _words(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(inputs.shape[1:], dtype="int32"),
            layers.Embedding(NUM_TOKENS, 32, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(48, activation="relu"),
            layers.Dense(num_classes),
        ]
    )


def _columns(*widths: int) -> Callable[[np.ndarray, int, pathlib.Path], keras.Model]:
    def build(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
        del folder
        normalize = layers.Normalization()
        normalize.adapt(inputs)
        hidden = [layers.Dense(width, activation="relu") for width in widths]
        last = layers.Dense(num_classes, activation="softmax")
        return keras.Sequential([keras.Input(inputs.shape[1:]), normalize, *hidden, last])

    return build


def _eight_by_eight(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    hidden = [layers.Dense(width, activation="relu") for width in (96, 48)]
    scale = layers.Rescaling(1 / 16)
    return keras.Sequential([keras.Input(inputs.shape[1:]), scale, *hidden, layers.Dense(num_classes)])


NETWORKS: dict[str, Network] = {
    "mnist": Network(_grey_images, 2, 6, 40),
    "mnist_parity": Network(_grey_images, 2, 6, 40),
    "mnist_60000": Network(_grey_images, 1, 3, 40, batch_size=128),
    "fashion_mnist": Network(_garments, 3, 10, 60),
    "fashion_tops": Network(_garments, 3, 8, 60),
    "cifar10": Network(_colour_images, 4, 10, 40),
    "cifar10_pretrained": Network(_fine_tuned, 2, 4, 20, rate=1e-3),
    "ag_news": Network(_topics, 3, 5, 40, rate=1e-3),
    "ag_news_strings": Network(_strings, 8, 16, 40, rate=1.5e-3),
    "imdb": Network(_reviews, 3, 6, 40, rate=1e-2, batch_size=64),
    "german": Network(_columns(128, 64), 4, 12, 100, rate=4e-3),
    "digits": Network(_eight_by_eight, 6, 20, 100, rate=2e-3),
    "wine": Network(_columns(32, 16), 10, 30, 150, rate=1e-2),
    "breast_cancer": Network(_columns(48, 24), 5, 20, 150, rate=6e-3),
    "iris": Network(_columns(64, 32), 15, 40, 300, rate=1e-2),
    "overlap": Network(_columns(160, 80), 3, 12, 80, rate=3e-3, batch_size=64),
    "vader_3": Network(_words, 4, 10, 40, rate=5e-3),
    "vader_8": Network(_words, 4, 10, 40, rate=5e-3),
}
"""A network for each data set."""
