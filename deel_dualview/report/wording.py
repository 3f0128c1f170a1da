"""Influence values in words, and lists as sentences have them: what is the same for several examples is said once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from deel_dualview.report.findings import Influence

EQUAL, NEARLY_EQUAL = 0.005, 0.1
"""Values that differ by less than half a percent, or by less than a tenth, of the largest: bars of them look alike."""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class InfluenceWords(NamedTuple):
    """A row of influence values as a reader sees them.

    Attributes:
        spread: in words where the values can hardly be told apart, else "".
        values: one text for each, with the same digits; none where `spread` says it.
        together: the share of the logit that they add up to, "" where it means nothing.
    """

    spread: str
    values: tuple[str, ...]
    together: str


def describe_influences(items: Sequence[Influence]) -> InfluenceWords:
    """Put the values of some proponents, or of some opponents, into words.

    A share of the logit is left out where they add up to more than the logit: other examples take it back then.

    Args:
        items: of one sign.
    """
    if not items:
        return InfluenceWords("", (), "")
    values = [item.value for item in items]
    write = _writer(values)
    largest, smallest = max(map(abs, values)), min(map(abs, values))
    number = _NUMBERS[len(items)] if len(items) < len(_NUMBERS) else f"{len(items):,}"
    spread = ""
    if len(items) > 1 and largest - smallest <= EQUAL * largest:
        spread = f"{number} equally strong, {write(values[0])} each"
    elif len(items) > 1 and largest - smallest <= NEARLY_EQUAL * largest:
        spread = f"{number} nearly equally strong, {write(values[-1])} to {write(values[0])}"
    shares = [item.share for item in items]
    total = sum(share for share in shares if share is not None)
    means_something = None not in shares and 0 < total <= 1
    return InfluenceWords(
        spread,
        () if spread else tuple(map(write, values)),
        f"together {total:.0%} of the logit" if means_something else "",
    )


def joined(parts: Sequence[str]) -> str:
    """Return parts as a sentence has them: "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _writer(values: Sequence[float]) -> Callable[[float], str]:
    """Return what writes all of these values with the same digits, three of the largest one."""
    largest = max(map(abs, values))
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 and math.isfinite(largest) else 2
    style = "+.2e" if digits > 7 else f"+.{max(digits, 0)}f"
    return lambda value: format(value, style).replace("-", "\N{MINUS SIGN}")
