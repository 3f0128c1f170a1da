"""Texts, tables and signals in a report, and inputs whose relevance it cannot show."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from pages import Page

from deel_dualview import DualRelevance, FeatureSimilarity, InfluenceModel, audit
from deel_dualview.models.keras_graph import ending_at_layer, walk
from deel_dualview.report.heatmaps import MAX_TOKENS, heat_to_address, render_heat
from deel_dualview.report.html import render_page
from deel_dualview.report.maps import LARGEST_MAP_SIDE, reduce_map
from deel_dualview.report.rendering import ExampleRenderer

NUM_CLASSES, VOCABULARY = 3, ["", "[UNK]", *(f"word{number}" for number in range(2, 40))]


def as_dataset(inputs):
    return tf.data.Dataset.from_tensor_slices((inputs, np.arange(len(inputs)) % NUM_CLASSES)).batch(16)


def classifier(shape, *stack, dtype=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            *stack,
            layers.Dense(6, activation="relu"),
            layers.Dense(NUM_CLASSES),
        ]
    )


def report_of(model, inputs, **settings):
    """Audit by gradient products, which need no surrogate."""
    train, test = as_dataset(inputs[:30]), as_dataset(inputs[30:])
    return audit(model, train, test, k=2, method="graddot", progress=False, **settings)


@pytest.fixture(scope="module")
def texts():
    tokens = np.random.default_rng(0).integers(2, 40, size=(40, 12))
    tokens[:, 9:] = 0
    return tokens


@pytest.fixture(scope="module")
def text_report(texts):
    keras.utils.set_random_seed(0)  # layers draw their seeds when they are made, before `classifier` runs
    model = classifier(
        (12,), layers.Embedding(40, 4), layers.Conv1D(5, 3), layers.GlobalMaxPooling1D(), dtype="int64"
    )
    return report_of(model, texts, input_names=VOCABULARY)


@pytest.fixture(scope="module")
def table_report():
    rows = np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32)
    return report_of(classifier((11,)), rows, input_names=[f"name {index}" for index in range(11)])


def heats_of(report, *, item=None, **settings):
    item = item or report.finding("wrong-predictions").predictions[0]
    given = {"colours": "red-blue", "names": report.input_names} | settings
    return render_heat(item, report.relevance, **given)


def test_relevance_of_a_text_is_one_number_a_token(text_report):
    assert {maps.kind for maps in text_report.relevance.values()} == {"tokens"}
    assert {maps.train.shape for maps in text_report.relevance.values()} == {(12,)}


def test_tokens_are_words_and_padding_is_left_out(text_report):
    page = render_page(text_report)
    words = re.sub(r"<[^>]*>", " ", page.split('class="tokens"')[1].split("</p>")[0])
    assert re.findall(r"word\d+", words)
    assert not re.search(r"\b0\b", words.split(">", 1)[1])


def test_the_most_relevant_token_has_the_strongest_colour(text_report):
    heats = heats_of(text_report)
    index, view = next(iter(heats.pairs.items()))
    test = text_report.finding("wrong-predictions").predictions[0].example.index
    maps = text_report.relevance[test, index]
    words = np.asarray(text_report.shown["train", index])
    best = int(np.where(words != 0, np.abs(maps.train), 0).argmax())  # padding is not written
    # Colours have few levels, so that several words may have the strongest.
    strongest = max(abs(token.level) for token in view.train.tokens)
    levels = [
        token.level for token in view.train.tokens if VOCABULARY[int(words[best])] in token.text.split()
    ]
    assert np.sign(maps.train[best]) * strongest in levels


def test_a_script_in_a_vocabulary_does_not_reach_the_page(texts, text_report):
    names = ["<script>alert(1)</script>"] * 40
    page = render_page(type(text_report)(**{**vars(text_report), "input_names": names}))
    assert "<script>alert" not in page


def test_columns_have_their_names_and_the_strongest_come_first(table_report):
    heats = heats_of(table_report)
    index, view = next(iter(heats.pairs.items()))
    test = table_report.finding("wrong-predictions").predictions[0].example.index
    maps = table_report.relevance[test, index]
    best = int((np.abs(maps.train) + np.abs(maps.test)).argmax())
    first = view.both.columns[0]
    assert first.name == f"name {best}"
    assert np.sign(first.train_percent) == np.sign(maps.train[best])
    assert view.both.num_hidden == 3


def test_columns_that_agree_with_the_explained_row_are_marked_on_the_page(table_report):
    renderer = ExampleRenderer(table_report.shown.values(), table_report.input_names)
    shown = table_report.shown
    expected = sum(
        column.name in renderer.agreeing(shown["train", index], shown["test", item.example.index])
        for item in table_report.finding("wrong-predictions").predictions
        for index, view in heats_of(table_report, item=item).pairs.items()
        for column in view.both.columns
    )
    assert render_page(table_report).count('<tr class="agrees">') == expected > 0


@pytest.mark.parametrize("name", ["text_report", "table_report"])
def test_the_page_of_texts_and_tables_is_whole(name, request):
    page = Page(render_page(request.getfixturevalue(name)))
    assert page.mismatches == [] and page.open == []


def test_a_signal_has_a_strip_of_its_length():
    signals = np.random.default_rng(0).normal(size=(40, 20, 2)).astype(np.float32)
    report = report_of(classifier((20, 2), layers.Conv1D(3, 3), layers.Flatten()), signals)
    assert {maps.kind for maps in report.relevance.values()} == {"signal"}
    assert 'class="heats signal"' in render_page(report)


def test_inputs_that_are_columns_are_shown_as_one_table_with_their_values():
    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    looked_up = layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot")(job)
    keras.utils.set_random_seed(0)
    model = keras.Model(
        {"age": age, "job": job}, layers.Dense(3, use_bias=False)(layers.Concatenate()([age, looked_up]))
    )
    inputs = {
        "age": np.random.default_rng(0).normal(size=40).astype(np.float32),
        "job": np.array(["clerk", "nurse"] * 20),
    }
    whole = tf.data.Dataset.from_tensor_slices((inputs, np.arange(40) % 3)).batch(10)
    report = audit(model, whole, whole, k=2, method="graddot", progress=False)
    view = next(iter(heats_of(report).pairs.values())).both
    assert {column.name for column in view.columns} == {"age", "job"}
    assert {column.train for column in view.columns if column.name == "job"} <= {"clerk", "nurse"}
    assert Page(render_page(report)).mismatches == []


def test_several_inputs_of_another_kind_are_told_on_the_page():
    inputs = [keras.Input((3, 2), name="left"), keras.Input((3, 2), name="right")]
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Concatenate()(inputs))))
    rows = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)
    whole = tf.data.Dataset.from_tensor_slices(((rows, rows), np.arange(40) % 3)).batch(10)
    report = audit(model, whole, whole, k=2, method="graddot", progress=False)
    assert "this one has none" in report.overview.relevance_missing


def test_of_several_inputs_the_image_has_heatmaps_and_the_others_are_told():
    picture, row = keras.Input((6, 6, 1), name="picture"), keras.Input((3,), name="age")
    x = layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(picture))
    x = layers.Dense(6, activation="relu")(layers.Concatenate()([x, row]))
    model = keras.Model({"picture": picture, "age": row}, layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    inputs = {
        "age": rng.normal(size=(40, 3)).astype(np.float32),
        "picture": rng.uniform(size=(40, 6, 6, 1)).astype(np.float32),
    }
    whole = tf.data.Dataset.from_tensor_slices((inputs, np.arange(40) % 3)).batch(10)
    report = audit(model, whole, whole, k=2, method="graddot", progress=False)
    assert report.overview.relevance_missing is None
    assert {maps.kind for maps in report.relevance.values()} == {"image"}
    page = render_page(report)
    assert "of one of several inputs, picture; what the other inputs carry" in page
    for item in report.finding("wrong-predictions").predictions:
        for pair in (*item.proponents, *item.opponents):
            own = report.relevance[item.example.index, pair.example.index]
            shares = pair.relevance
            total = own.train.sum() + shares.bias_share + shares.train_leak
            np.testing.assert_allclose(total, pair.value, rtol=1e-4, atol=1e-6)


def test_a_model_that_vectorises_its_text_has_its_words_on_the_page():
    texts = tf.constant(["red green", "blue red", "green blue"] * 10)
    vectorize = layers.TextVectorization(output_sequence_length=4, name="vectorize")
    vectorize.adapt(texts)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            vectorize,
            layers.Embedding(6, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    train = tf.data.Dataset.from_tensor_slices((texts, np.arange(30) % 3)).batch(10)
    report = audit(model, train, train, k=2, method="graddot", progress=False)
    item = report.finding("wrong-predictions").predictions[0]
    heats = render_heat(item, report.relevance, colours="red-blue", names=())
    written = " ".join(token.text for token in heats.total.tokens).split()
    assert written == report.shown["test", item.example.index].item().decode().split()
    assert Page(render_page(report)).mismatches == []


def test_features_that_are_not_reached_by_one_call_are_refused_with_a_way_out():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, activation="relu", name="shared")
    model = keras.Model(inputs, layers.Dense(3, name="logits")(shared(shared(inputs))))
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"called exactly once.*layer 'shared', called 2 time"):
        DualRelevance(FeatureSimilarity(InfluenceModel(model, "shared"), as_dataset(rows)))
    with pytest.raises(ValueError, match=r"called exactly once.*feature_layer.*from_parts"):
        ending_at_layer(walk(model), shared, takes_input=False)


def test_the_flat_rule_on_a_table_is_told_to_be_useless():
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    report = report_of(classifier((5,)), rows, relevance="epsilon-plus-flat")
    assert "gives every column of a row the same relevance" in report.overview.relevance_missing


def test_large_maps_are_summed_over_squares_and_keep_their_total():
    relevance = np.random.default_rng(0).normal(size=(150, 90, 3)).astype(np.float32)
    reduced = reduce_map(relevance, "image")
    assert reduced.shape == (50, 30) and max(reduced.shape) <= LARGEST_MAP_SIDE
    np.testing.assert_allclose(reduced.sum(), relevance.sum(), rtol=1e-3)
    np.testing.assert_allclose(reduced[0, 0], relevance[:3, :3].sum(), rtol=1e-4)


def test_a_heatmap_is_clear_at_zero_and_full_at_the_scale():
    import base64
    import io

    from PIL import Image

    address = heat_to_address(np.array([[-2.0, -0.5, 0.0, 0.5, 9.0]]), 1.0, "red-blue")
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA")
    pixels = np.asarray(picture)[0]
    assert pixels[2, 3] == 0
    assert pixels[0].tolist() == [0x2F, 0x7F, 0xD6, 255] and pixels[4].tolist() == [0xD9, 0x36, 0x3E, 255]
    assert 100 < pixels[1, 3] < 150 and 100 < pixels[3, 3] < 150


def test_of_a_long_text_the_stretch_is_shown_that_carries_most(text_report):
    from deel_dualview.plots.panels import shown_tokens

    tokens, relevance = np.ones(200, int), np.zeros(200)
    relevance[150:160] = -1
    places, is_cut_before, is_cut_after = shown_tokens(tokens, relevance, MAX_TOKENS)
    assert len(places) == MAX_TOKENS and set(range(150, 160)) <= set(places.tolist())
    assert is_cut_before
