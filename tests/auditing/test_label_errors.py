"""The finding about wrong labels where the network has memorised them, and where they cannot be counted."""

import dataclasses
import json
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from deel_dualview import audit, label_issues, swap_labels
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.labels import find_label_errors
from deel_dualview.labels import LabelCount
from deel_dualview.report import AuditReport, Severity
from deel_dualview.report.html import render_page

NUM_TRAIN, NUM_TEST, NUM_CLASSES, NUM_WRONG, NUM_COLUMNS = 600, 300, 3, 60, 128


class Memorised(NamedTuple):
    """A network that predicts every training label, the wrong ones too, and its data."""

    model: keras.Model
    train: tf.data.Dataset
    test: tf.data.Dataset
    wrong: np.ndarray


@pytest.fixture(scope="module")
def memorised() -> Memorised:
    """Three classes, a tenth of the labels wrong, and features that have learned them.

    The labels stand in the inputs, too faint for any head on these; the network enlarges them. What test examples
    hold in their place is drawn at random.
    """
    rng = np.random.default_rng(0)
    truth, test_truth = np.arange(NUM_TRAIN) % NUM_CLASSES, np.arange(NUM_TEST) % NUM_CLASSES
    swapped = swap_labels(truth, NUM_WRONG, num_classes=NUM_CLASSES, seed=0)
    learned = np.concatenate([swapped.labels, rng.integers(0, NUM_CLASSES, NUM_TEST)])
    inputs = rng.normal(0, 0.3, (NUM_TRAIN + NUM_TEST, NUM_COLUMNS))
    one_hot = np.eye(NUM_CLASSES)
    inputs[:, :NUM_CLASSES] += 2 * one_hot[np.append(truth, test_truth)]
    noise = rng.normal(0, 0.1, (len(inputs), NUM_CLASSES))
    inputs[:, NUM_CLASSES : 2 * NUM_CLASSES] = 1e-3 * (one_hot[learned] + noise)
    kernel = np.zeros((NUM_COLUMNS, 2 * NUM_CLASSES))
    kernel[:NUM_CLASSES, :NUM_CLASSES] = one_hot
    kernel[NUM_CLASSES : 2 * NUM_CLASSES, NUM_CLASSES:] = 2000 * one_hot
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((NUM_COLUMNS,)),
            dense(2 * NUM_CLASSES, use_bias=False),
            dense(NUM_CLASSES, use_bias=False),
        ]
    )
    model.set_weights([kernel, np.concatenate([one_hot, 3 * one_hot])])
    rows = inputs.astype("float32")
    train = tf.data.Dataset.from_tensor_slices((rows[:NUM_TRAIN], swapped.labels)).batch(128)
    test = tf.data.Dataset.from_tensor_slices((rows[NUM_TRAIN:], test_truth)).batch(128)
    return Memorised(model, train, test, swapped.indices)


@pytest.fixture(scope="module")
def report(memorised) -> AuditReport:
    model, train, test, wrong = memorised
    return audit(
        model, train, test, method="sim", known_label_errors=wrong, relevance=None, k=2, progress=False
    )


@pytest.fixture(scope="module")
def uncounted(memorised) -> AuditReport:
    """An audit with a test set without labels."""
    model, train, test, _ = memorised
    unlabelled = test.map(lambda inputs, _: inputs)
    return audit(model, train, unlabelled, method="sim", relevance=None, k=2, progress=False)


def test_wrong_labels_that_the_network_has_memorised_are_counted(report):
    finding = report.finding("label-errors")
    assert finding.training_accuracy == 1
    assert finding.status == "counted" and finding.severity is Severity.ACT
    assert finding.low <= NUM_WRONG <= finding.high
    assert 0.8 * NUM_WRONG <= finding.count <= 1.25 * NUM_WRONG


def test_wrong_labels_that_the_network_has_memorised_come_first(report, memorised):
    first = report.label_issues.order[:NUM_WRONG]
    assert np.isin(first, memorised.wrong).mean() > 0.95
    assert report.finding("label-errors").detection.area > 0.99


def test_the_finding_says_that_the_network_has_memorised_its_labels(report):
    summary = report.finding("label-errors").summary
    assert "look easier to the network than the test labels (100.0% of them" in summary
    assert "it has learned some of them one by one" in summary


def test_an_audit_has_the_label_issues_of_the_function(report, memorised):
    model, train, test, _ = memorised
    found = label_issues(model, train, test, progress=False)
    assert found.count == report.label_issues.count
    np.testing.assert_allclose(found.scores, report.label_issues.scores, atol=1e-4)


def test_a_bound_alone_is_good_to_know_and_nothing_is_to_be_done(report):
    bound = dataclasses.replace(
        report.label_issues, count=LabelCount("at most", at_most=63), flagged=np.zeros(NUM_TRAIN, bool)
    )
    evidence = Evidence(
        num_classes=NUM_CLASSES,
        k=1,
        broken_train=np.empty(0, np.int64),
        broken_test=np.empty(0, np.int64),
        train_labels=bound.given_labels,
        train_ids=None,
        self_influence=np.zeros(NUM_TRAIN),
        test_labels=None,
        test_ids=None,
        predictions=np.zeros(1, np.int64),
        confidences=np.ones(1),
        attributions=scipy.sparse.csr_array((1, NUM_TRAIN)),
        surrogate=None,
    )
    finding = find_label_errors(evidence, bound, None)
    assert finding.severity is Severity.KNOW and "at most 63" in finding.title
    assert "look at them" not in finding.summary and "none is flagged" in finding.summary


def test_given_probabilities_have_half_of_the_weight(memorised):
    model, train, test, wrong = memorised
    given = np.full((NUM_TRAIN, NUM_CLASSES), 1 / NUM_CLASSES)
    found = audit(model, train, test, method="sim", pred_probs=given, relevance=None, k=2, progress=False)
    weights = {head.name: head.weight for head in found.finding("label-errors").heads}
    assert weights["given probabilities"] == 0.5
    assert sum(weights.values()) == pytest.approx(1)


def test_probabilities_of_another_shape_are_refused(memorised):
    model, train, test, _ = memorised
    with pytest.raises(ValueError, match=r"`pred_probs`.*\(600, 3\).*Received: shape=\(600, 2\)"):
        audit(model, train, test, pred_probs=np.full((NUM_TRAIN, 2), 0.5), progress=False)


def test_without_test_labels_it_cannot_be_told_how_many_are_wrong(uncounted):
    finding = uncounted.finding("label-errors")
    assert finding.status == "cannot tell" and finding.severity is Severity.CANNOT_TELL
    assert (finding.count, finding.low, finding.high, finding.at_most) == (0, None, None, None)
    assert "labels that are right" in finding.reason and finding.reason in finding.summary
    assert uncounted.rates["label-errors"] is None


def test_without_test_labels_the_likeliest_ones_are_shown_and_none_is_flagged(uncounted):
    shown = [issue.example.index for issue in uncounted.finding("label-errors").issues]
    assert shown and shown == uncounted.label_issues.order[: len(shown)].tolist()
    assert not uncounted.label_issues.flagged.any()


def test_what_cannot_be_told_is_the_verdict_of_the_page_and_has_a_shape_of_its_own(uncounted):
    page = render_page(uncounted)
    section = page[page.index('<section id="label-errors"') :]
    assert '<use href="#sev-cannot-tell"/></svg>cannot tell</span>' in section[:400]
    assert '<p class="say"><b>Cannot tell</b>' in page
    assert "This is no all-clear" in section and "None of these is flagged" in section


def test_what_cannot_be_told_is_null_in_the_json(uncounted, tmp_path):
    uncounted.to_html(tmp_path / "audit")
    content = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    (finding,) = [one for one in content["findings"] if one["name"] == "label-errors"]
    assert finding["status"] == finding["severity"] == "cannot tell"
    assert finding["share"] is None and content["rates"]["label-errors"] is None


def test_a_column_that_gives_the_label_is_named_in_place_of_a_count(rng):
    truth = np.arange(450) % 3
    given = swap_labels(truth[:300], 30, num_classes=3, seed=1).labels
    labels = np.concatenate([given, truth[300:]])
    columns = rng.normal(size=(450, 3)) + 4 * np.eye(3)[truth]
    rows = np.column_stack([columns, 7.0 - 2 * labels]).astype("float32")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)])
    train, test = (
        tf.data.Dataset.from_tensor_slices((rows[part], labels[part])).batch(64)
        for part in (slice(300), slice(300, None))
    )
    names = ["red", "green", "blue", "code"]
    found = audit(network, train, test, method="sim", input_names=names, k=2, relevance=None, progress=False)
    finding = found.finding("label-errors")
    assert finding.status == found.label_issues.count.status == "cannot tell"
    assert finding.reason.startswith("column code gives the label alone")
    assert finding.severity is Severity.CANNOT_TELL and not found.label_issues.flagged.any()
