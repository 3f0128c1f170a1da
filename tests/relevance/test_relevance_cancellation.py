"""How much of a heatmap cancels is reported, and whether gradients times inputs have less of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, FeatureSimilarity, InfluenceModel, lrp, plots
from deel_dualview.plots.panels import cancellation_note
from deel_dualview.relevance.cancellation import MUCH_CANCELLATION, is_worse

POSITIVE = keras.initializers.RandomUniform(-0.1, 0.4, seed=0)
# Nearly all of what it shows cancels.
CANCELLING = lrp.EPSILON.with_rules({layers.Conv2D: lrp.AlphaBeta(60.0, 59.0)})


class Problem:
    def __init__(self):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.images = rng.uniform(size=(26, 6, 6, 1)).astype(np.float32)
        self.labels = np.arange(20) % 3
        self.network = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(
                    4, 3, activation="relu", kernel_initializer=POSITIVE, bias_initializer="random_normal"
                ),
                layers.Flatten(),
                layers.Dense(5, activation="relu", kernel_initializer=POSITIVE),
                layers.Dense(3),
            ]
        )
        self.train = tf.data.Dataset.from_tensor_slices((self.images[:20], self.labels)).batch(10)
        self.test = tf.data.Dataset.from_tensors(self.images[20:23])
        self.calculator = FeatureSimilarity(InfluenceModel(self.network), self.train, similarity="dot")

    def explain(self, rule):
        return next(iter(DualRelevance(self.calculator, rule).explain(self.test, k=2)))


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module")
def cancelling(problem):
    return problem.explain(CANCELLING)


def test_cancellation_is_what_colours_add_up_to_over_what_they_should(problem):
    pair = problem.explain("epsilon")
    explained = np.asarray(pair.top.influence_values, np.float64) - pair.bias_share
    for relevance, found in (
        (pair.train_relevance, pair.train_cancellation),
        (pair.test_relevance, pair.test_cancellation),
    ):
        expected = np.abs(np.asarray(relevance, np.float64)).sum(axis=(2, 3, 4)) / np.abs(explained)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_leak_cannot_be_large_where_cancellation_is_small(problem):
    for rule in ("epsilon", CANCELLING):
        pair = problem.explain(rule)
        explained = np.abs(np.asarray(pair.top.influence_values) - pair.bias_share)
        assert (np.abs(pair.test_leak) <= (1 + pair.test_cancellation) * explained * (1 + 1e-5)).all()


def test_gradients_times_inputs_are_compared_where_much_cancels_and_only_there(problem, cancelling):
    assert (cancelling.test_cancellation > MUCH_CANCELLATION).any()
    features = problem.calculator.model.features
    for query in range(3):
        for rank in range(2):
            others = features(cancelling.top.training_samples[0][query, rank : rank + 1])
            image = tf.convert_to_tensor(cancelling.top.samples[query : query + 1])
            with tf.GradientTape() as tape:
                tape.watch(image)
                value = tf.reduce_sum(
                    problem.network.layers[2](problem.network.layers[1](problem.network.layers[0](image)))
                    * others
                )
            products = image * tape.gradient(value, image)
            found = cancelling.test_gradient_cancellation[query, rank]
            if cancelling.test_cancellation[query, rank] > MUCH_CANCELLATION:
                expected = np.abs(products).sum() / abs(cancelling.top.influence_values[query, rank])
                np.testing.assert_allclose(found, expected, rtol=1e-4)
            else:
                assert np.isnan(found)
    assert np.isnan(problem.explain("epsilon").test_gradient_cancellation).all()


def test_heatmaps_that_are_worse_than_gradients_are_known(problem, cancelling):
    assert cancelling.is_worse_than_gradients.all()
    assert not problem.explain("epsilon").is_worse_than_gradients.any()


def test_more_than_a_twentieth_above_gradients_is_worse_and_what_is_not_known_is_not():
    assert is_worse([1.04, 1.06, 99.0], [1.0, 1.0, np.nan]).tolist() == [False, True, False]


def test_tokens_have_no_gradient_to_compare_with():
    keras.utils.set_random_seed(0)
    tokens = np.random.default_rng(0).integers(1, 20, (30, 7)).astype(np.int32)
    inputs = keras.Input((7,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(
        layers.Conv1D(4, 3, activation="relu")(layers.Embedding(20, 6)(inputs))
    )
    model = keras.Model(inputs, layers.Dense(3)(x))
    train = tf.data.Dataset.from_tensor_slices((tokens, np.arange(30) % 3)).batch(10)
    calculator = FeatureSimilarity(InfluenceModel(model), train, similarity="dot")
    rule = lrp.EPSILON.with_rules({layers.Conv1D: lrp.AlphaBeta(60.0, 59.0)})
    pair = next(iter(DualRelevance(calculator, rule).explain(train.take(1), k=2)))
    assert (pair.test_cancellation > MUCH_CANCELLATION).any()
    assert np.isnan(pair.test_gradient_cancellation).all() and not pair.is_worse_than_gradients.any()
    written = " ".join(text.get_text() for text in plots.token_relevance(pair, 0).axes[0].texts)
    assert "Colours cancel: up to" in written


def test_a_picture_says_that_it_is_worse_than_gradients_and_one_that_is_not_says_nothing(problem, cancelling):
    def written(pair):
        return " ".join(text.get_text() for text in plots.pair_relevance(pair, 0).texts)

    assert "worse than gradients times inputs" in written(cancelling)
    assert "cancel" not in written(problem.explain("epsilon"))


def test_bars_of_columns_say_it_too():
    keras.utils.set_random_seed(0)
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((rows, np.arange(30) % 3)).batch(10)
    calculator = FeatureSimilarity(InfluenceModel(model), train, similarity="dot")
    rule = lrp.EPSILON.with_rules({layers.Dense: lrp.AlphaBeta(60.0, 59.0)})
    pair = next(iter(DualRelevance(calculator, rule).explain(train.take(1), k=2)))
    assert "worse than gradients times inputs" in " ".join(
        text.get_text() for text in plots.column_relevance(pair, 0).texts
    )


@pytest.mark.parametrize(
    ("own", "of_gradients", "note"),
    [
        ((3.0, 4.9), (None, None), ""),
        ((3.0, 5.1), (None, None), "colours cancel: 5.1 times the influence"),
        ((3.0, 40.0), (None, 12.0), "colours cancel: 40 times the influence, worse than gradients times inputs 12"),
        ((3.0, 40.0), (None, 50.0), "colours cancel: 40 times the influence, with gradients times inputs 50"),
        ((90.0, 40.0), (100.0, 12.0), "colours cancel: 40 times the influence, worse than gradients times inputs 12"),
        ((3.0, 40.0), (None, None), "colours cancel: 40 times the influence"),
        ((float("nan"), 1.0), (None, None), ""),
    ],
)  # fmt: skip
def test_the_note_names_the_worst_heatmap(own, of_gradients, note):
    assert cancellation_note(own, of_gradients) == note
