"""Errors about single examples, which are named by their position in the dataset, and the check for numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe


class RowsError(ValueError):
    """An error about rows of a batch, whose place in the dataset is not known where it is raised.

    Args:
        needed: what is needed, what was found and how to fix it, in full sentences.
        rows: the rows, counted from the first of the batch.
        received: other values to show, by name.
    """

    def __init__(self, needed: str, rows: np.ndarray, received: Mapping[str, object]):
        super().__init__(describe(needed, {"rows": rows.tolist(), **received}))
        self._needed, self._rows, self._received = needed, rows, received

    @property
    def rows(self) -> np.ndarray:
        """The rows, counted from the first of the batch."""
        return self._rows

    def of(self, rows: np.ndarray) -> "RowsError":
        """Return the same error of other rows."""
        return RowsError(self._needed, np.unique(rows), self._received)

    def at(self, start: int, name: str) -> ValueError:
        """Return the same error with positions in the dataset `name`, of a batch whose first example is at `start`."""
        received: dict[str, object] = {"dataset": name} if name else {}
        received |= {"indices": (self._rows + start).tolist(), **self._received}
        return ValueError(describe(self._needed, received))


@contextmanager
def naming_positions(start: int, name: str = "") -> Iterator[None]:
    """Give errors about rows of a batch, raised inside, by position; its first example is at `start`.

    Args:
        start: position of the first example in its dataset.
        name: the argument that the dataset came by, where that is not clear.
    """
    try:
        yield
    except RowsError as error:
        raise error.at(start, name) from None


def check_finite(inputs: Any, start: int, name: str) -> None:
    """Reject inputs with NaN or infinity, which a network may well turn into finite features (ReLU of NaN can be 0).

    Args:
        inputs: tensors or arrays, nested, each (b, ...); only floating-point and complex ones are looked at.
        start: position of the first example in its dataset.
        name: the argument that the dataset came by.

    Raises:
        ValueError: some are not finite.
    """
    rows = not_finite_rows(inputs)
    if len(rows):
        raise ValueError(
            describe(
                f"`{name}` has NaN or infinity in the inputs of {len(rows)} example(s) of a batch: filter them out, or "
                "replace those numbers, as when the model was trained. Where a layer of the model replaces them, apply "
                "it to the dataset and explain the rest: keras.Model(layer.output, model.output). "
                "Of trees TreeEnsembleModel takes a number that stands for them, `missing`.",
                {"indices": (rows + start).tolist()},
            )
        )


def not_finite_rows(inputs: Any) -> np.ndarray:
    """Return the rows of a batch of nested inputs, each (b, ...), that hold NaN or infinity, increasing."""
    wrong = [rows for leaf in tf.nest.flatten(inputs) if len(rows := _not_finite(leaf))]
    return np.unique(np.concatenate(wrong)) if wrong else np.empty(0, np.int64)


def _not_finite(leaf: Any) -> np.ndarray:
    dtype = tf.as_dtype(leaf.dtype)
    if not (dtype.is_floating or dtype.is_complex):
        return np.empty(0, np.int64)
    array = leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf
    return np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
