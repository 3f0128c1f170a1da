"""Pairs of texts and of rows with categories: words and columns with names, adding up, drawn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, DualView, FeatureSimilarity, InfluenceModel, plots

WORDS = ["red", "green", "blue", "dark", "light"]


def pair_of(model, inputs):
    train = tf.data.Dataset.from_tensor_slices((inputs, np.arange(20) % 3)).batch(7)
    calculator = DualView(InfluenceModel(model), train, K=0.1)
    # Of two queries at a time: their texts are of other lengths.
    return next(iter(DualRelevance(calculator, "epsilon", batch_size=4).explain(train.take(1), k=2)))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    found = [" ".join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(20)]
    return np.array(["Unknown, unseen red!", *found[1:]])


@pytest.fixture(scope="module")
def pair(texts):
    keras.utils.set_random_seed(0)
    vectorize = layers.TextVectorization(vocabulary=WORDS)
    model = keras.Sequential(
        [keras.Input((), dtype="string"), vectorize, layers.Embedding(7, 4, mask_zero=True)]
        + [layers.GlobalAveragePooling1D(), layers.Dense(3, use_bias=False)]
    )
    return pair_of(model, texts)


@pytest.fixture(scope="module")
def row():
    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    code = layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot")(job)
    keras.utils.set_random_seed(0)
    x = layers.Dense(4, activation="relu", use_bias=False)(layers.Concatenate()([age, code]))
    model = keras.Model({"age": age, "job": job}, layers.Dense(3, use_bias=False)(x))
    ages = np.random.default_rng(0).normal(size=20).astype(np.float32)
    return pair_of(model, {"age": ages, "job": np.array(["clerk", "nurse", "driver", "none"] * 5)})


def test_words_have_relevance_that_adds_up_on_both_sides(pair):
    assert pair.train_relevance.shape == pair.train_words.shape
    assert pair.test_relevance.shape == (7, 2, pair.test_words.shape[1])
    for relevance in (pair.train_relevance, pair.test_relevance):
        np.testing.assert_allclose(np.sum(relevance, axis=2), pair.top.influence_values, rtol=1e-3, atol=1e-5)


def test_words_are_those_of_the_examples(pair, texts):
    assert b" ".join(np.asarray(pair.test_words)[0]).split() == [b"unknown", b"unseen", b"red"]
    for row, index in zip(np.asarray(pair.train_words)[1], pair.top.training_indices[1], strict=True):
        if index:
            assert b" ".join(row).decode().split() == texts[index].split()


def test_words_are_drawn_without_a_vocabulary(pair):
    written = [text.get_text() for text in plots.token_relevance(pair, 0).axes[0].texts]
    assert {"unknown", "unseen", "red"} <= set(written)


def test_columns_that_are_inputs_are_drawn_with_names_and_categories(row):
    figure = plots.column_relevance(row, 1)
    (first, *_) = (axes for axes in figure.axes if axes.patches)
    labels = dict(label.get_text().split(" = ") for label in first.get_yticklabels())
    assert labels["job"] == "nurse" and set(labels) == {"age", "job"}
    widths = sorted(bar.get_width() for bar in first.patches)
    parts = [
        float(np.ravel(side[name][1, 0])[0])
        for side in (row.train_relevance, row.test_relevance)
        for name in side
    ]
    np.testing.assert_allclose(widths, sorted(parts), rtol=1e-5)


def test_columns_add_up_to_the_influence(row):
    for side in (row.train_relevance, row.test_relevance):
        total = sum(np.asarray(part) for part in side.values())
        np.testing.assert_allclose(total, row.top.influence_values, rtol=1e-3, atol=1e-5)


def test_a_rule_without_layers_is_refused_for_what_is_looked_up():
    pytest.importorskip("tf_explain")
    inputs = keras.Input((3,))
    codes = layers.Discretization(bin_boundaries=[0.0], output_mode="multi_hot")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(codes))
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((rows, np.arange(20) % 3)).batch(10)
    with pytest.raises(ValueError, match="layer-wise relevance propagation"):
        DualRelevance(FeatureSimilarity(InfluenceModel(model), train), "gradients-inputs")
