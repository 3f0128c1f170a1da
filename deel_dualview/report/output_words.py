"""Labels and predictions of a model that is no classifier in words: numbers with their unit, labels that hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deel_dualview.report.wording import joined

_MOST_NAMED = 4
_DIGITS = 3
"""Of what labels deviate by: more say nothing."""


@dataclass(frozen=True)
class OutputWords:
    """How a report writes the outputs of a model that is no classifier.

    Attributes:
        kind: `"numbers"`, or independent `"labels"`.
        names: of the outputs.
        decimals: of each number.
        unit: of all numbers, or "".
    """

    kind: Literal["numbers", "labels"]
    names: tuple[str, ...]
    decimals: tuple[int, ...]
    unit: str = ""

    def value(self, output: int, value: float) -> str:
        """Return a number with its unit, or whether a label holds."""
        if self.kind == "labels":
            return self.names[output] if value > 0 else f"not {self.names[output]}"
        return f"{self.number(output, value)} {self.unit}".strip()

    def number(self, output: int, value: float) -> str:
        """Return a number without its unit."""
        return write_number(value, self.decimals[output])

    def labels(self, labels: Sequence[float] | None) -> str:
        """Return all labels of an example, the first few where there are many."""
        if labels is None:
            return "unknown"
        if self.kind == "labels":
            holding = [name for name, value in zip(self.names, labels, strict=True) if value > 0]
            more = len(holding) - _MOST_NAMED
            named = holding[:_MOST_NAMED] + ([f"{more} more"] if more > 0 else [])
            return joined(named) if named else "none of the labels"
        if len(labels) == 1:
            return self.value(0, labels[0])
        more = len(labels) - _MOST_NAMED
        parts = [f"{self.names[at]} {self.value(at, value)}" for at, value in enumerate(labels[:_MOST_NAMED])]
        return ", ".join(parts) + (f", {more} more" if more > 0 else "")


def words_of(
    kind: Literal["numbers", "labels"], names: Sequence[str], rows: np.ndarray, unit: str = ""
) -> OutputWords:
    """Return how to write the outputs of a model by the labels of its training set, shape (n, c).

    Numbers have three digits of what they deviate by; where all are whole numbers, so are predictions.
    """
    from deel_dualview.labels import robust_deviation  # which imports TensorFlow

    decimals = [
        0 if (column == np.rint(column)).all() else decimals_of(robust_deviation(column.astype(np.float64)))
        for column in rows.T
    ]
    return OutputWords(kind, tuple(names), tuple(decimals), unit)


def decimals_of(deviation: float) -> int:
    """Return with how many decimals to write numbers that deviate by so much."""
    if not (math.isfinite(deviation) and deviation > 0):
        return 2
    return min(max(_DIGITS - 1 - math.floor(math.log10(deviation)), 0), 9)


def write_number(value: float, decimals: int) -> str:
    """Return a number with so many decimals, thousands apart; very large ones by their exponent."""
    if not math.isfinite(value) or abs(value) >= 1e12:
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else text.lstrip("-")
