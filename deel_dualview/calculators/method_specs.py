"""Methods under evaluation: by a name with settings, or by what makes a calculator."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deel_dualview._checks import describe, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.describing import describe_maker, describe_settings, python_name
from deel_dualview.calculators.methods import METHODS, NamedMethod
from deel_dualview.calculators.random import RandomInfluence
from deel_dualview.calculators.settings import check_settings, read_value
from deel_dualview.models.checkpoints import Checkpoints

RANDOM = "random"
NAMES = (*METHODS, RANDOM)
"""What a method under evaluation may be called."""

Maker = Callable[..., BaseInfluenceCalculator]


@dataclass(frozen=True, eq=False)
class Entrant:
    """A method under evaluation.

    Attributes:
        name: what tables call it.
        method: one of `NAMES`, or what makes a calculator from a model, a training set and `store`.
        settings: of a method by name, in place of its defaults.
        given: the name with its settings as it was given; empty for what makes calculators.
    """

    name: str
    method: str | Maker
    settings: Mapping[str, object] = field(default_factory=dict)
    given: str = ""

    @property
    def python_name(self) -> tuple[str, str] | None:
        """Module and qualified name of the function or class that makes the calculator; None for a name."""
        return None if isinstance(self.method, str) else python_name(self.method)

    @property
    def described(self) -> str:
        """Text of everything that the values depend on besides the model and its data."""
        if isinstance(self.method, str):
            return f"{self.method}({describe_settings(self.settings)})"
        return describe_maker(self.method)

    @property
    def needs_checkpoints(self) -> bool:
        """Whether checkpoints of the training run change its values."""
        return (
            isinstance(self.method, str)
            and self.method in METHODS
            and METHODS[self.method].checkpoints != "unused"
        )

    def maker(self, checkpoints: Checkpoints | None) -> Maker:
        """Return what makes the calculator from a model, a training set and `store`."""
        if not isinstance(self.method, str):
            return self.method
        # A copy, as projections keep the matrices that they have made.
        settings: dict[str, Any] = copy.deepcopy(dict(self.settings))
        if self.method == RANDOM:
            return functools.partial(RandomInfluence, **settings)
        return NamedMethod(self.method, checkpoints, settings)


def read_entrants(methods: Iterable[str] | Mapping[str, str | Maker]) -> list[Entrant]:
    """Return the methods that names, or a mapping from names of your own, stand for.

    Args:
        methods: each a name of `NAMES`, perhaps with settings, as in "dualview?K=0.1&kernel=linear"; or, by
            names of your own, such names or what makes calculators.

    Raises:
        TypeError: something else.
        ValueError: no method, one given twice, an unknown name or setting.
    """
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise TypeError(describe("`methods` must be names, or a mapping from names.", {"methods": methods}))
    pairs = list(methods.items()) if isinstance(methods, Mapping) else [(name, name) for name in methods]
    names = [name for name, _ in pairs]
    require(
        bool(names) and len(set(names)) == len(names),
        "At least one method is needed, each once.",
        {"methods": names},
    )
    return [_read(name, given) for name, given in pairs]


def check_can_travel(entrants: Iterable[Entrant]) -> None:
    """Refuse methods that another process cannot be told of.

    Raises:
        ValueError: a lambda, a function inside of another one, or one of an interactive session.
    """
    has_script = hasattr(sys.modules["__main__"], "__file__")
    for entrant in entrants:
        try:
            text = pickle.dumps(entrant.method)
        except (pickle.PicklingError, AttributeError, TypeError):
            text = b""
        require(
            bool(text) and (has_script or b"__main__" not in text),
            "With jobs > 1 methods run in other processes: each must be a name, or a class or function at the top "
            "level of a module (functools.partial gives it settings), and not a lambda, a function inside of another "
            "one, or one of a notebook. Move it to a module, or take jobs=1.",
            {"name": entrant.name, "method": entrant.method},
        )


def split_names(text: str) -> list[str]:
    """Split at commas, but not inside of parentheses or brackets: "sim?projection=GaussianProjection(128, 1)"."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _read(name: object, given: object) -> Entrant:
    if not isinstance(name, str) or not (isinstance(given, str) or callable(given)):
        raise TypeError(
            describe(
                "A method is a name, or what makes a calculator from a model, a training set and `store`.",
                {"name": name, "method": given},
            )
        )
    require(bool(name.strip()), "A method needs a name.", {"name": name, "method": given})
    if not isinstance(given, str):
        return Entrant(name, given)
    method, _, query = given.partition("?")
    require(method in NAMES, f"A method is one of {', '.join(NAMES)}.", {"method": method})
    settings: dict[str, object] = {}
    for part in filter(None, query.split("&")):
        key, has_value, value = urllib.parse.unquote(part).partition("=")
        require(
            bool(has_value) and key not in settings,
            "Settings are NAME=VALUE, each once, joined by '&', as in dualview?K=0.1&kernel=linear.",
            {"method": given},
        )
        settings[key] = read_value(value)
    check_settings(method, settings)
    return Entrant(name, method, settings, given)
