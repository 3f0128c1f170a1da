"""One message formula for user errors, and the validators that several modules share."""

import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from typing import TypeGuard


def describe(needed: str, received: Mapping[str, object]) -> str:
    """Return the text of a user error: what is needed, then the values received, each shortened.

    Args:
        needed: what is needed, what was found and how to fix it, in full sentences.
        received: values to show, by name.
    """
    values = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in received.items())
    return f"{needed} Received: {values}." if values else needed


def require(condition: bool, needed: str, received: Mapping[str, object]) -> None:
    """Raise a user error unless the condition holds.

    Args:
        condition: what must be true.
        needed: what is needed, what was found and how to fix it, in full sentences.
        received: values to show, by name.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(describe(needed, received))


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise an error unless a value is one of the words that an argument takes.

    Raises:
        ValueError: it is none of them.
    """
    # An array would be compared entry by entry.
    is_known = isinstance(value, str) and value in choices
    require(is_known, f"`{name}` must be one of {tuple(choices)}.", {name: value})


def check_flag(name: str, value: bool) -> bool:
    """Return `value`, True or False.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(describe(f"`{name}` must be True or False.", {name: value}))
    return value


def check_instance(name: str, value: object, kind: type, example: str) -> None:
    """Raise an error unless a value is None or of a class.

    Raises:
        TypeError: it is of another class.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            describe(f"`{name}` must be a {kind.__name__}, for instance {example}.", {name: value})
        )


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number; a bool is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_positive(name: str, value: float) -> float:
    """Return `value` as a float.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not positive and finite.
    """
    if not is_number(value):
        raise TypeError(describe(f"`{name}` must be a number.", {name: value}))
    require(math.isfinite(value) and value > 0, f"`{name}` must be positive and finite.", {name: value})
    return float(value)


def check_seed(name: str, value: int) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: it is not an integer, or negative.
    """
    require(
        is_integer(value) and value >= 0, f"`{name}` must be an integer that is not negative.", {name: value}
    )
    return int(value)


def check_count(name: str, value: int) -> int:
    """Return `value` as an int.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than 1.
    """
    if not is_integer(value):
        raise TypeError(describe(f"`{name}` must be an integer.", {name: value}))
    require(value >= 1, f"`{name}` must be at least 1.", {name: value})
    return int(value)


def check_bytes(name: str, value: float) -> int:
    """Return a number of bytes as an int; 2e9 is as good as 2_000_000_000.

    Raises:
        TypeError: it is no number.
        ValueError: it is not whole, or less than 1.
    """
    given: object = value
    is_float = isinstance(given, numbers.Real) and not isinstance(given, numbers.Integral)
    if is_float and float(value).is_integer():
        value = int(value)
    if not is_integer(value):
        message = f"`{name}` must be a whole number of bytes, such as 2e9 for 2 GB."
        raise (ValueError if is_float else TypeError)(describe(message, {name: value}))
    return check_count(name, int(value))


def check_k(k: int, num_examples: int) -> int:
    """Return `k`, the number of training examples to keep, as an int.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than 1, or more than there are examples.
    """
    k = check_count("k", k)
    require(
        k <= num_examples,
        "Only as many examples can be kept as the training set holds: lower `k`.",
        {"k": k, "num_examples": num_examples},
    )
    return k
