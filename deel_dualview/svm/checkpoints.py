"""How far a fit has come, on the disk: an interrupted one goes on from there, to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from deel_dualview import _files
from deel_dualview._checks import describe, require
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.solution import Certificate

_FORMAT = 2
_SECONDS = 20.0
_UNREADABLE = OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile
_SOLUTION, _STATE = {"alpha_data", "objectives", "iterations"}, {"lambda_data", "history", "random", "counts"}
# Arrays of a sparse matrix.
CSR = ("data", "indices", "indptr")


class Checkpoint:
    """The state of one fit in a file of a directory, named by what the fit depends on.

    Args:
        directory: made if missing.
        problem: that is solved.
        settings: everything else that the state depends on.
    """

    def __init__(self, directory: Path, problem: Problem, settings: Mapping[str, Any]) -> None:
        n, d = problem.features.shape
        digest = hashlib.sha256(
            json.dumps([_FORMAT, n, d, problem.num_classes, problem.K, settings]).encode()
        )
        for array in (problem.labels, problem.penalties, problem.features.keys):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.path = directory / f"fit-{digest.hexdigest()[:24]}.npz"
        self._saved = time.monotonic()
        self._is_lost = False
        with self._warning_of_failures():
            directory.mkdir(parents=True, exist_ok=True)
            _files.remove_unfinished(directory)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the arrays that were saved last; None where there are none.

        Raises:
            ValueError: the file is damaged, or cannot be read.
        """
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            if not any(names <= set(found) for names in (_SOLUTION, _STATE)):
                raise ValueError("it is no state of a fit")
            return found
        except (FileNotFoundError, NotADirectoryError):
            return None
        except _UNREADABLE as error:
            message = (
                f"The checkpoint {self.path.name} of a fit is damaged: {error}. Delete it to fit anew; nothing else is "
                "lost."
            )
            raise ValueError(describe(message, {"directory": str(self.path.parent)})) from error

    def solution(self, problem: Problem) -> tuple[Certificate[scipy.sparse.csr_array], int] | None:
        """Return the result of a fit that ended, and its iterations; None where there is none."""
        saved = self.load()
        if saved is None or "alpha_data" not in saved:
            return None
        shape = problem.num_examples, problem.num_classes
        alpha = scipy.sparse.csr_array(tuple(saved[f"alpha_{name}"] for name in CSR), shape)
        primal, dual = saved["objectives"].tolist()
        return Certificate(alpha, saved["weights"], primal, dual, saved["slack"]), int(saved["iterations"])

    def save_solution(self, found: Certificate[scipy.sparse.csr_array], num_iterations: int) -> None:
        """Keep the result of a fit in the place of its state."""
        arrays = {f"alpha_{name}": getattr(found.point, name) for name in CSR}
        arrays |= {"weights": found.weights, "slack": found.slack, "iterations": np.array(num_iterations)}
        self.save(arrays | {"objectives": np.array([found.primal, found.dual])}, at_once=True)

    def save(self, arrays: Mapping[str, np.ndarray], *, at_once: bool = False) -> None:
        """Save arrays, at most every 20 seconds unless `at_once`; a failed write gives a warning, once."""
        if self._is_lost or (not at_once and time.monotonic() - self._saved < _SECONDS):
            return
        with self._warning_of_failures(), _files.written_aside(self.path) as aside:
            np.savez(aside, allow_pickle=False, **arrays)
        self._saved = time.monotonic()

    @contextmanager
    def _warning_of_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._is_lost = True
            warnings.warn(
                f"The fit goes on, but would begin anew after an interruption: {self.path.parent} does not take its "
                f"checkpoint, {error.strerror or error}.",
                UserWarning,
                stacklevel=2,
            )


def check_directory(name: str, path: str | os.PathLike[str]) -> None:
    """Refuse what is no path, or one of something else than a directory.

    Raises:
        TypeError: it is no text and no path.
        ValueError: there is a file of this name.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`{name}` must be the path of a directory. Received: {name}={path!r}.")
    is_file = Path(path).exists() and not Path(path).is_dir()
    require(not is_file, f"`{name}` must be a directory, and not a file.", {name: str(path)})
