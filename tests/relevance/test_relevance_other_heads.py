"""Relevance of regressions and of independent labels: adds up on both sides for every target, and is drawn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, DualView, FeatureSimilarity, GradDot, RepresenterPointL2, plots

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(24, 4)).astype(np.float32)
HEADS = {
    "number": (1, None, "mse", RNG.normal(size=24).astype(np.float32)),
    "numbers": (2, None, "mse", RNG.normal(size=(24, 2)).astype(np.float32)),
    "labels": (3, "sigmoid", "binary_crossentropy", RNG.integers(0, 2, (24, 3)).astype(np.float32)),
}
CASES = [
    ("number", DualView, "prediction"),
    ("number", FeatureSimilarity, "label"),
    ("numbers", DualView, 1),
    ("numbers", GradDot, "label"),
    ("labels", DualView, "prediction"),
    ("labels", RepresenterPointL2, "label"),
]


def pair_of(head, make, target):
    num_outputs, activation, loss, labels = HEADS[head]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, "relu", use_bias=False), layers.Dense(num_outputs, activation)]
    )
    model.compile("adam", loss)
    train = tf.data.Dataset.from_tensor_slices((ROWS, labels)).batch(8)
    relevance = DualRelevance(make(model, train, target=target), "epsilon")
    return next(iter(relevance.explain(train.take(1), k=3)))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {case[1].__name__} {case[2]}")
def case(request):
    return request.param, pair_of(*request.param)


def test_relevance_adds_up_to_the_influence_on_both_sides(case):
    pair = case[1]
    for relevance in (pair.train_relevance, pair.test_relevance):
        total = np.sum(relevance, axis=2) + pair.bias_share
        scale = np.abs(pair.top.influence_values).max()
        np.testing.assert_allclose(total, pair.top.influence_values, atol=1e-4 * scale)


def test_the_output_that_is_explained_is_named_and_labels_are_written_as_they_are(case):
    (head, make, target), pair = case
    figure = plots.column_relevance(pair, 0)
    written = [text.get_text() for text in figure.texts] + [axes.get_title() for axes in figure.axes]
    is_joined = target == "label" and not (head == "number" and make is DualView)
    assert ("its labels" if is_joined else f"output {pair.classes[0]}") in written
    label = np.ravel(pair.top.training_samples[1][0, 0])
    held = ", ".join(str(place) for place in np.flatnonzero(label)) or "no label"
    expected = held if head == "labels" else ", ".join(f"{number:.3g}" for number in label)
    assert any(expected in text.split("\n") for text in written)
