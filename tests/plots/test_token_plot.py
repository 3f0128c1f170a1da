"""The picture of a text's pair relevance: its words, its colours, its padding, its numbers."""

import keras
import numpy as np
import pytest
from keras import layers
from pair_cases import both_orders

from deel_dualview import plots
from deel_dualview.plots import tokens as tokens_module
from deel_dualview.plots.tokens import passage

WORDS = ["", "[UNK]", *(f"word{number}" for number in range(2, 20))]


@pytest.fixture(scope="module")
def pairs():
    """Proponents and opponents of two padded texts under a network that was not trained."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 20, (30, 7)).astype(np.int32)
    tokens[::2, 4:] = 0
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 6, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return both_orders(model, tokens)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_word_of_every_pair_is_written_and_no_padding(pairs):
    proponents, opponents = pairs
    written = texts(plots.token_relevance(proponents, 0, opponents=opponents, vocabulary=WORDS))
    own = [WORDS[token] for token in np.asarray(proponents.top.samples[0][0]) if token]
    rows = [pair.top.training_samples[0][0, rank] for pair in pairs for rank in range(2)]
    expected = own * (1 + len(rows)) + [WORDS[token] for row in rows for token in np.asarray(row) if token]
    assert sorted(text for text in written if text in WORDS) == sorted(expected)


def test_values_and_places_stand_beside_the_texts(pairs):
    written = " ".join(texts(plots.token_relevance(pairs[0], 1, opponents=pairs[1])))
    for pair in pairs:
        for value, index in zip(pair.top.influence_values[1], pair.top.training_indices[1], strict=True):
            assert f"{abs(value):.3g}" in written
            assert f"#{int(index)}" in written


@pytest.mark.parametrize("colours", ["red-blue", "orange-blue", "orange-purple"])
def test_the_token_of_most_relevance_has_the_strongest_colour(pairs, colours):
    figure = plots.token_relevance(pairs[0], 0, vocabulary=WORDS, colours=colours)
    boxes = [patch.get_facecolor() for patch in figure.axes[0].patches]
    saturation = [max(colour[:3]) - min(colour[:3]) for colour in boxes]
    assert max(saturation) > 0.4
    assert len(boxes) == len([text for text in texts(figure) if text in WORDS])


def test_of_a_long_text_the_stretch_of_most_relevance_is_kept_and_the_rest_told(monkeypatch):
    tokens, relevance = np.arange(1, 31), np.zeros(30)
    relevance[10:14], relevance[25] = (1.0, -2.0, 1.0, 1.0), 0.5
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 4)
    found = passage(tokens, relevance, [])
    assert found.words == ["11", "12", "13", "14"]
    np.testing.assert_allclose(found.relevance, [1, -2, 1, 1])
    assert found.note == "26 more tokens +0.5"


def test_relevance_that_padding_received_is_told():
    found = passage(np.array([3, 4, 0, 0]), np.array([1.0, 1.0, 0.5, -0.25]), WORDS)
    assert found.words == ["word3", "word4"]
    assert found.note == "padding +0.25"


def test_a_vocabulary_may_be_a_list_or_a_layer(pairs):
    layer = layers.StringLookup(vocabulary=WORDS[2:], mask_token="")
    assert layer.get_vocabulary() == WORDS
    by_list, by_layer = (
        plots.token_relevance(pairs[0], vocabulary=vocabulary) for vocabulary in (WORDS, layer)
    )
    assert texts(by_list) == texts(by_layer)


def test_numbers_stand_where_the_vocabulary_has_no_word(pairs):
    written = texts(plots.token_relevance(pairs[0], 0, vocabulary=WORDS[:3]))
    own = [token for token in np.asarray(pairs[0].top.samples[0][0]) if token > 2]
    assert own and {str(token) for token in own} <= set(written)


def test_no_word_runs_over_the_edge(pairs):
    figure = plots.token_relevance(pairs[0], 1, vocabulary=[f"{'w' * 40}{n}" for n in range(20)])
    figure.draw_without_rendering()
    right = figure.axes[0].get_window_extent().x1
    assert all(text.get_window_extent().x1 <= right for text in figure.axes[0].texts)


def test_words_that_look_like_mathematics_or_have_no_outline_are_drawn(pairs):
    words = ["", "\t", "$x", "$y$", *("w" * 90 for _ in range(16))]
    plots.token_relevance(pairs[0], vocabulary=words).canvas.draw()


def test_what_cannot_be_drawn_is_refused(pairs):
    with pytest.raises(ValueError, match="drawn for texts"):
        plots.token_relevance(pairs[0]._replace(train_relevance=np.zeros((2, 3, 5, 5, 1))))
    with pytest.raises(ValueError, match="`index` is out of range"):
        plots.token_relevance(pairs[0], 10)
    with pytest.raises(ValueError, match="`colours` must be one of"):
        plots.token_relevance(pairs[0], colours="rainbow")
    with pytest.raises(TypeError, match="`vocabulary` must be a list of words"):
        plots.token_relevance(pairs[0], vocabulary=3)
