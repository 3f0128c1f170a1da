"""Influence values in words, and lists as sentences have them: what is the same for several examples is said once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from deel_dualview._summaries import are_equally_strong
from deel_dualview.report.findings import Influence

NEARLY_EQUAL = 0.1
"""Values that differ by less than a tenth of the largest: bars of them look alike."""
MUCH_UNSEEN = 0.25
"""Where a heatmap adds up to this share less or more than the influence value, the page says what it adds up to."""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class InfluenceWords(NamedTuple):
    """A row of influence values as a reader sees them.

    Attributes:
        spread: in words where the values are nearly equal, else "".
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
    if are_equally_strong(values):
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


class SumsInWords(NamedTuple):
    """What the heatmaps of some pairs add up to.

    Attributes:
        of_all: where all of them are far from their influence, the range of shares that they add up to; else "".
        of_each: else, one text for each pair, "" where the sums are near the influence.
    """

    of_all: str
    of_each: tuple[str, ...]


def describe_sums(items: Sequence[Influence]) -> SumsInWords:
    """Put what the heatmaps of some pairs add up to into words, once where it is so for all of several pairs.

    Args:
        items: proponents, or opponents.
    """
    sums = [_sums_far_off(item) for item in items]
    shares = [_percent(share) for share in sorted(share for own in sums if own is not None for share in own)]
    if len(sums) > 1 and None not in sums:
        both = shares[0] if shares[0] == shares[-1] else f"{shares[0]} to {shares[-1]}"
        return SumsInWords(f"colours add up to {both} of it", ("",) * len(items))
    return SumsInWords(
        "",
        tuple(
            ""
            if own is None
            else f"colours add up to {_percent(own[0])} of it in training, {_percent(own[1])} in test"
            for own in sums
        ),
    )


def joined(parts: Sequence[str]) -> str:
    """Return parts as a sentence has them: "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sums_far_off(item: Influence) -> tuple[float, float] | None:
    """Return what the two heatmaps of a pair add up to, as shares of its influence; None where both are near it."""
    if item.relevance is None or not item.value:
        return None
    sums = item.relevance.seen(item.value)
    return sums if max(abs(1 - share) for share in sums) > MUCH_UNSEEN else None


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "\N{MINUS SIGN}")


def _writer(values: Sequence[float]) -> Callable[[float], str]:
    """Return what writes all of these values with the same digits, three of the largest one."""
    largest = max(map(abs, values))
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 and math.isfinite(largest) else 2
    style = "+.2e" if digits > 7 else f"+.{max(digits, 0)}f"
    return lambda value: format(value, style).replace("-", "\N{MINUS SIGN}")
