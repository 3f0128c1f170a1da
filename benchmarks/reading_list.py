"""How much of the library a newcomer has to read to follow one call: files and lines of the functions entered.

    python benchmarks/reading_list.py

Builds a DualView on a small network and explains one batch of queries. Counted are the functions of the package
that run, each with all of its lines, docstring included; the solver's folder is counted apart, as are functions that
run in the constructor alone.
"""

from __future__ import annotations

import inspect
import os
import pathlib
import sys
from collections.abc import Callable
from types import CodeType, FrameType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import deel_dualview as dd

PACKAGE = pathlib.Path(dd.__file__).parent


def entered(function: Callable[[], object]) -> set[CodeType]:
    """Return the code of the package's functions that run in a call."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Modules and bodies of classes run at imports: only functions are optimised.
        if (
            event == "call"
            and code.co_flags & inspect.CO_OPTIMIZED
            and code.co_filename.startswith(str(PACKAGE))
        ):
            found.add(code)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def summary(codes: set[CodeType]) -> str:
    """Return the files, and the lines of all functions, without those of the solver."""
    outside = [code for code in codes if pathlib.Path(code.co_filename).parent.name != "svm"]
    lines = {
        (code.co_filename, line)
        for code in outside
        for line in range(
            code.co_firstlineno,
            max((line for *_, line in code.co_lines() if line), default=code.co_firstlineno) + 1,
        )
    }
    files = sorted({str(pathlib.Path(name).relative_to(PACKAGE)) for name, _ in lines})
    return f"{len(files)} files, {len(lines)} lines: {', '.join(files)}"


def main() -> None:
    """Count the files and lines of a first call, and of a query alone."""
    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)]
    )
    train = tf.data.Dataset.from_tensor_slices((inputs, inputs[:, :3].argmax(axis=1))).batch(20)
    queries = tf.data.Dataset.from_tensor_slices(inputs[:5]).batch(5)
    made: list[dd.DualView] = []
    built = entered(lambda: made.append(dd.DualView(dd.InfluenceModel(model), train)))
    # Traced already, so that only what runs for every query is counted.
    list(made[0].top_k(queries, k=3))
    queried = entered(lambda: list(made[0].top_k(queries, k=3)))
    print(f"DualView(...) and top_k   {summary(built | queried)}")
    print(f"top_k alone               {summary(queried)}")


if __name__ == "__main__":
    main()
