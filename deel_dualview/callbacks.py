"""Keras callback that keeps the checkpoints TracIn needs, and their way back."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview._checks import check_count, describe, require
from deel_dualview.models import InfluenceModel

_MANIFEST = "checkpoints.json"


class Checkpoints(NamedTuple):
    """Checkpoints of a training run, in its order.

    Attributes:
        models: one for each.
        learning_rates: of the first step of the epoch that each one ends.
        epochs: how many epochs were over, from 1.
    """

    models: list[InfluenceModel]
    learning_rates: list[float]
    epochs: list[int]


class SaveCheckpoints(keras.callbacks.Callback):
    """Writes weights and the learning rate at the end of epochs, for `TracIn`.

    The learning rate is read at the first step of the epoch, after schedulers that act when an epoch begins
    and before those that act when it ends. Files are written aside and renamed, so that a killed run leaves
    whole checkpoints. A second `fit` with the same callback goes on where the first one ended.

    Args:
        directory: where to write; made if it does not exist.
        every: write at every so many epochs.

    Raises:
        ValueError: (when training starts) the directory holds checkpoints of another run.
    """

    def __init__(self, directory: str | os.PathLike[str], *, every: int = 1) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.every = check_count("every", every)
        self._entries: list[dict[str, Any]] = []
        self._num_epochs = 0
        self._learning_rate = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Make the directory, or refuse one that is in use."""
        del logs
        require(
            bool(self._entries) or not (self.directory / _MANIFEST).exists(),
            "The directory holds checkpoints of another run: give an empty one.",
            {"directory": str(self.directory)},
        )
        self.directory.mkdir(parents=True, exist_ok=True)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Read the learning rate of the epoch's first step."""
        del logs
        if batch == 0:
            self._learning_rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write a checkpoint if it is time."""
        del epoch, logs
        self._num_epochs += 1
        if self._num_epochs % self.every:
            return
        name = f"epoch_{self._num_epochs:05d}.weights.h5"
        self.model.save_weights(self.directory / f"unfinished_{name}")
        os.replace(self.directory / f"unfinished_{name}", self.directory / name)
        entry = {"file": name, "epoch": self._num_epochs, "learning_rate": self._learning_rate}
        self._entries.append(entry)
        unfinished = self.directory / f"unfinished_{_MANIFEST}"
        unfinished.write_text(json.dumps(self._entries, indent=1))
        os.replace(unfinished, self.directory / _MANIFEST)


def load_checkpoints(
    directory: str | os.PathLike[str],
    model: keras.Model | Callable[[], keras.Model],
    *,
    feature_layer: str | None = None,
) -> Checkpoints:
    """Return the checkpoints that `SaveCheckpoints` wrote, each in a model of its own.

    The model itself is not changed. `TracIn(found.models, train_set, learning_rates=found.learning_rates)`.

    Args:
        directory: where they were written.
        model: the model, of which copies are made, or a function that builds one (for a model that Keras
            cannot clone).
        feature_layer: passed to InfluenceModel.

    Raises:
        ValueError: there are no checkpoints, or they are of another architecture.
    """
    manifest = Path(directory) / _MANIFEST
    require(
        manifest.exists(),
        "No checkpoints here: train with `fit(..., callbacks=[SaveCheckpoints(directory)])` first.",
        {"directory": str(directory)},
    )
    entries = json.loads(manifest.read_text())
    models = [
        InfluenceModel(_restored(model, Path(directory) / entry["file"]), feature_layer) for entry in entries
    ]
    return Checkpoints(
        models, [entry["learning_rate"] for entry in entries], [entry["epoch"] for entry in entries]
    )


def _restored(model: keras.Model | Callable[[], keras.Model], path: Path) -> keras.Model:
    copy = keras.models.clone_model(model) if isinstance(model, keras.Model) else model()
    try:
        copy.load_weights(path)
    except ValueError as error:
        raise ValueError(
            describe(
                "The checkpoint is of another architecture than the model: give the model, or the function that "
                "builds it, that was trained.",
                {"checkpoint": path.name, "model": copy.name},
            )
        ) from error
    return copy
