"""Objects as a few lines of text, and as a small table in a notebook."""

from __future__ import annotations

import html
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST_TEXT = 120
_MOST_ENTRIES = 8


class Summarised:
    """An object whose `repr` is a few readable lines, and which a notebook shows as a small table.

    Both hold the public attributes that have a short form: settings, shapes of arrays, names of models. They
    compute nothing.
    """

    def summary(self) -> dict[str, str]:
        """Return the text of every attribute shown, by name."""
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return briefly(public)

    def __repr__(self) -> str:
        return to_text(type(self).__name__, self.summary())

    def _repr_html_(self) -> str:
        return to_html(type(self).__name__, self.summary())


def to_text(title: str, summary: Mapping[str, str]) -> str:
    """Return a title and one indented line for each entry."""
    return "\n".join([title, *(f"  {name}: {text}" for name, text in summary.items())])


def to_html(title: str, summary: Mapping[str, str]) -> str:
    """Return a table of names and values under a title, all text escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in summary.items()
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"


def briefly(values: Mapping[str, object]) -> dict[str, str]:
    """Return the values that have a short form, by name."""
    found = {name: _brief(value) for name, value in values.items()}
    return {name: text for name, text in found.items() if text is not None}


def _brief(value: Any) -> str | None:
    """Return a value in a few words; None for what has no short form (datasets, functions)."""
    if isinstance(value, bool | numbers.Integral | str):
        return shorten(str(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        return f"{number:.4g}" if math.isfinite(number) else str(number)
    if isinstance(value, os.PathLike):
        return shorten(os.fspath(value))
    if isinstance(value, Summarised):
        return type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return _brief_entries(value)
    name = getattr(getattr(value, "model", None), "name", None)
    return shorten(f"{type(value).__name__} of {name!r}") if isinstance(name, str) else None


def _brief_entries(values: tuple[Any, ...] | list[Any]) -> str | None:
    entries = [_brief(value) for value in values[:_MOST_ENTRIES]]
    if any(entry is None for entry in entries):
        return None
    rest = [] if len(values) <= _MOST_ENTRIES else [f"... ({len(values)} in all)"]
    return shorten(", ".join([entry for entry in entries if entry is not None] + rest))


def shorten(text: str) -> str:
    """Return text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 3]}..."


EQUAL = 0.005
"""Influence values that differ by less than half a percent of the largest are shown as nearly equal."""


def are_equally_strong(values: Sequence[float]) -> bool:
    """Return whether several influence values are nearly equal, as where their weights are capped."""
    strengths = [abs(float(value)) for value in values]
    largest = max(strengths, default=0.0)
    return len(strengths) > 1 and 0 < largest < math.inf and largest - min(strengths) <= EQUAL * largest


def probability_text(probability: float) -> str:
    """Return a probability with as many digits as distinguish it from 0 and 1, at most 6."""
    margin = min(probability, 1 - probability)
    digits = 2 if margin >= 0.01 else min(6, math.ceil(-math.log10(max(margin, 1e-9))) + 1)
    return f"{probability:.{digits}f}"
