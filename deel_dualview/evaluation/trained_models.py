"""Subjects: the trained models that metrics ask about, with the data as these saw them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, require
from deel_dualview.data import sources
from deel_dualview.data.digits import load_digits
from deel_dualview.evaluation.networks import NETWORKS, RECIPES, Recipe
from deel_dualview.evaluation.perturbation import Perturbation
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels, Superclasses
from deel_dualview.evaluation.waiting import made_once
from deel_dualview.models.checkpoints import Checkpoints, SaveCheckpoints, load_checkpoints
from deel_dualview.models.recorded_training import RecordedTraining

Kind = Literal["normal", "superclass", "poisoned", "marked"]
"""What models that are kept on disk are trained on."""
MARKED_CLASS = 2
MARKED_SHARE = 0.3
_BATCH_SIZE = 512
_SMALL_IMAGE = 16
_MODEL, _RECORD, _TRUTH, _CHECKPOINTS = "model.keras", "record.json", "perturbation.npz", "checkpoints"
_TRUTHS: Mapping[str, type[Perturbation]] = {
    "superclass": Superclasses,
    "poisoned": PoisonedLabels,
    "marked": Marks,
}


class ImageData(NamedTuple):
    """Both splits of a dataset of images, in file order.

    Attributes:
        train_images: shape (n, height, width, channels), 0 to 255 as uint8 or 0 to 1 as float32.
        train_labels: shape (n,), int64.
        test_images: shape (m, height, width, channels).
        test_labels: shape (m,), int64.
        num_classes: c.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that was trained for a question, and what it was trained on.

    Attributes:
        data: name of the dataset.
        kind: "normal"; "superclass", on pairs of classes; "poisoned", on some wrong labels; "marked", with a mark in
            some images of one class; "recorded", with a recorded training.
        seed: of the weights, the order of training and the perturbation.
        model: ends in logits.
        train: batches of images and labels as the model saw them, in file order.
        test: batches of test images and labels (pairs of classes for "superclass").
        truth: the perturbation; None for "normal".
        original_labels: classes of the training examples in the dataset, shape (n,).
        test_accuracy: on `test`.
        seconds: that the training took.
        checkpoints_directory: where the weights of every epoch are, but of a recorded training.
        training: of a "recorded" model.
    """

    data: str
    kind: Kind | Literal["recorded"]
    seed: int
    model: keras.Model
    train: tf.data.Dataset
    test: tf.data.Dataset
    truth: Any
    original_labels: np.ndarray
    test_accuracy: float
    seconds: float
    checkpoints_directory: pathlib.Path
    training: RecordedTraining | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        """The weights after every epoch with their learning rates, for `TracIn`; the last are the model's.

        Raises:
            ValueError: they cannot be read.
        """
        if self.training is not None:
            return self.training.checkpoints()
        with _named(self.checkpoints_directory.parent):
            return load_checkpoints(self.checkpoints_directory, self.model)


def load_images(name: str, data_dir: str | None = None) -> ImageData:
    """Load a dataset of images: "digits" from the package, or one of `RECIPES` from TFDS.

    Args:
        name: of the dataset.
        data_dir: where TFDS keeps its datasets; None for its own default.

    Raises:
        ValueError: an unknown name, or a dataset that TFDS cannot find; nothing is downloaded.
    """
    require(name in RECIPES, f"`data` is one of {', '.join(RECIPES)}.", {"data": name})
    splits = (
        load_digits() if name == "digits" else [_read(name, split, data_dir) for split in ("train", "test")]
    )
    (train_images, train_labels), (test_images, test_labels) = splits
    return ImageData(train_images, train_labels, test_images, test_labels, int(train_labels.max()) + 1)


def subject(
    data: str,
    kind: Kind,
    seed: int,
    *,
    directory: str | pathlib.Path,
    data_dir: str | None = None,
    recipe: Recipe | None = None,
) -> Subject:
    """Load a trained model from `directory/DATA/KIND-SEED`, or train it now.

    A model is put there whole or not at all, by one process at a time. Sets the global seeds of Python, NumPy and
    Keras when it trains.

    Args:
        data: "digits", "mnist", "fashion_mnist" or "cifar10".
        kind: what the model is trained on.
        seed: of weights, order and perturbation.
        directory: where models are kept.
        data_dir: where TFDS keeps its datasets.
        recipe: how it is trained; that of the dataset by default.

    Raises:
        ValueError: unknown names, a model there that was trained by another recipe, or a damaged one.
    """
    require(kind in get_args(Kind), f"`kind` is one of {', '.join(get_args(Kind))}.", {"kind": kind})
    check_count("seed + 1", seed + 1)
    images = load_images(data, data_dir)
    recipe = RECIPES[data] if recipe is None else recipe
    place = pathlib.Path(directory) / data / f"{kind}-{seed}"
    if not place.exists():
        with made_once(place, f"the model {place.name}"):
            if not place.exists():
                _train(images, kind, seed, recipe, place)
    record = _checked_record(place, {"kind": kind, "seed": seed, **recipe._asdict()})
    with _named(place):
        truth = None if kind == "normal" else _TRUTHS[kind].load(place / _TRUTH)
        model = keras.models.load_model(place / _MODEL, compile=False)
    train, test = datasets(images, truth)
    return Subject(
        data=data,
        kind=kind,
        seed=seed,
        model=model,
        train=train,
        test=test,
        truth=truth,
        original_labels=images.train_labels,
        test_accuracy=record["test_accuracy"],
        seconds=record["seconds"],
        checkpoints_directory=place / _CHECKPOINTS,
    )


def draw_truth(images: ImageData, kind: Kind, seed: int, poisoned_share: float) -> Perturbation | None:
    """Draw the perturbation of a kind of model; None for "normal"."""
    labels, num_classes = images.train_labels, images.num_classes
    if kind == "superclass":
        return Superclasses.pairs(num_classes)
    if kind == "poisoned":
        return PoisonedLabels.draw(labels, poisoned_share, num_classes, seed=seed)
    if kind == "marked":
        largest = 255.0 if images.train_images.dtype == np.uint8 else 1.0
        marks = Marks.draw(labels, MARKED_CLASS, MARKED_SHARE, seed=seed, largest=largest)
        # The paper's mark would cover images of 8 x 8 pixels altogether.
        is_small = min(images.train_images.shape[1:3]) < _SMALL_IMAGE
        return replace(marks, frame=1, square=2) if is_small else marks
    return None


def build(recipe: Recipe, images: ImageData, num_classes: int) -> keras.Model:
    """Return the network of a recipe, untrained and compiled.

    Raises:
        ValueError: an unknown network.
    """
    require(
        recipe.network in NETWORKS,
        f"`network` is one of {', '.join(NETWORKS)}.",
        {"network": recipe.network},
    )
    model = NETWORKS[recipe.network](images.train_images.shape[1:], num_classes)
    num_steps = recipe.epochs * -(-len(images.train_labels) // recipe.batch_size)
    rate: Any = recipe.learning_rate
    if recipe.is_decaying:
        rate = keras.optimizers.schedules.CosineDecay(rate, num_steps)
    optimizer = (
        keras.optimizers.Adam(rate)
        if recipe.momentum is None
        else keras.optimizers.SGD(rate, momentum=recipe.momentum)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def _train(images: ImageData, kind: Kind, seed: int, recipe: Recipe, place: pathlib.Path) -> None:
    """Train a model aside, then put its folder in place."""
    unfinished = place.with_name(f"{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    truth = draw_truth(images, kind, seed, recipe.poisoned_share)
    if truth is not None:
        truth.save(unfinished / _TRUTH)
    train, test = datasets(images, truth)
    inputs, labels = _arrays(train)
    keras.utils.set_random_seed(seed)
    model = build(recipe, images, int(labels.max()) + 1)
    start = time.perf_counter()
    model.fit(
        inputs, labels, batch_size=recipe.batch_size, epochs=recipe.epochs, verbose=0,
        callbacks=[SaveCheckpoints(unfinished / _CHECKPOINTS)],
    )  # fmt: skip
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(test, verbose=0)
    model.save(unfinished / _MODEL)
    record = {
        "kind": kind,
        "seed": seed,
        **recipe._asdict(),
        "test_accuracy": float(accuracy),
        "seconds": seconds,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
    }
    (unfinished / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
    os.replace(unfinished, place)


def _checked_record(place: pathlib.Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    try:
        record = json.loads((place / _RECORD).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{place} holds no model of a benchmark, or a damaged one. Give another folder of models, or delete this "
            f"one to train the model again. Received: error={type(error).__name__}."
        ) from error
    differing = {key: record.get(key) for key, value in expected.items() if record.get(key) != value}
    require(
        not differing,
        f"The model in {place} was trained otherwise. Give another folder, or delete this one to train again.",
        {key: f"{there} there, {expected[key]} asked" for key, there in differing.items()},
    )
    return record


@contextlib.contextmanager
def _named(place: pathlib.Path) -> Iterator[None]:
    """Say which folder is damaged and what to do: Keras, NumPy and HDF5 each raise something else."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"The model in {place} cannot be read; its files are damaged or missing. Delete the folder to train the "
            f"model again. Received: error={type(error).__name__}."
        ) from error


def datasets(images: ImageData, truth: Perturbation | None) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Return the training and test batches of a model."""
    train = tf.data.Dataset.from_tensor_slices((images.train_images, images.train_labels)).batch(_BATCH_SIZE)
    test = tf.data.Dataset.from_tensor_slices((images.test_images, images.test_labels)).batch(_BATCH_SIZE)
    if truth is None:
        return train, test
    return truth.apply(train), truth.apply(test) if isinstance(truth, Superclasses) else test


def _read(name: str, split: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    source = sources.read_dataset(f"{name}:{split}", name="data", batch_size=_BATCH_SIZE, data_dir=data_dir)
    return _arrays(source.dataset)


def _arrays(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return all images and labels of batches."""
    parts = [(images.numpy(), labels.numpy()) for images, labels, *_ in dataset]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
