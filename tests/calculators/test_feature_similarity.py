"""Similarities of features, one pair at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import FeatureSimilarity, InfluenceModel

SIMILARITIES = {
    "dot": lambda first, second: first @ second,
    "cosine": lambda first, second: first @ second / np.linalg.norm(first) / np.linalg.norm(second),
    "euclidean": lambda first, second: 1 / (1 + np.linalg.norm(first - second)),
}


@pytest.fixture(scope="module")
def split(problem):
    return InfluenceModel(problem.model)


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def raw_features_calculator(inputs, labels, similarity):
    """A calculator whose features are the inputs."""
    model = keras.Sequential([keras.Input((inputs.shape[1],)), layers.Activation("linear"), layers.Dense(2)])
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)
    return FeatureSimilarity(InfluenceModel(model), train, similarity=similarity, target=0), train


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_values_have_the_sign_of_equal_labels(similarity, split, problem):
    values = all_values(FeatureSimilarity(split, problem.train(), similarity=similarity), problem.test())
    train, test = (
        split.features(x).numpy().astype(np.float64) for x in (problem.train_inputs, problem.test_inputs)
    )
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    for t in range(15):
        for i in range(60):
            sign = 1 if problem.train_labels[i] == classes[t] else -1
            assert values[t, i] == pytest.approx(
                sign * SIMILARITIES[similarity](train[i], test[t]), rel=1e-4, abs=1e-5
            )


def test_cosines_are_in_their_range(split, problem):
    values = all_values(FeatureSimilarity(split, problem.train()), problem.train())
    assert np.abs(values).max() <= 1 + 1e-6


def test_features_that_are_zero_are_similar_to_nothing():
    inputs = np.array([[0, 0], [1, 2], [3, 1]], np.float32)
    calculator, train = raw_features_calculator(inputs, np.array([0, 1, 0]), "cosine")
    values = all_values(calculator, train)
    assert not values[0].any() and not values[:, 0].any()
    assert np.isfinite(values).all()


def test_the_nearest_example_of_the_class_comes_first():
    inputs = np.array([[0, 0], [1, 0], [5, 0], [0.9, 0]], np.float32)
    calculator, _ = raw_features_calculator(inputs, np.array([0, 0, 0, 1]), "euclidean")
    queries = tf.data.Dataset.from_tensors(np.array([[0.8, 0]], np.float32))
    ((_, indices),) = calculator.top_k_indices(queries, k=4)
    np.testing.assert_array_equal(indices, [[1, 0, 2, 3]])


def test_near_duplicates_of_large_features_are_told_apart():
    """Squared norms of 1e8 in float32 would swallow a distance of 0.5."""
    inputs = np.array([[1e4, 0], [1e4, 0.5]], np.float32)
    calculator, train = raw_features_calculator(inputs, np.array([0, 0]), "euclidean")
    np.testing.assert_allclose(all_values(calculator, train), [[1, 1 / 1.5], [1 / 1.5, 1]], rtol=1e-5)


def test_an_unknown_similarity_is_refused(split, problem):
    with pytest.raises(ValueError, match="cosine"):
        FeatureSimilarity(split, problem.train(), similarity="rbf")
