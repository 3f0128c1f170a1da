"""How far a fit has come, on the disk: an interrupted one goes on from there, to the same bits."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from deel_dualview import _files
from deel_dualview._checks import describe
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.solution import Certificate

_FORMAT = 1
# Rows that are compared whole, besides the lengths of all.
_ROWS = 64
_SECONDS = 20.0
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
        rows = np.unique(np.linspace(0, n - 1, _ROWS).astype(np.int64))
        for array in (
            problem.labels,
            problem.penalties,
            problem.features.squared_norms,
            problem.features[rows],
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.path = directory / f"fit-{digest.hexdigest()[:24]}.npz"
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the arrays that were saved last; None where there are none.

        Raises:
            ValueError: the file is damaged, or cannot be read.
        """
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
            message = f"The checkpoint {self.path.name} of a fit is damaged: {error}. Delete it to fit anew."
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
        """Save arrays, unless this was done a moment ago; a disk that does not take them is warned of."""
        if not at_once and time.monotonic() - self._saved < _SECONDS:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _files.remove_unfinished(self.path.parent)
            with _files.written_aside(self.path) as aside:
                np.savez(aside, allow_pickle=False, **arrays)
        except OSError as error:
            message = (
                f"The fit goes on, but would begin anew after an interruption: its checkpoint cannot be written, "
                f"{error.strerror or error}."
            )
            warnings.warn(describe(message, {"checkpoint": str(self.path)}), UserWarning, stacklevel=2)
        self._saved = time.monotonic()
