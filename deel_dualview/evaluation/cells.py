"""One result on disk: of one method, on one kind of model, of one seed. Whole or not there at all."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deel_dualview._checks import describe, require
from deel_dualview.report.writing import to_json

FORMAT = 1
FOLDER = "cells"


@dataclass(frozen=True)
class Identity:
    """What a result is of; two results of one identity and one model are the same experiment.

    Attributes:
        data: name of the dataset.
        method: what tables call it.
        settings: everything that the method's values depend on besides model and data.
        protocol: what was asked.
        seed: of the model and of the draw of test examples.
        asked: settings of the protocol, such as the number of test examples.
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

    def differences(self, other: Identity) -> dict[str, tuple[object, object]]:
        """Return what differs, by name: (here, there)."""
        ours, theirs = _flat(self), _flat(other)
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        return {name: (ours.get(name), theirs.get(name)) for name in names}


@dataclass(frozen=True)
class Cell:
    """A result, or the error in its place.

    Attributes:
        identity: what it is of.
        model: fingerprint of the model that was explained, and its test accuracy.
        metrics: by name: value, num_examples, interval, and further figures.
        details: curves and counts that belong to the metrics, by name.
        cost: seconds and bytes by name.
        error: type and message where the method failed, else None.
        warnings: messages, each once.
        context: command (or None, and the call in its place), versions, machine and date.
    """

    identity: Identity
    model: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    def write(self, output: pathlib.Path) -> None:
        """Write the cell below the output folder, at once."""
        path = output / self.identity.place
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **to_json(asdict(self))}, allow_nan=False, indent=1)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)


def read_cell(path: pathlib.Path) -> Cell:
    """Read what `Cell.write` wrote.

    Raises:
        ValueError: the file holds something else.
    """
    needed = f"{path} is no result of `deel-dualview benchmark` of this version: move or remove the file."
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
        require(payload.pop("format") == FORMAT, needed, {})
        payload["identity"] = Identity(**payload["identity"])
        payload["warnings"] = tuple(payload["warnings"])
        return Cell(**payload)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(needed) from error


def read_cells(output: pathlib.Path, data: str) -> list[Cell]:
    """Return all cells of a dataset below an output folder, sorted by their files' names.

    Raises:
        ValueError: a file that is no cell.
    """
    return [read_cell(path) for path in sorted((output / data / FOLDER).glob("*/*.json"))]


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
    for folder in (output, output / data):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(
                describe("Results go into a folder, but a file has this name.", {"output": str(folder)})
            )
    folder = output / data
    foreign = sorted({path.name for path in folder.iterdir()} - {FOLDER, *names}) if folder.exists() else []
    if foreign:
        raise FileExistsError(
            describe(
                f"This folder holds other files ({', '.join(foreign[:3])}): choose another output folder.",
                {"output": str(folder)},
            )
        )


def _flat(identity: Identity) -> dict[str, object]:
    own = asdict(identity)
    return {**own.pop("asked"), **own}
