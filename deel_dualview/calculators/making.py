"""From the name of a method, a calculator or what makes one: the calculator, and what a reader is told of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deel_dualview._checks import describe
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.methods import METHODS, NamedMethod
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store

Maker = Callable[..., BaseInfluenceCalculator]


class ToldMethod(NamedTuple):
    """What a report says of a method: its title, what a value is, and which calculator it is."""

    title: str
    value: str
    calculator: str


def by_name(given: str | BaseInfluenceCalculator | Maker) -> BaseInfluenceCalculator | Maker:
    """Return what stands behind a name, or what was given.

    An audit judges predictions, and mostly labels, by DualView's surrogate, and so takes its sparse kernel, under
    which the surrogate agrees with the model best.

    Raises:
        ValueError: an unknown name, or a method that needs checkpoints.
    """
    if given == "dualview":
        return functools.partial(DualView, kernel="cosine")
    return NamedMethod(given) if isinstance(given, str) else given


def make(
    given: BaseInfluenceCalculator | Maker, model: InfluenceModel, train: tf.data.Dataset, store: Store
) -> BaseInfluenceCalculator:
    """Return a calculator: the one that was given, or one made for model, training set and store.

    Raises:
        TypeError: what was given is, or makes, something else.
    """
    if isinstance(given, BaseInfluenceCalculator):
        return given
    is_other_class = isinstance(given, type) and not issubclass(given, BaseInfluenceCalculator)
    is_maker = callable(given) and not is_other_class
    made = given(model, train, store=store) if is_maker else given
    if not isinstance(made, BaseInfluenceCalculator):
        raise TypeError(
            describe(
                "Needed is the name of a method, a calculator with influence values, or what makes one from a "
                "model, a training set and a store.",
                {"type": type(made).__name__},
            )
        )
    return made


def describe_method(calculator: BaseInfluenceCalculator, given: object) -> ToldMethod:
    """Say how a reader calls the method, what its values are, and which calculator that is.

    Args:
        calculator: of the audit.
        given: what it was made by; a `NamedMethod` knows its title.
    """
    own = type(calculator).__name__
    if isinstance(calculator, DualView):
        return ToldMethod(METHODS["dualview"].title, METHODS["dualview"].value, own)
    inverse = getattr(calculator, "ihvp", None)
    full = own if inverse is None else f"{own} with {type(inverse).__name__}"
    if isinstance(given, NamedMethod):
        return ToldMethod(given.method.title, given.method.value, full)
    return ToldMethod(own, f"influence that {own} defines", full)
