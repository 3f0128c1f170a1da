"""The picture of a table's pair relevance: bars of the right length, sign and order, with both rows' values."""

import keras
import numpy as np
import pytest
from keras import layers
from pair_cases import both_orders

from deel_dualview import plots

NAMES = ["age", "amount", "months", "$savings", "status"]


@pytest.fixture(scope="module")
def pairs():
    """Proponents and opponents of two rows under a network that was not trained."""
    keras.utils.set_random_seed(0)
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    return both_orders(model, rows)


def panels(figure):
    return [axes for axes in figure.axes if axes.patches]


def test_bars_are_the_relevance_of_both_sides_strongest_column_first(pairs):
    (pair, _) = pairs
    figure = plots.column_relevance(pair, 0, column_names=NAMES)
    first = panels(figure)[0]
    labels = [label.get_text() for label in first.get_yticklabels()]
    sides = np.stack([np.asarray(pair.train_relevance[0]), np.asarray(pair.test_relevance[0])])
    order = np.argsort(-np.abs(sides).sum(axis=(0, 1)), kind="stable")
    assert [label.partition(" = ")[0] for label in labels] == [
        NAMES[place].replace("$", r"\$") for place in order
    ]
    widths = [bar.get_width() for bar in first.patches]
    np.testing.assert_allclose(widths, np.concatenate([sides[0, 0, order], sides[1, 0, order]]), rtol=1e-6)


def test_colours_tell_the_sign(pairs):
    for axes in panels(plots.column_relevance(pairs[0], 1, opponents=pairs[1])):
        for bar in axes.patches:
            red, _, blue, _ = bar.get_facecolor()
            assert (red > blue) == (bar.get_width() >= 0)


def test_opponents_are_left_of_proponents_and_all_have_one_scale(pairs):
    figure = plots.column_relevance(pairs[0], 0, opponents=pairs[1])
    values = [
        float(axes.get_title().split("\n")[0].replace("\N{MINUS SIGN}", "-")) for axes in panels(figure)
    ]
    assert values[0] < 0 < values[-1]
    assert values[: sum(value < 0 for value in values)] == sorted((v for v in values if v < 0), reverse=True)
    assert len({axes.get_xlim() for axes in panels(figure)}) == 1


def test_the_values_of_both_rows_are_written(pairs):
    figure = plots.column_relevance(pairs[0], 1)
    first = panels(figure)[0]
    row = np.asarray(pairs[0].top.samples[0][1])
    for label in first.get_yticklabels():
        name, _, value = label.get_text().partition(" = ")
        assert value == f"{row[int(name.split()[1])]:.3g}"
    trained = sorted(f"{value:.3g}" for value in np.asarray(pairs[0].top.training_samples[0][1, 0]))
    assert sorted(text.get_text() for text in first.texts) == trained


def test_values_near_those_of_the_evaluated_row_are_bold(pairs):
    row = np.asarray(pairs[0].top.samples[0][1])
    trained = np.asarray(pairs[0].top.training_samples[0][1])
    near = np.abs(trained - row) <= 0.05 * np.ptp(np.vstack([row, trained]), axis=0)
    panel = panels(plots.column_relevance(pairs[0], 1))[0]
    bold = {text.get_text() for text in panel.texts if text.get_fontweight() == "bold"}
    assert bold == {f"{value:.3g}" for value in trained[0][near[0]]}


def test_values_and_places_stand_above_the_bars(pairs):
    written = " ".join(
        axes.get_title() for axes in panels(plots.column_relevance(pairs[0], 1, opponents=pairs[1]))
    )
    for pair in pairs:
        for value, index in zip(pair.top.influence_values[1], pair.top.training_indices[1], strict=True):
            assert f"{abs(value):.3g}" in written
            assert f"#{int(index)}" in written


def test_of_many_columns_the_first_are_drawn_and_the_others_counted(pairs):
    figure = plots.column_relevance(pairs[0], num_columns=2)
    assert len(panels(figure)[0].patches) == 4
    assert "and 3 more columns" in [text.get_text() for text in figure.texts]
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": 10}, "`index` is out of range"),
        ({"colours": "rainbow"}, "`colours` must be one of"),
        ({"num_columns": 0}, "num_columns"),
        ({"column_names": NAMES[:4]}, "name each of the 5 columns.*=4"),
        ({"class_names": ["a", "b"]}, "there is a class 2.*=2"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(pairs, settings, message):
    with pytest.raises(ValueError, match=message):
        plots.column_relevance(pairs[0], **settings)


@pytest.mark.parametrize("names", ["abcde", [1, 2, 3, 4, 5], 5], ids=["string", "numbers", "number"])
def test_column_names_that_are_no_strings_are_refused(pairs, names):
    with pytest.raises(TypeError, match="`column_names` must be a list of strings"):
        plots.column_relevance(pairs[0], column_names=names)


def test_another_drawing_is_named_for_relevance_of_columns(pairs):
    with pytest.raises(ValueError, match="drawn for images.*column_relevance"):
        plots.pair_relevance(pairs[0])
    with pytest.raises(ValueError, match="of strings or integers"):
        plots.token_relevance(pairs[0])
