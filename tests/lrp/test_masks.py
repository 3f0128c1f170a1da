"""Padding of texts: a mask receives nothing, padded tokens receive nothing, the others what a mean gives them."""

import keras
import numpy as np
import pytest
from keras import layers

from deel_dualview import LRP

# What convolutions and Flatten say of a mask, as a user's model does too.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*destroy the mask information")

TOKENS = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 5], [6, 0, 0, 0, 0]], np.int32)


def model_of(between=()):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    for layer in between:
        x = layer(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def test_of_a_mean_over_tokens_each_receives_its_own_part():
    model = model_of()
    outputs = np.asarray(model(TOKENS), np.float64)
    found = np.asarray(LRP(model, "epsilon")(TOKENS, outputs))
    vectors = np.asarray(model.layers[1](TOKENS), np.float64)
    is_word = TOKENS != 0
    expected = np.where(is_word, vectors.sum(axis=-1) / is_word.sum(axis=1, keepdims=True), 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "between",
    [
        lambda: [layers.Dense(4, use_bias=False, activation="relu")],
        lambda: [layers.Dropout(0.3), layers.LayerNormalization()],
    ],
    ids=["dense", "dropout and normalisation"],
)
def test_padding_receives_nothing_and_nothing_is_lost(between):
    model = model_of(between())
    outputs = np.random.default_rng(0).uniform(0.5, 1, (3, 4)).astype(np.float32)
    found = np.asarray(LRP(model, "epsilon")(TOKENS, outputs))
    assert not found[TOKENS == 0].any()
    taken = np.asarray(model(TOKENS)) != 0
    np.testing.assert_allclose(found.sum(axis=1), (outputs * taken).sum(axis=1), rtol=1e-3)


def test_the_forward_pass_is_that_of_the_model():
    model = model_of([layers.Dense(4, activation="relu")])
    np.testing.assert_allclose(LRP(model).forward(TOKENS), model(TOKENS), atol=1e-6)


def attention(**settings):
    return layers.MultiHeadAttention(2, 3, use_bias=False, **settings)


def embedded():
    inputs = keras.Input((5,), dtype="int32")
    return inputs, layers.Embedding(9, 4, mask_zero=True, embeddings_initializer="normal")(inputs)


def mean_of_attention():
    inputs, x = embedded()
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(attention()(x, x)))


def key_given():
    inputs, x = embedded()
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(attention()(query=x, value=x, key=x)))


def dense_before_attention():
    inputs, x = embedded()
    x = layers.Dense(4, use_bias=False, activation="relu")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(attention(dropout=0.1)(x, x)))


def transformer():
    inputs, x = embedded()
    x = layers.LayerNormalization()(layers.Add()([x, attention()(x, x)]))
    y = layers.Dense(4, use_bias=False)(layers.Dense(8, use_bias=False, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = layers.Add()([x, attention()(x, x, use_causal_mask=True)])
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def nested():
    inside = keras.Input((5, 4))
    encoder = keras.Model(inside, attention()(inside, inside))
    inputs, x = embedded()
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(encoder(x)))


def joined():
    inputs, x = embedded()
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Concatenate()([x, attention()(x, x)])))


def read_twice():
    """Attention takes the mask away from what it reads; the mean beside it has it all the same."""
    inputs, x = embedded()
    means = [layers.GlobalAveragePooling1D()(part) for part in (attention()(x, x), x)]
    return keras.Model(inputs, layers.Concatenate()(means))


def grouped_queries():
    inputs, x = embedded()
    y = layers.GroupQueryAttention(4, 4, 2, use_bias=False)(x, x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(y))


def dot_product():
    inputs, x = embedded()
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Attention()([x, x])))


ATTENTIONS = (
    *(mean_of_attention, key_given, dense_before_attention, transformer, nested, joined, read_twice),
    *(grouped_queries, dot_product),
)


@pytest.fixture(params=ATTENTIONS, ids=lambda make: make.__name__, scope="module")
def attending(request):
    keras.utils.set_random_seed(0)
    model = request.param()
    return LRP(model, "epsilon"), np.asarray(model(TOKENS))


def test_attention_runs_with_the_masks_that_the_model_gives_it(attending):
    lrp, outputs = attending
    np.testing.assert_allclose(lrp.forward(TOKENS), outputs, atol=1e-6)


def test_attention_under_a_mask_loses_nothing(attending, eagerly):
    lrp, outputs = attending
    eagerly(True)
    for step in lrp.by_step(TOKENS, outputs):
        lost = np.abs(np.subtract(step.received, step.passed))
        # Against the size of the outputs, of which stabilisers take a millionth.
        assert lost.max() < 1e-4 * np.abs(outputs).sum(axis=1).max(), step.name


def test_padding_receives_nothing_through_attention(attending):
    lrp, outputs = attending
    found = np.asarray(lrp(TOKENS, outputs))
    assert not found[TOKENS == 0].any()
    assert found.any(axis=1).all()


def padded_queries_that_nothing_hides():
    inputs, x = embedded()
    x = layers.Dense(4, use_bias=False)(x)
    return keras.Model(inputs, layers.Flatten()(attention()(x, x)))


def a_convolution_that_ends_the_mask():
    inputs, x = embedded()
    x = layers.Conv1D(4, 3, padding="same", use_bias=False)(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(attention()(x, x)))


@pytest.mark.parametrize(
    "make",
    [padded_queries_that_nothing_hides, a_convolution_that_ends_the_mask],
    ids=lambda make: make.__name__,
)
def test_where_padding_is_seen_it_has_its_part_and_nothing_is_lost(make):
    model = make()
    outputs = np.asarray(model(TOKENS))
    lrp = LRP(model, "epsilon")
    np.testing.assert_allclose(lrp.forward(TOKENS), outputs, atol=1e-6)
    found = np.asarray(lrp(TOKENS, outputs))
    np.testing.assert_allclose(found.sum(axis=1), outputs.sum(axis=1), atol=1e-4 * np.abs(outputs).sum())
