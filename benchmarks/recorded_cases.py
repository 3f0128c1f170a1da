"""The recorded trainings of `reproduce_retraining.py`: networks, data, and what is left out of them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.evaluation import ImageData, RecordedTraining, load_images, record_training
from deel_dualview.evaluation.networks import paper_cnn

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SHARES = (0.01, 0.05)
"""Of the training examples, left out at a time."""


def mlp(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a network of one hidden layer of 32 units, 2,410 parameters on digits."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="features"),
            layers.Dense(num_classes, name="logits"),
        ]
    )


def gelu_cnn(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return the DualView paper's network with GELU in the place of ReLU, whose slope has no jumps."""
    model = paper_cnn(shape, num_classes)
    for layer in model.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = keras.activations.gelu
    return model


def slow_descent(num_steps: int) -> keras.optimizers.Optimizer:
    """Return gradient descent with momentum at a quarter of the rate of `descent`."""
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(5e-3, num_steps), momentum=0.9)


def descent(num_steps: int) -> keras.optimizers.Optimizer:
    """Return gradient descent with momentum, whose rate falls along a cosine."""
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.02, num_steps), momentum=0.9)


def adam(num_steps: int) -> keras.optimizers.Optimizer:
    """Return Adam, whose rate falls along a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, num_steps))


class Case(NamedTuple):
    """A network and how it is trained.

    Attributes:
        data: as `load_images` takes it.
        num_train: the first so many training examples.
        num_queries: the first so many test examples of the ground truth are explained.
        network: makes it.
        optimizer: makes it, from the number of steps.
        epochs: passes over the training set.
        batch_size: of a step.
        num_subsets: that are left out, of each size.
        shares: sizes of these subsets.
        num_removals: test examples whose strongest proponents are left out; 0 where that takes too long.
    """

    data: str
    num_train: int
    num_queries: int
    network: Callable[[tuple[int, ...], int], keras.Model]
    optimizer: Callable[[int], keras.optimizers.Optimizer]
    epochs: int
    batch_size: int
    num_subsets: int = 40
    shares: tuple[float, ...] = SHARES
    num_removals: int = 0


CASES: Mapping[str, Case] = {
    "digits-mlp": Case("digits", 1_000, 100, mlp, descent, 15, 50, num_removals=100),
    "digits-mlp-adam": Case("digits", 1_000, 100, mlp, adam, 15, 50),
    "mnist-cnn": Case("mnist", 10_000, 24, paper_cnn, descent, 2, 100),
    "mnist-cnn-smooth": Case("mnist", 10_000, 8, gelu_cnn, slow_descent, 3, 500, 24, (0.01,)),
}
NUM_TEST = 256


class Recorded(NamedTuple):
    """A case as it was trained.

    Attributes:
        training: recorded.
        train: its training set.
        test_images: of the ground truth.
        test_labels: of these.
    """

    training: RecordedTraining
    train: tf.data.Dataset
    test_images: np.ndarray
    test_labels: np.ndarray

    def log_probabilities(self, parameters: np.ndarray | None = None) -> np.ndarray:
        """Return the log-probability of each test label after a training, shape (m,), float32."""
        logits = self.training.outputs(self.test_images, parameters).astype(np.float64)
        own = logits[np.arange(len(logits)), self.test_labels]
        return (own - np.logaddexp.reduce(logits, axis=1)).astype(np.float32)

    def queries(self, num_queries: int) -> tf.data.Dataset:
        """Return the first test examples, as one batch."""
        arrays = self.test_images[:num_queries], self.test_labels[:num_queries]
        return tf.data.Dataset.from_tensor_slices(arrays).batch(num_queries)


def draw_tests(num_all: int) -> np.ndarray:
    """Return the positions of the test examples, in a random order."""
    return np.random.default_rng(0).permutation(num_all)[:NUM_TEST]


def record(case: Case, data_dir: str | None) -> Recorded:
    """Train the network of a case."""
    images: ImageData = load_images(case.data, data_dir)
    inputs = images.train_images[: case.num_train].astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((inputs, images.train_labels[: case.num_train])).batch(500)
    keras.utils.set_random_seed(0)
    model = case.network(inputs.shape[1:], images.num_classes)
    num_steps = case.epochs * -(-case.num_train // case.batch_size)
    training = record_training(
        model, train, epochs=case.epochs, batch_size=case.batch_size, seed=0,
        optimizer=case.optimizer(num_steps), loss_function=LOSS,
    )  # fmt: skip
    tests = draw_tests(len(images.test_labels))
    return Recorded(training, train, images.test_images[tests].astype(np.float32), images.test_labels[tests])


def draw_left_out(case: Case, share: float) -> np.ndarray:
    """Return the examples that each subset leaves out, shape (subsets, share * n), increasing in a row."""
    count = round(share * case.num_train)
    drawn = [
        np.random.default_rng([number, count]).choice(case.num_train, count, replace=False)
        for number in range(case.num_subsets)
    ]
    return np.sort(drawn, axis=1)


def ground_truth(name: str, recorded: Recorded, share: float, folder: pathlib.Path) -> np.ndarray:
    """Return the log-probabilities (m, subsets) of the trainings that leave examples out, read or trained now."""
    case = CASES[name]
    path = folder / f"{name}-{round(100 * share)}.npz"
    outputs = np.full((len(recorded.test_labels), case.num_subsets), np.nan, np.float32)
    if path.exists():
        outputs = np.load(path)["outputs"]
    left_out = draw_left_out(case, share)
    for number in np.flatnonzero(np.isnan(outputs[0])):
        trained = recorded.training.retrain(recorded.training.without(left_out[number]))
        outputs[:, number] = recorded.log_probabilities(trained)
        unfinished = folder / "unfinished.npz"
        np.savez_compressed(unfinished, outputs=outputs)
        unfinished.replace(path)
    return outputs
