"""What known changes of a dataset share: positions, and files.

What is changed is drawn once, by position, so that neither the batch size nor a second pass moves it, and can
be saved and loaded.
"""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import tensorflow as tf

from deel_dualview import _files, data
from deel_dualview._checks import require


@dataclass(frozen=True, eq=False)
class Perturbation(ABC):
    """A change of a batched dataset of elements `(inputs, labels, ...)`."""

    @abstractmethod
    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the changed dataset, lazily.

        Args:
            dataset: batched, labels as class indices.
        """

    def save(self, path: str | pathlib.Path) -> None:
        """Write what was drawn to a compressed NumPy archive, whole or not at all."""
        arrays: dict[str, Any] = {
            field.name: np.asarray(getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        arrays["kind"] = np.array(type(self).__name__)
        with _files.written_aside(pathlib.Path(path)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is no archive, or holds another kind of perturbation.
        """
        needed = f"An archive written by {cls.__name__}.save is needed."
        try:
            with pathlib.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{needed} Received: path={str(path)!r}.") from error
        kind = str(arrays.pop("kind", ""))
        names = {field.name for field in dataclasses.fields(cls)}
        require(kind == cls.__name__ and names == set(arrays), needed, {"path": str(path), "kind": kind})
        return cls(**{name: array.item() if array.ndim == 0 else array for name, array in arrays.items()})


def with_positions(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset of (positions (b,), element)."""
    data.check_batched(dataset, "dataset")

    def number(start: tf.Tensor, element: Any) -> Any:
        size = tf.shape(tf.nest.flatten(element)[0], tf.int64)[0]
        return start + size, (start + tf.range(size), element)

    return dataset.scan(tf.constant(0, tf.int64), number)


def table(indices: np.ndarray, values: np.ndarray) -> tf.lookup.StaticHashTable:
    """Return a table from positions to values; -1 for all others."""
    keys = tf.constant(np.asarray(indices, np.int64))
    entries = tf.lookup.KeyValueTensorInitializer(keys, tf.constant(np.asarray(values, np.int64)))
    return tf.lookup.StaticHashTable(entries, -1)


def checked_classes(labels: Any) -> np.ndarray:
    """Return class indices as an array; anything else is refused."""
    classes = data.to_array(labels)
    require(
        classes.ndim == 1 and np.issubdtype(classes.dtype, np.integer),
        "Labels must be class indices, integers of shape (n,).",
        {"shape": classes.shape, "dtype": str(classes.dtype)},
    )
    return classes


def checked_share(share: float) -> float:
    """Return a share of 1; anything else is refused."""
    require(0 <= share <= 1, "`share` must lie between 0 and 1.", {"share": share})
    return share


def indicator(indices: np.ndarray, num_examples: int) -> np.ndarray:
    """Return whether each of n positions is among the indices, shape (n,)."""
    require(
        len(indices) == 0 or int(indices[-1]) < num_examples,
        "The perturbation was drawn for a larger dataset.",
        {"largest position": int(indices[-1]) if len(indices) else None, "num_examples": num_examples},
    )
    is_member = np.zeros(num_examples, bool)
    is_member[indices] = True
    return is_member
