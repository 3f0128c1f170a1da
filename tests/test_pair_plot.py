"""The picture of pair relevance shows every pair on its side, with its numbers and one scale a row."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import ORDER, DualRelevance, DualView, InfluenceModel, pair_panels, plots


@pytest.fixture(scope="module")
def pairs():
    """Proponents and opponents of two images under a network that was not trained."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(30, 6, 6, 3)).astype(np.float32), np.arange(30) % 3
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(10)
    # Explains labels, so that every image has proponents and opponents.
    relevance = DualRelevance(DualView(InfluenceModel(model), train, K=0.1, target="label"))
    return [
        next(iter(relevance.explain(train.take(1), k=3, order=order)))
        for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    ]


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def test_every_pair_is_shown_with_its_value_and_its_place(pairs):
    proponents, opponents = pairs
    written = " ".join(texts(plots.pair_relevance(proponents, 1, opponents=opponents)))
    for pair in pairs:
        for value, index in zip(pair.top.influence_values[1], pair.top.training_indices[1], strict=True):
            assert f"{abs(value):.3g}" in written
            assert f"#{int(index)}" in written
    assert "Proponents" in written and "Opponents" in written


def test_opponents_are_left_of_the_example_and_proponents_right_of_it(pairs):
    figure = plots.pair_relevance(pairs[0], 0, opponents=pairs[1])
    values = {
        text.get_text()[0]: axes.get_position().x0
        for axes in figure.axes
        for text in axes.texts
        if text.get_text()[0] in "+\N{MINUS SIGN}"
        and "sum" not in str([own.get_text() for own in axes.texts])
    }
    assert values["\N{MINUS SIGN}"] < values["+"]


def test_a_row_has_one_scale(pairs):
    figure = plots.pair_relevance(pairs[0], 0, opponents=pairs[1])
    maps = [image for axes in figure.axes for image in axes.images if image.get_cmap().name == "relevance"]
    tops = sorted({round(image.norm.vmax, 9) for image in maps if image.get_array().shape == (6, 6)})
    # The training row, the test row and the sum in the middle.
    assert len(tops) <= 3


def test_positive_is_red_and_negative_blue_or_orange_and_purple():
    red_blue = pair_panels.colour_map(is_colour_blind_safe=False)
    red, blue = red_blue(0.8), red_blue(0.2)
    assert red[0] > red[2] and blue[2] > blue[0]
    np.testing.assert_allclose(red_blue(0.5)[:3], 1.0, atol=0.02)
    orange, purple = (pair_panels.colour_map(is_colour_blind_safe=True)(place) for place in (0.8, 0.2))
    assert orange[0] > orange[2] and purple[2] > purple[1]


def test_names_of_classes_are_not_read_as_mathematics(pairs):
    figure = plots.pair_relevance(pairs[0], class_names=["$x", "$y$", "z" * 80])
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"index": 10}, "`index` is out of range"), ({"colours": "rainbow"}, "`colours` must be one of")],
)
def test_settings_that_cannot_be_drawn_are_refused(pairs, settings, message):
    with pytest.raises(ValueError, match=message):
        plots.pair_relevance(pairs[0], **settings)


def test_relevance_of_a_table_is_refused(pairs):
    flat = pairs[0]._replace(train_relevance=np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match="drawn for images"):
        plots.pair_relevance(flat)
