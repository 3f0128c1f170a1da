"""Corrections of a training set: what was decided about its labels, and the dataset that follows from it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.data.hashing import to_bytes
from deel_dualview.labels.output_corrections import OutputChange, output_change
from deel_dualview.labels.tables import unescaped
from deel_dualview.models.arrays import index_ids
from deel_dualview.models.labels import check_label_numbers

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("wrong", "right", "unsure", "drop")
_COLUMNS = ("position", "verdict")
_Classes = tuple[int | None, int | None]
_Train = TypeVar("_Train")


class Correction(NamedTuple):
    """What becomes of one training example.

    Attributes:
        label: the class that it gets, by name or number; of a regression its number, of several numbers or of
            independent labels the new ones by the names of the outputs; None drops the example.
        given_label: the class that it had, None where that is not recorded.
        id: of the example, None where that is not recorded.
    """

    label: str | int | float | Mapping[str, Any] | None
    given_label: str | int | float | Mapping[str, Any] | None = None
    id: str | int | None = None


Corrections = Mapping[int, Correction | str | int | float | Mapping[str, Any] | None]
"""By the position of the training example: a `Correction`, or its `label` alone."""


def read_corrections(path: str | os.PathLike[str]) -> dict[int, Correction]:
    """Read the file that a report's page exports.

    Its columns: `position`; `verdict` (`wrong`: the example gets the class of column `label`, or else of
    `suggested_label`; `drop`: it is left out; `right` and `unsure`: it stays); perhaps `given_label` and `id`, which
    are then compared with the training set's; of a model that is no classifier `output`, the name of the number or
    label that the row is about.

    Args:
        path: a CSV file in UTF-8, with commas, semicolons or tabs.

    Raises:
        FileNotFoundError: there is none.
        ValueError: columns are missing, a verdict or position is none, a position (or its output) occurs twice.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            # Spreadsheets of half of Europe write semicolons.
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count))
            return _to_corrections(reader, list(reader.fieldnames or []), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(
            describe("Corrections must be a CSV file in UTF-8.", {"corrections": str(path)})
        ) from error


def corrected(
    train: _Train,
    corrections: str | os.PathLike[str] | pd.DataFrame | Corrections,
    *,
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> _Train:
    """Return a training set with corrected labels, without the examples to be dropped, in the form that it has.

    Args:
        train: in the order of the audit: a batched dataset of elements `(inputs, labels)` or `(inputs, labels, ids)`,
            or a tuple of arrays or DataFrames, `(x, y)` or `(x, y, ids)`.
        corrections: the file that the report's page exports, a DataFrame with its columns, or `Correction`s by
            position.
        class_names: as the audit had them; the classes' numbers by default.
        output_names: of a regression or of independent labels, as the audit had them; then labels are numbers, as they
            are where the corrections have a column `output`.

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
    by_position = _given(corrections)
    has_outputs = any(isinstance(item.label, Mapping) for item in by_position.values())
    classes = {
        position: output_change(item.label, item.given_label, output_names)
        if has_outputs or output_names is not None
        else _classes(item, class_names)
        for position, item in by_position.items()
    }
    if isinstance(train, tuple) and len(train) in (2, 3):
        return cast(_Train, _corrected_arrays(train, by_position, classes))
    return cast(_Train, _corrected_dataset(train, by_position, classes))


def _corrected_dataset(
    train: Any,
    by_position: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
) -> tf.data.Dataset:
    data.check_batched(train, "train")
    data.check_same_twice(train, "train")
    spec = train.element_spec
    require(
        data.unpack(spec).labels is not None,
        "`train` must have labels: elements (inputs, labels).",
        {"element_spec": spec},
    )
    relaxed = tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), spec)

    def batches() -> Iterator[Any]:
        seen = 0
        for positions, element in data.enumerate_examples(train):
            seen = int(positions[-1]) + 1
            touched = [(row, int(at)) for row, at in enumerate(positions) if int(at) in by_position]
            yield from _corrected(element, touched, by_position, classes) if touched else (element,)
        _check_positions(by_position, seen)

    is_whole = all(item.label is not None for item in by_position.values())
    size = int(train.cardinality()) if is_whole else tf.data.UNKNOWN_CARDINALITY
    return data.lazy_dataset(batches, relaxed, cardinality=size)


def _corrected(
    element: Any,
    touched: list[tuple[int, int]],
    corrections: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
) -> Iterator[Any]:
    """Yield a batch with its corrections, unless nothing is left of it."""
    batch = data.unpack(element)
    ids = None if batch.ids is None else data.to_array(batch.ids)
    labels, kept = _corrected_labels(data.to_array(batch.labels), ids, touched, corrections, classes)
    if not kept.any():
        return
    replaced = batch._replace(labels=tf.constant(labels))
    changed = tuple(part for part in replaced if part is not None)
    yield tf.nest.map_structure(lambda part: tf.boolean_mask(part, kept), changed)


def _corrected_arrays(
    train: tuple[Any, ...],
    corrections: Mapping[int, Correction],
    classes: Mapping[int, _Classes | OutputChange],
) -> tuple[Any, ...]:
    """Return arrays or DataFrames of the examples that are left, with their labels."""
    labels = np.asarray(train[1])
    check_label_numbers(labels)
    lengths = [len(labels), *(len(leaf) for part in train for leaf in _leaves(part))]
    require(
        len(set(lengths)) == 1,
        "The arrays of `train` must have one length, an entry for each example.",
        {"lengths": lengths},
    )
    _check_positions(corrections, len(labels))
    ids = np.asarray(train[2]) if len(train) == 3 else index_ids(train[0])
    touched = [(position, position) for position in sorted(corrections)]
    changed, kept = _corrected_labels(labels, ids, touched, corrections, classes)
    column = train[1]
    if hasattr(column, "iloc"):
        column = column.copy()
        column.iloc[:] = changed
    else:
        column = changed
    return tuple(_of_rows(part, kept) for part in (train[0], column, *train[2:]))


def _leaves(part: Any) -> list[Any]:
    """Return the arrays of inputs; a DataFrame, a list of numbers or texts is one."""
    if hasattr(part, "iloc"):
        return [part]
    return [np.asarray(leaf) for leaf in tf.nest.flatten(part)] if _is_nest(part) else [np.asarray(part)]


def _is_nest(part: Any) -> bool:
    return isinstance(part, Mapping | tuple) or isinstance(part, list) and bool(part) and np.ndim(part[0]) > 0


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
        found = int(labels[row].argmax()) if is_one_hot else int(labels[row].item())
        if given is not None and found != given:
            _raise_changed(position, "label", given, found)
        _check_id(ids, row, position, recorded)
        if label is None:
            kept[row] = False
        elif is_one_hot:
            labels[row] = np.eye(labels.shape[1], dtype=labels.dtype)[label]
        else:
            labels[row] = label
    return labels, kept


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


def _given(
    corrections: str | os.PathLike[str] | pd.DataFrame | Corrections,
) -> dict[int, Correction]:
    if isinstance(corrections, str | os.PathLike):
        return read_corrections(corrections)
    if isinstance(corrections, Mapping):
        return {
            position: item if isinstance(item, Correction) else Correction(item)
            for position, item in corrections.items()
        }
    if hasattr(corrections, "to_dict") and hasattr(corrections, "columns"):
        rows = corrections.astype(object).where(corrections.notna(), "").to_dict("records")
        return _to_corrections(rows, list(corrections.columns), "a DataFrame")
    raise TypeError(
        describe(
            "`corrections` must be the path of a CSV file, a DataFrame, or `Correction`s by position.",
            {"type": type(corrections).__name__},
        )
    )


def _to_corrections(rows: Any, columns: Sequence[str], source: str) -> dict[int, Correction]:
    missing = [name for name in _COLUMNS if name not in columns]
    require(
        not missing,
        f"Corrections need the columns {', '.join(_COLUMNS)}, as the page of a report exports them; missing: "
        f"{', '.join(missing)}.",
        {"corrections": source, "columns": list(columns)},
    )
    found: dict[int, Correction] = {}
    seen: set[tuple[int, str | None]] = set()
    for number, row in enumerate(rows, start=1):
        position, verdict = _position(row["position"], number), str(row["verdict"]).strip().lower()
        require(
            verdict in VERDICTS,
            f"Row {number} of the corrections: the verdict must be one of {VERDICTS}.",
            {"verdict": row["verdict"]},
        )
        output = _cell(row, "output") if "output" in columns else None
        at = {"position": position, "row": number}
        require((position, output) not in seen, "Each position is corrected once.", at)
        seen.add((position, output))
        if verdict in ("right", "unsure"):
            _check_right(row, verdict, number)
            continue
        label = None if verdict == "drop" else _cell(row, "label") or _cell(row, "suggested_label")
        require(
            verdict == "drop" or label is not None,
            f"Row {number} of the corrections: a wrong label needs another in the column `label`, or the verdict drop.",
            {"position": position},
        )
        own = Correction(label, _cell(row, "given_label"), _cell(row, "id"))
        found[position] = own if output is None else _merged(own, output, found.get(position))
    return found


def _merged(own: Correction, output: str, earlier: Correction | None) -> Correction:
    """Join the rows of one example, each about one output; a single one that drops it does."""
    if own.label is None or (earlier is not None and earlier.label is None):
        return own._replace(label=None, given_label=None)
    before: Any = earlier or Correction({}, {})
    label, given = {**before.label, output: own.label}, {**before.given_label, output: own.given_label}
    return own._replace(label=label, given_label=given)


def _check_right(row: Mapping[str, Any], verdict: str, number: int) -> None:
    """Refuse a label that is said to be right beside another one: one of both is a mistake."""
    label, given = _cell(row, "label"), _cell(row, "given_label")
    require(
        verdict == "unsure" or None in (label, given) or label == given,
        f"Row {number} of the corrections: the verdict is right, but `label` is another than `given_label`. Write "
        "wrong to change the label, or leave `label` empty to keep it.",
        {"given_label": given, "label": label},
    )


def _position(value: Any, number: int) -> int:
    text = _text(value).strip().removesuffix(".0")
    require(
        text.isdecimal(),
        f"Row {number} of the corrections: a position is an integer from 0.",
        {"position": value},
    )
    return int(text)


def _cell(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return None if value is None or value == "" else unescaped(_text(value))


def _text(value: Any) -> str:
    """Write a cell; a column of pandas with an empty cell holds its integers as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _classes(correction: Correction, class_names: Sequence[str] | None) -> _Classes:
    """Return the classes of the new and of the given label."""
    label, given = (
        None if name is None else _class_of(cast("str | int", name), class_names)
        for name in (correction.label, correction.given_label)
    )
    return label, given


def _class_of(name: str | int, class_names: Sequence[str] | None) -> int:
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
