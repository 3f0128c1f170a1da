"""Audits of regressions and of independent labels: what is planted is found, and nothing is said about classes."""

import functools
import json
import re

import keras
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from deel_dualview import GradDot, InfluenceModel, audit, compare
from deel_dualview.report import Severity

NUM_TRAIN, NUM_TEST, WRONG, FAR = 120, 80, 7, 30.0


def fitted(inputs, labels):
    """A network with an exact linear part, so that no training is needed: relu(x) - relu(-x), then least squares."""
    model = keras.Sequential(
        [keras.Input((inputs.shape[1],)), keras.layers.Dense(8, "relu"), keras.layers.Dense(labels.shape[1])]
    )
    eye = np.eye(inputs.shape[1])
    both = np.hstack([eye, -eye])
    hidden = np.maximum(inputs @ both, 0)
    kernel, *_ = np.linalg.lstsq(np.hstack([hidden, np.ones((len(hidden), 1))]), labels, rcond=None)
    model.layers[0].set_weights([both, np.zeros(8)])
    model.layers[1].set_weights([kernel[:-1], kernel[-1]])
    model.compile(loss="mse")
    return model


@pytest.fixture(scope="module")
def houses():
    """Both sets, with one wrong label, a leak, a conflict, a copy, and a group with large errors in the test set."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(NUM_TRAIN + NUM_TEST, 4)).astype(np.float32)
    prices = 100 + inputs @ [4.0, -2.0, 1.0, 0.0] + rng.normal(0, 0.5, len(inputs))
    train, test = (
        (inputs[:NUM_TRAIN].copy(), prices[:NUM_TRAIN].copy()),
        (inputs[NUM_TRAIN:].copy(), prices[NUM_TRAIN:].copy()),
    )
    train[1][WRONG] += FAR
    train[0][20], train[1][20] = train[0][21], train[1][21] + FAR
    train[0][30], train[1][30] = train[0][31], train[1][31] + 0.1
    test[0][3] = train[0][50]
    groups = np.array(["town"] * 60 + ["country"] * 20)
    test[1][60:] += 6 * np.sign(rng.normal(size=20))
    return train, test, groups


@pytest.fixture(scope="module")
def report(houses):
    train, test, groups = houses
    return audit(
        fitted(train[0], train[1][:, None]),
        train,
        test,
        k=3,
        output_names=["price"],
        label_unit="k€",
        known_label_errors=[WRONG],
        groups=groups,
        progress=False,
    )


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return report.to_html(tmp_path_factory.mktemp("audit") / "out").read_text(encoding="utf-8")


def test_the_wrong_number_is_the_first_label_issue_and_none_is_counted(report):
    finding = report.finding("label-errors")
    assert {item.example.index for item in finding.issues[:3]} >= {WRONG}
    assert finding.severity is Severity.CANNOT_TELL
    assert report.rates["label-errors"] is None
    assert finding.detection.points[0].known == 1
    assert len(report.to_frames()["label-errors"]) == NUM_TRAIN


def test_measures_are_those_of_scikit_learn(houses, report):
    _, (inputs, labels), _ = houses
    predictions = report.arrays["test_predictions"][:, 0]
    score = next(own for own in report.finding("prediction-errors").scores if own.split == "test")
    found = {measure.name: measure.value for measure in score.measures}
    assert found["R²"] == pytest.approx(r2_score(labels, predictions), abs=1e-5)
    assert found["Mean absolute error"] == pytest.approx(mean_absolute_error(labels, predictions), rel=1e-5)


def test_the_largest_errors_are_explained(houses, report):
    _, (_, labels), _ = houses
    errors = np.abs(report.arrays["test_predictions"][:, 0] - labels)
    explained = report.finding("prediction-errors").predictions
    assert [item.example.index for item in explained] == np.argsort(-errors, kind="stable")[:12].tolist()
    for item in explained:
        assert all(own.value > 0 for own in item.proponents) and all(own.value < 0 for own in item.opponents)


def test_duplicates_conflict_only_where_their_numbers_are_far_apart(report):
    conflicts = report.finding("duplicates-conflicting")
    assert {(pair.first.index, pair.second.index) for pair in conflicts.pairs} in ({(20, 21)}, {(21, 20)})
    copies = report.finding("duplicates")
    assert [(pair.first.index, pair.second.index) for pair in copies.pairs] == [(30, 31)]
    assert report.finding("leaks").num_identical == 1


def test_the_group_with_large_errors_is_found(report):
    groups = report.finding("weak-groups").groups
    assert any((item.name, item.value) == ("group", "country") for item in groups)
    assert all(item.error > item.others for item in groups)


def test_the_surrogate_is_judged_by_r_squared(report):
    finding = report.finding("unfaithful")
    assert finding.measures[0].name == "R²"
    assert "sparsity-path" not in report.rates


def test_the_page_writes_numbers_with_their_unit_and_no_classes(page):
    assert "k€" in page and "Predicted price" in page
    said = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    for word in ("classes", "confusion", "logit", "Class by class"):
        assert word not in said, word


def test_the_same_data_is_in_json(report, tmp_path):
    report.to_html(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert content["overview"]["outputs"]["kind"] == "numbers"
    assert content["overview"]["class_names"] == ["price"]
    issues = next(item for item in content["findings"] if item["name"] == "label-errors")["issues"]
    assert issues[0]["example"]["labels"] == [pytest.approx(issues[0]["given_label"])]


def test_a_later_audit_tells_what_has_changed(houses, report, tmp_path):
    train, test, _ = houses
    report.to_html(tmp_path / "out")
    labels = train[1].copy()
    labels[20] = labels[21]
    later = audit(
        fitted(train[0], labels[:, None]),
        (train[0], labels),
        test,
        output_names=["price"],
        since=tmp_path / "out",
        relevance=None,
        progress=False,
    )
    changed = {item.name: (item.before, item.after) for item in later.changes.items}
    assert changed["duplicates-conflicting"] == (2, 0)
    assert changed["label-errors"] == (None, None)


def test_a_model_that_has_not_learned_the_labels_is_the_first_finding(houses):
    (inputs, labels), test, _ = houses
    model = fitted(inputs, labels[:, None])
    found = audit(model, (inputs, labels + 500), test, relevance=None, method="graddot", progress=False)
    assert found.findings[0].name == "inputs-scale"
    assert "mean of the labels" in found.findings[0].title


def test_the_first_of_several_numbers_is_explained_unless_another_is_named(houses):
    (inputs, labels), (tested, _), _ = houses
    rows = np.stack([labels, -labels], axis=1)
    model = fitted(inputs, rows)
    reports = [
        audit(model, (inputs, rows), (tested,), method=method, relevance=None, progress=False)
        for method in ("dualview", functools.partial(GradDot, target=1))
    ]
    assert [set(report.arrays["explained_outputs"]) for report in reports] == [{0}, {1}]
    assert re.search(r"mean R² 0\.\d+ of 2 numbers", reports[0].finding("unfaithful").title)


def test_names_of_classes_are_refused(houses):
    (inputs, labels), test, _ = houses
    with pytest.raises(ValueError, match="output_names"):
        audit(fitted(inputs, labels[:, None]), (inputs, labels), test, class_names=["a"], progress=False)


@pytest.fixture(scope="module")
def labelled():
    """An audit of two independent labels, of which entries of the first were flipped in training."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(300, 4)).astype(np.float32)
    right = (inputs[:, :2] > 0).astype(np.float32)
    given = right[:200].copy()
    flipped = rng.choice(200, 16, replace=False)
    given[flipped, 0] = 1 - given[flipped, 0]
    model = InfluenceModel(fitted(inputs[:200], 8 * given - 4), loss_function="binary_crossentropy")
    report = audit(
        model,
        (inputs[:200], given),
        (inputs[200:], right[200:]),
        output_names=["warm", "wet"],
        relevance=None,
        progress=False,
    )
    return report, flipped


def test_flipped_labels_are_counted_label_by_label(labelled):
    report, flipped = labelled
    finding = report.finding("label-errors")
    first = [item for item in finding.issues if item.output == 0][: len(flipped)]
    assert np.isin([item.example.index for item in first], flipped).mean() > 0.6
    assert finding.counts[0].status == "counted"
    assert finding.counts[1].status != "counted"
    assert re.search(
        rf"About {finding.count} .*\({finding.counts[0].low} to {finding.counts[0].high}\)", finding.title
    )


def test_wrong_predictions_of_labels_can_be_a_threshold(labelled, tmp_path):
    report, _ = labelled
    wrong = report.finding("wrong-predictions")
    assert report.rates["wrong-predictions"] == pytest.approx(wrong.count / 200)
    text = report.to_html(tmp_path / "out").read_text(encoding="utf-8")
    assert "F1" in text and "warm" in text and "not warm" in text


def test_methods_are_compared_on_the_first_of_several_numbers(houses, tmp_path):
    (inputs, labels), test, _ = houses
    rows = np.stack([labels, -labels], axis=1)
    found = compare(
        fitted(inputs, rows),
        (inputs, rows),
        (test[0], np.stack([test[1], -test[1]], axis=1)),
        methods=["graddot", "feature-similarity"],
        output_names=["price", "discount"],
        num_queries=5,
        progress=False,
    )
    assert np.shape(found.rank_correlation) == (2, 2) and found.num_queries == 5
    text = found.to_html(tmp_path / "out").read_text(encoding="utf-8")
    assert "price: predicted" in text and "discount" in text


def test_numbers_behind_an_activation_are_those_that_the_model_predicts(houses):
    (inputs, labels), test, _ = houses
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "softplus")])
    model.layers[0].set_weights([np.array([[4.0], [-2.0], [1.0], [0.0]]), np.array([100.0])])
    model.compile(loss="mse")
    found = audit(model, (inputs, labels), test, method="graddot", relevance=None, progress=False)
    np.testing.assert_allclose(found.arrays["test_predictions"], model.predict(test[0], verbose=0), rtol=1e-5)


def test_a_unit_is_only_of_numbers(houses):
    train, test, _ = houses
    kinds = [(inputs, (prices > np.median(prices)).astype(int)) for inputs, prices in (train, test)]
    model = keras.Sequential([keras.Input(train[0].shape[1:]), keras.layers.Dense(2, "softmax")])
    with pytest.raises(ValueError, match="label_unit"):
        audit(model, *kinds, label_unit="k€", progress=False)
