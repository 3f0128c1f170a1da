"""Inputs and labels in every form that `model.predict` takes: the same results as in the model's own form."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import LRP, DualRelevance, DualView, InfluenceModel, PerExampleGradients
from deel_dualview.linalg import blocks

NUM = 7
LABELS = np.arange(NUM) % 3


@pytest.fixture(autouse=True)
def no_warning_about_structure():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The structure of `inputs`")
        yield


@pytest.fixture
def z(rng):
    return rng.normal(size=(NUM, 3)).astype("float32")


@pytest.fixture
def a(rng):
    return rng.normal(size=(NUM, 1)).astype("float32")


def of_two(structure):
    inputs = {"z": keras.Input((3,), name="z"), "a": keras.Input((1,), name="a")}
    joined = layers.Concatenate()([inputs["z"], inputs["a"]])
    hidden = layers.Dense(4, activation="relu", name="hidden")(joined)
    return keras.Model(structure(inputs), layers.Dense(3)(hidden))


STRUCTURES = {
    "list": lambda inputs: [inputs["z"], inputs["a"]],
    "tuple": lambda inputs: (inputs["z"], inputs["a"]),
    "sorted dict": lambda inputs: {"a": inputs["a"], "z": inputs["z"]},
    "unsorted dict": lambda inputs: {"z": inputs["z"], "a": inputs["a"]},
    "nested": lambda inputs: {"a": inputs["a"], "rest": [inputs["z"]]},
}
FORMS = [
    ("list", lambda z, a: {"z": z, "a": a}),
    ("list", lambda z, a: {"a": a, "id": np.array(["row"] * NUM), "z": z}),
    ("list", lambda z, a: (z, a[:, 0])),
    ("tuple", lambda z, a: {"a": a[:, 0], "z": z[:, :, np.newaxis]}),
    ("sorted dict", lambda z, a: (a, z)),
    ("sorted dict", lambda z, a: {"z": z, "a": a[:, 0], "unused": a > 0}),
    ("unsorted dict", lambda z, a: {"a": a, "z": z.astype("float64")}),
    ("nested", lambda z, a: {"rest": (z,), "a": a[:, 0]}),
]


def dataset(inputs, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)


def own_logits(model, z, a):
    weights = [np.float64(weight) for weight in model.get_weights()]
    hidden = np.maximum(np.concatenate([z, a], axis=1) @ weights[0] + weights[1], 0)
    return hidden @ weights[2] + weights[3]


@pytest.mark.parametrize(("structure", "form"), FORMS)
def test_a_form_of_inputs_gives_the_logits_of_a_computation_by_hand(structure, form, z, a):
    model = of_two(STRUCTURES[structure])
    found = InfluenceModel(model).logits(form(z, a))
    np.testing.assert_allclose(found, own_logits(model, z, a), atol=1e-5)


@pytest.mark.parametrize("route", ["auto", "vectorized-map"])
def test_gradients_of_a_dict_with_strings_that_are_not_read_are_those_of_the_models_own_form(route, z, a):
    model = InfluenceModel(of_two(STRUCTURES["list"]))
    rich = {"a": a[:, 0], "id": np.array(["row"] * NUM), "z": z}
    found, expected = (
        blocks.to_dense(PerExampleGradients(model, "all", route=route)(inputs, LABELS))
        for inputs in (rich, (z, a))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("structure", "form"), FORMS)
def test_relevance_has_the_form_of_the_inputs_and_the_values_of_the_models_own(structure, form, z, a):
    model = of_two(STRUCTURES[structure])
    given = tf.nest.map_structure(tf.constant, form(z, a))
    start = tf.one_hot(LABELS, 3)
    twin = of_two(STRUCTURES["list"])
    twin.set_weights(model.get_weights())
    expected = {"z": LRP(twin, "epsilon")([z, a], start)[0], "a": LRP(twin, "epsilon")([z, a], start)[1]}
    found = LRP(model, "epsilon")(given, start)
    tf.nest.assert_same_structure(found, given)
    sums = sum(np.sum(part, axis=tuple(range(1, len(part.shape)))) for part in tf.nest.flatten(found))
    np.testing.assert_allclose(sums, sum(np.sum(part, axis=1) for part in expected.values()), atol=1e-5)
    assert [part.shape for part in tf.nest.flatten(found)] == [part.shape for part in tf.nest.flatten(given)]


@pytest.mark.parametrize("rule", ["epsilon-gamma", "occlusion"])
def test_heatmaps_of_images_in_a_dict_with_other_features_are_those_of_the_images(rule, rng):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            layers.Conv2D(2, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    images = rng.random((NUM, 6, 6, 1)).astype("float32")
    plain = dataset(images)
    rich = dataset({"image": images[..., 0], "name": np.array(["a"] * NUM)})
    expected = next(iter(DualRelevance(DualView(InfluenceModel(model), plain), rule).explain(plain, k=2)))
    found = next(iter(DualRelevance(DualView(InfluenceModel(model), rich), rule).explain(rich, k=2)))
    np.testing.assert_allclose(
        found.test_relevance["image"], expected.test_relevance[..., 0], atol=1e-5, rtol=1e-4
    )
    assert not np.any(found.train_relevance["name"])


def test_strings_without_an_axis_of_one_are_taken_for_texts():
    text = keras.Input((1,), dtype="string")
    tokens = layers.TextVectorization(output_sequence_length=4, vocabulary=["a", "b", "c"])(text)
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(tokens))
    model = keras.Model(text, layers.Dense(3)(pooled))
    texts = np.array(["a b", "b c", "c a"])
    DualView(InfluenceModel(model), dataset(texts[LABELS]))
    expected = model.predict(tf.data.Dataset.from_tensor_slices(texts).batch(3), verbose=0)
    np.testing.assert_allclose(InfluenceModel(model).logits(tf.constant(texts)), expected, atol=1e-6)


def test_numbers_are_refused_where_a_model_takes_texts():
    model = keras.Sequential([keras.Input((1,), dtype="string"), layers.Hashing(3, output_mode="one_hot")])
    model.add(layers.Dense(2))
    with pytest.raises(ValueError, match="takes texts, but `train_set` yields numbers.*as_string"):
        DualView(model, dataset(np.arange(NUM)))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64", "uint8", "float16"])
def test_inputs_of_a_type_that_keras_casts_give_its_logits(dtype, z, a):
    model = of_two(STRUCTURES["list"])
    given = {"z": (10 * np.abs(z)).astype(dtype), "a": np.abs(a).astype(dtype)}
    expected = own_logits(model, given["z"].astype("float64"), given["a"].astype("float64"))
    np.testing.assert_allclose(InfluenceModel(model).logits(given), expected, rtol=1e-4, atol=1e-4)


def test_parts_take_the_inputs_of_their_extractor_in_any_form(z, a):
    whole = of_two(STRUCTURES["list"])
    extractor = keras.Model(whole.inputs, whole.get_layer("hidden").output)
    model = InfluenceModel.from_parts(extractor, whole.layers[-1])
    given = dataset({"a": a[:, 0], "z": z, "row": np.arange(NUM)})
    DualView(model, given)
    np.testing.assert_allclose(model.logits({"a": a[:, 0], "z": z}), own_logits(whole, z, a), atol=1e-5)


@pytest.mark.parametrize(
    ("structure", "form", "message"),
    [
        ("list", lambda z, a: {"z": z}, "z of shape.*a of shape.*`train_set` lacks a"),
        ("sorted dict", lambda z, a: {"z": z, "A": a}, "lacks a"),
        ("list", lambda z, a: z, r"yields 1 input\(s\)"),
        ("list", lambda z, a: (a, z), r"other shapes for z, a"),
        ("tuple", lambda z, a: {"z": z[:, :2], "a": a}, r"other shapes for z: .*\(2,\)"),
        ("unsorted dict", lambda z, a: (z, a), "no dict with these names"),
        ("list", lambda z, a: (z.astype(str), a), "takes numbers, but `train_set` yields texts"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(structure, form, message, z, a):
    with pytest.raises(ValueError, match=message):
        DualView(InfluenceModel(of_two(STRUCTURES[structure])), dataset(form(z, a)))


@pytest.mark.parametrize("labels", [LABELS.astype("float32"), LABELS[:, np.newaxis].astype("float64")])
def test_whole_numbers_are_classes(labels):
    model = InfluenceModel(keras.Sequential([keras.Input((2,)), layers.Dense(3)]))
    np.testing.assert_array_equal(model.to_classes(labels), LABELS)
