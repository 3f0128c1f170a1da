"""Models whose training is recorded, so that it can be repeated without some of its examples."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import keras
import numpy as np
import scipy.special

from deel_dualview._checks import describe, require
from deel_dualview.evaluation.networks import Recipe
from deel_dualview.evaluation.trained_models import Subject, build, datasets, load_images
from deel_dualview.models.recorded_training import RecordedTraining, record_training

RECORDED: Final = "recorded"
"""The kind of these models."""
NUM_RECORDED = 128
"""Of so many test examples outputs of repeated trainings are kept: enough for an interval of some hundredths."""
_BATCH = 512


class RecordedCase(NamedTuple):
    """A training that is recorded.

    Attributes:
        data: name of the dataset.
        num_train: the first so many training examples, or all if there are fewer.
        recipe: how the network is trained on them.
    """

    data: str
    num_train: int
    recipe: Recipe


CASES: Mapping[str, RecordedCase] = MappingProxyType(
    {
        "digits-mlp": RecordedCase(
            "digits", 1_000, Recipe("mlp", 15, 50, 0.02, is_decaying=True, momentum=0.9)
        ),
        "digits-mlp-adam": RecordedCase("digits", 1_000, Recipe("mlp", 15, 50, 3e-3, is_decaying=True)),
        "mnist-cnn": RecordedCase(
            "mnist", 10_000, Recipe("paper-cnn", 2, 100, 0.02, is_decaying=True, momentum=0.9)
        ),
        "mnist-cnn-smooth": RecordedCase(
            "mnist", 10_000, Recipe("smooth-cnn", 3, 500, 5e-3, is_decaying=True, momentum=0.9)
        ),
    }
)
"""Trainings by name. The smooth ones are those in which influence can predict what a removal does: small steps of large
batches, and an activation without a kink."""
_CASE_OF = {"digits": "digits-mlp", "mnist": "mnist-cnn-smooth"}


def recorded_case(data: str, recipe: Recipe | None = None) -> RecordedCase:
    """Return the training that benchmarks of a dataset record.

    Args:
        data: name of the dataset.
        recipe: in place of its own.

    Raises:
        ValueError: there is none for this dataset, and no recipe.
    """
    require(
        data in _CASE_OF or recipe is not None,
        f"Trainings are recorded of {', '.join(_CASE_OF)}; give `recipe` for another dataset, of a network without "
        "batch normalisation.",
        {"data": data},
    )
    if recipe is None:
        return CASES[_CASE_OF[data]]
    return RecordedCase(data, CASES[_CASE_OF[data]].num_train if data in _CASE_OF else 10_000, recipe)


def recorded_subject(
    case: RecordedCase, seed: int, *, directory: pathlib.Path, data_dir: str | None = None
) -> Subject:
    """Train the network of a case, which takes seconds, and return it with its recorded training.

    Nothing is stored: the same call repeats the training bit for bit on one machine with as many threads.

    Args:
        case: what is trained.
        seed: of the initial weights and of the order of the batches.
        directory: where models are kept; outputs of repeated trainings lie there.
        data_dir: where TFDS keeps its datasets.
    """
    images = load_images(case.data, data_dir)
    images = images._replace(
        train_images=images.train_images[: case.num_train], train_labels=images.train_labels[: case.num_train]
    )
    train, test = datasets(images, None)
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    model = build(case.recipe, images, images.num_classes)
    training = record_training(
        model, train, epochs=case.recipe.epochs, batch_size=case.recipe.batch_size, seed=seed
    )
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(test, verbose=0)
    return Subject(
        data=case.data,
        kind=RECORDED,
        seed=seed,
        model=model,
        train=train,
        test=test,
        truth=None,
        original_labels=images.train_labels,
        test_accuracy=float(accuracy),
        seconds=seconds,
        checkpoints_directory=directory / case.data / f"{RECORDED}-{seed}",
        training=training,
    )


def training_of(subject: Subject) -> RecordedTraining:
    """Return the recorded training of a model.

    Raises:
        ValueError: it has none.
    """
    if subject.training is None:
        raise ValueError(describe("A model with a recorded training is needed.", {"kind": subject.kind}))
    return subject.training


class TrainingRetrainer:
    """Runs a recorded training again without some examples, for the outputs of test examples.

    Args:
        training: recorded.
        test_inputs: of all test examples.
    """

    def __init__(self, training: RecordedTraining, test_inputs: np.ndarray) -> None:
        self.training, self.test_inputs = training, test_inputs

    def log_probabilities(self, kept: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of all test examples after training on some examples, shape (m, c)."""
        left_out = np.setdiff1d(np.arange(self.training.num_train), kept)
        return self.outputs(self.training.retrain(self.training.without(left_out)))

    def outputs(self, parameters: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the log-probabilities of some test examples by the weights of a training, shape (m, c), float64."""
        inputs = self.test_inputs[rows]
        parts = [
            self.training.outputs(inputs[start : start + _BATCH], parameters)
            for start in range(0, len(inputs), _BATCH)
        ]
        found: np.ndarray = scipy.special.log_softmax(np.concatenate(parts).astype(np.float64), axis=1)
        return found


def draw_left_out(num_train: int, share: float, seed: int, number: int) -> np.ndarray:
    """Return the positions of the examples that a subset leaves out, shape (share * n,), increasing."""
    count = round(share * num_train)
    return np.sort(np.random.default_rng([number, count, seed]).choice(num_train, count, replace=False))
