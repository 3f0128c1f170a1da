"""Corrections of numbers and of independent labels: new values of some outputs of an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deel_dualview._checks import describe, require

_TOLERANCE = 1e-5
"""Of a number that went through 32 bits and a text of six digits, relative."""


class OutputChange(NamedTuple):
    """New labels of some outputs of one example; none drops it.

    Attributes:
        columns: of the labels; None stands for the only one.
        values: what they become.
        given: what they were, None where that is not recorded.
    """

    columns: tuple[int | None, ...]
    values: tuple[float, ...]
    given: tuple[float | None, ...]

    def apply(self, labels: np.ndarray) -> tuple[float, float] | None:
        """Change a row (c,) in place, unless a label is not what was judged: return that one, as (recorded, found)."""
        for column, value, given in zip(self.columns, self.values, self.given, strict=True):
            at = self._column(column, len(labels))
            found = float(labels[at])
            if given is not None and not np.isclose(found, given, rtol=_TOLERANCE, atol=1e-6):
                return given, found
            is_fraction = labels.dtype.kind in "iub" and value != round(value)
            low, high = _range_of(labels.dtype)
            require(
                low <= value <= high,
                "A correction does not fit the labels' dtype.",
                {"label": value, "dtype of the labels": labels.dtype},
            )
            require(
                not is_fraction,
                "The labels are whole numbers, and a correction is not: give the training set labels that are floats.",
                {"label": value, "dtype of the labels": labels.dtype},
            )
            labels[at] = value
        return None

    @staticmethod
    def _column(column: int | None, width: int) -> int:
        require(
            column is not None or width == 1,
            "An example has several labels: give corrections by the names of the outputs, Correction({name: number}).",
            {"labels of an example": width},
        )
        column = column or 0
        require(
            column < width,
            "Corrections name an output that the labels do not have.",
            {"output": column, "labels of an example": width},
        )
        return column


def output_change(label: object, given: object, output_names: Sequence[str] | None) -> OutputChange:
    """Return a correction by its outputs.

    Args:
        label: a number, or numbers by the names (or numbers) of outputs; None drops the example.
        given: the same of the given labels, or None.
        output_names: of the audit; the outputs' numbers by default.

    Raises:
        ValueError: an output that has no such name, or a label that is no number.
    """
    if label is None:
        return OutputChange((), (), ())
    require(
        label != {},
        "A correction by outputs must name one; None as label drops the example.",
        {"label": label},
    )
    by_name: Mapping[Any, Any] = label if isinstance(label, Mapping) else {None: label}
    recorded: Mapping[Any, Any] = given if isinstance(given, Mapping) else {None: given}
    return OutputChange(
        tuple(_column(name, output_names, len(by_name)) for name in by_name),
        tuple(_number(value) for value in by_name.values()),
        tuple(None if recorded.get(name) is None else _number(recorded[name]) for name in by_name),
    )


def _column(name: object, output_names: Sequence[str] | None, num_changed: int) -> int | None:
    if name is None:
        return None
    if isinstance(name, int | np.integer):
        return int(name)
    names = None if output_names is None else list(output_names)
    if names is not None and name in names:
        return names.index(str(name))
    if str(name).isdecimal():
        return int(str(name))
    raise ValueError(
        describe(
            "Corrections name an output that is not among `output_names`: give the names that the audit had.",
            {"output": name, "output_names": names, "outputs of the correction": num_changed},
        )
    )


def _range_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(limits.min), float(limits.max)


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    require(
        bool(np.isfinite(number)),
        "The label of a correction of numbers must be a number.",
        {"label": value},
    )
    return number
