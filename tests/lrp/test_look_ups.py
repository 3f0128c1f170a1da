"""Relevance through look-ups: a token, a word or a column receives all that its code received."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import LRP

TEXTS = np.array(["a a c, zz", "b", "d c b a b d c"])
VOCABULARY = ["a", "b", "c", "d"]
JOBS = np.array([["clerk", "nurse"], ["nurse", "none"], ["clerk", "clerk"]])


@pytest.fixture(autouse=True, scope="module")
def without_tracing():
    """Run step by step, which costs less here than tracing a graph for every case; `DualRelevance` runs the graph."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def linear_model(inputs, x):
    """A last layer of which every code has its own part."""
    keras.utils.set_random_seed(0)
    return keras.Model(inputs, layers.Dense(3, use_bias=False)(keras.ops.cast(x, "float32")))


def text_model(shape=(), **settings):
    inputs = keras.Input(shape, dtype="string")
    layer = layers.TextVectorization(vocabulary=VOCABULARY, **settings)
    if settings.get("output_mode") is None:
        x = layers.Embedding(6, 4, mask_zero=True)(layer(inputs))
        return linear_model(inputs, layers.GlobalAveragePooling1D()(x))
    return linear_model(inputs, layer(inputs))


def explained(model, inputs):
    """Return the relevance of the sum of the outputs, and the outputs."""
    outputs = np.asarray(model(tf.nest.map_structure(tf.constant, inputs)))
    return LRP(model, "epsilon")(inputs, outputs), outputs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"output_sequence_length": 5},
        {"output_mode": "multi_hot"},
        {"output_mode": "count"},
        {"output_mode": "tf_idf", "idf_weights": [0.5, 1.0, 2.0, 3.0]},
        {"ngrams": 2},
        {"shape": (1,)},
    ],
    ids=["tokens", "cut", "multi-hot", "count", "tf-idf", "pairs of words", "column"],
)
def test_every_word_of_a_text_has_a_number_and_nothing_is_lost(settings):
    texts = TEXTS.reshape(-1, *settings.get("shape", ()))
    model = text_model(**settings)
    found, outputs = explained(model, texts)
    words = np.asarray(LRP(model, "epsilon").words(texts))
    assert words.shape == found.shape
    assert not np.asarray(found)[words == b""].any()
    np.testing.assert_allclose(np.sum(found, axis=1), outputs.sum(axis=1), atol=1e-5)


def test_words_are_those_that_the_layer_splits_known_or_not():
    words = LRP(text_model()).words(TEXTS)
    assert [b" ".join(row).strip() for row in np.asarray(words)] == [b"a a c zz", b"b", b"d c b a b d c"]


def test_a_word_of_a_bag_receives_its_occurrences_times_the_weight():
    model = text_model(output_mode="count")
    found, _ = explained(model, TEXTS)
    kernel = dict(zip([b"zz", b"a", b"b", b"c", b"d"], model.layers[-1].get_weights()[0], strict=True))
    # R_w = count_w k_w / z R with R = z, shared by the occurrences of the word.
    expected = [kernel[word].sum() for word in np.asarray(LRP(model).words(TEXTS))[0, :4]]
    np.testing.assert_allclose(np.asarray(found)[0, :4], expected, rtol=1e-4)


COLUMNS = {
    "categories": (
        lambda: layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot"),
        JOBS[:, :1],
    ),
    "categories without an axis": (
        lambda: layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot"),
        JOBS[:, 0],
    ),
    "two columns of categories": (
        lambda: keras.Sequential(
            [layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot"), layers.Flatten()]
        ),
        JOBS,
    ),
    "a set of categories": (
        lambda: layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="multi_hot"),
        JOBS,
    ),
    "numbers of categories": (
        lambda: layers.CategoryEncoding(4, output_mode="one_hot"),
        np.array([[0], [3], [1]], np.int32),
    ),
    "bins": (
        lambda: layers.Discretization(bin_boundaries=[0.0, 1.0], output_mode="one_hot"),
        np.array([[-1.0], [0.5], [2.0]], np.float32),
    ),
    "hashes": (lambda: layers.Hashing(5, output_mode="one_hot"), JOBS[:, :1]),
    "large integers": (
        lambda: layers.IntegerLookup(vocabulary=[2**24, 2**24 + 1], output_mode="one_hot"),
        np.array([[2**24], [2**24 + 1], [7]], np.int64),
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_parts_of_a_column_are_summed_back_to_it(kind):
    make, rows = COLUMNS[kind]
    inputs = keras.Input(rows.shape[1:], dtype="string" if rows.dtype.kind == "U" else rows.dtype.name)
    model = linear_model(inputs, make()(inputs))
    found, outputs = explained(model, rows)
    assert found.shape == rows.shape
    np.testing.assert_allclose(np.asarray(found).reshape(3, -1).sum(axis=1), outputs.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(LRP(model).forward(rows), outputs, atol=1e-6)


def test_each_of_two_columns_receives_the_weight_of_its_own_category():
    inputs = keras.Input((2,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot")
    model = linear_model(inputs, layers.Flatten()(lookup(inputs)))
    found, _ = explained(model, JOBS)
    kernel = model.layers[-1].get_weights()[0].sum(axis=1).reshape(2, 3)
    code = {"none": 0, "clerk": 1, "nurse": 2}
    expected = [[kernel[place, code[job]] for place, job in enumerate(row)] for row in JOBS]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
@pytest.mark.filterwarnings("ignore:(?s).*option is set, this option does not apply to tf.data functions")
def test_a_feature_space_adds_up_over_its_columns_and_crossings():
    space = keras.utils.FeatureSpace(
        features={
            "age": keras.utils.FeatureSpace.float_normalized(),
            "job": keras.utils.FeatureSpace.string_categorical(num_oov_indices=1),
            "income": keras.utils.FeatureSpace.float_discretized(num_bins=3),
            "code": keras.utils.FeatureSpace.integer_hashed(num_bins=4),
            "plain": "float",
        },
        crosses=[keras.utils.FeatureSpace.cross(("job", "code"), crossing_dim=4)],
        output_mode="concat",
    )
    rng = np.random.default_rng(0)
    rows = {
        "age": rng.normal(size=6).astype(np.float32),
        "job": np.array(["clerk", "nurse", "none"] * 2),
        "income": rng.normal(size=6).astype(np.float32),
        "code": np.array([1, 2, 3, 10**9, 5, 6], np.int32),
        "plain": rng.normal(size=6).astype(np.float32),
    }
    space.adapt(tf.data.Dataset.from_tensor_slices(rows).batch(6))
    model = linear_model(space.get_inputs(), space.get_encoded_features())
    outputs = np.asarray(model({name: part[:, None] for name, part in rows.items()}))
    # Two explanations of every row.
    found = LRP(model, "epsilon")(rows, np.repeat(outputs, 2, axis=0))
    assert {name: part.shape for name, part in found.items()} == dict.fromkeys(rows, (12,))
    total = sum(np.asarray(part) for part in found.values())
    np.testing.assert_allclose(total, np.repeat(outputs.sum(axis=1), 2), atol=1e-5)
    kernel = model.layers[-1].get_weights()[0].sum(axis=1)
    np.testing.assert_allclose(found["plain"][::2], rows["plain"] * kernel[-5], rtol=1e-3)


@pytest.mark.parametrize("is_scaled", [False, True], ids=["plain", "scaled"])
def test_the_share_of_a_position_belongs_to_its_token(is_scaled):
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(9, 4)(inputs)
    x = x * 2.0 if is_scaled else x
    x = x + layers.Embedding(3, 4)(keras.ops.arange(3))
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(x)))
    tokens = np.array([[1, 2, 3], [4, 4, 5]])
    found, outputs = explained(model, tokens)
    np.testing.assert_allclose(np.sum(found, axis=1), outputs.sum(axis=1), atol=1e-5)
    summed = keras.Model(inputs, x)(tokens)
    parts = np.asarray(summed)[..., None] * model.layers[-1].get_weights()[0].reshape(3, 4, 2)
    np.testing.assert_allclose(found, parts.sum(axis=(2, 3)), atol=1e-5)
