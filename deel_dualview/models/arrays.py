"""Data as Keras takes them (arrays, DataFrames, a PyDataset) as batched datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.data.examples import naming_positions
from deel_dualview.models.influence_model import InfluenceModel
from deel_dualview.models.inputs import structure_of
from deel_dualview.models.labels import check_label_numbers, is_missing, number_names

BATCH_SIZE = 256
Data: TypeAlias = Any
"""A batched `tf.data.Dataset`; a tuple of arrays or DataFrames, `(x,)`, `(x, y)` or `(x, y, third)`, the third part ids
(strings or integers), sample weights (floating-point numbers) or a dict of both; a `PyDataset`."""


def to_datasets(
    given: Mapping[str, Data], model: keras.Model, *, class_names: Sequence[str] | None = None
) -> dict[str, tf.data.Dataset]:
    """Return data of several names as `to_dataset` does; DataFrames take the order of the first one's columns.

    Raises:
        ValueError: DataFrames with other columns, or several of one name; names that `class_names` does not have.
    """
    columns: list[Any] | None = None
    outputs: list[Any] | None = None
    found = {}
    for name, own in given.items():
        if isinstance(own, tuple) and own and _is_frame(own[0]):
            equal = sorted({str(column) for column in own[0].columns[own[0].columns.duplicated()]})
            differing = f"The columns of `{name}` must have different names: rename these."
            require(not equal, differing, {"columns of one name": equal})
        if isinstance(own, tuple) and len(own) > 1 and class_names is not None:
            own = (own[0], number_names(own[1], class_names, name), *own[2:])
        if isinstance(own, tuple) and own and _is_frame(own[0]) and not _named_inputs(own[0], model):
            own = (_in_order(own[0], name, model), *own[1:])
            columns = list(own[0].columns) if columns is None else columns
            require(
                set(own[0].columns) == set(columns),
                f"The columns of `{name}` must be those of the training set.",
                {"columns": list(own[0].columns), "columns of the training set": columns},
            )
            own = (own[0][columns], *own[1:])
        if isinstance(own, tuple) and len(own) > 1 and _is_frame(own[1]) and own[1].shape[1] > 1:
            outputs = list(own[1].columns) if outputs is None else outputs
            require(
                set(own[1].columns) == set(outputs),
                f"The labels of `{name}` must have the columns of the first set's.",
                {"columns": list(own[1].columns), "columns of the first set": outputs},
            )
            own = (own[0], own[1][outputs], *own[2:])
        found[name] = to_dataset(own, model, name=name)
    return found


def to_dataset(given: Data, model: keras.Model | InfluenceModel, *, name: str = "data") -> tf.data.Dataset:
    """Return arrays, DataFrames, Series of texts or dicts of columns as a batched dataset, in their order.

    The columns of a DataFrame are the inputs of those names where the model has such, else one row of numbers. Missing
    numbers are NaN, missing texts empty. The index is taken as ids where no others are given, unless it is the default
    one. A calculator takes the result; `audit`, `compare` and `label_issues` take the data themselves.

    Args:
        given: `(x,)`, `(x, y)`, `(x, y, ids)`, `(x, y, sample_weight)` or `(x, y, {"ids": ids, "sample_weight": w})`;
            a `PyDataset`; or a batched dataset, which is returned as it is.
        model: which takes the inputs.
        name: the argument it came by, for messages.

    Raises:
        TypeError: something else; or texts, dates or objects where the model takes numbers, or numbers for texts.
        ValueError: arrays of different lengths, or none; rows of several lengths; labels that are names, or missing;
            sample weights that are negative or not finite; columns without a name that the model knows; an index in
            another order than that of the labels.

    Example:
        train_set = to_dataset((frame[["age", "job"]], frame["refused"]), model)
        DualView(model, train_set)
    """
    model = model.model if isinstance(model, InfluenceModel) else model
    if isinstance(given, tf.data.Dataset):
        return given
    if isinstance(given, keras.utils.PyDataset):
        return _from_py_dataset(given, name)
    if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
        raise TypeError(
            describe(
                f"`{name}` must be a batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or a tuple of arrays or "
                "DataFrames: (x, y), (x, y, ids), (x, y, sample_weight), or (x,) without labels.",
                {"type": type(given).__name__},
            )
        )
    labels = given[1:2]
    named = [dict(third) if isinstance(third, dict) else {"third": third} for third in given[2:]]
    for part in (*labels, *(part for parts in named for part in parts.values())):
        check_same_index(given[0], part, f"the labels, ids or weights of `{name}`")
    thirds = [{key: np.asarray(part) for key, part in parts.items()} for parts in named]
    parts = (
        _to_inputs(given[0], name, model),
        *map(_label_arrays, labels),
        *(third.get("third", third) for third in thirds),
    )
    lengths = [len(leaf) for leaf in tf.nest.flatten(parts)]
    require(
        len(set(lengths)) == 1 and lengths[0] > 0,
        f"The arrays of `{name}` must have one length, an entry for each example, and one example at least.",
        {"lengths": lengths},
    )
    if len(parts) > 1:
        with naming_positions(0, name):
            for leaf in tf.nest.flatten(parts[1]):
                check_label_numbers(leaf)
            batch = data.unpack(parts)
            data.sample_weights(batch)
        if batch.ids is None and (ids := index_ids(given[0])) is not None:
            parts = data.pack(batch._replace(ids=ids))
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(BATCH_SIZE)


def _label_arrays(labels: Any) -> Any:
    """Return labels as an array; of several outputs, a dict or a tuple of arrays, as they are nested."""
    is_nested = isinstance(labels, dict) or isinstance(labels, tuple) and all(map(np.ndim, labels))
    return tf.nest.map_structure(_label_array, labels) if is_nested else _label_array(labels)


def _label_array(labels: Any) -> np.ndarray:
    """Return labels as an array of numbers; columns of pandas may hold them as Python's own (`Int64`, `Decimal`)."""
    found = np.asarray(labels)
    if found.dtype.kind in "mMc":
        raise TypeError(describe("Labels must be numbers.", {"dtype": found.dtype}))
    if found.dtype.kind != "O" or _holds_texts(found) or any(map(is_missing, found.reshape(-1))):
        return found  # texts and missing ones are refused where positions are known
    try:
        as_numbers = np.asarray(found.tolist())
        return as_numbers if as_numbers.dtype.kind in "biuf" else found.astype(np.float64)
    except (TypeError, ValueError):
        needed = "Labels must be numbers, in rows of one length."
        raise TypeError(describe(needed, {"first label": found.reshape(-1)[0]})) from None


def label_names(given: Data, model: InfluenceModel | None = None) -> list[str] | None:
    """Return the names of the columns of labels in a DataFrame or Series, else of one of several outputs, else None."""
    if model is not None and model.output_name is not None:
        return [model.output_name]
    labels = given[1] if isinstance(given, tuple) and len(given) > 1 else None
    columns: Any = getattr(labels, "columns", [getattr(labels, "name", None)])
    return list(columns) if all(isinstance(column, str) for column in columns) else None


def index_ids(inputs: Any) -> np.ndarray | None:
    """Return the index of a DataFrame or Series as ids, None of the default one (0, 1, 2, ...) and of arrays."""
    index = _index_of(inputs)
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
        inputs: a DataFrame, a Series, a dict of Series, or anything else, which has no index.
        given: a Series or DataFrame of the same examples, or anything else.
        what: `given`, for the message.

    Raises:
        ValueError: the order differs.
    """
    expected, found = _index_of(inputs), _index_of(given)
    if expected is None or found is None:
        return
    is_reordered = len(expected) == len(found) and not expected.equals(found) and set(expected) == set(found)
    require(
        not is_reordered,
        f"The index of {what} is that of the inputs in another order, and values are taken by position: reorder them, "
        "as in y.loc[x.index], or pass y.to_numpy() where the index means nothing.",
        {"index of the inputs": list(expected[:3]), "index": list(found[:3])},
    )


def _index_of(inputs: Any) -> Any:
    """Return the index of a DataFrame, a Series or the first of a dict of them, None of anything else."""
    if isinstance(inputs, Mapping):
        return _index_of(next(iter(inputs.values()), None))
    return getattr(inputs, "index", None) if hasattr(inputs, "to_numpy") else None


def column_names(given: Data, model: keras.Model) -> list[str] | None:
    """Return the names of the columns of a DataFrame that becomes rows of numbers, else None."""
    if not isinstance(given, tuple) or not _is_frame(given[0]) or _named_inputs(given[0], model):
        return None
    return [str(name) for name in _in_order(given[0], "train", model).columns]


def _in_order(frame: Any, name: str, model: keras.Model) -> Any:
    """Return a frame with its columns in the order that a model of rows of numbers knows, if it does.

    Raises:
        ValueError: they have other names.
    """
    known = getattr(model, "column_names", None)
    if known is None:
        return frame
    # LightGBM replaces the spaces in its names.
    columns = {str(column).replace(" ", "_"): column for column in frame.columns}
    order = [column.replace(" ", "_") for column in known]
    require(
        len(columns) == len(frame.columns) and set(columns) == set(order),
        f"The columns of `{name}` must be those that the model was fitted to.",
        {"columns": list(frame.columns), "columns of the model": known},
    )
    return frame[[columns[column] for column in order]]


def _to_inputs(inputs: Any, name: str, model: keras.Model) -> Any:
    structure = structure_of(model)
    if not _is_frame(inputs):
        return _to_arrays(inputs, structure, name)
    wanted = _named_inputs(inputs, model)
    if wanted:
        return {
            column: _to_array(inputs[column], want, f"{name}[{column!r}]") for column, want in wanted.items()
        }
    wants = _by_name(structure)
    is_text = any(map(_takes_texts, wants.values()))
    if len(wants) == inputs.shape[1] == 1 and is_text:
        return _to_array(inputs.iloc[:, 0], next(iter(wants.values())), name)
    require(
        len(wants) < 2 and not is_text,
        f"The columns of `{name}` must be named as the inputs of the model: rename them, or give the column that it "
        "reads in place of the frame.",
        {
            "inputs that are no columns": sorted(set(wants) - set(inputs.columns)),
            "columns": list(inputs.columns),
        },
    )
    inputs = _in_order(inputs, name, model)
    columns, others = [], []
    for column in inputs.columns:
        try:
            columns.append(_to_numbers(inputs[column]))
        except (TypeError, ValueError):
            others.append(str(column))
    if others:
        raise TypeError(
            describe(
                f"The columns of `{name}` must be numbers for a model that takes rows of them: encode the others "
                "first (dates too), or build the model with one input for each column, named as it.",
                {"columns that are no numbers": others},
            )
        )
    return np.stack(columns, axis=1).astype(np.float32)


def _to_arrays(inputs: Any, structure: Any, name: str) -> Any:
    """Return a nest of arrays, Series and lists as one of arrays, each of the kind that its input takes."""
    if isinstance(inputs, Mapping):
        wants = _by_name(structure)
        return {key: _to_arrays(part, wants.get(key), f"{name}[{key!r}]") for key, part in inputs.items()}
    # As Keras takes them: a list of arrays is several inputs, one of numbers, texts or lists is one.
    is_row = isinstance(inputs, list) and inputs and hasattr(inputs[0], "shape") and np.ndim(inputs[0])
    if not is_row and not isinstance(inputs, tuple):
        return _to_array(inputs, structure, name)
    wanted = dict(enumerate(structure)) if isinstance(structure, list | tuple) else {}
    return tuple(_to_arrays(part, wanted.get(place), f"{name}[{place}]") for place, part in enumerate(inputs))


def _is_frame(inputs: Any) -> bool:
    return hasattr(inputs, "columns") and hasattr(inputs, "to_numpy")


def _takes_texts(want: Any) -> bool:
    return getattr(want, "dtype", None) == "string"


def _named_inputs(frame: Any, model: keras.Model) -> dict[Any, Any]:
    """Return the symbolic input of each column that is one by name, none unless all inputs of the model are."""
    wants = _by_name(structure_of(model))
    return wants if set(wants) <= set(frame.columns) else {}


def _by_name(structure: Any) -> dict[Any, Any]:
    """Return the symbolic inputs of a model by key of its dict, or by name."""
    if isinstance(structure, Mapping):
        return dict(structure)
    return {} if structure is None else {want.name: want for want in keras.tree.flatten(structure)}


def _to_array(values: Any, want: Any, name: str) -> np.ndarray:
    """Return one input as an array of numbers (NaN where one is missing), or texts ("" where one is missing).

    Args:
        values: an array, tensor, Series or list, shape (n, ...).
        want: the symbolic input of the model, None where it is not known.
        name: for messages.
    """
    try:
        found: np.ndarray = np.asarray(values)
        if found.dtype.kind in "SU" and isinstance(values, list):
            # Together with texts, NumPy writes None and NaN as words.
            found = np.asarray(values, dtype=object)
        elif found.dtype.kind == "O" and found.ndim == 1 and len(found) and np.ndim(found[0]):
            found = np.asarray(found.tolist())
    except ValueError:
        raise ValueError(
            f"`{name}` has rows of several lengths: pad them to one, as by keras.utils.pad_sequences, or yield them in "
            "a dataset by `padded_batch`."
        ) from None
    if found.ndim == 0:
        raise TypeError(
            describe(
                f"`{name}` must be an array with an entry for each example: of a sparse matrix take `.toarray()`, of a "
                "ragged tensor `.to_tensor()`.",
                {"type": type(values).__name__},
            )
        )
    is_text = found.dtype.kind in "SU" or found.dtype.kind == "O" and _holds_texts(found)
    if is_text and (want is None or _takes_texts(want)):
        return _filled(found, "")
    if not is_text and _takes_texts(want):
        raise TypeError(
            describe(
                f"`{name}` must be texts, as the model takes there: write the numbers as in training, for instance by "
                "`.astype(str)`.",
                {"dtype": found.dtype},
            )
        )
    try:
        return _to_numbers(found)
    except (TypeError, ValueError):
        raise TypeError(
            describe(
                f"`{name}` must be numbers, as the model takes there: encode texts, categories, dates and whatever "
                "else as in training.",
                {"dtype": found.dtype, "first": found.reshape(-1)[:1].tolist()},
            )
        ) from None


def _to_numbers(values: Any) -> np.ndarray:
    """Return values as numbers, NaN where one is missing.

    Raises:
        TypeError: dates, complex numbers or objects.
        ValueError: texts.
    """
    found = np.asarray(values)
    if found.dtype.kind in "cmM":
        raise TypeError(found.dtype)
    if found.dtype.kind not in "OSU":
        return found
    if found.dtype.kind == "O":
        found = _filled(found, np.nan)
    return found.astype(np.float64)


def _holds_texts(values: np.ndarray) -> bool:
    first = next((value for value in values.reshape(-1) if not is_missing(value)), "")
    return isinstance(first, str | bytes)


def _filled(values: np.ndarray, fill: str | float) -> np.ndarray:
    """Return values with others where one is missing."""
    if values.dtype.kind != "O":
        return values
    missing = np.array([is_missing(value) for value in values.reshape(-1)], bool).reshape(values.shape)
    return np.where(missing, fill, values)


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
