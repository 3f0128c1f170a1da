"""Labels of any usual form as class indices, and the names of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deel_dualview._checks import describe, require
from deel_dualview.data.examples import RowsError

_MISSING = ("nan", "<NA>", "None", "NaT")


def to_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels as class indices, shape (b,), int64.

    Args:
        labels: integers (or whole numbers) of shape (b,) or (b, 1), or one-hot rows (b, num_classes), of any type.
        num_classes: c.

    Raises:
        ValueError: class indices that are not whole numbers, a one-hot width that is not c, rows that are not one-hot,
            or a class outside 0..c-1.
    """
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _one_hot_to_classes(labels, num_classes)
    if labels.ndim not in (1, 2):
        raise ValueError(
            "Labels must be class indices of shape (b,) or one-hot rows of shape (b, c). "
            f"Received: labels of shape {labels.shape}."
        )
    check_label_numbers(labels)
    # Keras' losses take 0.0 and 1.0 for classes 0 and 1, and datasets for sigmoid outputs yield them.
    is_whole = (
        labels.dtype.kind in "iub" or labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all())
    )
    if not is_whole:
        raise ValueError(
            "Class indices must be integers or whole numbers. The labels of a regression need the loss that the model "
            "was trained with: InfluenceModel(model, loss_function=LOSS), for instance 'mse'. "
            f"Received: labels of dtype {labels.dtype}."
        )
    classes = labels.reshape(-1).astype(np.int64)
    outside = np.flatnonzero((classes < 0) | (classes >= num_classes))
    if outside.size:
        from_one = classes.min() > 0 and classes.max() == num_classes
        hint = " Are they numbered from 1? Then subtract 1." if from_one else ""
        raise RowsError(
            f"Labels must be classes 0..{num_classes - 1} of the model; {outside.size} label(s) are outside.{hint}",
            outside,
            {"labels": classes[outside].tolist()},
        )
    return classes


def check_label_numbers(labels: np.ndarray) -> None:
    """Refuse labels that are names, or missing.

    Raises:
        ValueError: texts in place of class indices, NaN or None among them.
    """
    values = labels.reshape(len(labels), -1)
    if labels.dtype.kind == "f":
        missing = np.isnan(values).any(axis=1)
    elif labels.dtype.kind == "O":
        missing = np.array([any(map(is_missing, row)) for row in values])
    else:
        missing = np.zeros(len(values), bool)
    if missing.any():
        raise RowsError(
            f"{missing.sum()} label(s) are missing (NaN or None): leave these examples out.",
            np.flatnonzero(missing),
            {"labels": values[missing][:3].ravel().tolist()},
        )
    if labels.dtype.kind in "SU" or labels.dtype.kind == "O" and isinstance(values[0, 0], str | bytes):
        raise ValueError(
            describe(
                "Labels must be class indices, not names. Number them as in the training of the model, for instance by "
                "`codes, names = pd.factorize(labels, sort=True)`, `names, codes = np.unique(labels, "
                "return_inverse=True)` or `keras.layers.StringLookup(vocabulary=names, num_oov_indices=0)`, and pass "
                "the names as `class_names`. Labels in an array or a column may be names that `class_names` has.",
                {"first label": values[0, 0]},
            )
        )


def number_names(labels: Any, class_names: Sequence[str], name: str) -> Any:
    """Return labels (n,) that are names of classes as their numbers, in a Series if they are one; others as they are.

    Raises:
        ValueError: a label is none of the names.
    """
    if isinstance(labels, Mapping | tuple) or np.ndim(labels) != 1 or not len(labels):
        return labels
    values = np.asarray(labels)
    if values.dtype.kind not in "SUO" or not all(isinstance(value, str | bytes) for value in values):
        return labels
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    unknown = sorted({text for text in texts if text not in numbers})
    require(
        not unknown,
        f"The labels of `{name}` are names, and `class_names` does not have all of them.",
        {"labels": unknown[:3], "class_names": list(class_names)},
    )
    codes = np.array([numbers[text] for text in texts], np.int64)
    if not hasattr(labels, "index") or not hasattr(labels, "iloc"):
        return codes
    return type(labels)(codes, index=labels.index, name=labels.name)


def is_missing(value: object) -> bool:
    """Return whether an entry of a column is missing: None, NaN or one of pandas' values for it."""
    # pandas has several, of which none equals itself or is true.
    return not isinstance(value, str | bytes) and str(value) in _MISSING


def check_class_names(
    class_names: Sequence[str] | None, num_classes: int, default: Sequence[str] | None = None
) -> list[str]:
    """Return one name for each class: without names those of the columns of one-hot labels, else their numbers.

    Args:
        class_names: as given, or None.
        num_classes: c.
        default: names of the columns of the labels, where they have any.

    Raises:
        TypeError: one string instead of several.
        ValueError: another number of names, or two equal ones.
    """
    given = _of_columns(default, num_classes) if class_names is None else class_names
    return _check_names(given, num_classes, "class_names", "classes")


def check_output_names(
    output_names: Sequence[str] | None, num_outputs: int, default: Sequence[str] | None = None
) -> list[str]:
    """Return one name for each output of a model that is no classifier, as `check_class_names`."""
    given = _of_columns(default, num_outputs) if output_names is None else output_names
    return _check_names(given, num_outputs, "output_names", "outputs")


def _of_columns(names: Sequence[str] | None, number: int) -> Sequence[str] | None:
    """Return the names of columns of labels, None unless there is one for each output."""
    is_whole = names is not None and len(names) == len(set(names)) == number
    return names if is_whole else None


def _check_names(given: Sequence[str] | None, number: int, argument: str, what: str) -> list[str]:
    if isinstance(given, str):
        raise TypeError(describe(f"`{argument}` must be a list of names, not one string.", {argument: given}))
    names = [str(name) for name in (range(number) if given is None else given)]
    require(
        len(names) == number,
        f"`{argument}` must name the {number} {what} of the model.",
        {f"len({argument})": len(names)},
    )
    require(len(set(names)) == number, f"`{argument}` must differ.", {argument: names})
    return names


def _one_hot_to_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    if labels.shape[1] != num_classes:
        raise ValueError(
            f"One-hot labels must be as wide as the model has classes, {num_classes}. "
            f"Received: labels of shape {labels.shape}."
        )
    rows = np.flatnonzero(((labels != 0).sum(axis=1) != 1) | (labels.sum(axis=1) != 1))
    if rows.size:
        raise RowsError(
            "Two-dimensional labels must be one-hot: a single 1 in every row. Rows of several labels need "
            "InfluenceModel(model, loss_function='binary_crossentropy'); soft labels have no one class to explain.",
            rows,
            {"first of these labels": labels[rows[0]]},
        )
    return labels.argmax(axis=1).astype(np.int64)


def to_rows(labels: np.ndarray, width: int | None, what: str) -> np.ndarray:
    """Return labels (b,) or (b, width) as rows of numbers, float32.

    Args:
        labels: as given.
        width: that they must have; None for any.
        what: they are, for messages.

    Raises:
        ValueError: another shape, not numbers, NaN or infinity.
    """
    rows = labels[:, np.newaxis] if labels.ndim == 1 else labels
    shapes = "(b, t)" if width is None else f"(b,) or (b, {width})" if width == 1 else f"(b, {width})"
    require(
        rows.ndim == 2 and width in (None, rows.shape[1]) and labels.dtype.kind in "biuf",
        f"{what} must be numbers of shape {shapes}.",
        {"shape of the labels": labels.shape, "dtype": labels.dtype},
    )
    wrong = np.flatnonzero(~np.isfinite(rows.astype(np.float64)).all(axis=1))
    if wrong.size:
        raise RowsError(f"{what} must be finite: fix or filter out these examples.", wrong, {})
    return rows.astype(np.float32)
