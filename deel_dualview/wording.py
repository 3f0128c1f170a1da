"""How numbers, tokens, columns and classes are written in pictures and reports, and which names can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deel_dualview._checks import describe, require


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign, a true minus among them."""
    return f"{value:+.{digits}g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:+.{digits}g}"


def brief(value: float) -> str:
    """Write two digits: +0.012, +1.2e-4."""
    if abs(value) >= 1e-3:
        return signed(value, 2)
    digits, exponent = f"{value:+.1e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def name_token(token: int, vocabulary: Sequence[str]) -> str:
    """Return the word of a token; its number where the vocabulary has none."""
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
    """Keep Matplotlib from reading mathematics between dollar signs."""
    return text.replace("$", r"\$")
