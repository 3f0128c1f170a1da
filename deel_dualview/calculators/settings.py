"""Settings of methods as text: "0.1", "linear" or "GaussianProjection(16)"."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from deel_dualview._checks import describe, require
from deel_dualview.calculators.methods import METHODS, split_settings
from deel_dualview.ihvp import LayerwiseDamping, RelativeDamping
from deel_dualview.linalg.projections import FactoredProjection, GaussianProjection, KroneckerProjection
from deel_dualview.svm import DualSVMSolver

_MADE = {
    made.__name__: made
    for made in (
        DualSVMSolver,
        FactoredProjection,
        GaussianProjection,
        KroneckerProjection,
        LayerwiseDamping,
        RelativeDamping,
    )
}
_GIVEN = {"self", "model", "models", "train_set", "store", "target", "ihvp", "learning_rates"}


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
    """Refuse settings that a method does not have; what they may be is checked by the calculator itself.

    Args:
        method: a name of `METHODS`.
        settings: by name, those of the inverse Hessian beginning with "ihvp.".

    Raises:
        ValueError: an unknown setting; the message lists the known ones.
    """
    found = METHODS[method]
    known = _names(f"{found.home}", found.class_name, "")
    if found.inverse is not None:
        known += _names("ihvp", found.inverse, "ihvp.")
    inverse, _ = split_settings(settings)
    unknown = sorted(name for name in settings if name not in known)
    hint = " Only influence functions with an inverse of their own have settings that begin with 'ihvp.'."
    require(
        not unknown,
        f"{method} has the settings {', '.join(known) or '(none)'}."
        + (hint if inverse and found.inverse is None else ""),
        {"settings": unknown},
    )


def _names(home: str, class_name: str, prefix: str) -> list[str]:
    """Return the names of the settings of a class, with a prefix."""
    made = getattr(import_module(f"deel_dualview.{home}"), class_name)
    return [prefix + name for name in inspect.signature(made).parameters if name not in _GIVEN]
