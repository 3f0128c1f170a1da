"""Keras callback that keeps the checkpoints TracIn needs, and their way back."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview import _files
from deel_dualview._checks import check_count, describe, require
from deel_dualview.models.checkpoint_files import Record, Run, damaged, digest_of, read_run, write_run
from deel_dualview.models.influence_model import InfluenceModel

_FINAL = "final.weights.h5"


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

    Where the model that training leaves is none of the written ones (averaged weights, best weights that were
    restored, a last epoch that is not written), it is written as one more checkpoint. For this to hold
    for weights that another callback sets at the end of training, this callback comes after it in the list.

    The learning rate is read at the first step of the epoch, after schedulers that act when an epoch begins
    and before those that act when it ends. Files are written whole or not at all. A second `fit` of the model
    with the same callback goes on where the first one ended. After an interruption, a new callback goes on in the
    directory when training starts with the weights of an epoch and its number: `fit(initial_epoch=...)`, or
    `keras.callbacks.BackupAndRestore` later in the list. Checkpoints after that epoch are replaced.

    Args:
        directory: where to write; made if it does not exist.
        every: write at every so many epochs.

    Raises:
        ValueError: (when training starts) the directory holds checkpoints of another run, or damaged ones.
    """

    def __init__(self, directory: str | os.PathLike[str], *, every: int = 1) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.every = check_count("every", every)
        self._run = Run()
        self._trained: keras.Model | None = None
        self._is_started = False
        self._offset = 0
        self._learning_rate = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Make the directory, or read what it holds."""
        del logs
        self.directory.mkdir(parents=True, exist_ok=True)
        _files.remove_unfinished(self.directory)
        self._run = read_run(self.directory) or Run()
        self._is_started = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find out, at the first epoch, where the run goes on: other callbacks may have loaded weights."""
        del logs
        if self._is_started:
            return
        records = self._run.records if self._run.files else ()
        if records:
            last = self._find_start(epoch)
            records = tuple(record for record in records if record.epoch <= last)
            self._offset = max(0, last - epoch)
        else:
            records = (Record(epoch, 0.0, digest_of(self.model)),)
            self._offset = 0
        if len(records) < len(self._run.records):
            self._write(Run(records))
        self._run = self._run._replace(records=records)
        self._trained, self._is_started = self.model, True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Read the learning rate of the epoch's first step."""
        del logs
        if batch == 0:
            self._learning_rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write a checkpoint if it is time."""
        del logs
        number = self._offset + epoch + 1
        record = Record(number, self._learning_rate, digest_of(self.model))
        if number % self.every == 0:
            record = self._save(record, f"epoch_{number:05d}.weights.h5")
        self._write(Run((*self._run.records, record)))

    def on_train_end(self, logs: Any = None) -> None:
        """Write the model that training leaves, unless a checkpoint is its equal."""
        del logs
        if not self._is_started:
            return
        weights = digest_of(self.model)
        record = (self._run.of(weights) or self._run.records)[-1]
        if record.weights != weights or record.file is None:
            record = self._save(record._replace(weights=weights), _FINAL)
        self._write(self._run._replace(final=record))

    def _find_start(self, epoch: int) -> int:
        """Return after which epoch of the run in the directory training starts."""
        known = self._run.of(digest_of(self.model))
        if self._trained is self.model:
            return (known or self._run.records)[-1].epoch
        is_restart = epoch > 0 or self._run.final is None
        require(
            is_restart and any(record.epoch == epoch for record in known),
            "The directory holds checkpoints of another run: give an empty one. To go on with that run, start with "
            f"the weights and the number of one of its epochs, for instance {_example(self.directory, self._run)} "
            "and fit(..., initial_epoch=...).",
            {"directory": str(self.directory), "initial_epoch": epoch},
        )
        return epoch

    def _save(self, record: Record, name: str) -> Record:
        path = self.directory / name
        with _files.written_aside(path) as aside:
            self.model.save_weights(aside)
        return record._replace(file=name, **_files.record_of(path)._asdict())

    def _write(self, run: Run) -> None:
        """Replace the manifest, then delete what it no longer lists."""
        write_run(self.directory, run)
        for name in self._run.files - run.files:
            (self.directory / name).unlink(missing_ok=True)
        self._run = run


def load_checkpoints(
    directory: str | os.PathLike[str],
    model: keras.Model | Callable[[], keras.Model],
    *,
    feature_layer: str | None = None,
    output: str | int | None = None,
) -> Checkpoints:
    """Return the checkpoints that `SaveCheckpoints` wrote and that lead to a model, each in a model of its own.

    The last one equals the model: where `fit` restored the weights of an earlier epoch, those after it are left
    out. The model itself is not changed. `TracIn(found.models, train_set, learning_rates=found.learning_rates)`.

    Args:
        directory: where they were written.
        model: the trained model, of which copies are made, or a function that builds one (for a model that Keras
            cannot clone); then the last checkpoint is the one that training ended with.
        feature_layer: passed to InfluenceModel.
        output: passed to InfluenceModel.

    Raises:
        ValueError: there are no checkpoints, they are damaged or of another architecture, or the model is that of
            no epoch.
    """
    folder = Path(directory)
    run = read_run(folder) or Run()
    require(
        bool(run.files),
        "No checkpoints here: train with `fit(..., callbacks=[SaveCheckpoints(directory)])` first.",
        {"directory": str(directory)},
    )
    last = run.final or next(record for record in reversed(run.records) if record.file)
    weights = digest_of(model) if isinstance(model, keras.Model) else last.weights
    records = run.up_to(weights)
    models = [_restored(model, folder, record) for record in records or [last]]
    require(
        bool(records),
        f"The weights of the model are those of none of the epochs {run.records[0].epoch + 1} to "
        f"{run.records[-1].epoch} in the directory. Give the model that `fit` left, or one of an epoch: "
        f"{_example(folder, run)}. If another callback changes the weights at the end of training, list "
        "SaveCheckpoints after it. For all checkpoints, give a function that builds the model.",
        {"directory": str(directory), "model": getattr(model, "name", model)},
    )
    return Checkpoints(
        [InfluenceModel(own, feature_layer, output=output) for own in models],
        [record.learning_rate for record in records],
        [record.epoch for record in records],
    )


def _restored(model: keras.Model | Callable[[], keras.Model], directory: Path, record: Record) -> keras.Model:
    copy = keras.models.clone_model(model) if isinstance(model, keras.Model) else model()
    if record.file is None and isinstance(model, keras.Model):  # the model's own epoch, which was not written
        copy.set_weights(model.get_weights())
        return copy
    path = directory / str(record.file)
    try:
        found = _files.record_of(path)
    except OSError as error:
        raise damaged(directory, f"{path.name} cannot be read ({error.strerror})") from error
    if found != (record.num_bytes, record.crc32):
        raise damaged(directory, f"{path.name} is not what was written")
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


def _example(directory: Path, run: Run) -> str:
    """Return the call that loads the weights of the last epoch that was written."""
    name = max(run.files - {_FINAL}, default=_FINAL)
    return f"model.load_weights({str(directory / name)!r})"
