"""Settings of methods as text: "0.1", "linear" or "GaussianProjection(16)", checked before long work."""

from __future__ import annotations

import ast
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

from deel_dualview._checks import describe, require
from deel_dualview.calculators.methods import METHODS, split_settings
from deel_dualview.calculators.random import RandomInfluence
from deel_dualview.ihvp import RelativeDamping
from deel_dualview.linalg.projections import FactoredProjection, GaussianProjection, KroneckerProjection
from deel_dualview.svm import DualSVMSolver

_MADE = {
    made.__name__: made
    for made in (
        DualSVMSolver,
        FactoredProjection,
        GaussianProjection,
        KroneckerProjection,
        RelativeDamping,
    )
}
_GIVEN = {"self", "model", "models", "train_set", "store", "target", "ihvp", "learning_rates"}
_Kind = tuple[Callable[[Any], bool], str]


def read_value(text: str) -> object:
    """Return what the text of a setting means: a Python literal, `NAME(...)` of what methods take, or itself.

    Raises:
        ValueError: a call of anything else, or with arguments that are no literals.
    """
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return text
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _call(node, text) if isinstance(node, ast.Call) else text


def _call(node: ast.Call, text: str) -> object:
    made = _MADE.get(node.func.id) if isinstance(node.func, ast.Name) else None
    needed = f"A setting is a literal, a word, or one of {', '.join(_MADE)} with literals as arguments."
    require(made is not None, needed, {"setting": text})
    try:
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords: dict[str, Any] = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
        return made(*arguments, **keywords)  # type: ignore[misc]
    except (ValueError, TypeError) as error:
        raise ValueError(describe(f"{needed} {error}", {"setting": text})) from error


def check_settings(method: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that a method does not have, or of another kind.

    Args:
        method: a name of `METHODS`, or "random".
        settings: by name, those of the inverse Hessian beginning with "ihvp.".

    Raises:
        ValueError: an unknown setting (the known ones are told), or a value that is none of what it may be.
    """
    found = METHODS.get(method)
    made: Any = RandomInfluence
    if found is not None:
        made = getattr(import_module(f"deel_dualview.{found.home}"), found.class_name)
    known = _hints(made, "")
    if found is not None and found.inverse is not None:
        known |= _hints(getattr(import_module("deel_dualview.ihvp"), found.inverse), "ihvp.")
    inverse, _ = split_settings(settings)
    unknown = sorted(name for name in settings if name not in known)
    hint = " Only influence functions with an inverse of their own have settings that begin with 'ihvp.'."
    require(
        not unknown,
        f"{method} has the settings {', '.join(known) or '(none)'}."
        + (hint if inverse and not any(name.startswith("ihvp.") for name in known) else ""),
        {"settings": unknown},
    )
    for name, value in settings.items():
        kinds = list(_kinds(known[name]))
        if not any(fits(value) for fits, _ in kinds):
            told = " or ".join(words for _, words in kinds)
            raise ValueError(describe(f"The setting {name} of {method} is {told}.", {name: value}))


def _hints(made: Any, prefix: str) -> dict[str, Any]:
    """Return the types of the settings of a class, by their names with a prefix."""
    types_of = typing.get_type_hints(made.__init__)
    names = [name for name in inspect.signature(made).parameters if name not in _GIVEN]
    return {prefix + name: types_of[name] for name in names}


def _kinds(hint: Any) -> Iterator[_Kind]:
    """Yield for everything that a type allows whether a value is that, and what it is called."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _kinds(argument)
    elif origin is Literal:
        yield lambda value: isinstance(value, str) and value in arguments, ", ".join(map(repr, arguments))
    elif hint is bool:
        yield lambda value: isinstance(value, bool), "True, False"
    elif hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        words = "an integer" if hint is int else "a number"
        yield lambda value: isinstance(value, number) and not isinstance(value, bool), words
    elif hint is types.NoneType:
        yield lambda value: value is None, "None"
    elif origin is Sequence:
        yield _are_names, "names in quotes, as in ['logits']"
    else:
        made = [name for name, one in _MADE.items() if issubclass(one, hint)]
        words = ", ".join(f"{name}(...)" for name in made) or f"a {hint.__name__}, in Python only"
        yield lambda value: isinstance(value, hint), words


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)
