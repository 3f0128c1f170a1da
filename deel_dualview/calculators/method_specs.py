"""Methods to run: `audit`, `compare`, `benchmark` and the command line take the same, under one name."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
import sys
import types
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview._summaries import Summarised
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.methods import METHODS, NamedMethod, check_checkpoints, method_of
from deel_dualview.calculators.settings import check_settings, read_value
from deel_dualview.models import InfluenceModel
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.models.recorded_training import RecordedTraining
from deel_dualview.stores import Store

Factory = Callable[..., BaseInfluenceCalculator]
"""What makes a calculator from a model, a training set and `store`: a class, a function, a functools.partial."""
_NO_DEFAULTS: Mapping[str, Mapping[str, object]] = types.MappingProxyType({})


class MethodDescription(NamedTuple):
    """How a report describes a method: its title, what a value is, and which calculator it is."""

    title: str
    value: str
    calculator: str


@dataclass(frozen=True, eq=False)
class MethodSpec:
    """A method to run.

    Attributes:
        name: what tables call it.
        method: a name of `METHODS`, a factory, or a calculator that is ready.
        settings: of a method by name, in place of its defaults.
        checkpoints: of the training run, for methods by name that use them.
        given: the name with its settings as it was given; empty for anything else.
    """

    name: str
    method: str | Factory | BaseInfluenceCalculator
    settings: Mapping[str, object] = field(default_factory=dict)
    checkpoints: Checkpoints | None = None
    given: str = ""

    @property
    def needs_checkpoints(self) -> bool:
        """Whether checkpoints of the training run change its values."""
        return isinstance(self.method, str) and METHODS[self.method].checkpoints != "unused"

    @property
    def python_name(self) -> tuple[str, str] | None:
        """Module and qualified name of the class or function that makes the calculator; None for a name."""
        return None if isinstance(self.method, str) else _python_name(self.method)

    @property
    def described(self) -> str:
        """Text of the method and its settings, the same in every run, by which results are distinguished.

        Raises:
            ValueError: a factory whose settings have no such text.
        """
        if isinstance(self.method, str):
            return f"{self.method}({_describe_settings(self.settings)})"
        return _describe_factory(self.method)

    def check_checkpoints(self) -> MethodSpec:
        """Return the method itself.

        Raises:
            ValueError: it needs checkpoints and has none.
        """
        if isinstance(self.method, str):
            check_checkpoints([self.method], has_checkpoints=self.checkpoints is not None)
        return self

    def with_checkpoints(self, checkpoints: Checkpoints | None) -> MethodSpec:
        """Return the method with checkpoints of a training run."""
        return dataclasses.replace(self, checkpoints=checkpoints)

    def with_training(self, training: RecordedTraining | None) -> MethodSpec:
        """Return the method with a recorded training, if its factory takes one as `training` and was given none."""
        if training is None or isinstance(self.method, str | BaseInfluenceCalculator):
            return self
        given = self.method.keywords if isinstance(self.method, functools.partial) else {}
        if "training" in given or "training" not in inspect.signature(self.method).parameters:
            return self
        return dataclasses.replace(self, method=functools.partial(self.method, training=training))

    def build(
        self, model: InfluenceModel, train_set: tf.data.Dataset, store: Store | None
    ) -> BaseInfluenceCalculator:
        """Return the calculator: made for model, training set and store, unless it is ready.

        Raises:
            TypeError: the factory makes something else.
        """
        factory = self.method
        if isinstance(factory, BaseInfluenceCalculator):
            return factory
        if isinstance(factory, str):
            # A copy, as projections keep the matrices that they have made.
            factory = NamedMethod(factory, self.checkpoints, copy.deepcopy(dict(self.settings)))
        made = factory(model, train_set, store=store)
        if not isinstance(made, BaseInfluenceCalculator):
            raise TypeError(_not_a_method(type(made)))
        return made

    def describe(self, calculator: BaseInfluenceCalculator) -> MethodDescription:
        """Return how a report describes the method, by the calculator that it has made."""
        own = type(calculator).__name__
        inverse = getattr(calculator, "ihvp", None)
        full = own if inverse is None else f"{own} with {type(inverse).__name__}"
        known = "dualview" if isinstance(calculator, DualView) else self.method
        if isinstance(known, str):
            return MethodDescription(METHODS[known].title, METHODS[known].value, full)
        return MethodDescription(own, f"influence that {own} defines", full)


Given: TypeAlias = str | Factory | BaseInfluenceCalculator | MethodSpec
"""A method: a name of `METHODS`, perhaps with settings ("dualview?K=0.1"), a factory, a calculator, or a MethodSpec."""


def resolve(
    given: Given,
    name: str = "",
    *,
    checkpoints: Checkpoints | None = None,
    defaults: Mapping[str, Mapping[str, object]] = _NO_DEFAULTS,
) -> MethodSpec:
    """Return the method that a name, a factory or a calculator stands for.

    Args:
        given: the method; a name may have settings, as in "dualview?K=0.1&kernel=linear".
        name: what tables call it; by default the name given, or that of the class or function.
        checkpoints: of the training run.
        defaults: settings by method, for this use, in place of the method's own.

    Raises:
        TypeError: something else.
        ValueError: an unknown name or setting.
    """
    if isinstance(given, MethodSpec):
        return given
    if isinstance(given, NamedMethod):
        settings = {**defaults.get(given.name, {}), **given.settings}
        return MethodSpec(name or given.name, given.name, settings, given.checkpoints or checkpoints)
    if isinstance(given, str):
        method, settings = _read(given)
        settings = {**defaults.get(method, {}), **settings}
        return MethodSpec(name or given, method, settings, checkpoints, given)
    is_other_class = isinstance(given, type) and not issubclass(given, BaseInfluenceCalculator)
    if not isinstance(given, BaseInfluenceCalculator) and (is_other_class or not callable(given)):
        raise TypeError(_not_a_method(given))
    return MethodSpec(name or _python_name(given)[1], given)


def resolve_all(
    methods: Iterable[Given] | Mapping[str, Given], *, checkpoints: Checkpoints | None = None
) -> list[MethodSpec]:
    """Return the methods that are given one by one, or by names of your own.

    Raises:
        TypeError: something that is no method.
        ValueError: no method, one name twice, an unknown name or setting.
    """
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise TypeError(
            describe("`methods` must be a list of methods, or a mapping from names.", {"methods": methods})
        )
    pairs = list(methods.items()) if isinstance(methods, Mapping) else [("", given) for given in methods]
    for name, given in pairs:
        if not isinstance(name, str):
            raise TypeError(describe("Methods go by names.", {"name": name, "method": given}))
    if isinstance(methods, Mapping):
        require(all(name.strip() for name, _ in pairs), "A method needs a name.", {"methods": dict(pairs)})
    specs = [resolve(given, name, checkpoints=checkpoints) for name, given in pairs]
    names = [spec.name for spec in specs]
    require(
        bool(names) and len(set(names)) == len(names),
        "At least one method is needed, each once and under different names.",
        {"methods": names},
    )
    return specs


def check_can_travel(specs: Iterable[MethodSpec]) -> None:
    """Refuse methods that another process cannot import.

    Raises:
        ValueError: a lambda, a function inside of another one, or one of an interactive session.
    """
    has_script = hasattr(sys.modules["__main__"], "__file__")
    for spec in specs:
        try:
            text = pickle.dumps(spec.method)
        except (pickle.PicklingError, AttributeError, TypeError):
            text = b""
        require(
            bool(text) and (has_script or b"__main__" not in text),
            "With jobs > 1 methods run in other processes: each must be a name, or a class or function at the top "
            "level of a module (functools.partial gives it settings), and not a lambda, a function inside of another "
            "one, or one of a notebook. Move it to a module, or take jobs=1.",
            {"name": spec.name, "method": spec.method},
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


def _not_a_method(given: object) -> str:
    return describe(
        "A method is a name, a calculator, or what makes one from a model, a training set and `store`.",
        {"method": given},
    )


def _read(given: str) -> tuple[str, dict[str, object]]:
    """Return the name and the settings of "NAME?SETTING=VALUE&SETTING=VALUE"."""
    method, _, query = given.partition("?")
    method_of(method)
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
    return method, settings


def _python_name(made: Any) -> tuple[str, str]:
    """Return module and qualified name of a class or function, or of the class of anything else."""
    while isinstance(made, functools.partial):
        made = made.func
    own = made if hasattr(made, "__qualname__") else type(made)
    return own.__module__, own.__qualname__


def _describe_settings(settings: Mapping[str, object]) -> str:
    """Return settings as text, in the order of their names."""
    return ", ".join(f"{name}={_describe_value(settings[name])}" for name in sorted(settings))


def _describe_factory(factory: Any) -> str:
    if isinstance(factory, functools.partial):
        arguments = [*map(_describe_value, factory.args), _describe_settings(factory.keywords)]
        return f"{_describe_factory(factory.func)}({', '.join(filter(None, arguments))})"
    is_closed = inspect.isfunction(factory) and factory.__closure__ is None
    require(
        isinstance(factory, type) or is_closed,
        "Results are distinguished by what makes a method and by its settings: give a class, a function that uses no "
        "variable of another one, or functools.partial(CLASS, setting=value).",
        {"method": factory},
    )
    return ".".join(_python_name(factory))


def _describe_value(value: object) -> str:
    if hasattr(value, "describe"):
        return f"{type(value).__name__}({value.describe()})"
    if isinstance(value, type | functools.partial) or inspect.isfunction(value):
        return _describe_factory(value)
    has_text = type(value).__repr__ not in (object.__repr__, Summarised.__repr__)
    text = repr(value)
    require(
        has_text and not isinstance(value, np.ndarray | tf.Tensor) and " at 0x" not in text,
        "Results are distinguished by the settings of a method: give numbers, words, or objects whose repr has "
        "all that they are.",
        {"setting": value},
    )
    return text
