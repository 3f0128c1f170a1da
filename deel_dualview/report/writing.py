"""A report's directory, written whole or not at all: a page, its data as JSON, and sparse attributions."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse

from deel_dualview import _files
from deel_dualview.plots.formatting import escaped_json

FILE_NAMES = ("index.html", "audit.json", "attributions.npz", "label_issues.csv")


def check_output_directory(
    directory: str | os.PathLike[str], *, overwrite: bool = False, names: Sequence[str] = FILE_NAMES
) -> pathlib.Path:
    """Say before long work whether a report of the files `names` could be written to `directory`.

    What a killed process left of an earlier report is tidied up, and the writing is rehearsed.

    Raises:
        FileExistsError: the directory exists and `overwrite` is off, or it holds files that no report wrote.
        NotADirectoryError: a file has that name, or the directory cannot be made and renamed there.
    """
    path = pathlib.Path(directory)
    with _files.refusals_as(partial(_cannot_write, path)):
        _check_place(path)
        _files.recover_directory(path)
        is_there = path.exists()
    if is_there:
        _check_content(path, overwrite=overwrite, names=names)
    with _files.refusals_as(partial(_cannot_write, path)):
        _files.rehearse_directory(path)
    return path


def _check_place(path: pathlib.Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise _cannot_write(path, "this name is taken by a file or a link")
    here = pathlib.Path.cwd().resolve()
    if path.resolve() in (here, *here.parents) or path.name in ("", ".."):
        raise _cannot_write(path, "the current directory, or one above it, cannot be replaced")


def _check_content(path: pathlib.Path, *, overwrite: bool, names: Sequence[str]) -> None:
    if not overwrite:
        raise FileExistsError(
            "A report goes into a new directory, but this one exists. Choose another, or replace the "
            f"earlier report with overwrite=True (--overwrite on the command line). Received: {str(path)!r}."
        )
    foreign = sorted({entry.name for entry in path.iterdir()} - set(names))
    if foreign:
        raise FileExistsError(
            "Only an earlier report is overwritten, but this directory holds other files "
            f"({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}). Choose another directory, or "
            f"move them. Received: {str(path)!r}."
        )


def _cannot_write(path: pathlib.Path, reason: str) -> NotADirectoryError:
    return NotADirectoryError(
        f"The report cannot be written: {reason}. It is a directory that is written beside its place and then renamed: "
        f"choose a name in a directory that can be written to, and no mount point. Received: {str(path)!r}."
    )


def write_report(directory: pathlib.Path, writers: Mapping[str, Callable[[pathlib.Path], None]]) -> None:
    """Write every file of a report beside `directory`, then put them in its place at once."""
    with _files.replaced_directory(directory) as aside:
        for name, write in writers.items():
            write(aside / name)


def to_json(value: Any) -> Any:
    """Turn dataclasses, enumerations and NumPy numbers into what JSON has; NaN and infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: pathlib.Path, payload: Mapping[str, Any]) -> None:
    """Write `payload` as JSON that any reader accepts (no NaN)."""
    text = json.dumps(to_json(payload), allow_nan=False, indent=1, ensure_ascii=False)
    path.write_text(escaped_json(text) + "\n", encoding="utf-8")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a page."""
    path.write_text(text, encoding="utf-8")


def write_attributions(
    path: pathlib.Path, attributions: scipy.sparse.csr_array, extra: Mapping[str, np.ndarray]
) -> None:
    """Write sparse values for `scipy.sparse.load_npz` and `numpy.load` alike, without pickles.

    Args:
        path: file to write.
        attributions: influence values, shape (m, n).
        extra: further arrays, such as the test predictions (m,).

    Raises:
        TypeError: an array holds Python objects.
    """
    matrix = scipy.sparse.csr_array(attributions)
    arrays: dict[str, Any] = {
        "format": np.array(b"csr"),
        "shape": np.array(matrix.shape),
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "_is_array": np.array(True),
    }
    arrays |= {name: np.asarray(array) for name, array in extra.items()}
    pickled = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if pickled:
        raise TypeError(
            f"Arrays of objects could only be written as pickles. Received: {', '.join(pickled)}."
        )
    np.savez_compressed(path, **arrays)
