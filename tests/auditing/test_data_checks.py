"""Checks of the data: what is planted is found, and clean data raise no alarm."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import audit, load_digits
from deel_dualview.auditing import data_checks
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.reading import references_in
from deel_dualview.labels import InputRange, InputTable
from deel_dualview.report import Severity
from deel_dualview.report.html import render_page
from deel_dualview.report.tiles import tile_of
from deel_dualview.report.verdict import find_verdict

NONE = np.empty(0, np.int64)


def evidence_of(train_labels, test_labels=None, predictions=None, num_classes=3, **changes):
    num_test = len(predictions) if predictions is not None else 40
    given = Evidence(
        num_classes=num_classes,
        k=1,
        broken_train=NONE,
        broken_test=NONE,
        train_labels=np.asarray(train_labels),
        train_ids=None,
        self_influence=np.zeros(len(train_labels)),
        test_labels=test_labels,
        test_ids=None,
        predictions=np.zeros(num_test, np.int64) if predictions is None else predictions,
        confidences=np.ones(num_test),
        attributions=None,
        surrogate=None,
    )
    return dataclasses.replace(given, **changes)


LABELS = np.arange(200) % 4
UNIT = [InputRange("train", 0, 0.0, 1.0), InputRange("test", 0, 0.0, 0.9)]


def right_on(share: float, labels: np.ndarray = LABELS) -> np.ndarray:
    """Predictions that are right on a share of every class, and else of any other class."""
    ranks = np.arange(len(labels)) // 4 / (len(labels) / 4)
    other = (labels + 1 + np.arange(len(labels)) // 4 % (labels.max())) % (labels.max() + 1)
    return np.where(ranks < share, labels, other)


@pytest.mark.parametrize("predictions", [np.zeros(200, int), np.random.default_rng(0).integers(0, 4, 200)])
def test_a_model_that_guesses_on_its_own_training_set_is_said_to(predictions):
    (finding,) = data_checks.check_scale(predictions, LABELS, UNIT)
    assert finding.is_guessing and finding.severity is Severity.ACT
    assert "no better than guessing" in finding.title and "train 0 to 1" in finding.summary


@pytest.mark.parametrize("accuracy", [0.4, 0.9])
def test_a_model_that_knows_something_is_not(accuracy):
    assert list(data_checks.check_scale(right_on(accuracy), LABELS, UNIT)) == []


def test_always_naming_a_class_of_half_the_examples_is_guessing_too():
    labels = np.array([0] * 120 + [1] * 80)
    assert next(data_checks.check_scale(np.zeros(200, int), labels, UNIT)).is_guessing


@pytest.mark.parametrize("num_found", [0, 6])
def test_a_weak_model_of_a_rare_class_is_not_said_to_guess(num_found):
    labels = np.array([0] * 180 + [1] * 20)
    predictions = np.zeros(200, int)
    predictions[180 : 180 + num_found] = 1
    predictions[:num_found] = 1
    assert list(data_checks.check_scale(predictions, labels, UNIT)) == []


def test_few_examples_say_nothing_about_guessing():
    assert list(data_checks.check_scale(np.zeros(30, int), np.arange(30) % 3, UNIT)) == []


@pytest.mark.parametrize(
    ("high", "images", "severity"),
    [(255.0, [0], Severity.ACT), (255.0, [], Severity.LOOK), (1.0, [0], Severity.LOOK)],
)
def test_a_training_loss_above_guessing_is_said_to_be_one(high, images, severity):
    predictions = right_on(0.8)
    losses = np.where(predictions == LABELS, 0.01, 30.0)
    ranges = [InputRange(split, 0, 0.0, high) for split in ("train", "test")]
    (finding,) = data_checks.check_scale(predictions, LABELS, ranges, losses=losses, images=images)
    assert finding.severity is severity and finding.training_loss == pytest.approx(losses.mean())
    assert f"{losses.mean():.1f} nats" in finding.title and "80.0%" in finding.title
    assert find_verdict([finding], num_train=200, num_test=50).strong.startswith("The training loss is")


def test_the_losses_of_a_training_raise_no_alarm():
    losses = np.where(right_on(0.8) == LABELS, 0.2, 3.0)
    losses[:2] = 500.0  # odd examples
    assert list(data_checks.check_scale(right_on(0.8), LABELS, UNIT, losses=losses, images=[0])) == []


@pytest.mark.parametrize(("high", "is_found"), [(255.0, True), (25.0, True), (5.0, False), (0.03, True)])
def test_sets_of_another_scale_are_found(high, is_found):
    ranges = [
        InputRange("train", 0, 0.0, 1.0),
        InputRange("test", 0, 0.0, high),
        InputRange("train", 1, -3.0, 3.0),
    ]
    found = list(data_checks.check_scale(right_on(0.9), LABELS, [*ranges, InputRange("test", 1, -2.0, 3.0)]))
    assert len(found) == is_found
    if found:
        assert not found[0].is_guessing and f"test 0 to {high:.4g}" in found[0].summary


def test_ranges_are_those_of_all_batches():
    table = InputTable(has_token_ids=False)
    for part in ([[1.0, 2.0]], [[-5.0, np.nan]], [[np.inf, 3.0]]):
        table.add({"a": np.array(part), "b": np.array(["text"])}, "train")
    assert table.ranges == [InputRange("train", 0, -5.0, 3.0)]
    tokens = InputTable(has_token_ids=True)
    tokens.add(np.array([[1, 2]]), "train")
    assert tokens.ranges == []


def test_planted_outliers_are_found_in_both_sets(rng):
    train, test = rng.normal(size=(300, 5)), rng.normal(size=(40, 5))
    train[[7, 200]] += 30
    train[200] += 30
    test[3] -= 25
    (finding,) = data_checks.find_outliers(evidence_of(np.arange(300) % 3), train, test)
    assert (finding.count, finding.num_train, finding.num_test) == (3, 2, 1)
    assert finding.share == 3 / 340 and finding.severity is Severity.LOOK
    places = [(item.example.split, item.example.index) for item in finding.examples]
    assert places[0] == ("train", 200) and set(places) == {("train", 7), ("train", 200), ("test", 3)}
    assert all(item.ratio > 5 for item in finding.examples)


def clusters(rng, num):
    """Three clusters with tails as heavy as those of a network's features."""
    centres = 2 * np.random.default_rng(9).normal(size=(3, 4))
    return centres[np.arange(num) % 3] + rng.normal(size=(num, 4)) * np.exp(0.3 * rng.normal(size=(num, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_clean_features_of_heavy_tails_have_hardly_an_outlier(seed):
    rng = np.random.default_rng(seed)
    train, test = clusters(rng, 600), clusters(rng, 200)
    evidence = evidence_of(np.arange(600) % 3, predictions=np.arange(200) % 3)
    (finding,) = data_checks.find_outliers(evidence, train, test)
    assert finding.count <= 2 and finding.severity in (Severity.FINE, Severity.KNOW)


def test_scattered_outliers_of_a_fortieth_of_the_set_do_not_hide_each_other(rng):
    train, test = clusters(rng, 600), clusters(rng, 200)
    train[:15] = 20 * rng.normal(size=(15, 4))
    evidence = evidence_of(np.arange(600) % 3, predictions=np.arange(200) % 3)
    (finding,) = data_checks.find_outliers(evidence, train, test)
    found = {item.example.index for item in finding.examples if item.example.split == "train"}
    assert found >= set(range(15)) and finding.count <= 18 and finding.severity is Severity.LOOK
    # All of them are listed; the contents of those that a page shows are read.
    assert len(finding.examples) == finding.count > finding.num_shown
    assert len(list(references_in(finding))) == finding.num_shown


def test_one_outlier_is_to_be_known(rng):
    train, test = clusters(rng, 600), clusters(rng, 200)
    test[5] += 500
    (finding,) = data_checks.find_outliers(evidence_of(np.arange(600) % 3), train, test[:40])
    assert finding.severity is Severity.KNOW and finding.num_test == 1


def test_copies_do_not_make_other_examples_outliers(rng):
    train = rng.integers(0, 2, (2000, 1)).astype(float)
    train[:60] = rng.normal(size=(60, 1))
    (finding,) = data_checks.find_outliers(evidence_of(np.arange(2000) % 3), train, train[:40])
    assert finding.count <= 2


def test_examples_with_broken_inputs_are_no_outliers(rng):
    train, test = rng.normal(size=(300, 5)), rng.normal(size=(40, 5))
    train[7] += 30
    evidence = evidence_of(np.arange(300) % 3, broken_train=np.array([7]))
    (finding,) = data_checks.find_outliers(evidence, train, test)
    assert finding.count == 0 and finding.severity is Severity.FINE


def test_few_examples_have_no_outliers(rng):
    assert (
        list(data_checks.find_outliers(evidence_of(np.zeros(20, int)), rng.normal(size=(20, 2)), None)) == []
    )


def predictions_of(labels, accuracies, rng):
    right = rng.random(len(labels)) < np.asarray(accuracies)[labels]
    return np.where(right, labels, (labels + 1) % 3)


def test_a_weak_class_is_found(rng):
    labels = np.arange(600) % 3
    evidence = evidence_of(LABELS % 3, labels, predictions_of(labels, [0.95, 0.6, 0.95], rng))
    (finding,) = data_checks.find_weak_classes(evidence)
    assert [item.label for item in finding.classes if item.is_weak] == [1] == [finding.classes[0].label]
    assert finding.count == 1 and finding.share == 1 / 3 and finding.severity is Severity.LOOK
    right = (evidence.predictions == labels)[labels == 1].sum()
    assert (finding.classes[0].num_test, finding.classes[0].num_right) == (200, right)


def test_the_title_names_the_weak_classes(rng):
    labels = np.arange(600) % 3
    evidence = evidence_of(LABELS % 3, labels, predictions_of(labels, [0.95, 0.6, 0.95], rng))
    (finding,) = data_checks.find_weak_classes(evidence, ("cat", "dog", "owl"))
    assert finding.title == "1 of 3 classes is predicted worse than the rest: dog"


@pytest.mark.parametrize("seed", range(10))
def test_equal_classes_have_no_weak_one(seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(300) % 3
    evidence = evidence_of(LABELS % 3, labels, predictions_of(labels, [0.9, 0.9, 0.9], rng))
    (finding,) = data_checks.find_weak_classes(evidence)
    assert finding.count == 0 and finding.severity is Severity.FINE


def test_unequal_classes_are_named(rng):
    labels = np.arange(300) % 3
    train_labels = np.array([0] * 180 + [1] * 180 + [2] * 10)
    (finding,) = data_checks.find_weak_classes(evidence_of(train_labels, labels, labels))
    assert finding.severity is Severity.KNOW and "18 times" in finding.summary


@pytest.mark.parametrize(
    ("accuracies", "title"),
    [
        ([0.9, 0.9, 0.9], "1 of 3 classes has no training example (owl)"),
        (
            [0.95, 0.6, 0.95],
            "1 of 3 classes has no training example (owl), 1 predicted worse than the rest: dog",
        ),
    ],
)
def test_classes_without_a_training_example_are_to_be_looked_at(rng, accuracies, title):
    labels = np.arange(600) % 3
    evidence = evidence_of(LABELS // 2, labels, predictions_of(labels, accuracies, rng))
    (finding,) = data_checks.find_weak_classes(evidence, ["cat", "dog", "owl"])
    assert finding.severity is Severity.LOOK and finding.title == title
    assert "1 of 3 classes has no training example" in finding.summary
    assert tile_of(finding).meaning == "of 3 classes without a training example"


def test_a_training_set_of_one_class_is_the_verdict(rng):
    labels = np.arange(600) % 3
    evidence = evidence_of(np.ones(200, int), labels, predictions_of(labels, [0.9, 0.9, 0.9], rng))
    (finding,) = data_checks.find_weak_classes(evidence)
    assert finding.severity is Severity.ACT and "(0 and 2)" in finding.title
    verdict = find_verdict([finding], num_train=200, num_test=600)
    assert verdict.strong == "All training examples are of one class:"


@pytest.mark.parametrize("num_test", [30, 600])
def test_of_a_model_that_guesses_it_cannot_be_told_whether_a_class_is_weak(rng, num_test):
    labels, predictions = np.arange(num_test) % 3, rng.integers(0, 3, num_test)
    (finding,) = data_checks.find_weak_classes(evidence_of(LABELS % 3, labels, predictions))
    assert finding.severity is Severity.CANNOT_TELL and "guessing" in finding.title


def test_ten_examples_of_each_class_cannot_tell_whether_one_is_weak():
    labels = np.arange(30) % 3
    predictions = np.where(np.arange(30) < 21, labels, (labels + 1) % 3)
    (finding,) = data_checks.find_weak_classes(evidence_of(LABELS % 3, labels, predictions))
    assert finding.severity is Severity.CANNOT_TELL and "too few" in finding.title


@pytest.mark.parametrize("labels", [[0], [0, 1, 2, 0], [1] * 100])
def test_of_too_few_test_examples_it_cannot_be_told_whether_a_class_is_weak(labels):
    labels = np.array(labels)
    (finding,) = data_checks.find_weak_classes(evidence_of(LABELS % 3, labels, (labels + 1) % 3))
    assert finding.severity is Severity.CANNOT_TELL and "Cannot tell" in finding.title


def test_without_test_labels_no_class_is_weak():
    assert list(data_checks.find_weak_classes(evidence_of(LABELS))) == []


def test_an_audit_of_inputs_of_another_scale_says_so_first():
    (images, labels), (test_images, test_labels) = load_digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:300], labels[:300], epochs=20, verbose=0)
    inverted = tf.data.Dataset.from_tensor_slices((-200 * images[:300], labels[:300])).batch(100)
    report = audit(
        model,
        inverted,
        (test_images[:50], test_labels[:50]),
        method="graddot",
        relevance=None,
        k=2,
        progress=False,
    )
    first = report.findings[0]
    assert first.name == "inputs-scale" and first.is_guessing
    assert {"outliers", "weak-classes"} <= {finding.name for finding in report.findings}
    verdict = find_verdict(report.findings, num_train=300, num_test=50)
    assert verdict.target == "inputs-scale"
    page = render_page(report)
    assert "no better than guessing" in page and "-200" in page


def test_both_sets_of_bytes_are_noticed_by_an_audit_though_most_labels_are_predicted():
    (images, labels), (test_images, test_labels) = load_digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:300], labels[:300], epochs=20, verbose=0)

    def first(factor):
        sets = [
            (factor * images[:300], labels[:300]),
            (factor * test_images[:50], test_labels[:50]),
        ]
        report = audit(model, *sets, method="sim", relevance=None, k=2, progress=False)
        return report.findings[0]

    assert first(1.0).name != "inputs-scale"
    found = first(255.0 / images.max())
    assert found.name == "inputs-scale" and found.training_loss is not None and found.training_accuracy > 0.5
    assert found.severity is Severity.ACT
