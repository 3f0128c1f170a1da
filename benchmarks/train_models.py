"""Train the small image classifiers of the benchmarks and save them with their penultimate features.

    python benchmarks/train_models.py --data-dir TFDS_DIRECTORY --output DIRECTORY [--models mnist ...]

Writes, for every model NAME, `NAME.keras` and an archive of features (n, d) float32 and labels (n,)
in the order in which TFDS yields the examples (`shuffle_files=False`):

    mnist           mnist_features.npz    the CNN of the DualView paper, 100 features
    mnist_swapped   mnist_swapped.npz     the same CNN trained with 3 % of the training labels swapped
    cifar10         cifar10_features.npz  a VGG-like CNN, 512 features
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

logger = logging.getLogger("train_models")

SWAPPED_FRACTION = 0.03


class Images(NamedTuple):
    """Raw images (n, height, width, channels) uint8 and labels (n,) int64 of both splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_images(name: str, data_dir: pathlib.Path) -> Images:
    """Read both splits of a prepared TFDS image set, in file order."""
    (train_images, train_labels), (test_images, test_labels) = tfds.as_numpy(
        tfds.load(
            name,
            split=["train", "test"],
            batch_size=-1,
            as_supervised=True,
            shuffle_files=False,
            data_dir=str(data_dir),
            download=False,
        )
    )
    return Images(train_images, train_labels, test_images, test_labels)


def mnist_cnn() -> keras.Model:
    """The MNIST network of the DualView paper; the input is a raw uint8 image."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(5, 3, activation="relu"),
            layers.Conv2D(10, 3, activation="relu"),
            layers.Conv2D(5, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
            layers.Dense(100, activation="relu", name="features"),
            layers.Dense(10, use_bias=False, name="logits"),
        ],
        name="mnist",
    )


def cifar10_cnn() -> keras.Model:
    """A small VGG-like network with 512 penultimate features; the input is a raw uint8 image."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(512, activation="relu", name="features"),
            layers.Dense(10, use_bias=False, name="logits"),
        ],
        name="cifar10",
    )


def fit(model: keras.Model, images: Images, train_labels: np.ndarray, epochs: int) -> None:
    """Train with Adam at 1e-3 on `train_labels`; the accuracy is measured on the test split."""
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    model.fit(images.train_images, train_labels, batch_size=128, epochs=epochs, verbose=2)
    _, accuracy = model.evaluate(images.test_images, images.test_labels, batch_size=512, verbose=0)
    logger.info("%s: test accuracy %.4f after %.0f s", model.name, accuracy, time.perf_counter() - start)


def features_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Outputs of the layer named "features", shape (n, d) float32."""
    extractor = keras.Model(model.inputs, model.get_layer("features").output)
    return extractor.predict(images, batch_size=512, verbose=0)


def swap_labels(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a random `fraction` of the examples another class, drawn uniformly among the wrong ones.

    Returns:
        The given labels (n,) and the sorted indices of the swapped examples.
    """
    generator = np.random.default_rng(seed)
    num_classes = int(labels.max()) + 1
    swapped = np.sort(generator.choice(len(labels), size=round(fraction * len(labels)), replace=False))
    given = labels.copy()
    given[swapped] = (labels[swapped] + generator.integers(1, num_classes, size=len(swapped))) % num_classes
    return given, swapped


def save(model: keras.Model, archive: str, output: pathlib.Path, **arrays: np.ndarray) -> None:
    """Write the archive, then the model: whoever waits for `NAME.keras` finds both."""
    np.savez(output / archive, **arrays)
    partial = output / f"partial_{model.name}.keras"
    model.save(partial)
    partial.rename(output / f"{model.name}.keras")


def features_and_labels(model: keras.Model, images: Images) -> dict[str, np.ndarray]:
    """Features of both splits with the true labels, under the names of the archives."""
    return {
        "train_features": features_of(model, images.train_images),
        "train_labels": images.train_labels,
        "test_features": features_of(model, images.test_images),
        "test_labels": images.test_labels,
    }


def train_mnist(data_dir: pathlib.Path, output: pathlib.Path, seed: int) -> None:
    """Train the paper's CNN on MNIST."""
    images = load_images("mnist", data_dir)
    model = mnist_cnn()
    fit(model, images, images.train_labels, epochs=5)
    save(model, "mnist_features.npz", output, **features_and_labels(model, images))


def train_mnist_swapped(data_dir: pathlib.Path, output: pathlib.Path, seed: int) -> None:
    """Train the paper's CNN on MNIST with swapped training labels; `train_labels` are the given ones."""
    images = load_images("mnist", data_dir)
    given, swapped = swap_labels(images.train_labels, SWAPPED_FRACTION, seed)
    model = mnist_cnn()
    model.name = "mnist_swapped"
    fit(model, images, given, epochs=5)
    arrays = features_and_labels(model, images) | {"train_labels": given}
    save(
        model,
        "mnist_swapped.npz",
        output,
        **arrays,
        true_train_labels=images.train_labels,
        swapped_indices=swapped,
        seed=np.array(seed),
    )


def train_cifar10(data_dir: pathlib.Path, output: pathlib.Path, seed: int) -> None:
    """Train the small VGG-like CNN on CIFAR-10."""
    images = load_images("cifar10", data_dir)
    model = cifar10_cnn()
    fit(model, images, images.train_labels, epochs=6)
    save(model, "cifar10_features.npz", output, **features_and_labels(model, images))


TRAINERS: dict[str, Callable[[pathlib.Path, pathlib.Path, int], None]] = {
    "mnist": train_mnist,
    "mnist_swapped": train_mnist_swapped,
    "cifar10": train_cifar10,
}


def main() -> None:
    """Train the models named on the command line, each from the same seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=pathlib.Path, required=True, help="prepared TFDS data_dir")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where models and features go")
    parser.add_argument("--models", nargs="+", choices=sorted(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.output.mkdir(parents=True, exist_ok=True)
    tf.config.experimental.enable_op_determinism()
    for name in arguments.models:
        keras.utils.set_random_seed(arguments.seed)
        TRAINERS[name](arguments.data_dir, arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
