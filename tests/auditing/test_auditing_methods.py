"""The audit by other methods than DualView: coherent without a surrogate."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from pages import Page

from deel_dualview import (
    DualView,
    FeatureSimilarity,
    GradDot,
    InfluenceModel,
    audit,
    load_digits,
    swap_labels,
)
from deel_dualview.report import AuditReport

NUM_SWAPPED = 10


@pytest.fixture(scope="module")
def swapped() -> np.ndarray:
    return swap_labels(load_digits()[0][1][:400], NUM_SWAPPED, num_classes=10, seed=1).indices


@pytest.fixture(scope="module")
def train() -> tf.data.Dataset:
    (images, labels), _ = load_digits()
    given = swap_labels(labels[:400], NUM_SWAPPED, num_classes=10, seed=1).labels
    return tf.data.Dataset.from_tensor_slices((images[:400], given)).batch(64)


@pytest.fixture(scope="module")
def test() -> tf.data.Dataset:
    _, (images, labels) = load_digits()
    return tf.data.Dataset.from_tensor_slices((images[:100], labels[:100])).batch(64)


@pytest.fixture(scope="module")
def model(train) -> InfluenceModel:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10)]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(train, epochs=30, verbose=0, shuffle=False)
    return InfluenceModel(network)


@pytest.fixture(scope="module")
def report(model, train, test, swapped) -> AuditReport:
    return audit(model, train, test, k=3, method="graddot", known_label_errors=swapped, progress=False)


def test_findings_about_the_surrogate_are_left_out(report):
    names = [finding.name for finding in report.findings]
    assert names == [
        "label-errors",
        "wrong-predictions",
        "leaks",
        "duplicates-conflicting",
        "duplicates",
        "outliers",
        "weak-classes",
        "inputs",
        "weak-groups",
        "influential-examples",
    ]
    assert report.overview.certificate is None and report.overview.num_support_vectors is None
    assert "unfaithful" not in report.rates


def test_proponents_and_opponents_are_the_extremes_of_all_influence_values(report, model, train, test):
    values = np.concatenate(
        list(GradDot(model, train).estimate_influence_values_in_batches(test).as_numpy_iterator())
    )
    for item in report.finding("wrong-predictions").predictions:
        row = np.sort(values[item.example.index])
        np.testing.assert_allclose(
            [influence.value for influence in item.proponents], row[::-1][:3], rtol=1e-4
        )
        np.testing.assert_allclose([influence.value for influence in item.opponents], row[:3], rtol=1e-4)
        assert item.logit is None and item.proponents[0].share is None


def test_the_strongest_values_are_kept_and_no_others(report):
    assert report.attributions.shape == (100, 400)
    assert (np.diff(report.attributions.indptr) == 6).all()


def test_values_at_both_ends_are_kept_once(model, train, test):
    few = train.unbatch().take(4).batch(4)
    found = audit(model, few, test, k=3, method="graddot", progress=False)
    assert (np.diff(found.attributions.indptr) == 4).all()


@pytest.mark.parametrize("name", ["dualview", "gradcos", "feature-similarity"])
def test_every_method_gives_the_same_label_issues(name, report, model, train, test):
    found = audit(model, train, test, method=name, relevance=None, progress=False)
    np.testing.assert_array_equal(found.label_issues.scores, report.label_issues.scores)
    assert found.label_issues.count == report.label_issues.count
    own, others = found.finding("label-errors").issues, report.finding("label-errors").issues
    assert [issue.example for issue in own] == [issue.example for issue in others]


def test_label_issues_show_the_self_influence_of_the_method(report, model, train):
    values = np.concatenate(list(GradDot(model, train).compute_influence_values().as_numpy_iterator()))
    issues = report.finding("label-errors").issues
    found = [issue.self_influence for issue in issues]
    np.testing.assert_allclose(found, [values[issue.example.index] for issue in issues], rtol=1e-4)


def test_the_page_names_the_method_and_has_no_surrogate(report, tmp_path):
    text = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    page = Page(text)
    assert page.mismatches == [] and page.open == []
    assert "GradDot" in text and "inner product of the loss gradients" in text
    assert [word for word in ("surrogate's", "Certificate", "slack") if word in text] == []


def test_a_calculator_and_what_makes_one_are_taken_alike(report, model, train, test):
    made = audit(model, train, test, k=3, method=GradDot(model, train), progress=False)
    partial = functools.partial(FeatureSimilarity, similarity="dot")
    assert (made.attributions != report.attributions).nnz == 0
    assert audit(model, train, test, method=partial, progress=False).overview.method == "FeatureSimilarity"


def test_dualview_with_its_sparse_kernel_is_the_default(model, train, test):
    named = audit(model, train, test, progress=False)
    own = audit(model, train, test, method=DualView(model, train, kernel="cosine"), progress=False)
    assert named.overview.method == own.overview.method == "DualView"
    assert named.findings == own.findings


def test_an_unlabelled_test_set_is_audited(model, train, test):
    found = audit(model, train, test.map(lambda image, _: image), method="graddot", progress=False)
    assert found.finding("uncertain-predictions").predictions


def test_an_unknown_method_is_refused(model, train, test):
    with pytest.raises(ValueError, match="dualview.*'magic'"):
        audit(model, train, test, method="magic", progress=False)


def test_predictions_whose_values_are_all_zero_stand_behind_nothing(model, train, test):
    """The model is so certain that GradDot's gradients are zero for most examples."""
    network = keras.models.clone_model(model.model)
    network.set_weights(model.model.get_weights())
    network.layers[-1].set_weights([1e4 * weight for weight in network.layers[-1].get_weights()])
    own = InfluenceModel(network)
    agreeing = train.unbatch().map(lambda x, y: (x, tf.argmax(network(x[tf.newaxis]), 1)[0])).batch(64)
    with pytest.warns(UserWarning, match="exactly 0"):
        finding = audit(own, agreeing, test, method="graddot", progress=False).finding("influential-examples")
    assert finding.count == 0 and finding.title.startswith("0 of 400")
    assert "100 predictions are left out" in finding.summary
