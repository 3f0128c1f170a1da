"""what_if and smallest_flip: a prediction without some training examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_instance, is_integer, require
from deel_dualview._summaries import to_html, to_text
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented
from deel_dualview.verification.checking import explained_values, predicted_change, state_of
from deel_dualview.verification.results import State, Verification
from deel_dualview.verification.retraining import TrainFunction, check_retraining, make_retraining

_MOST_THINNED = 64
"""Members of the largest set of which each one is put back to see whether it is needed: one training each."""
# Of the errors of a verification the share that an error bar covers, and the fewest removals that it is taken from.
_COVERED, _FEWEST_REMOVALS = 0.8, 10


@dataclass(frozen=True, repr=False)
class WhatIf:
    """The predicted change of one prediction when a group of training examples is removed; what `what_if` returns.

    Attributes:
        removed: positions of the group in the training set.
        explained: the class, label or number that is explained.
        now: its output and log-probability by the model as it is.
        predicted: sum of the influence values of the group, in the unit of the calculator: positive where the removal
            hurts the explained output.
        fall: expected fall of the log-probability (of the number, in a regression): `predicted` times the slope of
            actual against predicted changes in the verification, over proponents and opponents. None without a
            verification, or with fewer than 10 of these removals.
        error: half the width of an error bar of `fall`: 8 of 10 of these removals were within it. For a group larger
            than those of the verification it is widened in proportion.
    """

    removed: tuple[int, ...]
    explained: int
    now: State
    predicted: float
    fall: float | None
    error: float | None

    @property
    def probability(self) -> tuple[float, float, float] | None:
        """Expected probability after the removal and both ends of its error bar; None where it is not known."""
        if self.fall is None or self.error is None or self.now.log_probability is None:
            return None
        ends = (self.fall, self.fall + self.error, self.fall - self.error)
        middle, low, high = (math.exp(min(0.0, self.now.log_probability - fall)) for fall in ends)
        return middle, low, high

    def summary(self) -> dict[str, str]:
        """Return what stands in the text and in the table of a notebook, by name."""
        shown = {
            "removed": f"{len(self.removed)} training examples",
            "explained": f"{self.explained}, now {self.now} by the model itself",
            "influence of the group": f"{self.predicted:.4g}",
        }
        if self.fall is None or self.error is None:
            return shown | {"error bar": "unknown: give verification=verify(...) of at least 10 removals"}
        what = "fall" if self.now.log_probability is None else "fall of the log-probability"
        shown[what] = f"{self.fall:.3g} ± {self.error:.2g}"
        if self.probability is not None:
            middle, low, high = self.probability
            shown["probability"] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        return shown

    def __repr__(self) -> str:
        return to_text("WhatIf", self.summary())

    def _repr_html_(self) -> str:
        return to_html("WhatIf", self.summary())


@dataclass(frozen=True, repr=False)
class Flip:
    """A small set of proponents whose removal changed a prediction; what `smallest_flip` returns.

    Attributes:
        removed: positions of the training examples, in falling order of influence; empty where the model that is
            trained again on everything predicts another class already; None where no set that was tried flips it.
        num_tried: number of the strongest proponents without which the prediction flips, before those of them were
            put back that are not needed; of the largest set that was tried where none flips it.
        prediction: the class that the model predicts.
        before: by the model trained again on everything.
        after: by the model trained again without `removed` (without the largest set tried, where none flips it).
        retrained: `"last layer"` or `"network"`.
        num_trainings: how often it was trained.
    """

    removed: tuple[int, ...] | None
    num_tried: int
    prediction: int
    before: State
    after: State
    retrained: str
    num_trainings: int

    def __str__(self) -> str:
        changes = f"its probability goes from {self.before} to {self.after}"
        if self.removed is None:
            examples = _strongest(self.num_tried)
            return f"Class {self.prediction} stays predicted without {examples}: {changes}. Other sets were not tried."
        if not self.removed:
            return (
                f"The {self.retrained} trained again on everything predicts class {self.before.prediction} instead of "
                f"{self.prediction}, without any removal: what this prediction depends on cannot be tried in this way."
            )
        examples = _strongest(self.num_tried)
        if len(self.removed) < self.num_tried:
            examples = f"{len(self.removed)} of {examples}"
        return f"Without {examples} class {self.after.prediction} is predicted instead of {self.prediction}: {changes}."

    def __repr__(self) -> str:
        return to_text(
            "Flip", {"result": str(self), "trained again": f"{self.retrained}, {self.num_trainings} times"}
        )

    def _repr_html_(self) -> str:
        return to_html(
            "Flip", {"result": str(self), "trained again": f"{self.retrained}, {self.num_trainings} times"}
        )


def _strongest(number: int) -> str:
    return "the strongest proponent" if number == 1 else f"the {number} strongest proponents"


def what_if(
    calculator: BaseInfluenceCalculator,
    query: tf.data.Dataset,
    remove: Collection[int] | np.ndarray | tf.Tensor,
    *,
    verification: Verification | None = None,
) -> WhatIf:
    """Predict what becomes of one prediction when a group of training examples is removed, without training again.

    Args:
        calculator: of any method. The prediction is the sum of the influence values; to second order in the size of
            the group with `SecondOrderInfluenceCalculator`.
        query: a batched dataset of one evaluated example, such as `test.unbatch().skip(7).take(1).batch(1)`.
        remove: positions in the training set, each once: a list, a set, an array, a Series or a tensor.
        verification: by the same method and on the same training set, of other predictions: gives the unit of the
            values, and the error bar.

    Raises:
        TypeError: another calculator, or a `verification` of another type.
        ValueError: positions outside of the training set or named twice, more or fewer than one evaluated example, or
            a verification of another method or training set.

    Example:
        ```python
        checked = verify(calculator, test.take(1))
        what_if(calculator, query, remove=[3, 17, 204], verification=checked)
        ```
    """
    check_instance("calculator", calculator, BaseInfluenceCalculator, "DualView(model, train_set)")
    check_instance("verification", verification, Verification, "verify(calculator, queries)")
    removed = _checked_positions(remove, calculator.num_train)
    require(
        verification is None or verification.method == type(calculator).__name__,
        "`verification` must be of the same method: its error bar is that of this method's values.",
        {
            "method": None if verification is None else verification.method,
            "calculator": type(calculator).__name__,
        },
    )
    require(
        verification is None or verification.num_train == calculator.num_train,
        "`verification` must be on the same training set.",
        {
            "num_train": None if verification is None else verification.num_train,
            "of the calculator": calculator.num_train,
        },
    )
    explained, values, single = _only(calculator, query)
    predicted = predicted_change(calculator, single, values, removed)
    slope, error = (None, None) if verification is None else _calibration(verification, len(removed))
    model = calculator.model
    return WhatIf(
        removed=tuple(map(int, removed)),
        explained=explained,
        now=state_of(single.logits.numpy()[0], explained, model.objective, is_classifier=model.is_classifier),
        predicted=predicted,
        fall=None if slope is None else slope * predicted,
        error=error,
    )


def smallest_flip(
    calculator: BaseInfluenceCalculator,
    query: tf.data.Dataset,
    *,
    most: int = 200,
    train_fn: TrainFunction | None = None,
    penalty: float | None = None,
) -> Flip:
    """Find few proponents of a prediction without which another class is predicted, by training again.

    The proponents are removed in falling order of influence: 1, 2, 4... of them until the prediction flips, then by
    bisection. Of up to 64 of them each is then put back, and stays in the training set if the prediction still flips.
    So no member of the result can be left out; a set of other examples may be smaller. Some 15 trainings of the last
    layer, and one for each of these members; see `verify` for what is trained.

    Args:
        calculator: of a classifier, with target "prediction".
        query: a batched dataset of one evaluated example.
        most: size of the largest set that is tried.
        train_fn: trains the whole network instead of the last layer; see `verify`.
        penalty: of the last layer; see `verify`.

    Raises:
        TypeError: another calculator, or a `train_fn` that is no function or returns no model.
        ValueError: a model that is no classifier, another target, more or fewer than one evaluated example.

    Source: Yang et al. (2023), "How many and which training points would need to be removed to flip this prediction?"
    """
    check_retraining(calculator, train_fn, penalty, "smallest_flip")
    model = calculator.model
    require(
        model.is_classifier and calculator.target == "prediction",
        "Only the prediction of a classifier flips: give a calculator with target='prediction' of one.",
        {"target": calculator.target, "objective": model.objective},
    )
    most = min(check_count("most", most), calculator.num_train - 1)
    explained, values, single = _only(calculator, query)
    retraining = make_retraining(calculator, query, [single], train_fn, penalty)
    proponents = np.argsort(-values, kind="stable")[: min(most, int((values > 0).sum()))]

    def without(removed: np.ndarray) -> State:
        outputs = retraining.outputs_without(removed)[0]
        return state_of(outputs, explained, model.objective, is_classifier=True)

    before = without(proponents[:0])
    size, after = _first_flip(lambda size: without(proponents[:size]), before, len(proponents), explained)
    needed = proponents[:size]
    if size is not None and 1 < size <= _MOST_THINNED:
        needed, after = _needed(without, needed, after, explained)
    return Flip(
        removed=None if size is None else tuple(map(int, needed)),
        num_tried=len(proponents) if size is None else size,
        prediction=explained,
        before=before,
        after=after,
        retrained=retraining.what,
        num_trainings=retraining.num_trainings,
    )


def _first_flip(
    state: Callable[[int], State], before: State, most: int, explained: int
) -> tuple[int | None, State]:
    """Return the smallest number of proponents, up to the bisection, without which another class is predicted.

    Args:
        state: after the removal of that many.
        before: of none.
        most: of all that may be removed.
        explained: the class of the prediction.

    Returns:
        None where there is none; and the state after that removal, or the last one.
    """
    known, size = {0: before}, 0
    while known[size].prediction == explained and size < most:
        size = min(most, max(1, 2 * size))
        known[size] = state(size)
    if known[size].prediction == explained:
        return None, known[size]
    low = max((stays for stays, own in known.items() if own.prediction == explained), default=0)
    while size - low > 1:
        middle = (low + size) // 2
        known[middle] = state(middle)
        low, size = (middle, size) if known[middle].prediction == explained else (low, middle)
    return size, known[size]


def _needed(
    without: Callable[[np.ndarray], State], removed: np.ndarray, after: State, explained: int
) -> tuple[np.ndarray, State]:
    """Return those of the removed examples, the strongest first, of which none can be put back, and the state."""
    for example in removed:
        fewer = removed[removed != example]
        if len(fewer) and (found := without(fewer)).prediction != explained:
            removed, after = fewer, found
    return removed, after


def _only(calculator: BaseInfluenceCalculator, query: tf.data.Dataset) -> tuple[int, np.ndarray, Represented]:
    """Return what is explained of the only evaluated example, the influence on it (n,), and itself."""
    evaluated = calculator.represent(query)
    num_queries = sum(len(batch) for batch in evaluated)
    require(
        num_queries == 1,
        "`query` must have one evaluated example: test.unbatch().skip(POSITION).take(1).batch(1).",
        {"num_queries": num_queries},
    )
    return next(explained_values(calculator, evaluated))


def _checked_positions(remove: Collection[int] | np.ndarray | tf.Tensor, num_train: int) -> np.ndarray:
    found = np.asarray(list(remove) if isinstance(remove, Set) else remove)
    positions = found.tolist() if found.ndim == 1 else []
    require(
        len(positions) > 0
        and all(is_integer(position) and 0 <= position < num_train for position in positions)
        and len(set(positions)) == len(positions) < num_train,
        f"`remove` must be a list of positions in the training set, 0..{num_train - 1}, each once, one or more and not "
        "all.",
        {"remove": remove},
    )
    return np.asarray(positions, np.int64)


def _calibration(verification: Verification, size: int) -> tuple[float | None, float | None]:
    """Return the slope of actual against predicted changes, and the error that 8 of 10 removals keep below."""
    # Random examples hardly change anything: their small errors are not those of a group that someone chose.
    chosen = [item for item in verification.removals if item.group != "random"]
    pairs = np.array([(item.predicted, item.actual) for item in chosen]).reshape(-1, 2)
    squares = float(pairs[:, 0] @ pairs[:, 0])
    if len(pairs) < _FEWEST_REMOVALS or not squares > 0:
        return None, None
    slope = float(pairs[:, 0] @ pairs[:, 1]) / squares
    error = float(np.quantile(np.abs(pairs[:, 1] - slope * pairs[:, 0]), _COVERED))
    return slope, error * max(1.0, size / verification.k)
