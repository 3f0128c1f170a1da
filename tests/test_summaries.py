"""What a terminal and a notebook show of calculators, inverses, stores and results: a few lines, all escaped."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import deel_dualview as dv
from deel_dualview import TopK, metrics

MARKUP = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def train():
    inputs = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((inputs, np.arange(30) % 3)).batch(10)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3)], name="small")


@pytest.fixture(scope="module")
def dualview(model, train):
    return dv.DualView(model, train)


@pytest.fixture(scope="module")
def objects(dualview, model, train, tmp_path_factory):
    """One of each kind."""
    inverse = dv.ExactIHVP(model, train)
    fidelity = metrics.IdenticalClass()
    return {
        "calculator": dualview,
        "calculator with an inverse": dv.FirstOrderInfluenceCalculator(model, train, inverse),
        "boundary calculator": dv.WeightsBoundaryCalculator(model, train),
        "inverse": inverse,
        "solution of an inverse": inverse.solve(tf.ones((2, inverse.size))),
        "surrogate": dualview.surrogate,
        "store": dv.DiskStore(tmp_path_factory.mktemp("store")),
        "metric": fidelity,
        "top k": next(iter(dualview.top_k(train, k=3))),
    }


KINDS = (
    "calculator",
    "calculator with an inverse",
    "boundary calculator",
    "inverse",
    "solution of an inverse",
    "surrogate",
    "store",
    "metric",
    "top k",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repr_is_a_few_short_lines(kind, objects):
    text = repr(objects[kind])
    assert type(objects[kind]).__name__ in text
    lines = text.splitlines()
    assert len(lines) <= 16 and max(map(len, lines)) <= 160
    assert not re.search(r"0x[0-9a-f]{6}|tf\.Tensor|array\(", text)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "solution of an inverse"])
def test_a_notebook_shows_a_table_that_loads_nothing(kind, objects):
    page = objects[kind]._repr_html_()
    assert page.startswith("<table>") and page.endswith("</table>")
    assert "http" not in page and "<script" not in page


def test_a_calculator_shows_its_settings(dualview):
    text = repr(dualview)
    for part in ("kernel: tempered", "target: prediction", "'small'", "training examples: 30"):
        assert part in text


def test_a_repr_computes_nothing(model, train):
    """Also of a calculator whose constructor has failed."""
    assert "GradDot" in repr(object.__new__(dv.GradDot))


def test_top_k_names_training_examples_with_their_values(dualview, train):
    top = next(iter(dualview.top_k(train, k=2)))
    first = repr(top).splitlines()[1]
    assert f"{top.training_indices.numpy()[0, 0]}: {top.influence_values.numpy()[0, 0]:.4g}" in first


@pytest.mark.parametrize(
    ("values", "is_said"),
    [([0.0595, 0.0594], True), ([-0.0595, -0.0595], True), ([0.06, 0.05], False), ([0.0, 0.0], False)],
)
def test_equal_influence_is_said_in_words(values, is_said):
    top = made_top(np.zeros((1, 3), np.float32), np.zeros(1, np.int64))
    top = top._replace(influence_values=np.array([values], np.float32))
    assert ("(equally strong)" in repr(top)) == ("equally strong" in top._repr_html_()) == is_said


def test_the_signature_of_top_k_has_a_repr(dualview, train):
    assert "TopK" in repr(dualview.top_k(train, k=2).element_spec)
    assert "TopK" in repr(dualview.top_k(train, k=2))


def made_top(inputs, labels=None, ids=None, k=2):
    """A result with given contents: evaluated examples and training examples are the same."""
    indices = np.zeros((len(inputs), k), np.int64)
    element = tuple(part for part in (inputs, labels, ids) if part is not None)
    return TopK(
        element, np.ones(indices.shape, np.float32), tuple(part[indices] for part in element), indices
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (8, 8)])
def test_images_are_shown_as_inline_pictures(shape):
    images = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    page = made_top(images, np.array([0, 1]))._repr_html_()
    assert page.count("<img ") == 2 * 3 == page.count("src='data:image/png;base64,")
    assert "label 0" in page and "training 0" in page and "influence 1" in page


def test_text_is_shown_escaped():
    texts = np.array([MARKUP.encode(), b"a word"])
    page = made_top(texts, np.array([0, 1]), np.array([MARKUP.encode(), b"id"]))._repr_html_()
    assert MARKUP not in page and page.count("&lt;script&gt;") == 2 * (1 + 4)


def test_rows_of_a_table_are_shown_as_their_first_numbers():
    page = made_top(np.arange(20, dtype=np.float32).reshape(2, 10), np.eye(3)[[2, 0]])._repr_html_()
    assert "0, 1, 2, 3, 4, 5, … (10 numbers)" in page
    assert "label 2" in page


def test_only_the_first_of_many_examples_are_shown():
    page = made_top(np.zeros((50, 8, 8, 1), np.float32), np.zeros(50, int), k=40)._repr_html_()
    assert page.count("<img ") <= 50
    assert "50 evaluated examples, 40 training examples of each" in page
