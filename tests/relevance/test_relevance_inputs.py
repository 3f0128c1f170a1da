"""Relevance of models of several inputs: in their structure, adding up over all, one by one for drawings."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import LRP, DualRelevance, DualView, FeatureSimilarity, InfluenceModel, plots

NAMES = ("picture", "age", "text", "unused")


def arrays():
    rng = np.random.default_rng(0)
    return {
        "picture": rng.uniform(size=(20, 6, 6, 1)).astype(np.float32),
        "age": rng.normal(size=(20, 4)).astype(np.float32),
        "text": rng.integers(1, 9, (20, 5)).astype(np.int32),
        "unused": rng.normal(size=(20, 2)).astype(np.float32),
    }


def network(structure):
    """A network without biases over an image, a row and a text, and an input that it does not read."""
    keras.utils.set_random_seed(0)
    inputs = {
        name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in arrays().items()
    }
    x = layers.Flatten()(layers.Conv2D(3, 3, activation="relu", use_bias=False)(inputs["picture"]))
    y = layers.Dense(5, activation="relu", use_bias=False)(inputs["age"])
    z = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(inputs["text"]))
    x = layers.Dense(8, activation="relu", use_bias=False)(layers.Concatenate()([x, y, z]))
    return keras.Model(structure(inputs), layers.Dense(3, use_bias=False)(x))


def as_list(inputs):
    return [inputs[name] for name in NAMES]


STRUCTURES = {
    "dict": (dict, dict),
    "tuple": (lambda inputs: tuple(as_list(inputs)), lambda parts: tuple(as_list(parts))),
    "nested": (
        lambda inputs: {"both": tuple(as_list(inputs))[:2], "rest": as_list(inputs)[2:]},
        lambda parts: {"both": tuple(as_list(parts))[:2], "rest": tuple(as_list(parts)[2:])},
    ),
}


def dataset_of(inputs, batch_size=7):
    return tf.data.Dataset.from_tensor_slices((inputs, np.arange(20) % 3)).batch(batch_size)


def pair_of(structure, make=DualView):
    of_model, of_data = STRUCTURES[structure]
    train = dataset_of(of_data(arrays()))
    relevance = DualRelevance(make(InfluenceModel(network(of_model)), train), "epsilon")
    return next(iter(relevance.explain(train, k=3)))


@pytest.fixture(scope="module")
def by_name():
    return pair_of("dict")


def sums(relevance):
    return sum(
        np.asarray(part, np.float64).reshape(7, 3, -1).sum(axis=2) for part in tf.nest.flatten(relevance)
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_relevance_has_the_structure_of_the_inputs_and_adds_up_over_all(structure):
    pair = pair_of(structure, FeatureSimilarity)
    expected = STRUCTURES[structure][1](arrays())
    for side in (pair.train_relevance, pair.test_relevance):
        tf.nest.assert_same_structure(side, expected)
        for part, array in zip(tf.nest.flatten(side), tf.nest.flatten(expected), strict=True):
            assert part.shape == (7, 3, *array.shape[1:])
        np.testing.assert_allclose(sums(side), pair.top.influence_values, rtol=1e-3)


def test_an_input_that_the_model_does_not_read_receives_nothing(by_name):
    assert not np.any(by_name.train_relevance["unused"])
    assert all(np.any(by_name.train_relevance[name]) for name in NAMES[:3])


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_a_model_of_a_list_takes_a_dict_by_names():
    """Keys in another order than the list: by order of keys the two rows would be swapped without a word."""
    keras.utils.set_random_seed(0)
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    model = keras.Model(
        [zeta, alpha],
        layers.Dense(3)(layers.Concatenate()([layers.Dense(5, "relu")(zeta), layers.Dense(5)(alpha)])),
    )
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(6, 4)).astype(np.float32) for name in ("alpha", "zeta")}
    lrp, start = LRP(model, "epsilon"), np.ones((6, 3), np.float32)
    ordered = [rows["zeta"], rows["alpha"]]
    np.testing.assert_allclose(lrp.forward(rows), model(ordered), atol=1e-6)
    found = lrp(rows, start)
    for name, expected in zip(("zeta", "alpha"), lrp(ordered, start), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES[:3])
def test_one_input_can_be_taken_and_the_others_are_in_its_leak(by_name, name):
    own = by_name.of_input(name)
    np.testing.assert_array_equal(own.top.samples[0], by_name.top.samples[0][name])
    for relevance, leak in ((own.train_relevance, own.train_leak), (own.test_relevance, own.test_leak)):
        np.testing.assert_allclose(
            sums(relevance) + own.bias_share + leak, own.top.influence_values, rtol=1e-4
        )


def test_every_input_can_be_drawn(by_name):
    plots.pair_relevance(by_name.of_input("picture"), 1).canvas.draw()
    plots.column_relevance(by_name.of_input("age"), 1).canvas.draw()
    plots.token_relevance(by_name.of_input("text"), 1).canvas.draw()


def test_a_drawing_of_several_inputs_is_refused_with_how_to_take_one(by_name):
    with pytest.raises(ValueError, match=r"pair\.of_input\('age'\)"):
        plots.pair_relevance(by_name)


def test_an_input_that_is_not_there_is_refused(by_name):
    with pytest.raises(ValueError, match="`name` must be an input.*'picture'"):
        by_name.of_input("height")
    with pytest.raises(ValueError, match="of a model of several"):
        by_name.of_input("age").of_input(0)
