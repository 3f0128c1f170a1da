"""Checks of the columns of tables: each planted problem is found, and ordinary columns raise no alarm."""

import numpy as np
import pytest

from deel_dualview.auditing.columns import (
    Column,
    Missing,
    find_column_problems,
    find_missing,
    has_one_value,
    is_constant,
    is_identifier,
)
from deel_dualview.labels.leaking import gives_label
from deel_dualview.report import Severity

NUM_TRAIN, NUM_TEST = 300, 100


def table(seed=0, **planted):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, NUM_TRAIN + NUM_TEST)
    size = len(labels)
    values = {
        "helpful": labels + rng.normal(size=size),
        "rare": (rng.random(size) < 0.01).astype(float),
        "flag": rng.integers(0, 2, size),
        "count": rng.poisson(30, size),
        "amount": np.round(rng.lognormal(8, 1, size)),
        **{name: make(labels, rng) for name, make in planted.items()},
    }
    columns = [
        Column(name, own[:NUM_TRAIN].astype(np.float32), own[NUM_TRAIN:].astype(np.float32))
        for name, own in values.items()
    ]
    return columns, labels[:NUM_TRAIN]


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_columns_raise_no_alarm(seed):
    assert list(find_column_problems(*table(seed))) == []


@pytest.mark.parametrize(
    ("kind", "title", "make"),
    [
        ("identifier", "numbers the examples", lambda labels, rng: np.arange(len(labels))),
        ("identifier", "numbers the examples", lambda labels, rng: rng.permutation(len(labels))),
        ("identifier", "numbers the examples", lambda labels, rng: 1.6e9 + 500.0 * np.arange(len(labels))),
        ("leaking-column", "gives the label on its own", lambda labels, rng: 2 - labels),
        (
            "leaking-column",
            "gives the label on its own",
            lambda labels, rng: labels + rng.normal(0, 0.05, len(labels)),
        ),
        (
            "one-value-column",
            "has one value in training, and others in test",
            lambda labels, rng: np.r_[np.ones(NUM_TRAIN), rng.integers(0, 2, NUM_TEST)],
        ),
        (
            "one-value-column",
            "has one value in test, and others in training",
            lambda labels, rng: np.r_[rng.integers(0, 2, NUM_TRAIN), np.ones(NUM_TEST)],
        ),
        ("constant-column", "has one value in both sets", lambda labels, rng: np.full(len(labels), 7)),
    ],
)
def test_a_planted_column_is_found(kind, title, make):
    (problem,) = find_column_problems(*table(planted=make))
    assert problem.kind == kind and problem.columns == ("planted",) and problem.count == 1
    assert problem.title == f"1 column {title}: planted"


def test_a_column_of_one_value_in_both_sets_is_good_to_know():
    (problem,) = find_column_problems(*table(planted=lambda labels, rng: np.zeros(len(labels))))
    assert problem.severity is Severity.KNOW


def test_a_column_of_another_value_in_each_set_is_not_constant():
    assert not is_constant(Column("year", np.full(300, 2024), np.full(100, 2025)))


def test_several_columns_are_one_problem():
    columns, labels = table()
    columns += [Column(f"id {place}", np.arange(NUM_TRAIN), np.arange(NUM_TEST)) for place in range(7)]
    (problem,) = find_column_problems(columns, labels)
    assert problem.count == 7 and len(problem.columns) == 7
    assert problem.title.endswith("id 3, id 4 and 2 more")


def test_few_examples_have_no_problems():
    assert list(find_column_problems([Column("id", np.arange(40), np.arange(9))], np.arange(40) % 2)) == []


def test_a_rare_value_that_one_set_lacks_by_chance_is_no_problem():
    train, test = np.zeros(300), np.zeros(100)
    test[:2] = 1
    assert not has_one_value(train, test, 0.01)
    test[:20] = 1
    assert has_one_value(train, test, 0.01)


def test_a_column_of_one_value_in_both_sets_does_not_differ_between_them():
    assert not has_one_value(np.ones(300), np.ones(100), 0.01)


def test_whole_numbers_that_differ_by_chance_are_no_identifier():
    rng = np.random.default_rng(0)
    assert not is_identifier(rng.choice(10**9, 200, replace=False))
    assert is_identifier(rng.choice(1000, 200, replace=False))


def test_a_sorted_column_with_many_equal_values_is_no_identifier():
    assert not is_identifier(np.sort(np.random.default_rng(0).integers(0, 20, 300)))


def test_a_column_that_gives_one_class_alone_is_not_the_label():
    labels = np.arange(300) % 3
    assert not gives_label((labels == 0).astype(float), labels)
    assert gives_label(np.array([5.0, -1.0, 2.0])[labels], labels)


def test_a_copy_of_the_label_with_some_noise_is_not_the_label():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1000)
    assert not gives_label(np.where(rng.random(1000) < 0.05, 1 - labels, labels), labels)


def test_missing_values_are_told_by_column_and_set():
    missing = [Missing("age", 30, 0), Missing("income", 0, 0), Missing("rent", 150, 40)]
    (problem,) = find_missing(missing, 300, 100)
    assert problem.title == "2 columns have NaN or infinity" and problem.columns == ("rent", "age")
    assert problem.advice.startswith(
        "rent (50.0% of training, 40.0% of test); age (10.0% of training, 0.0% of test)."
    )


def test_without_missing_values_there_is_no_problem():
    assert list(find_missing([Missing("age", 0, 0)], 300, 100)) == []
