"""Text of what makes a calculator, by which results of other settings are told apart."""

from __future__ import annotations

import functools
import hashlib
import itertools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview._summaries import Summarised
from deel_dualview.models import InfluenceModel

_OWN = "deel_dualview"
_OPAQUE = ("keras", "tensorflow", "builtins", "numpy")
"""Packages whose objects are told by their type alone."""


def describe_maker(made: Any) -> str:
    """Name a class, a function or an object that is called, so that two runs write the same.

    What it depends on besides its name goes in as a hash: of a function the code, defaults, closure, plain global
    variables and functions of the same module that it uses; of an object the attributes; of a class the methods,
    where it is not this package's.

    Args:
        made: makes a calculator.
    """
    if isinstance(made, functools.partial):
        arguments = [*map(_describe_value, made.args), describe_settings(made.keywords)]
        return f"{describe_maker(made.func)}({', '.join(filter(None, arguments))})"
    state = list(_state(made, ()))
    name = ".".join(python_name(made))
    return f"{name} of {hashlib.blake2b(repr(state).encode(), digest_size=6).hexdigest()}" if state else name


def describe_settings(settings: Mapping[str, object]) -> str:
    """Return settings as text, in the order of their names."""
    return ", ".join(f"{name}={_describe_value(settings[name])}" for name in sorted(settings))


def python_name(made: Any) -> tuple[str, str]:
    """Return module and qualified name of a function or class, or of the class of anything else."""
    while isinstance(made, functools.partial):
        made = made.func
    own = made if hasattr(made, "__qualname__") else type(made)
    return own.__module__, own.__qualname__


def _describe_value(value: object) -> str:
    if hasattr(value, "describe"):
        return f"{type(value).__name__}({value.describe()})"
    # A summary leaves out what it has no short form for.
    is_partial = type(value).__repr__ in (object.__repr__, Summarised.__repr__) or callable(value)
    return describe_maker(value) if is_partial else repr(value)


def _state(value: Any, above: tuple[int, ...]) -> Iterator[Any]:
    """Yield what a value depends on besides the name of its type; nothing that differs from run to run.

    Args:
        value: anything.
        above: identities of the objects that this one is part of.
    """
    if id(value) in above:
        return
    above = (*above, id(value))
    if isinstance(value, type):
        yield from _state_of_class(value, above)
    elif isinstance(value, types.MethodType):
        yield [*_state(value.__func__, above), *_state(value.__self__, above)]
    elif isinstance(value, types.FunctionType):
        yield from _state_of_function(value, above)
    elif isinstance(value, functools.partial):
        yield [_part(part, above) for part in (value.func, value.args, value.keywords)]
    elif isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        yield value.__name__
    elif isinstance(value, tf.Tensor):
        yield from _state(value.numpy(), above)
    elif isinstance(value, np.ndarray):
        yield [str(value.dtype), value.shape, hashlib.blake2b(value.tobytes()).hexdigest()]
    elif isinstance(value, Mapping):
        yield sorted((repr(key), _part(one, above)) for key, one in value.items())
    elif isinstance(value, (set, frozenset)):
        yield sorted(repr(_part(one, above)) for one in value)
    elif isinstance(value, (list, tuple)):
        yield [_part(one, above) for one in value]
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        yield repr(value)
    elif hasattr(value, "describe"):
        yield value.describe()
    elif isinstance(value, InfluenceModel):
        yield value.fingerprint
    elif hasattr(value, "__dict__") and not any(map(_is_opaque, type(value).__mro__[:-1])):
        yield from _state_of_class(type(value), above)
        yield from _state(vars(value), above)


def _is_opaque(own: type) -> bool:
    return own.__module__.startswith(_OPAQUE)


def _part(value: Any, above: tuple[int, ...]) -> list[Any]:
    return [".".join(python_name(value)), *_state(value, above)]


def _state_of_function(function: types.FunctionType, above: tuple[int, ...]) -> Iterator[Any]:
    closure = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    used = {name: function.__globals__.get(name) for name in _names(function.__code__)}
    known = {
        name: value
        for name, value in used.items()
        if isinstance(value, (bool, int, float, str, tuple, list, dict))
        or (isinstance(value, types.FunctionType) and value.__module__ == function.__module__)
    }
    yield _code(function.__code__)
    for part in (function.__defaults__, function.__kwdefaults__, closure, known):
        if part:
            yield _part(part, above)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a function that is defined later than this one
        return False


def _state_of_class(own: type, above: tuple[int, ...]) -> Iterator[Any]:
    """Yield the methods of a class, and of those that it inherits from, up to this package's."""
    for one in itertools.takewhile(lambda one: not one.__module__.startswith((_OWN, *_OPAQUE)), own.__mro__):
        for name, member in sorted(vars(one).items()):
            member = getattr(member, "__func__", member)
            if isinstance(member, types.FunctionType):
                yield [name, *_state_of_function(member, above)]


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: types.CodeType) -> list[Any]:
    """Return what a function does, and not where it is written."""
    inner = [_code(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    constants = [_part(part, ()) for part in code.co_consts if not isinstance(part, types.CodeType)]
    return [code.co_code, constants, code.co_names, inner]
