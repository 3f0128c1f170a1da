"""Data sets, networks and settings on which changes to label issues are tried: none of those of the benchmark.

Other rows, splits, seeds, networks and rates. What is chosen on these is shown on those.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import keras
import label_issue_data as data
import numpy as np
import sklearn.datasets
from label_issue_data import Data
from label_issue_networks import NETWORKS, Network
from label_issue_settings import Setting

layers = keras.layers
IMAGES = ("dev_mnist", "dev_fashion", "dev_cifar", "dev_animals", "dev_colour")
TEXTS = ("dev_ag", "dev_imdb")
TABLES = ("dev_digits", "dev_breast", "dev_german", "dev_clouds")

RANKED: tuple[Setting, ...] = (
    *(
        Setting(name, "uniform", 0.09, "memorised")
        for name in (*IMAGES[1:], *TEXTS, "dev_digits", "dev_german", "dev_clouds")
    ),
    *(
        Setting(name, "ambiguous", 0.06, "usual")
        for name in ("dev_fashion", "dev_cifar", "dev_colour", *TEXTS, "dev_digits", "dev_clouds")
    ),
    *(
        Setting(name, "uniform", 0.03, "usual")
        for name in ("dev_cifar", "dev_animals", "dev_colour", "dev_ag")
    ),
)
"""Settings in which rankings are compared, each with a network."""


def _coloured_digits(data_dir: str) -> Data:
    """Return digits in a random colour on ground of another: principal components of pixels show little of them."""
    read = data._images("mnist", 31_000, (1500, 1000))(data_dir)
    generator = np.random.default_rng(77)

    def coloured(images: np.ndarray) -> np.ndarray:
        ink, ground = generator.uniform(0, 255, (2, len(images), 1, 1, 3))
        share = images / 255
        return (share * ink + (1 - share) * ground).astype(np.uint8)

    return read._replace(train_inputs=coloured(read.train_inputs), test_inputs=coloured(read.test_inputs))


def _table(load: Callable, num_train: int) -> Callable[[str], Data]:
    def read(data_dir: str) -> Data:
        del data_dir
        inputs, labels = load(return_X_y=True)
        return data._split(inputs.astype(np.float32), labels, num_train, shift=11)

    return read


def _german(data_dir: str) -> Data:
    found = data._german_credit(data_dir)
    inputs = np.concatenate([found.train_inputs, found.test_inputs])
    return data._split(inputs, np.concatenate([found.train_labels, found.test_labels]), 600, shift=11)


def _clouds(data_dir: str) -> Data:
    """Make four classes of three round clouds each, which overlap."""
    del data_dir
    generator = np.random.default_rng(4242)
    labels = generator.choice(4, 2500, p=[0.4, 0.3, 0.2, 0.1])
    centres = generator.normal(0, 1.0, (4, 3, 8))
    inputs = centres[labels, generator.integers(0, 3, 2500)] + generator.normal(0, 0.9, (2500, 8))
    return data._split(inputs.astype(np.float32), labels, 1500)


data.SOURCES.update(
    {
        "dev_mnist": data._images("mnist", 11_000, (1500, 1000)),
        "dev_fashion": data._images("fashion_mnist", 11_000, (1500, 1000)),
        "dev_cifar": data._images("cifar10", 21_000, (1500, 1000)),
        "dev_animals": data._images("cifar10", 26_000, (1500, 1000), lambda own: np.isin(own, (0, 1, 8, 9))),
        "dev_colour": _coloured_digits,
        "dev_ag": data._texts("ag_news_subset", 500, (1500, 1000), 50),
        "dev_imdb": data._texts("imdb_reviews", 9000, (1500, 1000), 150),
        "dev_digits": _table(sklearn.datasets.load_digits, 1000),
        "dev_breast": _table(sklearn.datasets.load_breast_cancer, 350),
        "dev_german": _german,
        "dev_clouds": _clouds,
    }
)

_Build = Callable[[np.ndarray, int, pathlib.Path], keras.Model]


def _convolutions(*widths: int) -> _Build:
    def build(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
        del folder
        first = [keras.Input(inputs.shape[1:], dtype="uint8"), layers.Rescaling(1 / 255)]
        body = [layers.Conv2D(width, 3, strides=2, padding="same", activation="relu") for width in widths]
        last = [layers.Flatten(), layers.Dense(48, activation="relu"), layers.Dense(num_classes)]
        return keras.Sequential([*first, *body, *last])

    return build


def _words(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    del folder
    first = [keras.Input(inputs.shape[1:], dtype="int32"), layers.Embedding(data.NUM_TOKENS, 40)]
    last = [layers.GlobalAveragePooling1D(), layers.Dense(40, activation="tanh"), layers.Dense(num_classes)]
    return keras.Sequential([*first, *last])


def _columns(inputs: np.ndarray, num_classes: int, folder: pathlib.Path) -> keras.Model:
    del folder
    normalize = layers.Normalization()
    normalize.adapt(inputs)
    hidden = [layers.Dense(width, activation="relu") for width in (80, 40)]
    return keras.Sequential([keras.Input(inputs.shape[1:]), normalize, *hidden, layers.Dense(num_classes)])


def _network(build: _Build, early: int, usual: int, longest: int, rate: float = 2e-3) -> Network:
    return Network(build, early, usual, longest, rate=rate, batch_size=64)


NETWORKS.update(
    {
        "dev_mnist": _network(_convolutions(16, 24), 2, 5, 25),
        "dev_fashion": _network(_convolutions(16, 32), 2, 7, 40),
        "dev_cifar": _network(_convolutions(24, 32), 3, 8, 25),
        "dev_animals": _network(_convolutions(24, 32), 3, 8, 25),
        "dev_colour": _network(_convolutions(16, 32), 4, 10, 30),
        "dev_ag": _network(_words, 3, 5, 25),
        "dev_imdb": _network(_words, 3, 5, 25),
        "dev_digits": _network(_columns, 5, 15, 80),
        "dev_breast": Network(_columns, 5, 15, 80, rate=5e-3),
        "dev_german": Network(_columns, 4, 10, 80, rate=4e-3),
        "dev_clouds": Network(_columns, 4, 10, 60, rate=4e-3),
    }
)
