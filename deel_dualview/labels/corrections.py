"""Corrections of a training set: what was decided about its labels, and the dataset that follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.data.hashing import to_bytes
from deel_dualview.labels.correction_files import Correction, Corrections, given_corrections
from deel_dualview.labels.output_corrections import OutputChange, output_change
from deel_dualview.models.arrays import index_ids, label_names
from deel_dualview.models.labels import check_label_numbers

if TYPE_CHECKING:
    import pandas as pd

_Classes = tuple[int | None, int | None]
_Train = TypeVar("_Train")


def corrected(
    train: _Train,
    corrections: str | os.PathLike[str] | pd.DataFrame | Corrections,
    *,
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    output: str | int | None = None,
) -> _Train:
    """Return a training set with corrected labels, without the examples to be dropped, in the form that it has.

    Args:
        train: in the order of the audit: a batched dataset of elements `(inputs, labels)` or `(inputs, labels, ids)`,
            or a tuple of arrays or DataFrames, `(x, y)` or `(x, y, ids)`.
        corrections: the file that the report's page exports, a DataFrame with its columns, or `Correction`s or labels
            by position; None in the place of a label drops the example.
        class_names: as the audit had them; the classes' numbers by default.
        output_names: of a regression or of independent labels, as the audit had them; then labels are numbers, as they
            are where the corrections have a column `output`.
        output: of labels of several outputs (a dict or a tuple) those that were audited, by key or index.

    Returns:
        A lazy dataset of the same elements; of a tuple a tuple of the same form. `ChangedError` (a ValueError) is
        raised, of a dataset while it is iterated over, where an example is not the one that was judged, by its given
        label or its id, or where `train` ends before.

    Raises:
        TypeError: `train` is something else.
        ValueError: corrections that cannot be read, or a class that is not among the names.

    Example:
        fixed = deel_dualview.corrected(train, "corrections.csv", class_names=names)
        model.fit(fixed.unbatch().shuffle(10_000).batch(64))
    """
    by_position = given_corrections(corrections)
    has_outputs = any(isinstance(item.label, Mapping) for item in by_position.values())
    names = _output_names(output_names, train, output)
    classes = {
        position: output_change(item.label, item.given_label, names)
        if has_outputs or output_names is not None
        else _classes(item, class_names)
        for position, item in by_position.items()
    }
    if isinstance(train, tuple) and len(train) in (2, 3):
        return cast(_Train, _corrected_arrays(train, by_position, classes, output))
    return cast(_Train, _corrected_dataset(train, by_position, classes, output))


def _output_names(given: Sequence[str] | None, train: Any, output: str | int | None) -> list[str] | None:
    """Return the names of the outputs: as given, or of the columns of labels, or of the one output.

    Raises:
        ValueError: names that differ from those of the columns in their order or number, or are equal.
    """
    columns = label_names(train)
    if given is None:
        return columns or ([output] if isinstance(output, str) else None)
    names = list(given)
    is_reordered = columns is not None and names != columns and set(names) == set(columns)
    require(
        len(set(names)) == len(names) and not is_reordered,
        "`output_names` must differ, and be in the order of the columns of the labels.",
        {"output_names": names, "columns of the labels": columns},
    )
    return names


def _own_labels(labels: Any, output: str | int | None) -> Any:
    """Return the labels of one output among those of several.

    Raises:
        ValueError: there are several and none is named, or there is no such output.
    """
    if not _are_several(labels):
        return labels
    names = list(labels) if isinstance(labels, Mapping) else list(range(len(labels)))
    require(
        output in names,
        "The training set has labels of several outputs: name the one that was audited, by `output`."
        if output is None
        else "`output` must be one of those that the labels of the training set have.",
        {"output": output, "outputs": names},
    )
    return labels[output]


def _are_several(labels: Any) -> bool:
    return isinstance(labels, Mapping) or isinstance(labels, tuple) and len(labels) > 1


def _with_own_labels(labels: Any, output: str | int | None, own: Any) -> Any:
    """Return labels in which those of one output are others."""
    if not _are_several(labels):
        return own
    if isinstance(labels, Mapping):
        return {**labels, output: own}
    return tuple(own if place == output else part for place, part in enumerate(labels))


def _corrected_dataset(
    train: Any,
    by_position: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
    output: str | int | None,
) -> tf.data.Dataset:
    data.check_batched(train, "train")
    data.check_same_twice(train, "train")
    spec = train.element_spec
    require(
        data.unpack(spec).labels is not None,
        "`train` must have labels: elements (inputs, labels).",
        {"element_spec": spec},
    )
    _own_labels(data.unpack(spec).labels, output)
    relaxed = tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), spec)

    def batches() -> Iterator[Any]:
        seen = 0
        for positions, element in data.enumerate_examples(train):
            seen = int(positions[-1]) + 1
            touched = [(row, int(at)) for row, at in enumerate(positions) if int(at) in by_position]
            if touched:
                yield from _corrected(element, touched, by_position, classes, output)
            else:
                yield element
        _check_positions(by_position, seen)

    is_whole = all(item.label is not None for item in by_position.values())
    size = int(train.cardinality()) if is_whole else tf.data.UNKNOWN_CARDINALITY
    return data.lazy_dataset(batches, relaxed, cardinality=size)


def _corrected(
    element: Any,
    touched: list[tuple[int, int]],
    corrections: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
    output: str | int | None,
) -> Iterator[Any]:
    """Yield a batch with its corrections, unless nothing is left of it."""
    batch = data.unpack(element)
    ids = None if batch.ids is None else data.to_array(batch.ids)
    given = data.to_array(_own_labels(batch.labels, output))
    labels, kept = _corrected_labels(given, ids, touched, corrections, classes)
    if not kept.any():
        return
    changed = _with_own_labels(batch.labels, output, tf.constant(labels))
    yield tf.nest.map_structure(
        lambda part: tf.boolean_mask(part, kept), (batch.inputs, changed, *element[2:])
    )


def _corrected_arrays(
    train: tuple[Any, ...],
    corrections: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
    output: str | int | None,
) -> tuple[Any, ...]:
    """Return arrays or DataFrames of the examples that are left, with their labels."""
    column = _own_labels(train[1], output)
    labels = np.asarray(column)
    check_label_numbers(labels)
    lengths = [len(labels), *(len(leaf) for part in train for leaf in _leaves(part))]
    require(
        len(set(lengths)) == 1,
        "The arrays of `train` must have one length, an entry for each example.",
        {"lengths": lengths},
    )
    _check_positions(corrections, len(labels))
    named = train[2] if len(train) == 3 else {}
    ids = named.get("ids") if isinstance(named, Mapping) else np.asarray(named)
    if ids is not None and np.asarray(ids).dtype.kind == "f":
        ids = None  # sample weights
    ids = index_ids(train[0]) if ids is None else np.asarray(ids)
    touched = [(position, position) for position in sorted(corrections)]
    changed, kept = _corrected_labels(labels, ids, touched, corrections, classes)
    if hasattr(column, "iloc"):
        column = column.copy()
        column.iloc[:] = changed
    else:
        column = changed
    parts = (train[0], _with_own_labels(train[1], output, column), *train[2:])
    return tuple(_of_rows(part, kept) for part in parts)


def _leaves(part: Any) -> list[Any]:
    """Return the arrays of inputs; a DataFrame, a list of numbers or texts is one."""
    if hasattr(part, "iloc"):
        return [part]
    return [np.asarray(leaf) for leaf in tf.nest.flatten(part)] if _is_nest(part) else [np.asarray(part)]


def _is_nest(part: Any) -> bool:
    # A list of arrays is several inputs, one of numbers, texts or lists is one, as Keras takes them.
    is_list = isinstance(part, list) and bool(part) and hasattr(part[0], "shape") and np.ndim(part[0]) > 0
    return is_list or isinstance(part, Mapping | tuple)


def _of_rows(part: Any, kept: np.ndarray) -> Any:
    if hasattr(part, "iloc"):
        return part[kept]
    if _is_nest(part):
        return tf.nest.map_structure(lambda leaf: np.asarray(leaf)[kept], part)
    return np.asarray(part)[kept]


def _corrected_labels(
    labels: np.ndarray,
    ids: np.ndarray | None,
    touched: list[tuple[int, int]],
    corrections: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
) -> tuple[np.ndarray, np.ndarray]:
    """Return corrected labels, shape as `labels`, and which examples are kept, shape (b,).

    Args:
        labels: class indices or one-hot rows.
        ids: of the same examples, or None.
        touched: rows that have a correction, each with its position in the training set.
        corrections: by position.
        classes: of the new and of the given label, by position.
    """
    labels, kept = labels.copy(), np.ones(len(labels), bool)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
    # An example may be dropped whatever its labels are.
    of_classes = [
        row
        for row, at in touched
        if not isinstance(classes[at], OutputChange) and classes[at] != (None, None)
    ]
    if of_classes:
        _check_classes(labels[of_classes])
    for row, position in touched:
        change, recorded = classes[position], corrections[position].id
        if isinstance(change, OutputChange):
            differing = change.apply(labels[row : row + 1].reshape(-1))
            if differing is not None:
                _raise_changed(position, "label", *differing)
            kept[row] = bool(change.columns)
            _check_id(ids, row, position, recorded)
            continue
        label, given = change
        if given is not None:
            found = int(labels[row].argmax()) if is_one_hot else int(labels[row].item())
            if found != given:
                _raise_changed(position, "label", given, found)
        _check_id(ids, row, position, recorded)
        if label is None:
            kept[row] = False
        elif is_one_hot:
            require(
                label < labels.shape[1],
                "Corrections name a class that the one-hot labels have no column for.",
                {"class": label, "columns": labels.shape[1]},
            )
            labels[row] = np.eye(labels.shape[1], dtype=labels.dtype)[label]
        else:
            labels[row] = label
    return labels, kept


def _check_classes(labels: np.ndarray) -> None:
    """Refuse labels to be corrected, (r, ...), that are no classes: a class would be written over numbers.

    Raises:
        ValueError: numbers that are not whole, rows that are not one-hot, labels at positions.
    """
    rows = labels.reshape(len(labels), -1)
    is_one_hot = rows.shape[1] > 1
    are_classes = (rows == np.rint(rows)).all() and labels.ndim <= 2
    if is_one_hot:
        are_classes = are_classes and ((rows != 0).sum(axis=1) == 1).all() and (rows.sum(axis=1) == 1).all()
    require(
        bool(are_classes),
        "Corrections by class are of class indices or one-hot rows. Numbers and independent labels need "
        "`output_names`; labels at positions cannot be corrected here.",
        {"shape of the labels": labels.shape[1:], "first label to be corrected": rows[0]},
    )


def _check_id(ids: np.ndarray | None, row: int, position: int, recorded: str | int | None) -> None:
    if recorded is not None and ids is not None and to_bytes(ids[row]) != to_bytes(recorded):
        _raise_changed(position, "id", recorded, ids[row])


def _check_positions(corrections: Mapping[int, Correction], num_examples: int) -> None:
    outside = [position for position in corrections if not 0 <= position < num_examples]
    if outside:
        raise data.ChangedError(
            describe(
                "The corrections name positions that `train` does not have: they are of another set, or a position "
                "is mistyped. Positions count from 0.",
                {"examples": num_examples, "positions": outside},
            )
        )


def _raise_changed(position: int, what: str, recorded: object, found: object) -> None:
    raise data.ChangedError(
        describe(
            f"An example of `train` has another {what} than when it was judged: the corrections are applied already, "
            "or they are of another set, or of another order of its examples.",
            {"position": position, f"{what} of the corrections": recorded, f"{what} found": found},
        )
    )


def _classes(correction: Correction, class_names: Sequence[str] | None) -> _Classes:
    """Return the classes of the new and of the given label."""
    label, given = (
        None if name is None else class_of(cast("str | int", name), class_names)
        for name in (correction.label, correction.given_label)
    )
    return label, given


def class_of(name: str | int, class_names: Sequence[str] | None) -> int:
    """Return the number of a class that corrections name.

    Raises:
        ValueError: there is no such class.
    """
    names = None if class_names is None else list(class_names)
    if not isinstance(name, str) and int(name) == name or names is None and str(name).isdecimal():
        return int(name)
    if names is None or name not in names:
        raise ValueError(
            describe(
                "Corrections name a class that is not among `class_names`: give the names that the audit had. The "
                "numbers of a regression need `output_names`.",
                {"class": name, "class_names": names},
            )
        )
    return names.index(name)
