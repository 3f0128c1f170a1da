"""What a folder of checkpoints lists: the model after every epoch, and as training left it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from deel_dualview import _files
from deel_dualview._checks import describe

_MANIFEST = "checkpoints.json"
_FORMAT = 2


class Record(NamedTuple):
    """The model after an epoch: a checksum of its weights, and their file where one was written."""

    epoch: int
    learning_rate: float
    weights: str
    file: str | None = None
    num_bytes: int = 0
    crc32: int = 0


class Run(NamedTuple):
    """What is known about a training run.

    Attributes:
        records: of the model before the first epoch and after every epoch.
        final: of the model that training left, which need not be that of the last epoch; None until it ends.
    """

    records: tuple[Record, ...] = ()
    final: Record | None = None

    @property
    def files(self) -> set[str]:
        """Names of the files of weights."""
        return {record.file for record in self._all() if record.file}

    def of(self, weights: str) -> list[Record]:
        """Return the records of a model, in the order of training."""
        return [record for record in self._all() if record.weights == weights]

    def up_to(self, weights: str) -> list[Record]:
        """Return the records with files up to the last one of a model; none if that is of no epoch."""
        ends = [record for record in self.of(weights) if record not in self.records[:1]]
        if not ends:
            return []
        kept = [record for record in self.records if record.file and record.epoch <= ends[-1].epoch]
        return kept if kept and kept[-1].weights == weights else [*kept, ends[-1]]

    def _all(self) -> Iterator[Record]:
        yield from self.records
        if self.final is not None:
            yield self.final


def read_run(directory: Path) -> Run | None:
    """Return what a directory lists; None if there is no manifest.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        content = _files.read_checked_json(directory / _MANIFEST)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise damaged(directory, str(error).rstrip(".")) from error
    if content.get("format") != _FORMAT:
        raise damaged(directory, f"{_MANIFEST} is of another version of this library")
    final = content["final"] and Record(**content["final"])
    return Run(tuple(Record(**record) for record in content["epochs"]), final)


def damaged(directory: Path, how: str) -> ValueError:
    """Return the error for checkpoints that are not what was written."""
    message = f"The checkpoints cannot be used: {how}. Train again, into an empty directory."
    return ValueError(describe(message, {"directory": str(directory)}))


def write_run(directory: Path, run: Run) -> None:
    """Replace the manifest in a directory, whole or not at all."""
    content = {
        "format": _FORMAT,
        "epochs": [record._asdict() for record in run.records],
        "final": run.final and run.final._asdict(),
    }
    _files.write_checked_json(directory / _MANIFEST, content)


def digest_of(model: keras.Model) -> str:
    """Return a checksum of all weights of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.weights:
        array = np.asarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
