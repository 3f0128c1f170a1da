"""verify: whether the training examples that a method names matter, by training again without them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from deel_dualview._checks import check_count, check_seed, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.calculators.second_order import SecondOrderInfluenceCalculator
from deel_dualview.calculators.targets import explained_targets
from deel_dualview.models.objectives import IndependentSigmoids, Objective
from deel_dualview.search import block_top_k
from deel_dualview.verification.results import GROUPS, Group, Removal, State, Verification
from deel_dualview.verification.retraining import (
    TrainFunction,
    check_retraining,
    examples_where,
    make_retraining,
)


def verify(
    calculator: BaseInfluenceCalculator,
    queries: tf.data.Dataset,
    *,
    k: int = 5,
    train_fn: TrainFunction | None = None,
    penalty: float | None = None,
    seed: int = 0,
) -> Verification:
    """Train again without the training examples that a method names, and compare what happens with what it predicts.

    Three times for each evaluated example: without its k strongest proponents, without its k strongest opponents, and
    without k random training examples. By default the last layer is trained again, to convergence, on the features of
    the model as it is: a tenth of a second each for 10,000 examples with 128 features. That answers for the last layer
    alone; `train_fn` trains the whole network, as often.

    The changes are those from the model that is trained again on everything, in the same way. `Verification` says how
    far that one agrees with the model that is explained.

    Args:
        calculator: of any method. The prediction for a group is the sum of its influence values; to second order in
            its size with `SecondOrderInfluenceCalculator`. Values of `LeverageCorrectedInfluenceCalculator`, RelatIF
            and cosines do not add up: there only the order of the predictions has a meaning.
        queries: a bounded, batched dataset of evaluated examples; all of them are verified.
        k: training examples in a group.
        train_fn: from the positions of the training examples that are kept, an increasing array, to a model trained on
            these alone, for instance `lambda kept: train(x[kept], y[kept])`; called 3 m + 1 times for m queries. Seed
            it: what differs between two of its trainings on the same data looks like the effect of a removal.
        penalty: lambda of the last layer's penalty `lambda ||W||^2` beside the mean loss; by default the one by which
            it has the mean training loss of the model's own.
        seed: of the random examples.

    Raises:
        TypeError: another calculator, or a `train_fn` that is no function or returns no model.
        ValueError: k out of range, queries that cannot be explained, or a model whose last layer is not linear (without
            `train_fn`), each before any work.

    Example:
        ```python
        checked = verify(DualView(model, train), test.take(1))
        print(checked)
        checked.to_frame()
        ```

    Source: Koh and Liang (2017), section 4.1, for groups of examples.
    """
    check_retraining(calculator, train_fn, penalty, "verify")
    require(
        check_count("k", k) < calculator.num_train,
        "`k` training examples are removed at once, and some must be left to train on.",
        {"k": k, "num_train": calculator.num_train},
    )
    check_seed("seed", seed)
    started = time.perf_counter()
    evaluated = calculator.represent(queries)
    batches = list(evaluated)
    retraining = make_retraining(calculator, queries, batches, train_fn, penalty)
    groups = list(_groups(calculator, evaluated, k, np.random.default_rng(seed)))
    before = retraining.outputs_without([])
    objective, is_classifier = calculator.model.objective, calculator.model.is_classifier
    removals = []
    for group in groups:
        after = retraining.outputs_without(group.removed)[group.query]
        states = (
            state_of(outputs, group.explained, objective, is_classifier=is_classifier)
            for outputs in (before[group.query], after)
        )
        removals.append(Removal(*group, *states))
    explained = {group.query: group.explained for group in groups}
    own = np.concatenate([batch.logits.numpy() for batch in batches])
    pairs = [
        [
            state_of(outputs[query], target, objective, is_classifier=is_classifier)
            for outputs in (own, before)
        ]
        for query, target in explained.items()
    ]
    return Verification(
        removals=tuple(removals),
        k=k,
        method=type(calculator).__name__,
        retrained=retraining.what,
        penalty=retraining.penalty,
        agreement=float(np.mean([a.prediction == b.prediction for a, b in pairs])) if is_classifier else None,
        difference=float(np.mean([abs(a.shown - b.shown) for a, b in pairs])),
        num_trainings=retraining.num_trainings,
        seconds=time.perf_counter() - started,
        num_train=calculator.num_train,
    )


class _Group(NamedTuple):
    query: int
    group: Group
    removed: tuple[int, ...]
    explained: int
    predicted: float


def _groups(
    calculator: BaseInfluenceCalculator, evaluated: RepresentedExamples, k: int, rng: np.random.Generator
) -> Iterator[_Group]:
    """Yield what is removed for every query; a group with no training example on its side is left out."""
    for query, (explained, values, single) in enumerate(explained_values(calculator, evaluated)):
        columns = np.arange(len(values))
        ends = [block_top_k(sign * values[np.newaxis], columns, k) for sign in (1, -1)]
        sides = [indices[0][found[0] > 0] for found, indices in ends]
        for name, removed in zip(GROUPS, [*sides, rng.choice(len(values), k, replace=False)], strict=True):
            if len(removed):
                predicted = predicted_change(calculator, single, values, removed)
                yield _Group(query, name, tuple(map(int, removed)), explained, predicted)


def explained_values(
    calculator: BaseInfluenceCalculator, evaluated: RepresentedExamples
) -> Iterator[tuple[int, np.ndarray, Represented]]:
    """Yield for every query what is explained of it, the influence of all training examples (n,), and itself."""
    found = calculator.estimate_influence_values_in_batches(evaluated)
    for batch, values in zip(evaluated, found, strict=True):
        explained = explained_targets(calculator.target, batch)
        singles = batch.parts(1)
        for row, single in enumerate(singles):
            yield int(explained[row]), values[row].numpy(), single


def predicted_change(
    calculator: BaseInfluenceCalculator, query: Represented, values: np.ndarray, removed: np.ndarray
) -> float:
    """Return the influence of a group of training examples on a query, in the unit of the calculator.

    Args:
        calculator: whose influence it is.
        query: one evaluated example.
        values: influence of every training example on it, shape (n,).
        removed: positions of the group.
    """
    if not isinstance(calculator, SecondOrderInfluenceCalculator):
        return float(values[removed].sum(dtype=np.float64))
    is_removed = np.zeros(len(values), bool)
    is_removed[removed] = True
    group = examples_where(calculator.train_set, is_removed)
    alone: tf.data.Dataset | RepresentedExamples = RepresentedExamples(lambda: iter([query]), keep=False)
    return float(next(iter(calculator.estimate_influence_values_group(alone, group)))[0])


def state_of(outputs: np.ndarray, explained: int, objective: Objective, *, is_classifier: bool) -> State:
    """Return the explained output of one example, of its outputs (c,)."""
    outputs = outputs.astype(np.float64)
    value = float(outputs[explained])
    if is_classifier:
        return State(value, float(scipy.special.log_softmax(outputs)[explained]), int(outputs.argmax()))
    if isinstance(objective, IndependentSigmoids):
        return State(value, float(scipy.special.log_expit(value)), None)
    return State(value, None, None)
