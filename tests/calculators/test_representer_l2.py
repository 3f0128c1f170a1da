"""Representer points with an L2 penalty against the paper's formulas in NumPy."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from keras import layers

from deel_dualview import DiskStore, DualView, InfluenceModel, RepresenterPointL2

PENALTY = 0.003


@pytest.fixture(scope="module")
def split(problem):
    return InfluenceModel(problem.model)


@pytest.fixture(scope="module")
def representer(split, problem):
    return RepresenterPointL2(split, problem.train())


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def features_of(split, inputs):
    """phi with the constant feature, float64."""
    return np.hstack([split.features(inputs).numpy(), np.ones((len(inputs), 1))]).astype(np.float64)


def predictions(split, inputs):
    return split.logits(inputs).numpy().argmax(axis=1)


def test_values_are_the_formula_with_the_own_alpha_of_every_example(representer, split, problem):
    """Published code pairs the axes of training examples and queries, so that alphas are another's."""
    weights, train = representer.surrogate.weights, features_of(split, problem.train_inputs)
    test, classes = features_of(split, problem.test_inputs), predictions(split, problem.test_inputs)
    expected = np.empty((15, 60))
    for t in range(15):
        for i in range(60):
            p = scipy.special.softmax(train[i] @ weights)
            alpha = -(p - np.eye(3)[problem.train_labels[i]]) / (2 * PENALTY * 60)
            expected[t, i] = alpha[classes[t]] * (train[i] @ test[t])
    np.testing.assert_allclose(all_values(representer, problem.test()), expected, rtol=1e-4, atol=1e-4)


def test_the_penalty_is_applied(representer, split, problem):
    """The gradient of loss *and* penalty vanishes; without the penalty it would not."""
    weights, train = representer.surrogate.weights, features_of(split, problem.train_inputs)
    errors = scipy.special.softmax(train @ weights, axis=1) - np.eye(3)[problem.train_labels]
    gradient = train.T @ errors / 60
    np.testing.assert_allclose(gradient + 2 * PENALTY * weights, 0, atol=1e-8)
    assert np.linalg.norm(gradient) > 1e-3


@pytest.mark.parametrize("fit_to", ["labels", "probabilities"])
def test_contributions_add_up_to_the_retrained_logit(fit_to, split, problem):
    calculator = RepresenterPointL2(split, problem.train(), fit_to=fit_to)
    logits = calculator.surrogate_logits(problem.test())
    explained = logits[np.arange(15), predictions(split, problem.test_inputs)]
    sums = all_values(calculator, problem.test()).sum(axis=1)
    np.testing.assert_allclose(sums, explained, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert calculator.surrogate_fidelity(problem.test()).completeness_error < 1e-5


def test_dead_features_change_no_value(problem, split):
    """Published code divides by every feature: values grow with the number of those that are not zero."""
    wide = keras.Sequential([keras.Input((6,)), layers.Dense(11, activation="relu"), layers.Dense(3)])
    kernel, bias = problem.model.layers[0].get_weights()
    wide.layers[0].set_weights([np.hstack([kernel, np.zeros((6, 3))]), np.concatenate([bias, -np.ones(3)])])
    head, offset = problem.model.layers[1].get_weights()
    wide.layers[1].set_weights([np.vstack([head, np.ones((3, 3))]), offset])
    values = all_values(RepresenterPointL2(InfluenceModel(wide), problem.train()), problem.test())
    expected = all_values(RepresenterPointL2(split, problem.train()), problem.test())
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_the_layer_fitted_to_probabilities_is_nearer_to_the_model(split, problem):
    nearest = RepresenterPointL2(split, problem.train(), fit_to="probabilities", lambda_regularization=1e-6)
    fidelity = nearest.surrogate_fidelity(problem.test())
    assert fidelity.agreement == 1.0
    assert fidelity.logit_cosine > 0.999


def test_the_bias_is_a_constant_feature_and_reported(representer, problem):
    logits = representer.surrogate_logits(problem.test())
    features = representer.model.features(problem.test_inputs).numpy()
    np.testing.assert_allclose(
        features @ representer.surrogate_weights + representer.surrogate_bias, logits, atol=1e-5
    )
    assert np.abs(representer.surrogate_bias).max() > 1e-3


def test_a_layer_without_bias_is_retrained_without_one(problem):
    model = keras.Sequential([keras.Input((6,)), problem.model.layers[0], layers.Dense(3, use_bias=False)])
    calculator = RepresenterPointL2(InfluenceModel(model), problem.train())
    assert calculator.surrogate.weights.shape == (8, 3)
    assert not calculator.surrogate_bias.any()


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_model_with_one_output_is_explained_on_its_two_logits(activation, problem):
    labels = (problem.train_labels == 1).astype(int)
    model = keras.Sequential(
        [keras.Input((6,)), problem.model.layers[0], layers.Dense(1, activation=activation)]
    )
    train = tf.data.Dataset.from_tensor_slices((problem.train_inputs, labels)).batch(16)
    calculator = RepresenterPointL2(InfluenceModel(model), train, target=1)
    logits = calculator.surrogate_logits(problem.test())
    assert calculator.surrogate.coefficients.shape == (60, 1)
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1])
    np.testing.assert_allclose(
        all_values(calculator, problem.test()).sum(axis=1), logits[:, 1], rtol=1e-4, atol=1e-5
    )
    weights = calculator.surrogate.weights
    train_features = features_of(calculator.model, problem.train_inputs)
    errors = scipy.special.expit(train_features @ weights)[:, 0] - labels
    np.testing.assert_allclose(train_features.T @ errors / 60, -2 * PENALTY * weights[:, 0], atol=1e-8)


def test_self_influence_is_large_for_swapped_labels():
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    inputs = (0.3 * rng.normal(size=(60, 3)) + 3 * np.eye(3)[labels]).astype("float32")
    labels[[5, 20, 44]] = (labels[[5, 20, 44]] + 1) % 3
    model = keras.Sequential([keras.Input((3,)), layers.Activation("linear"), layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16)
    values = np.concatenate(list(RepresenterPointL2(InfluenceModel(model), train).compute_influence_values()))
    assert set(np.argsort(-values)[:3]) == {5, 20, 44}


def test_a_model_without_a_linear_head_is_explained_by_one_fitted_to_labels(problem):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="inner"), layers.ReLU(), layers.Dense(3)]
    )
    split = InfluenceModel(model, feature_layer="inner")
    calculator = RepresenterPointL2(split, problem.train())
    assert calculator.surrogate.weights.shape == (5, 3)
    with pytest.raises(ValueError, match="fit_to='labels'"):
        RepresenterPointL2(split, problem.train(), fit_to="probabilities")


def test_a_store_on_disk_is_shared_with_dualview(split, problem, tmp_path):
    DualView(split, problem.train(), store=DiskStore(tmp_path / "features"))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    RepresenterPointL2(split, problem.train(), store=DiskStore(tmp_path / "features"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()} == written


@pytest.mark.parametrize("setting", [{"lambda_regularization": 0.0}, {"fit_to": "logits"}])
def test_a_bad_setting_is_refused(setting, split, problem):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RepresenterPointL2(split, problem.train(), **setting)
