"""Weak groups: planted ones of each kind are found, errors at random raise no alarm, a weak class is no weak group."""

import dataclasses

import keras
import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from deel_dualview import audit
from deel_dualview.auditing import grouping, weak_groups
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.labels import InputTable
from deel_dualview.report import Severity
from deel_dualview.report.html import render_page

NONE = np.empty(0, np.int64)
NUM_TRAIN, NUM_TEST, NUM_CLASSES, NUM_BLOBS = 240, 240, 2, 8


@dataclasses.dataclass
class Case:
    """Two classes of four blobs of features each, a column, and two proponents for each prediction."""

    train: np.ndarray
    test: np.ndarray
    blobs: np.ndarray
    labels: np.ndarray
    column: np.ndarray
    proponents: np.ndarray

    def find(self, is_wrong, *, columns=None, given=None, **changes):
        predictions = np.where(is_wrong, 1 - self.labels, self.labels)
        rows = np.repeat(np.arange(NUM_TEST), 2)
        attributions = scipy.sparse.csr_array(
            (np.tile([2.0, 1.0], NUM_TEST), (rows, self.proponents.ravel())), shape=(NUM_TEST, NUM_TRAIN)
        )
        evidence = Evidence(
            num_classes=NUM_CLASSES,
            k=2,
            broken_train=NONE,
            broken_test=NONE,
            train_labels=self.labels,
            train_ids=None,
            self_influence=np.zeros(NUM_TRAIN),
            test_labels=self.labels,
            test_ids=None,
            predictions=predictions,
            confidences=np.ones(NUM_TEST),
            attributions=attributions,
            surrogate=None,
        )
        evidence = dataclasses.replace(evidence, **changes)
        found = weak_groups.find_weak_groups(
            evidence, (self.train, self.test), columns=columns or {}, given=given or {}
        )
        return next(found, None)


def make_case(seed=0):
    rng = np.random.default_rng(seed)
    blobs = np.arange(NUM_TEST) % NUM_BLOBS
    centres = 6 * rng.normal(size=(NUM_BLOBS, 5))
    train, test = (centres[blobs] + rng.normal(size=(NUM_TEST, 5)) for _ in range(2))
    proponents = np.stack([rng.integers(0, 12, NUM_TEST), rng.integers(12, 24, NUM_TEST)], axis=1)
    return Case(train, test, blobs, blobs // 4, rng.normal(size=NUM_TEST), proponents)


@pytest.fixture(scope="module")
def case():
    return make_case()


def planted(inside, often=0.6, seldom=0.05):
    """Return errors, often inside a group and seldom elsewhere."""
    return np.random.default_rng(1).random(NUM_TEST) < np.where(inside, often, seldom)


def test_a_weak_cluster_of_a_class_is_found(case):
    is_wrong = planted(case.blobs == 2)
    finding = case.find(is_wrong)
    (group,) = finding.groups
    assert (group.kind, group.label, group.num_test, group.num_train) == ("features", 0, 30, 30)
    assert group.num_right == 30 - is_wrong[case.blobs == 2].sum()
    assert finding.severity is Severity.KNOW and finding.count == 1 and finding.share == 30 / NUM_TEST
    assert {case.blobs[item.example.index] for item in group.examples} == {2}


def test_what_is_expected_is_the_accuracy_of_the_class(case):
    is_wrong = planted(case.blobs == 2)
    (group,) = case.find(is_wrong).groups
    assert group.expected == pytest.approx(1 - is_wrong[case.labels == 0].mean())


def test_predictions_of_a_common_proponent_are_a_weak_group(case):
    is_wrong = planted((case.proponents == 5).any(axis=1), often=0.9)
    predictions = np.where(is_wrong, 1, 0)  # all of class 0, so that the proponent alone tells them apart
    finding = case.find(is_wrong, test_labels=predictions, predictions=np.zeros(NUM_TEST, np.int64))
    (group,) = [item for item in finding.groups if item.kind == "proponents"]
    assert group.proponent.index == 5 and group.label == 0
    members = (case.proponents == 5).any(axis=1)
    assert (group.num_test, group.num_right) == (members.sum(), (members & ~is_wrong).sum())
    assert all(is_wrong[item.example.index] for item in group.examples)


@pytest.mark.parametrize("kind", ["column", "given"])
def test_a_weak_quarter_of_numbers_is_found(case, kind):
    inside = case.column > np.quantile(case.column, 0.75)
    values = {"age": (case.column if kind == "column" else None, case.column)}
    finding = case.find(planted(inside), **{"columns" if kind == "column" else kind: values})
    # Twenty points below its class and ten errors more than expected are worth a look.
    assert finding.severity is Severity.LOOK
    (group,) = finding.groups
    assert (group.kind, group.name) == (kind, "age")
    assert group.value == f"{case.column[inside].min():.6g} to {case.column.max():.6g}"
    assert group.num_test == 60 and group.num_train == (60 if kind == "column" else None)


def test_a_weak_category_is_found(case):
    values = np.array(["here", "there", "elsewhere"])[np.arange(NUM_TEST) % 3]
    (group,) = case.find(planted(values == "there"), given={"place": (None, values)}).groups
    assert (group.name, group.value, group.num_test) == ("place", "there", 80)


@pytest.mark.parametrize("often", [0.3, 0.6])
def test_a_weak_class_is_no_weak_group(case, often):
    values = {"class": (case.labels, case.labels)}
    finding = case.find(planted(case.labels == 1, often=often), columns=values)
    assert finding.count == 0 and finding.severity is Severity.FINE


def test_errors_at_random_raise_an_alarm_in_one_audit_of_twenty_at_most():
    alarms = 0
    case = make_case()
    values = {"age": (case.column, case.column)}
    for seed in range(20):
        is_wrong = np.random.default_rng(seed).random(NUM_TEST) < 0.15
        alarms += case.find(is_wrong, columns=values, given=values).count > 0
    assert alarms <= 1


def test_overlapping_groups_are_reported_once(case):
    inside = case.column > np.quantile(case.column, 0.75)
    values = {"age": (None, case.column), "the same": (None, inside)}
    assert case.find(planted(inside), given=values).count == 1


def test_of_one_class_the_chance_is_that_of_fishers_exact_test(case):
    is_wrong = planted(case.blobs == 2, often=0.2)
    group = grouping.Group("given", np.flatnonzero(case.blobs == 2))
    evidence = Evidence(2, 1, NONE, NONE, case.labels, None, None, case.labels, None, None, None, None, None)
    evidence = dataclasses.replace(evidence, predictions=np.where(is_wrong, 1 - case.labels, case.labels))
    (tested,) = weak_groups._test([group], case.labels, evidence)
    of_class, members = is_wrong[case.labels == 0], is_wrong[case.blobs == 2]
    rest = of_class.sum() - members.sum()
    table = [[members.sum(), 30 - members.sum()], [rest, 90 - rest]]
    assert tested.chance == pytest.approx(scipy.stats.fisher_exact(table, alternative="greater").pvalue)


def test_examples_with_broken_inputs_are_in_no_group(case):
    broken = np.flatnonzero(case.blobs == 2)[:5]
    finding = case.find(planted(case.blobs == 2), broken_test=broken)
    assert [group.num_test for group in finding.groups] == [25]


def test_predictions_without_a_proponent_are_in_no_group(case):
    empty = scipy.sparse.csr_array((NUM_TEST, NUM_TRAIN))
    assert case.find(planted(case.blobs == 2), attributions=empty).groups[0].kind == "features"


def few(case, number, is_wrong):
    """Return the finding of an audit of the first test examples alone."""
    labels = case.labels[:number]
    first = dataclasses.replace(case, test=case.test[:number])
    return first.find(
        np.zeros(NUM_TEST, bool),
        test_labels=labels,
        predictions=np.where(is_wrong, 1 - labels, labels),
        confidences=np.ones(number),
        attributions=scipy.sparse.csr_array((number, NUM_TRAIN)),
    )


@pytest.mark.parametrize(("number", "is_wrong"), [(1, False), (9, False), (30, True)])
def test_without_a_group_that_is_large_enough_it_cannot_be_told_whether_one_is_weak(case, number, is_wrong):
    finding = few(case, number, is_wrong)
    assert finding.severity is Severity.CANNOT_TELL and "Cannot tell" in finding.title
    assert finding.num_examined == 0 and "No group" in finding.summary


@pytest.mark.parametrize("values", [[None] * NUM_TEST, list(range(NUM_TEST))], ids=["missing", "unique"])
def test_given_groups_that_cannot_be_tested_are_not_said_to_be(case, values):
    finding = case.find(planted(case.blobs == 2), given={"id": (None, np.array(values, str))})
    assert "None of the given groups could be" in finding.summary and "10 test examples" in finding.summary
    assert "the given groups." not in finding.summary


def test_given_groups_that_are_tested_are_said_to_be(case):
    summary = case.find(planted(case.blobs == 2), given={"blob": (None, case.blobs)}).summary
    assert "the given groups." in summary and "None of" not in summary


def test_large_classes_without_an_error_have_no_weak_group(case):
    assert few(case, 80, False).severity is Severity.FINE


def test_without_test_labels_there_is_no_finding(case):
    assert case.find(np.zeros(NUM_TEST, bool), test_labels=None) is None


def test_missing_values_are_a_category(case):
    values = np.where(case.blobs == 2, np.nan, case.column)
    groups = list(grouping.by_values("given", {"age": (None, values)}))
    assert [group.value for group in groups][-1] == "missing" and len(groups) == 5
    texts = np.array(["a", None, "b", "", "a"], object)
    named = list(grouping.by_values("given", {"name": (None, texts)}))
    assert {group.value: len(group.members) for group in named} == {"a": 2, "b": 1, "missing": 2}


def test_columns_have_the_names_of_their_inputs():
    table = InputTable(has_token_ids=False)
    for split in ("train", "test"):
        table.add({"b": np.array([b"red", b"blue sky"]), "a": np.eye(2)}, split)
    found = grouping.columns_of(table, {"b": None, "a": None}, ())
    assert list(found) == ["a, column 0", "a, column 1", "b"]
    assert found["b"][0].tolist() == ["red", "blue sky"] and found["a, column 1"][1].tolist() == [0, 1]


def test_images_and_long_texts_have_no_columns():
    table = InputTable(has_token_ids=False)
    long = np.array([b"one two three four five six seven eight nine"] * 2)
    for split in ("train", "test"):
        table.add((np.zeros((2, 4, 4, 1)), long, np.zeros((2, 101))), split)
    assert grouping.columns_of(table, (None, None, None), ()) == {}


@pytest.mark.parametrize("groups", [[1, 2], np.zeros((3, 2)), {"a": [1, 2, 3], "b": [1]}])
def test_groups_are_one_value_for_each_test_example(groups):
    with pytest.raises(ValueError, match="one value for each test example"):
        grouping.check_groups(groups, 3, has_labels=True)


def test_groups_need_test_labels():
    with pytest.raises(ValueError, match="needs a test set with labels"):
        grouping.check_groups([1, 2, 3], 3, has_labels=False)


def test_groups_are_arrays_series_or_frames():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([1, 2, 3], name="site")
    assert list(grouping.check_groups(series, 3, has_labels=True)) == ["site"]
    assert list(grouping.check_groups(series.to_frame(), 3, has_labels=True)) == ["site"]
    assert list(grouping.check_groups([1, 2, 3], 3, has_labels=True)) == ["group"]


def test_an_audit_finds_a_weak_group_of_a_column_and_of_given_values():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(320, 3)).astype("float32")
    labels = (inputs[:, 0] > 0).astype(int)
    shown, is_damaged = inputs[160:].copy(), rng.random(160) < 0.15
    shown[is_damaged | (shown[:, 2] > 0.7), 0] *= -1
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.build()
    model.layers[-1].set_weights([np.array([[-5.0, 5.0], [0, 0], [0, 0]]), np.zeros(2)])
    report = audit(
        model,
        (inputs[:160], labels[:160]),
        (shown, labels[160:]),
        method="graddot",
        relevance=None,
        k=2,
        progress=False,
        input_names=["x", "y", "z"],
        groups={"damaged": is_damaged},
    )
    found = {(item.kind, item.name, item.value) for item in report.finding("weak-groups").groups}
    assert ("given", "damaged", "True") in found and ("column", "z") in {item[:2] for item in found}
    page = render_page(report)
    assert "<b>z</b>: " in page and "<b>damaged</b>: True" in page
