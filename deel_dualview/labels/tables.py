"""Label issues as a CSV file that a spreadsheet opens without running anything."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deel_dualview import _files

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of equal length as a CSV file in UTF-8, whole or not at all.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    # A lone surrogate, of a name that was no UTF-8, is written as its escape: \ud800.
    with (
        _files.written_aside(path) as aside,
        aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [_cell(value) for value in row]
            for row in zip(*(column.tolist() for column in columns.values()), strict=True)
        )


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return round(value, 6) if isinstance(value, float) else value


def unescaped(text: str) -> str:
    """Return a text as it was before `write_csv` put an apostrophe before it."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA_STARTS) else text
