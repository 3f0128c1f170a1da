"""Label issues of regressions and independent labels: planted errors come first, and numbers are never counted."""

import csv

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits, make_friedman1
from sklearn.metrics import roc_auc_score

from deel_dualview import InfluenceModel, OutputLabelIssues, label_issues
from deel_dualview.labels.finding import Representation, Representations
from deel_dualview.labels.independent import LEAST_OF_A_KIND, find_independent_issues
from deel_dualview.labels.numbers import find_number_issues, robust_deviation

NUM_TRAIN, NUM_WRONG = 300, 12


def on_inputs(inputs):
    """All heads on the inputs alone."""
    own = Representation(inputs[:NUM_TRAIN], inputs[NUM_TRAIN:])
    return Representations(own, None, own)


@pytest.fixture(scope="module")
def numbers():
    """Inputs, right labels of two numbers, labels with planted errors, and where these are."""
    rng = np.random.default_rng(0)
    inputs, first = make_friedman1(450, 6, noise=0.5, random_state=0)
    right = np.stack([first, 1000 + 5 * inputs[:, 5] + 0.1 * rng.normal(size=450)], axis=1).astype(np.float32)
    given, is_wrong = right[:NUM_TRAIN].copy(), np.zeros((NUM_TRAIN, 2), bool)
    for output in range(2):
        rows = rng.choice(NUM_TRAIN, NUM_WRONG, replace=False)
        given[rows, output] += 3 * right[:, output].std() * rng.choice([-1, 1], NUM_WRONG)
        is_wrong[rows, output] = True
    return inputs.astype(np.float32), right, given, is_wrong


@pytest.fixture(scope="module")
def ranked(numbers):
    inputs, right, given, _ = numbers
    return find_number_issues(
        on_inputs(inputs), given, right[NUM_TRAIN:], output_names=("heat", "=cold"), ids=np.arange(NUM_TRAIN)
    )


def test_planted_errors_of_each_number_have_the_highest_scores(numbers, ranked):
    _, _, _, is_wrong = numbers
    for output in range(2):
        assert roc_auc_score(is_wrong[:, output], ranked.scores[:, output]) > 0.97
    assert is_wrong[tuple(ranked.order[: 2 * NUM_WRONG].T)].mean() > 0.8


def test_what_is_suggested_is_near_the_right_number(numbers, ranked):
    _, right, given, is_wrong = numbers
    error = np.abs(ranked.suggested_labels - right[:NUM_TRAIN])[is_wrong]
    assert (error < 0.5 * np.abs(given - right[:NUM_TRAIN])[is_wrong]).all()


def test_numbers_are_ranked_and_never_counted(ranked):
    assert {count.status for count in ranked.counts} == {"cannot tell"}
    assert not ranked.flagged.any()
    assert "not counted" in repr(ranked)


def test_scores_do_not_depend_on_the_unit_of_the_labels(numbers, ranked):
    inputs, right, given, _ = numbers
    scale, shift = np.array([1e-3, 64.0]), np.array([5.0, -64_000.0])
    again = find_number_issues(
        on_inputs(inputs), given * scale + shift, right[NUM_TRAIN:] * scale + shift, output_names=("a", "b")
    )
    np.testing.assert_allclose(again.scores, ranked.scores, rtol=1e-3, atol=1e-3)


def test_a_score_has_not_seen_its_own_label(numbers, ranked):
    """The label of one example is moved far away: its suggestion hardly moves."""
    inputs, right, given, is_wrong = numbers
    row = int(np.flatnonzero(~is_wrong.any(axis=1))[0])
    moved = given.copy()
    moved[row, 0] *= 1e4
    again = find_number_issues(on_inputs(inputs), moved, right[NUM_TRAIN:], output_names=("a", "b"))
    assert abs(again.suggested_labels[row, 0] - ranked.suggested_labels[row, 0]) < 0.2 * right[:, 0].std()
    assert tuple(again.order[0]) == (row, 0)


def test_numbers_are_ranked_without_a_test_set_too(numbers):
    inputs, _, given, is_wrong = numbers
    own = Representation(inputs[:NUM_TRAIN], inputs[:0])
    found = find_number_issues(Representations(own, None, own), given, None, output_names=("a", "b"))
    assert roc_auc_score(is_wrong.ravel(), found.scores.ravel()) > 0.95


@pytest.mark.parametrize("num_train", [2, 3, 11])
def test_few_examples_and_equal_numbers_have_finite_scores(num_train):
    inputs = np.linspace(0, 1, num_train + 1, dtype=np.float32)[:, None]
    own = Representation(inputs[:-1], inputs[-1:])
    labels = np.zeros((num_train, 2), np.float32)
    labels[0, 0] = 7
    found = find_number_issues(Representations(own, None, own), labels, labels[:1], output_names=("a", "b"))
    assert np.isfinite(found.scores).all() and np.isfinite(found.suggested_labels).all()


def test_the_robust_deviation_ignores_a_slip_of_the_decimal_point(rng):
    values = rng.normal(0, 2, 2000)
    values[:20] *= 1000
    assert robust_deviation(values) == pytest.approx(2, rel=0.1)
    assert robust_deviation(np.zeros(5)) == 1


def test_the_table_lists_every_label_of_every_output(numbers, ranked, tmp_path):
    frame = ranked.to_frame()
    assert list(frame) == ["position", "id", "output", "given_label", "suggested_label", "score", "flagged"]
    assert len(frame) == 2 * NUM_TRAIN and frame["score"].is_monotonic_decreasing
    first = frame.iloc[0]
    output = ["heat", "=cold"].index(first["output"])
    assert first["given_label"] == pytest.approx(float(numbers[2][first["position"], output]))
    ranked.to_csv(tmp_path / "issues.csv")
    with (tmp_path / "issues.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["output"] for row in rows} == {"heat", "'=cold"}


@pytest.fixture(scope="module")
def properties():
    """Digits with two properties, some of them flipped in training, and one that is too rare to count."""
    inputs, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(inputs))[:900]
    inputs, digits = (inputs[rows] / 16).astype(np.float32), digits[rows]
    labels = np.stack([digits % 2 == 0, digits > 4, np.arange(900) < 3], axis=1).astype(np.float32)
    is_wrong = np.zeros((600, 3), bool)
    is_wrong[rng.choice(600, 30, replace=False), 0] = True
    given = np.where(is_wrong, 1 - labels[:600], labels[:600])
    return inputs, labels, given, is_wrong


@pytest.fixture(scope="module")
def judged(properties):
    inputs, labels, given, _ = properties
    own = Representation(inputs[:600], inputs[600:])
    return find_independent_issues(
        Representations(own, None, own), given, labels[600:], output_names=("even", "large", "rare")
    )


def test_flipped_labels_come_first_and_are_counted_label_by_label(properties, judged):
    is_wrong = properties[3]
    assert roc_auc_score(is_wrong[:, 0], judged.scores[:, 0]) > 0.97
    assert judged.counts[0].status == "counted"
    assert 15 <= judged.counts[0].estimate <= 60
    assert judged.flagged[:, 0].sum() == judged.counts[0].estimate
    assert judged.counts[1].status != "counted" and not judged.flagged[:, 1].any()


def test_a_rare_label_is_not_counted(judged):
    assert judged.counts[2].status == "cannot tell"
    assert str(LEAST_OF_A_KIND) in judged.counts[2].reason
    assert np.isfinite(judged.scores[:, 2]).all()


def regression(**compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(compiled.pop("units", 1))]
    )
    model.compile(loss=compiled.get("loss", "mse"))
    return model


def test_label_issues_of_a_regression_read_arrays_and_name_their_outputs(rng):
    inputs, ids = rng.normal(size=(30, 3)).astype(np.float32), np.array([f"house-{i}" for i in range(30)])
    prices = inputs @ [1.0, 2.0, 3.0]
    prices[7] += 100
    found = label_issues(
        regression(),
        (inputs, prices, ids),
        (inputs[:9], prices[:9] * 0),
        output_names=["price"],
        progress=False,
    )
    assert isinstance(found, OutputLabelIssues)
    assert found.kind == "numbers" and found.output_names == ("price",)
    assert found.to_frame()["id"][0] == "house-7"


def test_outputs_are_named_by_the_columns_of_their_labels(rng):
    inputs = rng.normal(size=(60, 3)).astype("float32")
    labels = pd.DataFrame({"heat": inputs[:, 0], "cold": inputs[:, 1]})
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mse")
    found = label_issues(model, (inputs, labels), progress=False)
    assert found.output_names == ("heat", "cold")
    given = label_issues(model, (inputs, labels), output_names=["a", "b"], progress=False)
    assert given.output_names == ("a", "b")


def test_names_of_classes_are_refused_where_there_are_none(rng):
    inputs = rng.normal(size=(12, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="output_names"):
        label_issues(regression(), (inputs, inputs[:, 0]), class_names=["a", "b"], progress=False)
    with pytest.raises(ValueError, match="differ"):
        label_issues(regression(), (inputs, np.ones(12)), progress=False)
    model = InfluenceModel(regression(units=2), loss_function="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="class_names"):
        label_issues(model, (inputs, np.arange(12) % 2), output_names=["a", "b"], progress=False)


def test_a_custom_loss_after_a_softmax_has_no_label_issues(rng):
    inputs = rng.normal(size=(12, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    own = InfluenceModel(model, loss_function=lambda labels, outputs: tf.reduce_sum(outputs, axis=1))
    with pytest.raises(ValueError, match="name the loss"):
        label_issues(own, (inputs, inputs[:, :2]), progress=False)
