"""Relevance of pairs adds up to their influence on both sides, and starts from equation 7."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import (
    ORDER,
    DualRelevance,
    DualView,
    FeatureSimilarity,
    GradCos,
    GradDot,
    InfluenceModel,
    RepresenterPointL2,
    RepresenterPointLJE,
    TracIn,
    lrp,
)
from deel_dualview.calculators.contributions import Pairs

SHAPE = (6, 6, 2)
CALCULATORS = {
    "DualView": lambda model, train: DualView(model, train, K=0.1),
    "DualView, linear with bias": lambda model, train: DualView(
        model, train, K=1.0, kernel="linear", bias=True
    ),
    "DualView, standardized": lambda model, train: DualView(model, train, K=1.0, kernel="standardized"),
    "RPS-L2": RepresenterPointL2,
    "similarity, cosine": FeatureSimilarity,
    "similarity, dot": lambda model, train: FeatureSimilarity(model, train, similarity="dot"),
    "GradDot": GradDot,
    "GradDot of logits": lambda model, train: GradDot(model, train, function="logit"),
    "GradCos": GradCos,
    "SIM": lambda model, train: GradCos(model, train, normalize="train", function="logit"),
}


def network(*, use_bias, num_outputs=3):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, activation="relu", use_bias=use_bias)(inputs)
    x = layers.Dense(12, activation="relu", use_bias=use_bias)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(num_outputs, use_bias=use_bias, name="logits")(x))


class Problem:
    """Random images of three classes, and networks that need no training: influence is defined all the same."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 3, 30)
        self.images = rng.uniform(size=(38, *SHAPE)).astype(np.float32)
        self.images[:30, :, :, 0] += 0.5 * self.labels[:, None, None]

    def train(self, batch_size=8):
        return tf.data.Dataset.from_tensor_slices((self.images[:30], self.labels)).batch(batch_size)

    def test(self, batch_size=3):
        return tf.data.Dataset.from_tensor_slices(self.images[30:]).batch(batch_size)


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module", params=CALCULATORS.values(), ids=CALCULATORS)
def calculator(request, problem):
    return request.param(InfluenceModel(network(use_bias=False)), problem.train())


@pytest.fixture(scope="module")
def dualview(problem):
    return DualView(InfluenceModel(network(use_bias=True)), problem.train(), K=0.1)


def sums(relevance):
    return np.asarray(relevance, np.float64).sum(axis=(2, 3, 4))


@pytest.mark.parametrize("order", ORDER)
def test_without_biases_relevance_adds_up_to_the_influence_on_both_sides(calculator, problem, order):
    relevance = DualRelevance(calculator, lrp.EPSILON)
    for pair in relevance.explain(problem.test(), k=4, order=order):
        values = np.asarray(pair.top.influence_values) - np.asarray(pair.bias_share)
        atol = 1e-3 * np.abs(values).max()
        np.testing.assert_allclose(sums(pair.train_relevance), values, atol=atol)
        np.testing.assert_allclose(sums(pair.test_relevance), values, atol=atol)
        np.testing.assert_allclose(pair.train_leak, 0.0, atol=atol)


def test_contributions_of_features_add_up_to_the_influence(calculator, problem):
    check_contributions(calculator, problem)


@pytest.mark.parametrize("make", [GradDot, GradCos, RepresenterPointL2])
def test_contributions_add_up_where_the_last_layer_has_a_bias_other_than_zero(make, problem):
    model = network(use_bias=True)
    model.get_layer("logits").bias.assign([1.0, -2.0, 0.5])
    check_contributions(make(InfluenceModel(model), problem.train()), problem)


def check_contributions(calculator, problem):
    top = next(iter(calculator.top_k(problem.test(), k=5)))
    features, classes = calculator.explained_features(problem_batch(problem))
    indices = np.asarray(top.training_indices).ravel()
    pairs = Pairs(
        features,
        classes,
        calculator.model.features(problem.images[indices]),
        problem.labels[indices],
        indices,
    )
    found = calculator.feature_contributions(pairs)
    total = np.asarray(found.features).sum(axis=1) + np.asarray(found.constant)
    np.testing.assert_allclose(total, np.asarray(top.influence_values).ravel(), rtol=1e-4, atol=1e-5)


def problem_batch(problem):
    from deel_dualview import data

    return data.unpack(next(iter(problem.test())))


def test_relevance_starts_from_equation_7(problem):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, use_bias=False, name="logits")])
    rows = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    labels = np.arange(20) % 3
    train = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(7)
    calculator = DualView(InfluenceModel(model), train, K=1.0, kernel="linear")
    queries = rows[:2] + 0.1
    pair = next(iter(DualRelevance(calculator).explain(tf.data.Dataset.from_tensors(queries), k=3)))
    alpha = calculator.surrogate.coefficients.toarray()
    explained = np.asarray(model(queries)).argmax(axis=1)
    for query in range(2):
        for rank in range(3):
            index = int(pair.top.training_indices[query, rank])
            expected = alpha[index, explained[query]] * rows[index] * queries[query]
            np.testing.assert_allclose(pair.train_relevance[query, rank], expected, atol=1e-6)
            np.testing.assert_allclose(pair.test_relevance[query, rank], expected, atol=1e-6)


def test_what_biases_take_is_told(dualview, problem):
    for pair in DualRelevance(dualview, "epsilon").explain(problem.test(), k=2):
        np.testing.assert_allclose(
            sums(pair.test_relevance) + pair.test_leak + pair.bias_share, pair.top.influence_values, atol=1e-5
        )


def test_neither_batch_size_changes_relevance(dualview, problem):
    small = DualRelevance(dualview, batch_size=2).explain(problem.test(5), k=3)
    large = DualRelevance(dualview).explain(problem.test(8), k=3)
    for name in ("train_relevance", "test_relevance", "bias_share"):
        found = [np.concatenate([np.asarray(getattr(pair, name)) for pair in way]) for way in (small, large)]
        np.testing.assert_allclose(*found, atol=1e-6)


def test_an_element_has_the_shape_that_the_dataset_declares(dualview, problem):
    pairs = DualRelevance(dualview).explain(problem.test(), k=4)
    for spec, tensor in zip(
        tf.nest.flatten(pairs.element_spec), tf.nest.flatten(next(iter(pairs.take(1)))), strict=True
    ):
        assert spec.is_compatible_with(tensor)


def test_pairs_that_are_known_are_explained_without_a_search(dualview, problem):
    top = next(iter(dualview.top_k(problem.test(), k=2)))
    relevance = DualRelevance(dualview)
    pair, other = relevance.of_pairs(top), next(iter(relevance.explain(problem.test(), k=2)))
    np.testing.assert_allclose(pair.train_relevance, other.train_relevance, atol=1e-6)


def test_a_model_built_from_parts_is_walked(problem):
    whole = network(use_bias=True)
    extractor = keras.Model(whole.inputs, whole.get_layer("logits").input)
    models = [InfluenceModel(whole), InfluenceModel.from_parts(extractor, whole.get_layer("logits"))]
    found = [
        next(iter(DualRelevance(FeatureSimilarity(model, problem.train())).explain(problem.test(), k=2)))
        for model in models
    ]
    np.testing.assert_allclose(found[0].train_relevance, found[1].train_relevance, atol=1e-6)


def test_a_model_with_one_output_is_explained(problem):
    model = InfluenceModel(network(use_bias=False, num_outputs=1))
    train = tf.data.Dataset.from_tensor_slices((problem.images[:30], problem.labels % 2)).batch(8)
    for calculator in (GradDot(model, train), RepresenterPointL2(model, train)):
        pair = next(iter(DualRelevance(calculator, "epsilon").explain(problem.test(), k=3)))
        np.testing.assert_allclose(pair.train_leak, 0.0, atol=1e-3 * np.abs(pair.top.influence_values).max())


@pytest.mark.parametrize(
    "make",
    [
        lambda model, train: FeatureSimilarity(model, train, similarity="euclidean"),
        lambda model, train: GradDot(model, train, weights="all"),
        lambda model, train: TracIn([model], train, learning_rates=0.1),
    ],
    ids=["euclidean", "all weights", "TracIn"],
)
def test_an_influence_that_is_no_sum_over_features_is_refused(make, problem):
    calculator = make(InfluenceModel(network(use_bias=True)), problem.train())
    with pytest.raises(ValueError, match="Only an influence that is a sum over the penultimate features"):
        DualRelevance(calculator)


@pytest.mark.parametrize("rule", ["epsilon", "gradients-inputs"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_rps_lje_is_shared_out_on_either_side_but_for_the_part_of_the_weights(problem, use_bias, rule):
    calculator = RepresenterPointLJE(InfluenceModel(network(use_bias=use_bias)), problem.train())
    inputs = problem.images[30:33]
    pair = next(iter(DualRelevance(calculator, rule).explain(problem.test(), k=30)))
    values, scale = pair.top.influence_values.numpy(), np.abs(pair.top.influence_values).max()
    phi = np.asarray(calculator.model.features(inputs), np.float64)
    phi = np.hstack([phi, np.ones((3, 1))]) if use_bias else phi
    shared = calculator.expansion.shared[np.asarray(pair.classes)] / calculator.num_train
    of_weights = (shared * phi).sum(axis=1, keepdims=True)
    # The contributions of features, by hand: the rest of a value is bilinear in the features of both examples.
    pairs = _pairs_of(calculator, inputs, pair.top)
    parts = calculator.feature_contributions(pairs)
    sums = (np.asarray(parts.features).sum(axis=1) + np.asarray(parts.constant)).reshape(3, 30)
    np.testing.assert_allclose(sums, values, atol=1e-4 * scale)
    if not use_bias:
        train_sums = np.asarray(parts.train_features).sum(axis=1).reshape(3, 30)
        np.testing.assert_allclose(train_sums + of_weights, values, atol=1e-4 * scale)
        np.testing.assert_allclose(pair.train_leak, np.broadcast_to(of_weights, (3, 30)), atol=1e-3 * scale)
        np.testing.assert_allclose(pair.test_leak, 0.0, atol=1e-3 * scale)


def _pairs_of(calculator, inputs, top):
    order = np.asarray(top.training_indices).reshape(-1)
    images, labels = (np.asarray(part).reshape(90, *part.shape[2:]) for part in top.training_samples)
    classes = np.asarray(calculator.model.logits(inputs)).argmax(axis=1)
    features = tf.repeat(calculator.model.features(inputs), 30, axis=0)
    return Pairs(features, np.repeat(classes, 30), calculator.model.features(images), labels, order)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


def test_a_subclassed_model_is_refused_with_a_way_out(problem):
    model = Subclassed()
    model(np.zeros((1, 6, 6, 2), np.float32))
    calculator = FeatureSimilarity(InfluenceModel(model), problem.train())
    with pytest.raises(ValueError, match=r"has none\. Rebuild it with keras\.Input.*from_parts"):
        DualRelevance(calculator)
