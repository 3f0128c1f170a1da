"""Confusions with their common proponents, likeness of pairs, and the words for examples that occur twice."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from deel_dualview.auditing.duplicates import Pairs
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.leaks import Candidates, find_conflicting_duplicates, find_leaks
from deel_dualview.auditing.predictions import find_wrong_predictions, with_likeness
from deel_dualview.report import Severity


def make_evidence(attributions, test_labels, predictions, broken_train=()) -> Evidence:
    num_test, num_train = np.shape(attributions)
    return Evidence(
        num_classes=3,
        k=2,
        broken_train=np.array(broken_train, np.int64),
        broken_test=np.empty(0, np.int64),
        train_labels=np.arange(num_train) % 3,
        train_ids=None,
        self_influence=np.zeros(num_train),
        test_labels=np.array(test_labels),
        test_ids=None,
        predictions=np.array(predictions),
        confidences=np.linspace(0.9, 0.5, num_test),
        attributions=scipy.sparse.csr_array(np.array(attributions, np.float32)),
        surrogate=None,
    )


ATTRIBUTIONS = [[3, 2, 1, 0], [0, 2, 1, -1], [1, 0, 0, 5], [9, 9, 9, 9], [0, 0, -1, 0]]
LABELS, PREDICTIONS = [0, 0, 2, 1, 0], [1, 1, 0, 1, 1]


def test_confusions_are_counted_by_decreasing_number():
    found = find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS)).confusions
    assert [(item.label, item.prediction, item.count, item.num_labelled) for item in found] == [
        (0, 1, 3, 3),
        (2, 0, 1, 1),
    ]


def test_common_proponents_are_those_most_often_among_the_strongest():
    found = find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS)).confusions[0]
    assert [(item.example.index, item.num_predictions) for item in found.proponents] == [
        (1, 2),
        (0, 1),
        (2, 1),
    ]


def test_broken_examples_are_no_common_proponents():
    evidence = make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS, broken_train=[1])
    found = find_wrong_predictions(evidence).confusions[0]
    assert 1 not in [item.example.index for item in found.proponents]


def test_there_are_no_confusions_where_nothing_is_wrong():
    assert find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, LABELS)).confusions == ()


def test_the_matrix_counts_labels_by_predictions():
    found = find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS)).matrix
    assert found == ((0, 3, 0), (0, 1, 0), (1, 0, 0))


def test_there_is_no_matrix_of_many_classes():
    evidence = dataclasses.replace(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS), num_classes=21)
    assert find_wrong_predictions(evidence).matrix == ()


def test_likeness_is_the_cosine_of_centred_and_scaled_features():
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 2, (4, 5)).astype(np.float32), rng.normal(3, 2, (5, 5)).astype(np.float32)
    train[:, 4] = 1  # a dead unit
    finding = with_likeness(
        find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS)), train, test
    )
    scale = np.where(train.std(0) > 0, train.std(0), 1)
    rows, queries = (train - train.mean(0)) / scale, (test - train.mean(0)) / scale
    for item in finding.predictions:
        for own in (*item.proponents, *item.opponents):
            first, second = queries[item.example.index], rows[own.example.index]
            expected = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
            np.testing.assert_allclose(own.likeness, expected, atol=1e-5)


def test_an_example_is_as_like_itself_as_can_be():
    features = np.eye(5, 4, dtype=np.float32)
    finding = with_likeness(
        find_wrong_predictions(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS)), features[:4], features
    )
    same = [
        own
        for item in finding.predictions
        for own in item.proponents
        if own.example.index == item.example.index
    ]
    assert same
    np.testing.assert_allclose([own.likeness for own in same], 1)


def pairs(*found) -> Pairs:
    return (
        Pairs(*(np.array(part) for part in zip(*found, strict=True)))
        if found
        else Pairs(*np.zeros((3, 0), int))
    )


def candidates(identical, near) -> Candidates:
    conflicting = np.zeros(4, bool)
    conflicting[[index for pair in identical for index in pair[:2]]] = True
    return Candidates(pairs(*identical), pairs(*near), pairs(*identical), pairs(*near), conflicting)


@pytest.fixture
def shown():
    example = np.arange(64.0).reshape(8, 8)
    return {(split, index): example for split in ("train", "test") for index in range(5)}


@pytest.mark.parametrize(
    ("identical", "near", "severity", "words"),
    [
        ([(0, 1, 1.0)], [], Severity.ACT, "1 test example is in the training set"),
        (
            [],
            [(2, 3, 1.0)],
            Severity.KNOW,
            "No test example is in the training set; 1 example looks like one there",
        ),
        (
            [(0, 1, 1.0)],
            [(2, 3, 1.0)],
            Severity.ACT,
            "1 test example is in the training set, 1 more looks like",
        ),
        ([], [], Severity.FINE, "No test example is in the training set"),
    ],
)
def test_test_examples_that_only_look_alike_are_no_leaks(identical, near, severity, words, shown):
    found = find_leaks(make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS), candidates(identical, near), shown)
    assert found.severity is severity
    assert found.title.startswith(words)


@pytest.mark.parametrize(
    ("identical", "near", "severity", "words"),
    [
        ([(0, 1, 1.0)], [], Severity.ACT, "2 training examples have the same inputs as one of another label"),
        (
            [],
            [(2, 3, 1.0)],
            Severity.LOOK,
            "2 training examples look like one of another label; none is identical",
        ),
        ([], [], Severity.FINE, "No training example has the inputs of one of another label"),
    ],
)
def test_training_examples_that_only_look_alike_contradict_nothing(identical, near, severity, words, shown):
    found = find_conflicting_duplicates(
        make_evidence(ATTRIBUTIONS, LABELS, PREDICTIONS), candidates(identical, near), shown
    )
    assert found.severity is severity
    assert found.title == words
