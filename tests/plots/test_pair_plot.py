"""The picture of pair relevance shows every pair on its side, with its numbers and one scale a row."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import ORDER, DualRelevance, DualView, InfluenceModel, plots
from deel_dualview.plots import images, panels
from deel_dualview.plots.images import black_and_white


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


def test_equal_influence_is_said_over_the_side_that_has_it(pairs):
    proponents, opponents = pairs
    assert "support it" in texts(plots.pair_relevance(proponents, 1, opponents=opponents))
    equal = np.full(np.shape(proponents.top.influence_values), 0.0595, np.float32)
    proponents = proponents._replace(top=proponents.top._replace(influence_values=equal))
    assert "support it, equally strong" in texts(plots.pair_relevance(proponents, 1, opponents=opponents))


def test_opponents_of_other_examples_are_refused(pairs):
    other = pairs[1]._replace(classes=np.asarray(pairs[1].classes) + 1)
    swapped = pairs[1]._replace(
        top=pairs[1].top._replace(
            samples=tf.nest.map_structure(lambda part: tf.reverse(part, [0]), pairs[1].top.samples)
        )
    )
    for opponents in (other, swapped):
        with pytest.raises(ValueError, match="of the same evaluated examples"):
            plots.pair_relevance(pairs[0], 0, opponents=opponents)


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
    red_blue = panels.colour_map("red-blue")
    red, blue = red_blue(0.8), red_blue(0.2)
    assert red[0] > red[2] and blue[2] > blue[0]
    np.testing.assert_allclose(red_blue(0.5)[:3], 1.0, atol=0.02)
    orange, purple = (panels.colour_map("orange-purple")(place) for place in (0.8, 0.2))
    assert orange[0] > orange[2] and purple[2] > purple[1]


def test_names_of_classes_are_not_read_as_mathematics(pairs):
    figure = plots.pair_relevance(pairs[0], class_names=["$x", "$y$", "z" * 80])
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": 10}, "`index` is out of range"),
        ({"index": -1}, "`index` is out of range"),
        ({"colours": "rainbow"}, "`colours` must be one of"),
        ({"class_names": ["a", "b"]}, "`class_names` must name every class, and there is a class 2.*=2"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(pairs, settings, message):
    with pytest.raises(ValueError, match=message):
        plots.pair_relevance(pairs[0], **settings)


@pytest.mark.parametrize("draw", [plots.pair_relevance, plots.token_relevance, plots.column_relevance])
def test_what_is_no_pair_relevance_is_refused_with_what_makes_one(pairs, draw):
    with pytest.raises(TypeError, match=r"`pair` must be a PairRelevance: .*of_pairs\(top\)"):
        draw(pairs[0].top)
    with pytest.raises(TypeError, match="`pair` must be a PairRelevance: .*explain"):
        draw(tf.data.Dataset.range(3))


def test_opponents_that_are_no_pair_relevance_are_refused(pairs):
    with pytest.raises(TypeError, match="`opponents` must be a PairRelevance"):
        plots.pair_relevance(pairs[0], opponents=pairs[1].top)


@pytest.mark.parametrize(
    "settings", [{"index": 0.0}, {"index": True}, {"index": "0"}, {"class_names": "abc"}]
)
def test_settings_of_another_type_are_refused(pairs, settings):
    with pytest.raises(TypeError, match="`(index|class_names)` must be"):
        plots.pair_relevance(pairs[0], **settings)


def test_relevance_of_a_table_is_refused(pairs):
    flat = pairs[0]._replace(train_relevance=np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match="drawn for images"):
        plots.pair_relevance(flat)


@pytest.mark.parametrize(
    ("images", "bounds"),
    [
        (np.array([[[10]], [[200]]], np.uint8), (0, 255)),
        (np.array([[[0.2]], [[0.7]]]), (0, 1)),
        (np.array([[[-0.2]], [[0.7]]]), (-1, 1)),
        (np.array([[[0.0]], [[254.0]]]), (0, 255)),
        (np.array([[[-2.0]], [[3.0]]]), (-2, 3)),
        (np.array([[[5.0]], [[5.0]]]), (5, 6)),
        (np.array([[[np.nan]], [[0.5]]]), (0, 1)),
        (np.full((1, 1, 1), np.nan), (0, 1)),
    ],
)
def test_all_images_of_a_picture_share_what_is_black_and_white(images, bounds):
    assert black_and_white([images]) == bounds


@pytest.mark.parametrize("shape", [(1, 4, 8, 8, 1), (1, 4, 4, 24, 3), (1, 4, 20, 6, 4), (1, 4, 6, 6, 2)])
def test_images_of_any_proportion_and_channels_are_drawn_with_bad_numbers_in_them(pairs, shape):
    rng = np.random.default_rng(0)
    images, relevance = rng.uniform(size=shape), rng.normal(size=shape)
    relevance[0, 0, 0, 0, 0] = images[0, 1, 0, 0, 0] = np.nan
    top = pairs[0].top._replace(
        samples=(images[:, 0], np.zeros(1)),
        training_samples=(images, np.zeros((1, 4))),
        influence_values=np.array([[-1e-5, -2e-5, -3e-5, -4e-5]]),
        training_indices=np.arange(4)[np.newaxis],
    )
    unknown = np.full((1, 4), np.nan)
    pair = pairs[0]._replace(
        train_relevance=relevance, test_relevance=relevance, top=top, classes=np.zeros(1, int),
        bias_share=np.zeros((1, 4)), train_gradient_cancellation=unknown, test_gradient_cancellation=unknown,
    )  # fmt: skip
    figure = plots.pair_relevance(pair)
    figure.canvas.draw()
    assert "Proponents" not in texts(figure)
    limits = [own.norm.vmax for axes in figure.axes for own in axes.images if own.norm.vmax]
    assert np.isfinite(limits).all()


def test_labels_below_the_pictures_stay_apart_whatever_their_height(pairs):
    for tall in (4, 40):
        image = np.zeros((tall, 10, 1))
        panel = panels.Panel(image, image[..., 0], image[..., 0], 0.5, "class 1", 3)
        figure = images.draw(
            image,
            "title",
            proponents=[panel],
            opponents=[],
            colours=panels.colour_map("red-blue"),
        )
        figure.canvas.draw()
        value, label = (text.get_window_extent() for text in figure.axes[-3].texts)
        assert value.y0 > label.y1 > 0
