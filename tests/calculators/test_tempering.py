"""Power and penalty of the tempered kernel, from how far apart the classes are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualView, InfluenceModel
from deel_dualview.calculators.tempering import fit_tempering

NUM_TRAIN, NUM_CLASSES = 120, 3
LABELS = np.arange(NUM_TRAIN) % NUM_CLASSES


def make_features(spread, seed=0):
    """Return features (n, 4) around the axis of each class, of very different lengths."""
    rng = np.random.default_rng(seed)
    angles = np.eye(4)[LABELS] + spread * np.abs(rng.normal(size=(NUM_TRAIN, 4)))
    return (angles * np.exp(rng.normal(size=(NUM_TRAIN, 1)))).astype(np.float32)


def margins_by_hand(features):
    """Margins of the surrogate in which every example has the whole coefficient 1 / n, in plain loops."""
    units = features.astype(np.float64) / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.zeros((NUM_CLASSES, features.shape[1]))
    for unit, label in zip(units, LABELS, strict=True):
        for j in range(NUM_CLASSES):
            weights[j] += unit / NUM_TRAIN * (1 if j == label else -1 / (NUM_CLASSES - 1))
    return [
        unit @ weights[label] - max(unit @ weights[j] for j in range(NUM_CLASSES) if j != label)
        for unit, label in zip(units, LABELS, strict=True)
    ]


def test_the_median_margin_of_the_class_sums_is_at_nine_tenths():
    features = make_features(0.1)
    settings = fit_tempering(features, LABELS, NUM_CLASSES)
    assert settings.total_penalty * np.median(margins_by_hand(features)) == pytest.approx(0.9, rel=1e-5)
    assert settings.power == pytest.approx(0.1 * (settings.total_penalty / 30) ** 2)


def test_labels_that_features_do_not_know_get_the_largest_settings():
    labels = np.random.default_rng(0).permutation(LABELS)
    assert fit_tempering(make_features(3.0), labels, NUM_CLASSES) == (0.1, 30.0)


def test_lengths_do_not_change_the_settings():
    features = make_features(0.1)
    lengths = np.linspace(1, 1000, NUM_TRAIN, dtype=np.float32)[:, np.newaxis]
    np.testing.assert_allclose(
        fit_tempering(features * lengths, LABELS, NUM_CLASSES),
        fit_tempering(features, LABELS, NUM_CLASSES),
        rtol=1e-5,
    )


def test_rows_of_zeros_and_a_class_without_examples_are_taken():
    features = make_features(0.1)
    features[:10] = 0
    assert np.isfinite(fit_tempering(features, LABELS, NUM_CLASSES + 1)).all()


@pytest.fixture(scope="module")
def parallel():
    """DualView of features that are nearly parallel within a class, its training set and queries."""
    features, queries = make_features(0.1), make_features(0.1, seed=1)
    model = keras.Sequential([keras.Input((4,)), layers.Activation("linear"), layers.Dense(NUM_CLASSES)])
    model.layers[-1].set_weights([np.eye(4)[:, :NUM_CLASSES], np.zeros(NUM_CLASSES)])
    train = tf.data.Dataset.from_tensor_slices((features, LABELS)).batch(50)
    return DualView(InfluenceModel(model), train), tf.data.Dataset.from_tensor_slices(queries).batch(50)


def test_nearly_parallel_features_leave_many_different_first_proponents(parallel):
    calculator, queries = parallel
    first = np.concatenate([indices[:, 0] for _, indices in calculator.top_k_indices(queries, 1)])
    assert len(np.unique(first)) >= 30


def test_by_default_nearly_all_training_examples_keep_a_whole_coefficient(parallel):
    calculator, _ = parallel
    own = calculator.surrogate.coefficients.toarray()[np.arange(NUM_TRAIN), LABELS]
    assert (own > 0.99 * calculator.surrogate.K).mean() > 0.9
