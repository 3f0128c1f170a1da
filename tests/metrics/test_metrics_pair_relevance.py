"""Metrics of pair relevance against naive twins, the best order of pixels and the reversed one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import ORDER, DualRelevance, DualView, FeatureSimilarity, GradDot, InfluenceModel, metrics

SHAPE = (5, 5, 2)
NUM_PIXELS = 25


class Problem:
    def __init__(self):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.images = rng.uniform(size=(34, *SHAPE)).astype(np.float32)
        self.labels = rng.integers(0, 3, 30)
        inputs, biases = keras.Input(SHAPE), keras.initializers.RandomUniform(0.0, 0.1, seed=1)
        x = layers.Conv2D(6, 3, activation="relu", bias_initializer=biases)(inputs)
        x = layers.Dense(8, activation="relu", bias_initializer=biases)(layers.Flatten()(x))
        self.model = InfluenceModel(keras.Model(inputs, layers.Dense(3)(x)))
        self.train = tf.data.Dataset.from_tensor_slices((self.images[:30], self.labels)).batch(10)
        self.test = tf.data.Dataset.from_tensors(self.images[30:])
        self.calculator = DualView(self.model, self.train, K=0.1)
        self.pair = next(iter(DualRelevance(self.calculator, "epsilon").explain(self.test, k=3)))


@pytest.fixture(scope="module")
def problem():
    return Problem()


def naive_curve(problem, calculator, pair, query, rank, order, cover, num_steps):
    """Influence of one pair, relative to that of the whole image, pixel by pixel."""
    curve = []
    column = np.asarray(pair.top.training_indices)[query, rank]
    target = int(np.asarray(pair.classes)[query])
    calculator.target = target
    for step in range(num_steps + 1):
        image = np.array(pair.top.samples)[query]
        for place in order[: round(step / num_steps * NUM_PIXELS)]:
            image[place // 5, place % 5] = cover
        [values] = calculator.estimate_influence_values_in_batches(
            tf.data.Dataset.from_tensors(image[np.newaxis])
        )
        curve.append(float(values[0, column]))
    calculator.target = "prediction"
    return np.array(curve) / curve[0]


@pytest.mark.parametrize("make", [None, FeatureSimilarity, GradDot], ids=["DualView", "cosine", "GradDot"])
def test_pixel_flipping_is_the_area_under_the_curve_of_the_influence(problem, make):
    calculator = problem.calculator if make is None else make(problem.model, problem.train)
    pair = next(iter(DualRelevance(calculator, "epsilon").explain(problem.test, k=2)))
    metric = metrics.PixelFlipping(calculator, cover=0.3, num_steps=5)
    metric.update_state(pair)
    curves = np.empty((4, 2, 6))
    for query in range(4):
        for rank in range(2):
            flat = np.sum(pair.test_relevance, axis=-1)[query, rank].reshape(-1)
            flat = flat * np.sign(np.asarray(pair.top.influence_values)[query, rank])
            order = sorted(range(NUM_PIXELS), key=lambda place: (-flat[place], place))  # noqa: B023
            curves[query, rank] = naive_curve(problem, calculator, pair, query, rank, order, 0.3, 5)
    areas = (curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2
    np.testing.assert_allclose(metric.scores, areas.mean(axis=1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metric.curve, curves.mean(axis=(0, 1)), rtol=1e-3, atol=1e-4)
    assert metric.result().num_examples == 4


def test_the_order_of_what_pixels_carry_scores_below_the_reversed_one(rng):
    """Where influence is linear in the pixels their own shares are the best order."""
    rows = rng.uniform(size=(14, 6)).astype(np.float32)
    model = InfluenceModel(keras.Sequential([keras.Input((6,)), layers.Dense(3, use_bias=False)]))
    train = tf.data.Dataset.from_tensor_slices((rows[:10], np.arange(10) % 3)).batch(5)
    calculator = FeatureSimilarity(model, train, similarity="dot")
    pair = next(iter(DualRelevance(calculator).explain(tf.data.Dataset.from_tensors(rows[10:]), k=2)))
    areas = {}
    for name, order in {
        "best": pair.test_relevance,
        "reversed": -np.asarray(pair.test_relevance),
        "random": rng.normal(size=(4, 2, 6)),
    }.items():
        metric = metrics.PixelFlipping(calculator, num_steps=6)
        metric.update_state(pair, order)
        areas[name] = metric.result().value
        np.testing.assert_allclose(metric.curve[[0, -1]], [1.0, 0.0], atol=1e-6)
    assert areas["best"] < areas["random"] < areas["reversed"]
    # The two curves are each other's mirror image.
    assert areas["best"] + areas["reversed"] == pytest.approx(1.0, abs=1e-5)


def test_an_opponent_is_followed_towards_zero_too(problem):
    calculator = DualView(problem.model, problem.train, K=0.1, target="prediction")
    relevance = DualRelevance(calculator, "epsilon")
    pair = next(iter(relevance.explain(problem.test, k=2, order=ORDER.ASCENDING)))
    assert np.all(np.asarray(pair.top.influence_values) < 0)
    areas = []
    for order in (pair.test_relevance, -np.asarray(pair.test_relevance)):
        metric = metrics.PixelFlipping(calculator, num_steps=5)
        metric.update_state(pair, order)
        areas.append(metric.result().value)
    assert areas[0] < areas[1]


def test_what_covers_pixels_may_be_a_function(problem):
    metric = metrics.PixelFlipping(problem.calculator, cover=lambda images: images, num_steps=4)
    metric.update_state(problem.pair)
    np.testing.assert_allclose(metric.curve, 1.0, rtol=1e-4)


def test_relevance_and_covers_that_are_not_finite_are_refused(problem):
    nothing = np.full(np.shape(problem.pair.test_relevance), np.nan)
    with pytest.raises(ValueError, match="Relevance must be finite"):
        metrics.PixelFlipping(problem.calculator).update_state(problem.pair, nothing)
    with pytest.raises(ValueError, match="covers a pixel must be finite"):
        metrics.PixelFlipping(problem.calculator, cover=np.nan).update_state(problem.pair)


def test_only_the_first_pixels_are_covered_up_to_the_largest_share(problem):
    whole = metrics.PixelFlipping(problem.calculator, num_steps=5)
    part = metrics.PixelFlipping(problem.calculator, num_steps=2, largest_share=0.4)
    for metric in (whole, part):
        metric.update_state(problem.pair)
    np.testing.assert_allclose(part.curve, whole.curve[:3], rtol=1e-6)


def test_the_conservation_error_is_the_relative_leak_of_both_sides(problem):
    metric = metrics.ConservationError()
    metric.update_state(problem.pair)
    values = np.asarray(problem.pair.top.influence_values)
    leaks = [np.abs(leak) / np.abs(values) for leak in (problem.pair.train_leak, problem.pair.test_leak)]
    np.testing.assert_allclose(metric.scores, np.mean(leaks, axis=(0, 2)), rtol=1e-3, atol=1e-6)
    assert metric.result().value > 1e-4


@pytest.mark.parametrize("side", ["train", "test"])
def test_the_share_in_a_mask_counts_positive_relevance_of_chosen_pairs(problem, side):
    mask = np.zeros((5, 5), bool)
    mask[1:3, 2:] = True
    chosen = np.array([[True, False, True], [False] * 3, [True] * 3, [False, True, False]])
    metric = metrics.ShareInMask(mask, side)
    metric.update_state(problem.pair, chosen)
    relevance = np.sum(getattr(problem.pair, f"{side}_relevance"), axis=-1, dtype=np.float64)
    expected = []
    for query in (0, 2, 3):
        shares = []
        for rank in np.flatnonzero(chosen[query]):
            positive = np.maximum(relevance[query, rank], 0)
            shares.append(
                sum(positive[place] for place in zip(*np.nonzero(mask), strict=True)) / positive.sum()
            )
        expected.append(np.mean(shares))
    np.testing.assert_allclose(metric.scores, expected, rtol=1e-5)


def test_relevance_inside_the_mask_scores_one_and_an_even_map_the_area(problem):
    mask = np.zeros((5, 5), bool)
    mask[:2] = True
    inside = np.broadcast_to(mask[:, :, np.newaxis], (4, 3, *SHAPE)).astype(np.float32)
    for relevance, expected in ((inside, 1.0), (1 - inside, 0.0), (np.ones_like(inside), 0.4)):
        metric = metrics.ShareInMask(mask)
        metric.update_state(problem.pair._replace(test_relevance=relevance))
        assert metric.result().value == pytest.approx(expected)


def test_a_reset_forgets_pairs(problem):
    for metric in (
        metrics.PixelFlipping(problem.calculator, num_steps=2),
        metrics.ConservationError(),
        metrics.ShareInMask(np.eye(5, dtype=bool)),
    ):
        metric.update_state(problem.pair)
        first = metric.result()
        metric.reset_state()
        with pytest.raises(ValueError, match="has seen no example"):
            metric.result()
        metric.update_state(problem.pair)
        assert metric.result() == first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda own: metrics.PixelFlipping(own.calculator, largest_share=0.0),
            "`largest_share` must be above 0",
        ),
        (lambda own: metrics.PixelFlipping(own.calculator, num_steps=0), "`num_steps` must be at least 1"),
        (
            lambda own: metrics.PixelFlipping(own.calculator).update_state(own.pair, np.zeros((4, 3, 2))),
            "`relevance` must have the shape",
        ),
        (lambda own: metrics.ShareInMask(np.zeros(5, bool)), "`mask` must be an image's"),
        (lambda own: metrics.ShareInMask(np.zeros((5, 5), bool), "both"), "`side` must be one of"),
        (
            lambda own: metrics.ShareInMask(np.zeros((4, 4), bool)).update_state(own.pair),
            "The mask must be of the size",
        ),
        (
            lambda own: metrics.ShareInMask(np.eye(5, dtype=bool)).update_state(own.pair, np.ones(3, bool)),
            r"`is_chosen` must say of every pair.*is_chosen=\(3,\), pairs=\(4, 3\)",
        ),
        (
            lambda own: metrics.ShareInMask(np.eye(5, dtype=bool)).update_state(own.pair, np.full((4, 3), 2)),
            "`is_chosen` must be booleans",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(problem, make, message):
    with pytest.raises(ValueError, match=message):
        make(problem)


def test_models_of_several_inputs_are_refused_in_words(problem):
    several = {"a": problem.pair.test_relevance, "b": np.zeros((4, 3, 2))}
    pair = problem.pair._replace(train_relevance=several, test_relevance=several)
    with pytest.raises(ValueError, match="one input tensor.*inputs=2"):
        metrics.PixelFlipping(problem.calculator).update_state(pair)
    with pytest.raises(ValueError, match="one input tensor.*inputs=2"):
        metrics.ShareInMask(np.ones((5, 5), bool)).update_state(pair)
