"""Data as Keras takes them (arrays, DataFrames, a PyDataset) as batched datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.data.examples import naming_positions
from deel_dualview.models.inputs import structure_of
from deel_dualview.models.labels import check_label_numbers

BATCH_SIZE = 256
Data: TypeAlias = Any
"""A batched `tf.data.Dataset`; a tuple of arrays or DataFrames, `(x,)`, `(x, y)` or `(x, y, ids)`; a `PyDataset`."""


def to_datasets(given: Mapping[str, Data], model: keras.Model) -> dict[str, tf.data.Dataset]:
    """Return data of several names as `to_dataset` does; DataFrames take the order of the first one's columns.

    Raises:
        ValueError: DataFrames with other columns.
    """
    columns: list[Any] | None = None
    found = {}
    for name, own in given.items():
        if isinstance(own, tuple) and own and _is_frame(own[0]) and not _named_inputs(own[0], model):
            columns = list(own[0].columns) if columns is None else columns
            require(
                set(own[0].columns) == set(columns),
                f"The columns of `{name}` must be those of the training set.",
                {"columns": list(own[0].columns), "columns of the training set": columns},
            )
            own = (own[0][columns], *own[1:])
        found[name] = to_dataset(own, name, model)
    return found


def to_dataset(given: Data, name: str, model: keras.Model) -> tf.data.Dataset:
    """Return data of any form that Keras takes as a batched dataset, in the order in which they come.

    The columns of a DataFrame are the inputs of those names where the model has such, else one row of numbers. Its
    index is taken as ids where no others are given, unless it is the default one.

    Args:
        given: see `Data`.
        name: the argument it came by, for messages.
        model: which takes the inputs.

    Raises:
        TypeError: something else, or columns of a DataFrame that are no numbers for a model that takes rows of them.
        ValueError: arrays of different lengths, or none; labels that are names, or missing; a Series whose index is
            another than that of the inputs.
    """
    if isinstance(given, tf.data.Dataset):
        return given
    if isinstance(given, keras.utils.PyDataset):
        return _from_py_dataset(given, name)
    if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
        raise TypeError(
            describe(
                f"`{name}` must be a batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or a tuple of arrays or "
                "DataFrames: (x, y), (x, y, ids), or (x,) without labels.",
                {"type": type(given).__name__},
            )
        )
    for part in given[1:]:
        check_same_index(given[0], part, f"the labels or ids of `{name}`")
    ids = index_ids(given[0]) if len(given) == 2 else None
    parts = (_to_inputs(given[0], name, model), *(np.asarray(part) for part in given[1:]))
    lengths = [len(leaf) for leaf in tf.nest.flatten(parts)]
    require(
        len(set(lengths)) == 1 and lengths[0] > 0,
        f"The arrays of `{name}` must have one length, an entry for each example, and one example at least.",
        {"lengths": lengths},
    )
    if len(parts) > 1:
        with naming_positions(0, name):
            check_label_numbers(parts[1])
    parts = parts if ids is None else (*parts, ids)
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(BATCH_SIZE)


def index_ids(inputs: Any) -> np.ndarray | None:
    """Return the index of a DataFrame as ids, None of the default one (0, 1, 2, ...) and of arrays."""
    index = getattr(inputs, "index", None) if _is_frame(inputs) else None
    if index is None:
        return None
    values = np.asarray(index)
    if values.dtype.kind in "iu":
        return None if np.array_equal(values, np.arange(len(values))) else values.astype(np.int64)
    return np.array([str(value) for value in index])


def check_same_index(inputs: Any, given: Any, what: str) -> None:
    """Refuse a Series or DataFrame whose index is that of the inputs in another order.

    Values are taken by position, so they would belong to other examples. An index of other values means nothing.

    Args:
        inputs: a DataFrame, or anything else, which has no index.
        given: a Series or DataFrame of the same examples, or anything else.
        what: `given`, for the message.

    Raises:
        ValueError: the order differs.
    """
    if not _is_frame(inputs) or not hasattr(given, "to_numpy") or not hasattr(given, "index"):
        return
    expected, found = inputs.index, given.index
    is_reordered = len(expected) == len(found) and not expected.equals(found) and set(expected) == set(found)
    require(
        not is_reordered,
        f"The index of {what} is that of the inputs in another order, and values are taken by position: reorder them, "
        "as in y.loc[x.index], or pass y.to_numpy() where the index means nothing.",
        {"index of the inputs": list(expected[:3]), "index": list(found[:3])},
    )


def column_names(given: Data, model: keras.Model) -> list[str] | None:
    """Return the names of the columns of a DataFrame that becomes rows of numbers, else None."""
    if not isinstance(given, tuple) or not _is_frame(given[0]) or _named_inputs(given[0], model):
        return None
    return [str(name) for name in given[0].columns]


def _to_inputs(inputs: Any, name: str, model: keras.Model) -> Any:
    if not _is_frame(inputs):
        # As Keras takes them: a list of arrays is several inputs, one of numbers, texts or lists is one.
        if isinstance(inputs, list) and inputs and not (hasattr(inputs[0], "shape") and np.ndim(inputs[0])):
            return np.asarray(inputs)
        return tf.nest.map_structure(np.asarray, tuple(inputs) if isinstance(inputs, list) else inputs)
    named = _named_inputs(inputs, model)
    if named:
        return {column: _column(inputs[column]) for column in named}
    texts = [str(column) for column in inputs.columns if _column(inputs[column]).dtype.kind not in "biuf"]
    if texts:
        raise TypeError(
            describe(
                f"The columns of `{name}` must be numbers for a model that takes rows of them: encode the others "
                "first, or build the model with one input for each column, named as it.",
                {"columns that are no numbers": texts},
            )
        )
    return np.stack([_column(inputs[column]) for column in inputs.columns], axis=1).astype(np.float32)


def _is_frame(inputs: Any) -> bool:
    return hasattr(inputs, "columns") and hasattr(inputs, "to_numpy")


def _named_inputs(frame: Any, model: keras.Model) -> list[str]:
    """Return the columns that are inputs of the model by name, none unless all its inputs are."""
    structure = structure_of(model)
    if structure is None:
        return []
    is_named = isinstance(structure, Mapping)
    names = list(structure) if is_named else [leaf.name for leaf in keras.tree.flatten(structure)]
    return names if set(names) <= set(frame.columns) else []


def _column(series: Any) -> np.ndarray:
    """Return a column as an array: numbers (NaN where one is missing), or texts ("" where one is missing)."""
    values: np.ndarray = np.asarray(series)
    if values.dtype.kind in "biuf":
        return values
    try:
        return np.asarray(series, dtype=np.float64)
    except (TypeError, ValueError):
        missing = np.asarray(series.isna())
        return np.array(["" if gone else str(value) for value, gone in zip(values, missing, strict=True)])


def _from_py_dataset(given: keras.utils.PyDataset, name: str) -> tf.data.Dataset:
    size = given.num_batches
    require(
        size is not None and size > 0,
        f"`{name}` must be a `PyDataset` that knows its number of batches, and has some.",
        {"num_batches": size},
    )

    def batch(number: int) -> Any:
        element = given[number]
        element = tuple(element) if isinstance(element, list | tuple) else element
        return tf.nest.map_structure(tf.convert_to_tensor, element)

    def batches() -> Iterator[Any]:
        return (batch(number) for number in range(size))

    spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), batch(0))
    return data.lazy_dataset(batches, spec, cardinality=size)
