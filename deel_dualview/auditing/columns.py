"""Checks of the columns of tables: without values, of one value, that number the examples, that are the label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from deel_dualview.labels.leaking import LEAST_EXAMPLES, gives_label
from deel_dualview.report.findings import Severity
from deel_dualview.report.input_findings import InputProblem, ProblemKind

CHANCE = 0.01
"""A column has one value in one set alone so seldom by chance, whatever the number of columns."""
DISTINCT_CHANCE = 1e-6
"""Whole numbers that were drawn from their own range would all differ so seldom."""
LEAST_STEPS = 0.9
_MOST_NAMED = 5


class Column(NamedTuple):
    """A column of a table in both sets, without examples that are not finite."""

    name: str
    train: np.ndarray
    test: np.ndarray


class Missing(NamedTuple):
    """How many of the values of a column are NaN or infinity, in training (of n) and in test (of m)."""

    name: str
    train: int
    test: int


def find_missing(missing: Sequence[Missing], num_train: int, num_test: int) -> Iterator[InputProblem]:
    """Yield which columns have NaN or infinity, and in how many examples."""
    found = sorted(
        (item for item in missing if item.train or item.test), key=lambda item: -item.train - item.test
    )
    if not found:
        return
    parts = [
        f"{item.name} ({_share(item.train, num_train)} of training, {_share(item.test, num_test)} of test)"
        for item in found[:_MOST_NAMED]
    ]
    yield InputProblem(
        kind="missing",
        severity=Severity.LOOK,
        title=_columns(len(found), "has NaN or infinity", "have NaN or infinity"),
        advice=f"{'; '.join(parts)}. Fill them in, alike for both sets, or leave the column out, and train again.",
        count=len(found),
        columns=tuple(item.name for item in found),
    )


def find_column_problems(columns: Sequence[Column], train_labels: np.ndarray) -> Iterator[InputProblem]:
    """Yield what is wrong with the columns of a table.

    Args:
        columns: of the inputs.
        train_labels: of the same training examples, shape (n,).
    """
    if not columns or len(columns[0].train) < LEAST_EXAMPLES:
        return
    chance = CHANCE / len(columns)
    identifiers = {column.name for column in columns if is_identifier(column.train)}
    yield from _problem(
        "leaking-column",
        # In a sorted set a row number gives the label, too.
        [own.name for own in columns if own.name not in identifiers and gives_label(own.train, train_labels)],
        ("gives the label on its own", "give the label on their own"),
        "Is it known when the model is used? If it was made from the label, or after it, leave it out.",
    )
    yield from _problem(
        "one-value-column",
        [column.name for column in columns if has_one_value(column.train, column.test, chance)],
        ("has one value in training, and others in test", "have one value in training, and others in test"),
        "The model cannot have learned what it does with the others. Train with examples that have them, or leave the "
        "column out.",
    )
    yield from _problem(
        "one-value-column",
        [column.name for column in columns if has_one_value(column.test, column.train, chance)],
        ("has one value in test, and others in training", "have one value in test, and others in training"),
        "Is it filled in for the test set? The test score does not show what the model makes of this column.",
    )
    yield from _problem(
        "identifier",
        [column.name for column in columns if column.name in identifiers],
        ("numbers the examples", "number the examples"),
        "An id, a row number or a time, by which a model can only memorise. Leave it out, unless it is a quantity.",
    )
    yield from _problem(
        "constant-column",
        [column.name for column in columns if is_constant(column)],
        ("has one value in both sets", "have one value in both sets"),
        "No model can learn anything from it. Is it read from the right place? Else leave it out.",
        severity=Severity.KNOW,
    )


def is_constant(column: Column) -> bool:
    """Return whether a column has the same value in every example of both sets."""
    return bool((column.train == column.train[0]).all() and (column.test == column.train[0]).all())


def has_one_value(values: np.ndarray, others: np.ndarray, chance: float) -> bool:
    """Return whether a set has one value of a column and the other one has more of them, beyond chance."""
    if not len(values) or not len(others) or (values != values[0]).any():
        return False
    num_different = int((others != values[0]).sum())
    if num_different == 0:
        return False
    # The chance that all examples of another value are in one set, had the two been split at random.
    total = len(values) + len(others)
    return bool(scipy.stats.hypergeom.sf(num_different - 1, total, num_different, len(others)) <= chance)


def is_identifier(values: np.ndarray) -> bool:
    """Return whether a column numbers the examples: it rises or falls all the way, or its whole numbers all differ.

    Of the first kind one in ten steps may be none, since large numbers lose their last digits in 32 bits.
    Whole numbers count as all different by design if numbers drawn from their range would hardly be: n different ones
    of R have a chance of at most exp(-n (n - 1) / 2 R).
    """
    if len(values) < LEAST_EXAMPLES:
        return False
    steps = np.diff(values.astype(np.float64))
    if np.mean(steps != 0) >= LEAST_STEPS and ((steps >= 0).all() or (steps <= 0).all()):
        return True
    if (values != np.round(values)).any() or len(np.unique(values)) < len(values):
        return False
    span = float(values.max()) - float(values.min()) + 1
    return len(values) * (len(values) - 1) / (2 * span) >= -np.log(DISTINCT_CHANCE)


def _problem(
    kind: ProblemKind,
    names: Sequence[str],
    what: tuple[str, str],
    advice: str,
    severity: Severity = Severity.LOOK,
) -> Iterator[InputProblem]:
    if names:
        shown = ", ".join(names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield InputProblem(
            kind=kind,
            severity=severity,
            title=f"{_columns(len(names), *what)}: {shown}{more}",
            advice=advice,
            count=len(names),
            columns=tuple(names),
        )


def _columns(count: int, one: str, many: str) -> str:
    return f"{count:,} column {one}" if count == 1 else f"{count:,} columns {many}"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "none"
