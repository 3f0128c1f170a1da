"""Confusions with their common proponents, and likeness of pairs."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.predictions import find_wrong_predictions, with_likeness


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


NAMES = ("coat", "shirt", "shoe", "bag", "boot", "hat", "sock", "belt")


def title_of(errors_by_class, sizes) -> str:
    """The title where so many test examples of each class, of so many, are wrong."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    predictions = labels.copy()
    for label, number in enumerate(errors_by_class):
        wrong = np.flatnonzero(labels == label)[:number]
        predictions[wrong] = (label + 1) % len(sizes)
    evidence = make_evidence(np.zeros((len(labels), 8)), labels, predictions)
    evidence = dataclasses.replace(evidence, num_classes=len(sizes))
    return find_wrong_predictions(evidence, NAMES[: len(sizes)]).title


def test_the_title_names_the_classes_that_half_of_the_errors_fall_on():
    title = title_of([12, 10, 2, 2, 2, 2, 2, 0], [20] * 8)
    assert title == "32 of 160 test predictions are wrong, 69% of them on coat and shirt"


@pytest.mark.parametrize(
    ("errors", "sizes"),
    [
        ([4] * 8, [20] * 8),  # spread evenly
        ([9, 8, 1, 1, 1, 1, 1, 0], [20] * 8),  # few errors
        ([20, 6, 6], [20] * 3),  # few classes
        (
            [24, 4, 4, 4, 4, 4, 2, 2],
            [120, 20, 20, 20, 20, 20, 10, 10],
        ),  # a class that is half of the test set
    ],
)
def test_the_title_names_no_class_where_that_would_say_little(errors, sizes):
    assert title_of(errors, sizes) == f"{sum(errors)} of {sum(sizes)} test predictions are wrong"


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
