"""Audits, comparisons and label issues of texts, padded batches and tables, audits of every objective; their cost."""

import functools
import re
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from kind_cases import CLASSES, NUM_TEST, NUM_TRAIN, Kind, kind_of

from deel_dualview import GradDot, audit, compare, label_issues

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ONE_PASS = NUM_TRAIN + NUM_TEST
FEW = NUM_TRAIN + NUM_TEST - 1
"""Examples of the fingerprint of code that is not Keras' own, eight for each calculator: no second pass."""


class Done(NamedTuple):
    """What was found about the data of one kind, and how many examples went through the network for each of it."""

    kind: Kind
    issues: Any
    comparison: Any
    report: Any
    page: str
    counts: list[int]


def prepared(name: str) -> tuple[Kind, tf.data.Dataset, tf.data.Dataset]:
    """Return a kind whose model has been verified on all of its shapes, and both sets."""
    kind = kind_of(name)
    train, test = kind.train(), kind.test(is_labelled=True)
    for element in [*train, *test]:
        kind.model.features(element[0])
    return kind, train, test


SHOWN = {"texts": "unheard", "attention over padded batches": r"\b7\b", "DataFrame": "nurse"}
"""Something of the inputs that a page must show."""


@pytest.fixture(scope="module", params=SHOWN)
def done(request, tmp_path_factory) -> Done:
    kind, train, test = prepared(request.param)
    found, counts = [], [kind.counter.num_examples]
    # One surrogate is enough: its fits take seconds.
    method = "dualview" if request.param == "texts" else "graddot"
    for function in (
        label_issues,
        functools.partial(compare, methods=["graddot", "rps-l2"], num_queries=NUM_TEST),
        functools.partial(audit, k=2, relevance=None, method=method),
    ):
        found.append(function(kind.model, train, test, progress=False))
        counts.append(kind.counter.num_examples)
    page = found[-1].to_html(tmp_path_factory.mktemp("audit") / "out").read_text(encoding="utf-8")
    assert re.search(SHOWN[request.param], page)
    return Done(kind, *found, page, np.diff(counts).tolist())


def test_the_network_runs_once_over_each_set_for_whatever_is_asked(done):
    issues, comparison, report = done.counts
    assert issues == ONE_PASS
    assert ONE_PASS <= report <= ONE_PASS + FEW + 8
    assert ONE_PASS <= comparison <= ONE_PASS + 4 * 8


def test_an_audit_says_what_the_model_predicts_and_what_the_labels_are(done):
    inputs, labels = done.kind.arrays
    rows = slice(NUM_TRAIN, None)
    given = tf.nest.map_structure(lambda part: tf.constant(part[rows]), inputs)
    outputs = done.kind.model.model(given)
    np.testing.assert_array_equal(done.report.arrays["test_predictions"], np.argmax(outputs, axis=1))
    np.testing.assert_array_equal(done.report.arrays["train_labels"], labels[:NUM_TRAIN])
    assert len(done.report.overview.class_names) == CLASSES


def test_label_issues_alone_are_those_of_the_audit(done):
    assert np.isfinite(done.issues.scores).all() and np.ptp(done.issues.scores) > 0
    np.testing.assert_allclose(done.report.arrays["train_label_scores"], done.issues.scores, atol=1e-6)


def test_methods_agree_with_themselves_and_less_with_others(done):
    correlation = np.asarray(done.comparison.rank_correlation)
    np.testing.assert_allclose(np.diag(correlation), 1.0)
    assert done.comparison.num_queries == NUM_TEST and abs(correlation[0, 1]) < 1


@pytest.mark.parametrize(
    "name",
    ["binary, weighted", "sigmoids", "squared errors, weighted", "named output, Huber", "custom loss"],
)
def test_an_audit_of_another_objective_runs_the_network_once_over_each_set(name):
    kind, train, test = prepared(name)
    before = kind.counter.num_examples
    method = functools.partial(GradDot, target=kind.target)
    report = audit(kind.model, train, test, k=2, method=method, relevance=None, progress=False)
    assert ONE_PASS <= kind.counter.num_examples - before <= ONE_PASS + FEW + 8
    assert report.overview.num_train == NUM_TRAIN


def test_signals_of_several_lengths_have_label_issues_and_an_audit():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Masking(), layers.Dense(4, "relu"), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((None, 2)), *stack])
    rng = np.random.default_rng(0)
    signals, lengths = rng.normal(size=(20, 8, 2)).astype(np.float32), rng.integers(3, 9, 20)
    examples = tf.data.Dataset.from_tensor_slices((signals, np.arange(20) % 3, lengths))
    train = examples.map(lambda x, y, length: (x[:length], y)).padded_batch(6)
    test = train.take(1)
    assert np.isfinite(label_issues(model, train, test, progress=False).scores).all()
    report = audit(model, train, test, method="graddot", relevance=None, progress=False)
    assert report.overview.num_train == 20
