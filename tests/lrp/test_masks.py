"""Padding of texts: a mask receives nothing, padded tokens receive nothing, the others what a mean gives them."""

import keras
import numpy as np
import pytest
from keras import layers

from deel_dualview.lrp import LRP

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
