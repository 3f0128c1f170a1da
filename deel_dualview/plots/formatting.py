"""How numbers, tokens, columns and classes are written in pictures and reports, and which names can be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from deel_dualview._checks import describe, require

# Control characters, lone surrogates, and what is not seen but changes what is seen: marks of direction, line
# separators, zero widths. Joiners stay, which scripts and emojis need.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_MOST_WHOLE = 1e9
"""Numbers below are written with all digits before the point."""
NEAR = 0.05
"""Numbers of a column agree up to this part of its range over the examples that are shown."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Return text in which control characters, lone surrogates and marks of direction are written as `\x1b`, `\u202e`.

    Args:
        text: a name of a class, an id, a title or a path, which may hold anything.
        keep: characters that stay, such as line breaks.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else escape(found[0]), text)


def ended(text: str | None) -> str:
    """Return a sentence with a full stop, unless it ends with a mark of its own."""
    text = text or ""
    return text if text.endswith(("?", "!", ".")) else f"{text}."


def escape(character: str) -> str:
    r"""Return the escape of a character, such as `\x1b`."""
    code = ord(character)
    digits = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(character, digits)


def escaped_json(text: str) -> str:
    """Return JSON in which these characters are escapes of JSON; what it holds stays the same."""
    # Outside of strings JSON has none of them but line breaks, and those in strings are escapes already.
    # DEL is ASCII, which `json.dumps` leaves as it is.
    return _UNSEEN.sub(
        lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1].replace("\x7f", "\\u007f"),
        text,
    )


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign, a true minus among them."""
    return f"{value:+.{digits}g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:+.{digits}g}"


def brief(value: float) -> str:
    """Write two digits: +0.012, +1.2e-4."""
    if abs(value) >= 1e-3:
        return signed(value, 2)
    digits, exponent = f"{value:+.1e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def name_token(token: Any, vocabulary: Sequence[str]) -> str:
    """Return the word of a token, which may be one itself; its number where the vocabulary has none."""
    if isinstance(token, str):
        return token
    token = int(token)
    return str(vocabulary[token]) if 0 <= token < len(vocabulary) and vocabulary[token] else str(token)


def to_words(vocabulary: Any) -> Sequence[str]:
    """Return the words of a vocabulary by their number: a list of words, or a layer that has one.

    Raises:
        TypeError: it is neither.
    """
    words = vocabulary.get_vocabulary() if hasattr(vocabulary, "get_vocabulary") else vocabulary
    if isinstance(words, str) or not hasattr(words, "__getitem__"):
        raise TypeError(
            "`vocabulary` must be a list of words by their number, or a layer that has one (TextVectorization, "
            f"StringLookup). Received: vocabulary={vocabulary!r}."
        )
    return words


def name_column(index: int, names: Sequence[str]) -> str:
    """Return the name of a column; its number where there is none."""
    return names[index] if index < len(names) else f"column {index}"


def name_value(value: Any, digits: int = 3) -> str:
    """Write the value of a column: a few digits of a number, or a category."""
    if isinstance(value, str):
        return shorten(value)
    # An exponent in the place of the last digits would make numbers of rows and amounts equal, and hard to read.
    return f"{value:.0f}" if 10**digits <= abs(value) < _MOST_WHOLE else f"{value:.{digits}g}"


def span_of(values: Iterable[Any]) -> float:
    """Return the range of the numbers among the values of a column, 0 where there are none."""
    found = [
        float(value) for value in values if isinstance(value, float | np.floating) and np.isfinite(value)
    ]
    return max(found) - min(found) if found else 0.0


def agree(value: Any, other: Any, span: float) -> bool:
    """Return whether two values of a column agree: equal texts and integers, or numbers that are near in its range.

    Args:
        value: of one row.
        other: of the other row.
        span: the range of the column.
    """
    if not isinstance(value, float | np.floating) or not isinstance(other, float | np.floating):
        return bool(value == other)
    # Of a column without a range, equal ones; both are missing, or neither. (np.isclose takes 0.1 ms a cell.)
    own, beside = float(value), float(other)
    return own == beside or abs(own - beside) <= NEAR * span or own != own and beside != beside


def check_names(argument: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return names of columns or tokens; none for None.

    Raises:
        TypeError: one string, what is no sequence, or names that are no strings.
    """
    needed = f"`{argument}` must be a list of strings."
    if isinstance(names, (str, bytes)) or names is not None and not hasattr(names, "__len__"):
        raise TypeError(describe(needed, {argument: names}))
    found = () if names is None else tuple(names)
    wrong = next((place for place, name in enumerate(found) if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(describe(needed, {f"{argument}[{wrong}]": found[wrong]}))
    return found


def check_column_names(argument: str, names: Sequence[str], num_columns: int) -> None:
    """Refuse names of another number than there are columns; none at all are fine.

    Raises:
        ValueError: there are more or fewer.
    """
    require(
        len(names) in (0, num_columns),
        f"`{argument}` must name each of the {num_columns} columns of a row.",
        {f"len({argument})": len(names)},
    )


def shorten(name: str) -> str:
    """Return a name of at most 24 characters."""
    return name if len(name) <= 24 else name[:23] + "…"


def plain(text: str) -> str:
    """Return text as Matplotlib draws it: without mathematics between dollar signs, with what is unseen as escapes."""
    return visible(text).replace("$", r"\$")


def format_seconds(seconds: float) -> str:
    """Write seconds with three digits, in a unit in which they are easily read."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            break
    value = seconds * factor
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def format_bytes(num_bytes: int) -> str:
    """Write a number of bytes with three digits, in a unit in which it is easily read."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return (
                f"{num_bytes / size:,.0f} {unit}"
                if num_bytes >= 100 * size
                else f"{num_bytes / size:.3g} {unit}"
            )
    return f"{num_bytes} B"
