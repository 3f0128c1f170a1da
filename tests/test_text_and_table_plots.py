"""Pair relevance of texts and tables is drawn with every word, column and value in its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import ORDER, DualRelevance, FeatureSimilarity, InfluenceModel, plots

VOCABULARY = ["", "[UNK]", *(f"word{number}" for number in range(2, 30))]


def pairs_of(inputs, *stack, dtype=None):
    """Proponents and opponents of two examples under a network that was not trained."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=dtype), *stack, layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((inputs, np.arange(len(inputs)) % 3)).batch(10)
    relevance = DualRelevance(FeatureSimilarity(InfluenceModel(model), train))
    few = tf.data.Dataset.from_tensor_slices((inputs[:2], np.arange(2))).batch(2)
    return [
        next(iter(relevance.explain(few, k=3, order=order))) for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    ]


@pytest.fixture(scope="module")
def texts():
    tokens = np.random.default_rng(0).integers(2, 30, size=(30, 80))
    tokens[:, 70:] = 0
    tokens[0, 5:] = 0
    return pairs_of(tokens, layers.Embedding(30, 4), layers.GlobalAveragePooling1D(), dtype="int64")


@pytest.fixture(scope="module")
def rows():
    return pairs_of(
        np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32), layers.Dense(6, "relu")
    )


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def test_every_token_of_a_short_text_is_drawn_and_no_padding(texts):
    pair = texts[0]
    drawn = words(plots.token_relevance(pair, 0, vocabulary=VOCABULARY))
    own = [VOCABULARY[token] for token in np.asarray(pair.top.samples[0])[0][:5]]
    assert drawn[2:7] == own
    assert "" not in drawn and "0" not in drawn


def test_of_a_long_text_at_most_60_tokens_are_drawn(texts):
    figure = plots.token_relevance(texts[0], 1, vocabulary=VOCABULARY)
    drawn = [word for word in words(figure) if word.startswith("word")]
    # The sum over three pairs, and three pairs of texts.
    assert 60 < len(drawn) <= 7 * 60
    assert any("more tokens" in word for word in words(figure))


def test_numbers_stand_where_the_vocabulary_has_no_word(texts):
    drawn = words(plots.token_relevance(texts[0], 0, vocabulary=VOCABULARY[:3]))
    assert any(word.isdigit() for word in drawn)


def test_no_word_runs_over_the_edge(texts):
    figure = plots.token_relevance(texts[0], 1, vocabulary=[f"{'w' * 40}{n}" for n in range(30)])
    figure.draw_without_rendering()
    right = figure.axes[0].get_window_extent().x1
    assert all(text.get_window_extent().x1 <= right for text in figure.axes[0].texts)


@pytest.mark.parametrize("draw", [plots.token_relevance, plots.column_relevance])
def test_every_pair_is_drawn_with_its_value_and_its_place(draw, texts, rows):
    proponents, opponents = texts if draw is plots.token_relevance else rows
    figure = draw(proponents, 1, opponents=opponents)
    written = " ".join([*words(figure), *(axes.get_title() for axes in figure.axes)])
    for pair in (proponents, opponents):
        for value, index in zip(pair.top.influence_values[1], pair.top.training_indices[1], strict=True):
            if pair is proponents or value < 0:
                assert f"{abs(value):.3g}" in written
                assert f"#{int(index)}" in written


@pytest.mark.parametrize(
    ("draw", "settings", "message"),
    [
        (plots.token_relevance, {"index": 9}, "`index` is out of range"),
        (plots.column_relevance, {"colours": "rainbow"}, "`colours` must be one of"),
        (plots.column_relevance, {"num_columns": 0}, "`num_columns` must be at least 1"),
        (plots.pair_relevance, {}, "drawn for images.*column_relevance"),
        (plots.token_relevance, {}, "of integer inputs"),
    ],
)
def test_what_cannot_be_drawn_is_refused(rows, draw, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(rows[0], **settings)
