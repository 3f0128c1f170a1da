"""One result on disk: of one method, on one kind of model, of one seed. Whole or not there at all."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from deel_dualview import _files
from deel_dualview._checks import describe, require
from deel_dualview.report.writing import to_json

FORMAT = 2
FOLDER = "cells"


@dataclass(frozen=True)
class ResultKey:
    """The key of a result; two results of one key and one model are the same experiment.

    Attributes:
        data: name of the dataset.
        method: what tables call it.
        settings: everything that the method's values depend on besides model and data.
        protocol: the task.
        seed: of the model and of the draw of test examples.
        asked: settings of the task, such as the number of test examples.
    """

    data: str
    method: str
    settings: str
    protocol: str
    seed: int
    asked: Mapping[str, Any]

    @property
    def place(self) -> pathlib.PurePath:
        """Its file below the output folder."""
        slug = re.sub(r"[^\w.=-]+", "_", self.method).strip("_.") or "method"
        return pathlib.PurePath(self.data, FOLDER, slug, f"{self.protocol}-{self.seed}.json")

    def differences(self, other: ResultKey) -> dict[str, tuple[object, object]]:
        """Return what differs, by name: (here, there)."""
        ours, theirs = _flat(self), _flat(other)
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        return {name: (ours.get(name), theirs.get(name)) for name in names}


@dataclass(frozen=True)
class Result:
    """A result, or the error in its place.

    Attributes:
        identity: its key.
        model: fingerprint of the model that was explained, and its test accuracy.
        metrics: by name: value, num_examples, interval, and further figures.
        details: curves and counts that belong to the metrics, by name.
        cost: seconds and bytes by name.
        error: type and message where the method failed, else None.
        warnings: messages, each once.
        context: command (or None, and the call in its place), versions, machine and date.
    """

    identity: ResultKey
    model: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    def write(self, output: pathlib.Path) -> None:
        """Write the result below the output folder, atomically."""
        path = output / self.identity.place
        path.parent.mkdir(parents=True, exist_ok=True)
        _files.write_checked_json(path, {"format": FORMAT, **to_json(asdict(self))})


def read_result(path: pathlib.Path) -> Result:
    """Read what `Result.write` wrote.

    Raises:
        ValueError: the file holds something else, or was damaged or changed.
    """
    needed = f"{path} is no result of `deel-dualview benchmark` of this version"
    remedy = "Move or remove the file, and the result is computed again."
    try:
        payload = _files.read_checked_json(path)
        require(payload.pop("format") == FORMAT, "it has another format", {})
        payload["identity"] = ResultKey(**payload["identity"])
        payload["warnings"] = tuple(payload["warnings"])
        return Result(**payload)
    except (OSError, ValueError) as error:
        raise ValueError(f"{needed}: {str(error).rstrip('.')}. {remedy}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{needed}. {remedy}") from error


def read_results(output: pathlib.Path, data: str) -> list[Result]:
    """Return all cells of a dataset below an output folder, sorted by their files' names.

    Raises:
        ValueError: a file that is no cell.
    """
    paths = sorted((output / data / FOLDER).glob("*/*.json"))
    return [read_result(path) for path in paths if not _files.is_unfinished(path.name)]


def check_folder(output: pathlib.Path, data: str, names: Iterable[str]) -> None:
    """Refuse an output folder of something else.

    Args:
        output: the folder.
        data: name of the dataset.
        names: what may lie in the dataset's folder.

    Raises:
        FileExistsError: it holds files that no benchmark wrote.
        NotADirectoryError: a file has that name.
    """
    with _files.refusals_as(partial(_cannot_write, output)):
        for folder in (output, output / data):
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(
                    describe("Results go into a folder, but a file has this name.", {"output": str(folder)})
                )
        folder = output / data
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(name for name in found - {FOLDER, *names} if not _files.is_unfinished(name))
    if foreign:
        raise FileExistsError(
            describe(
                f"This folder holds other files ({', '.join(foreign[:3])}): choose another output folder.",
                {"output": str(folder)},
            )
        )


def prepare_folders(output: pathlib.Path, data: str, models: pathlib.Path) -> None:
    """Remove what killed runs left in the folders of results and models, and rehearse writing there.

    Raises:
        NotADirectoryError: the folders cannot be made or written to.
    """
    cells = output / data / FOLDER
    with _files.refusals_as(partial(_cannot_write, output)):
        for place in (*cells.parent.glob("*/"), *cells.glob("*/"), cells.parent):
            _files.remove_unfinished(place)
        _files.rehearse_directory(cells / "result")
    with _files.refusals_as(partial(_cannot_write, models)):
        _files.rehearse_directory(models / "model")


def _cannot_write(folder: pathlib.Path, reason: str) -> NotADirectoryError:
    message = f"This folder cannot be written to: {reason}. Choose another one."
    return NotADirectoryError(describe(message, {"folder": str(folder)}))


def _flat(identity: ResultKey) -> dict[str, object]:
    own = asdict(identity)
    return {**own.pop("asked"), **own}
