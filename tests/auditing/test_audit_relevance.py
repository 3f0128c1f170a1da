"""An audit shows what carries the influence of every pair, or says why it does not."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, DualView, InfluenceModel, audit
from deel_dualview.auditing.pairs import DEFAULT_RULE
from deel_dualview.plots.panels import COLOURS
from deel_dualview.report import PairShares
from deel_dualview.report.html import render_page

NUM_CLASSES = 3


def as_dataset(inputs, labels):
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16)


def make_images(num, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(num, 8, 8, 1)).astype(np.float32), np.arange(num) % NUM_CLASSES


def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(NUM_CLASSES),
        ]
    )


@pytest.fixture(scope="module")
def data():
    return as_dataset(*make_images(48, 0)), as_dataset(*make_images(12, 1))


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def report(model, data):
    return audit(model, *data, k=3, progress=False)


def pairs_of(report):
    for item in report.finding("wrong-predictions").predictions:
        for influence in (*item.proponents, *item.opponents):
            yield item, influence


def test_every_pair_shown_has_its_heatmaps(report):
    expected = {(item.example.index, influence.example.index) for item, influence in pairs_of(report)}
    assert expected and set(report.relevance) == expected


def test_heatmaps_and_what_they_leave_out_add_up_to_the_influence(report):
    for item, influence in pairs_of(report):
        maps = report.relevance[item.example.index, influence.example.index]
        own = influence.relevance
        for side, leak in ((maps.train, own.train_leak), (maps.test, own.test_leak)):
            np.testing.assert_allclose(side.sum() + own.bias_share + leak, influence.value, atol=1e-5)


def test_heatmaps_are_those_of_dual_relevance(model, data, report):
    relevance = DualRelevance(DualView(InfluenceModel(model), data[0], kernel="cosine"), DEFAULT_RULE)
    pair = next(iter(relevance.explain(data[1], k=3)))
    found = {}
    for query in range(12):
        for rank in range(3):
            found[query, int(pair.top.training_indices[query, rank])] = (
                np.asarray(pair.train_relevance[query, rank]).sum(axis=-1),
                np.asarray(pair.test_relevance[query, rank]).sum(axis=-1),
            )
    both = found.keys() & report.relevance.keys()
    assert both
    for key in both:
        np.testing.assert_allclose(report.relevance[key].train, found[key][0], atol=1e-6)
        np.testing.assert_allclose(report.relevance[key].test, found[key][1], atol=1e-6)


def test_the_page_has_two_heatmaps_a_pair_and_one_of_the_sum(report):
    page = render_page(report)
    num_predictions = len(report.finding("wrong-predictions").predictions)
    assert page.count('alt="relevance in train') == len(report.relevance)
    assert page.count('alt="relevance in test') == len(report.relevance) + num_predictions
    assert f"rule {DEFAULT_RULE}" in page


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        (0.4, "up to 60% of it in training, 100% in test"),
        (-0.4, "up to 140% of it"),
        (1.5, "up to \N{MINUS SIGN}50% of it"),
    ],
)
def test_the_page_says_what_the_colours_add_up_to_where_it_is_far_from_the_influence(report, leak, told):
    finding = report.finding("wrong-predictions")
    item = finding.predictions[0]
    pair = item.proponents[0]
    shares = PairShares(bias_share=0.0, train_leak=leak * pair.value, test_leak=0.0)
    changed = dataclasses.replace(
        item, proponents=(dataclasses.replace(pair, relevance=shares),), opponents=()
    )
    findings = [dataclasses.replace(finding, predictions=(changed,))]
    page = render_page(dataclasses.replace(report, findings=findings))
    assert page.count("colours add up to") == 1 + page.count("said what the colours add up to")
    assert told in page


def test_the_page_says_where_a_heatmap_is_worse_than_gradients_times_inputs(report):
    finding = report.finding("wrong-predictions")
    item = finding.predictions[0]
    shares = PairShares(0.0, 0.0, 0.0, 40.0, 2.0, 12.0, None)
    changed = dataclasses.replace(
        item, proponents=(dataclasses.replace(item.proponents[0], relevance=shares),), opponents=()
    )
    page = render_page(
        dataclasses.replace(report, findings=[dataclasses.replace(finding, predictions=(changed,))])
    )
    assert "colours cancel: 40 times the influence, worse than gradients times inputs 12" in page


def test_the_numbers_are_in_the_json_and_the_pixels_are_not(report, tmp_path):
    report.to_html(tmp_path / "audit")
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())
    finding = next(item for item in written["findings"] if item["name"] == "wrong-predictions")
    influence = finding["predictions"][0]["proponents"][0]
    assert {"bias_share", "train_leak", "test_leak", "train_cancellation", "test_cancellation"} <= set(
        influence["relevance"]
    )
    assert influence["relevance"]["test_cancellation"] > 0
    assert written["overview"]["relevance_rule"] == DEFAULT_RULE
    assert "png" not in (tmp_path / "audit" / "audit.json").read_text()


def test_relevance_can_be_switched_off(model, data):
    report = audit(model, *data, k=3, relevance=None, progress=False)
    page = render_page(report)
    assert not report.relevance and report.overview.relevance_missing is None
    assert "heatmaps" not in page.split("</style>")[1]


def test_an_unknown_rule_is_refused_before_any_work(model, data):
    with pytest.raises(ValueError, match="`relevance` must be one of .*epsilon-plus"):
        audit(model, *data, relevance="rainbow", progress=False)


def test_the_default_rule_is_that_of_dual_relevance():
    assert DualRelevance.__init__.__defaults__ == (DEFAULT_RULE,)


def test_unknown_colours_are_refused(report, tmp_path):
    with pytest.raises(ValueError, match="`colours` must be one of"):
        report.to_html(tmp_path / "audit", colours="rainbow")


def test_colours_are_those_that_were_asked_for(report):
    pages = {colours: render_page(report, colours) for colours in COLOURS}
    assert "#d9363e" in pages["red-blue"] and ">Red</span>" in pages["red-blue"]
    assert "#7b5cc4" in pages["orange-purple"] and ">purple</span>" in pages["orange-purple"]
    assert "#d9730d" in pages["orange-blue"] and ">Orange</span>" in pages["orange-blue"]
    assert "#d9363e" not in pages["orange-purple"] + pages["orange-blue"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(NUM_CLASSES)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


class Strange(layers.Layer):
    def call(self, inputs):
        return tf.sin(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), np.float32))
    return model


def with_a_layer_without_a_rule():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), Strange(name="strange"), layers.Flatten(), layers.Dense(NUM_CLASSES)]
    )


@pytest.mark.parametrize(
    ("make", "calculator", "reason"),
    [
        (subclassed, "dualview", r"subclassed model.*from_parts"),
        (with_a_layer_without_a_rule, "dualview", r"no rule for layer .strange.*Register one"),
        (make_model, "first-order", "sum over the penultimate features"),
    ],
    ids=["subclassed", "layer without a rule", "no sum over features"],
)
def test_where_relevance_cannot_be_shown_the_page_says_why(make, calculator, reason, data):
    keras.utils.set_random_seed(0)
    report = audit(make(), *data, k=2, method=calculator, progress=False)
    page = render_page(report)
    assert not report.relevance
    assert re.search(reason, report.overview.relevance_missing)
    assert "No heatmaps of what carries the influence" in page
    assert report.overview.relevance_rule is None


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("age", TypeError, "`input_names` must be a list of strings"),
        ([1, 2], TypeError, "`input_names` must be a list of strings.*=1"),
        (["a", "b"], ValueError, "`input_names` are names of the columns of a table, or words of tokens"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_any_work(model, data, names, error, message):
    with pytest.raises(error, match=message):
        audit(model, *data, input_names=names, progress=False)
