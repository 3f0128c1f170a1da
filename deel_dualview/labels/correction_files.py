"""Corrections of labels as users have them: the file of a report's page, a table, or entries by position."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deel_dualview._checks import describe, require
from deel_dualview.labels.tables import unescaped

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("wrong", "right", "unsure", "drop")
_COLUMNS = ("position", "verdict")


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


class Review(NamedTuple):
    """A row of a file of corrections: the verdict about one label; entries that are empty are None."""

    position: int
    verdict: str
    output: str | None
    label: str | None
    given_label: str | None
    id: str | None


Corrections = Mapping[int, Correction | str | int | float | Mapping[str, Any] | None]
"""By the position of the training example: a `Correction`, or its `label` alone."""


def read_corrections(path: str | os.PathLike[str]) -> dict[int, Correction]:
    """Read the file that a report's page exports.

    Its columns: `position`; `verdict` (`wrong`: the example gets the class of column `label`, or else of
    `suggested_label`; `drop`: it is left out; `right` and `unsure`: it stays); perhaps `given_label` and `id`, which
    are then compared with the training set's; of a model that is no classifier `output`, the name of the number or
    label that the row is about.

    Args:
        path: a CSV file in UTF-8, with commas, semicolons or tabs. A first line `sep=;`, as Excel writes it, is
            skipped.

    Raises:
        FileNotFoundError: there is none.
        ValueError: columns are missing, a verdict or position is none, a position (or its output) occurs twice, or a
            label is wrong and its new label the given one.
    """
    return _to_corrections(read_reviews(path, "corrections"))


def read_reviews(source: str | os.PathLike[str] | pd.DataFrame, name: str) -> list[Review]:
    """Return the rows of a file of corrections or of a DataFrame, checked; raises as `read_corrections`.

    Args:
        source: the file or the DataFrame.
        name: of the argument that it is.
    """
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "to_dict") or not hasattr(source, "columns"):
            raise TypeError(
                describe(
                    f"{name} must be the path of a CSV file, or a DataFrame.", {"type": type(source).__name__}
                )
            )
        rows = source.astype(object).where(source.notna(), "").to_dict("records")
        return list(_to_reviews(rows, list(source.columns), "a DataFrame"))
    path = source
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            # Spreadsheets of half of Europe write semicolons.
            first = file.readline()
            if first.lower().startswith("sep="):
                start, first = file.tell(), file.readline()
                file.seek(start)
            else:
                file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count))
            return list(_to_reviews(reader, list(reader.fieldnames or []), str(path)))
    except UnicodeDecodeError as error:
        raise ValueError(
            describe(
                'Corrections must be a CSV file in UTF-8: in Excel, save as "CSV UTF-8 (Comma delimited)".',
                {"corrections": str(path)},
            )
        ) from error


def given_corrections(
    corrections: str | os.PathLike[str] | pd.DataFrame | Corrections,
) -> dict[int, Correction]:
    """Return corrections of any of these forms by position; raises as `read_corrections`."""
    if isinstance(corrections, str | os.PathLike):
        return read_corrections(corrections)
    if isinstance(corrections, Mapping):
        wrong = [at for at in corrections if isinstance(at, bool) or not isinstance(at, int | np.integer)]
        require(not wrong, "Corrections are by position: integers from 0.", {"positions": wrong[:3]})
        return {
            position: item if isinstance(item, Correction) else Correction(item)
            for position, item in corrections.items()
        }
    if hasattr(corrections, "to_dict") and hasattr(corrections, "columns"):
        return _to_corrections(read_reviews(corrections, "corrections"))
    raise TypeError(
        describe(
            "`corrections` must be the path of a CSV file, a DataFrame, or `Correction`s by position.",
            {"type": type(corrections).__name__},
        )
    )


def _to_corrections(reviews: Iterable[Review]) -> dict[int, Correction]:
    found: dict[int, Correction] = {}
    for review in reviews:
        if review.verdict in ("right", "unsure"):
            continue
        own = Correction(review.label, review.given_label, review.id)
        found[review.position] = (
            own if review.output is None else _merged(own, review.output, found.get(review.position))
        )
    return found


def _to_reviews(rows: Any, columns: Sequence[str], source: str) -> Iterator[Review]:
    missing = [name for name in _COLUMNS if name not in columns]
    require(
        not missing,
        f"Corrections need the columns {', '.join(_COLUMNS)}, as the page of a report exports them; missing: "
        f"{', '.join(missing)}.",
        {"corrections": source, "columns": list(columns)},
    )
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
        given = _cell(row, "given_label")
        if verdict in ("right", "unsure"):
            _check_right(row, verdict, number)
            yield Review(position, verdict, output, _cell(row, "label"), given, _cell(row, "id"))
            continue
        label = None if verdict == "drop" else _cell(row, "label") or _cell(row, "suggested_label")
        require(
            verdict == "drop" or label is not None,
            f"Row {number} of the corrections: a wrong label needs another in the column `label`, or the verdict drop.",
            {"position": position},
        )
        require(
            label is None or not _is_same(label, given, is_number=output is not None),
            f"Row {number} of the corrections: the verdict is wrong, but the new label is the given one. Write another "
            "in the column `label`, or the verdict right to keep it.",
            {"given_label": given, "label": label},
        )
        yield Review(position, verdict, output, label, given, _cell(row, "id"))


def _is_same(label: object, given: object, *, is_number: bool) -> bool:
    """Return whether a new label is the given one; names of classes may differ by a zero, "7" and "07"."""
    if label == given or given is None or not is_number:
        return label == given
    with suppress(ValueError):
        return float(str(label)) == float(str(given))
    return False


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
