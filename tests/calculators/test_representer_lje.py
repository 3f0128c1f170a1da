"""Representer points by a local Jacobian expansion against the paper's formulas in NumPy."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel, RepresenterPointLJE

GAMMA, DAMPING = 1e-4, 0.1


@pytest.fixture(scope="module")
def split(problem):
    return InfluenceModel(problem.model)


@pytest.fixture(scope="module")
def representer(split, problem):
    return RepresenterPointLJE(split, problem.train())


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def features_of(split, inputs):
    return np.hstack([split.features(inputs).numpy(), np.ones((len(inputs), 1))]).astype(np.float64)


def head_of(split):
    return np.vstack([split.head.kernel, split.head.bias]).T.astype(np.float64)


def gradients_and_hessian(theta, features, labels):
    """Per-example gradients (n, c * d) and the mean Hessian, example by example."""
    num_classes, num_features = theta.shape
    gradients, hessian = [], np.zeros((theta.size, theta.size))
    for phi, label in zip(features, labels, strict=True):
        p = scipy.special.softmax(theta @ phi)
        gradients.append(np.kron(p - np.eye(num_classes)[label], phi))
        hessian += np.kron(np.diag(p) - np.outer(p, p), np.outer(phi, phi)) / len(features)
    return np.array(gradients), hessian


def rows_of_the_paper(theta, features, labels):
    """v_i = (theta* - H^-1 g_i) / n (n, c, d), and H^-1 of the mean gradient at theta (c, d)."""
    mean = gradients_and_hessian(theta, features, labels)[0].mean(axis=0)
    star = theta + GAMMA * mean.reshape(theta.shape)
    gradients, hessian = gradients_and_hessian(star, features, labels)
    damped = hessian + DAMPING * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    steps = np.linalg.solve(damped, gradients.T).T.reshape(-1, *theta.shape)
    return (star - steps) / len(features), np.linalg.solve(damped, mean).reshape(theta.shape)


def test_values_are_the_papers_rows_with_the_gradient_that_training_left(representer, split, problem):
    rows, undone = rows_of_the_paper(
        head_of(split), features_of(split, problem.train_inputs), problem.train_labels
    )
    test = features_of(split, problem.test_inputs)
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    expected = np.einsum("ncd,md->mnc", rows + undone / 60, test)[np.arange(15), :, classes]
    np.testing.assert_allclose(all_values(representer, problem.test()), expected, rtol=1e-3, atol=1e-4)


def test_values_differ_from_the_papers_by_a_constant_of_the_query(representer, split, problem):
    rows, _ = rows_of_the_paper(
        head_of(split), features_of(split, problem.train_inputs), problem.train_labels
    )
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    values = np.einsum("ncd,md->mnc", rows, features_of(split, problem.test_inputs))[
        np.arange(15), :, classes
    ]
    difference = all_values(representer, problem.test()) - values
    assert np.ptp(difference, axis=1).max() < 1e-4 * np.ptp(values)


def test_the_kernel_is_features_through_the_inverse_hessian(representer, split, problem):
    """Differences of values are -(p - y)_i phi_i' H^-1 phi_t / n, summed over the classes of i."""
    train, test = features_of(split, problem.train_inputs), features_of(split, problem.test_inputs)
    star = representer.expansion.weights
    inverse = representer.expansion.solve(np.eye(star.size)).reshape(*star.shape, *star.shape)
    errors = scipy.special.softmax(train @ star.T, axis=1) - np.eye(3)[problem.train_labels]
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    kernel = -np.einsum("nk,ni,kitj,mj->mnt", errors, train, inverse, test)[np.arange(15), :, classes] / 60
    values = all_values(representer, problem.test())
    centred = kernel - kernel.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(values - values.mean(axis=1, keepdims=True), centred, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gamma", [1e-5, 1e-2])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_contributions_add_up_to_the_models_logit(gamma, damping, split, problem):
    calculator = RepresenterPointLJE(split, problem.train(), gamma=gamma, damping=damping)
    logits = split.logits(problem.test_inputs).numpy().max(axis=1)
    sums = all_values(calculator, problem.test()).sum(axis=1)
    np.testing.assert_allclose(sums, logits, rtol=gamma * 10, atol=1e-3 * np.abs(logits).max())
    assert calculator.correlation(problem.test()) >= 0.99


def test_the_leading_examples_hardly_depend_on_gamma(split, problem):
    tops = []
    for gamma in (1e-5, 1e-2):
        calculator = RepresenterPointLJE(split, problem.train(), gamma=gamma)
        tops.append(np.concatenate([indices for _, indices in calculator.top_k_indices(problem.test(), k=3)]))
    np.testing.assert_array_equal(*tops)


def test_the_constant_is_part_of_self_influence(representer, split, problem):
    train = features_of(split, problem.train_inputs)
    rows, undone = rows_of_the_paper(head_of(split), train, problem.train_labels)
    expected = np.einsum("ncd,nd->nc", rows + undone / 60, train)[np.arange(60), problem.train_labels]
    values = np.concatenate(list(representer.compute_influence_values()))
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)


def test_dead_features_hardly_change_a_value(split, problem):
    """Published code divides by n * phi_i + 1e-5: one dead feature was larger than all the rest."""
    wide = keras.Sequential([keras.Input((6,)), layers.Dense(11, activation="relu"), layers.Dense(3)])
    kernel, bias = problem.model.layers[0].get_weights()
    wide.layers[0].set_weights([np.hstack([kernel, np.zeros((6, 3))]), np.concatenate([bias, -np.ones(3)])])
    head, offset = problem.model.layers[1].get_weights()
    wide.layers[1].set_weights([np.vstack([head, np.ones((3, 3))]), offset])
    # The mean eigenvalue is over 12 columns instead of 9: equal damping needs another factor.
    calculator = RepresenterPointLJE(InfluenceModel(wide), problem.train(), damping=DAMPING * 12 / 9)
    expected = all_values(RepresenterPointLJE(split, problem.train()), problem.test())
    np.testing.assert_allclose(all_values(calculator, problem.test()), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_values_do_not_depend_on_the_batch_size(batch_size, representer, split, problem):
    other = RepresenterPointLJE(split, problem.train(batch_size))
    np.testing.assert_allclose(
        all_values(other, problem.test()), all_values(representer, problem.test()), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_model_with_one_output_has_the_hessian_of_its_logit(activation, problem):
    labels = (problem.train_labels == 1).astype(int)
    model = keras.Sequential(
        [keras.Input((6,)), problem.model.layers[0], layers.Dense(1, activation=activation)]
    )
    split = InfluenceModel(model)
    train = tf.data.Dataset.from_tensor_slices((problem.train_inputs, labels)).batch(16)
    calculator = RepresenterPointLJE(split, train, target=1)
    phi, test = features_of(split, problem.train_inputs), features_of(split, problem.test_inputs)
    theta = np.concatenate([part.ravel() for part in model.layers[1].get_weights()]).astype(np.float64)
    gradient = phi.T @ (scipy.special.expit(phi @ theta) - labels) / 60
    star = theta + GAMMA * gradient
    p = scipy.special.expit(phi @ star)
    hessian = (phi * (p * (1 - p))[:, None]).T @ phi / 60
    inverse = np.linalg.inv(hessian + DAMPING * np.trace(hessian) / 9 * np.eye(9))
    rows = (star + inverse @ gradient - ((p - labels)[:, None] * phi) @ inverse) / 60
    # Class 1 has the logit z / 2.
    np.testing.assert_allclose(
        all_values(calculator, problem.test()), test @ rows.T / 2, rtol=1e-3, atol=1e-5
    )


def test_little_damping_is_told_with_the_condition_number(split, problem):
    with pytest.warns(UserWarning, match="condition_number="):
        RepresenterPointLJE(split, problem.train(), damping=1e-6)


def test_too_little_damping_is_refused_with_the_smallest_eigenvalue(split, problem):
    with pytest.raises(ValueError, match="smallest eigenvalue=-"):
        RepresenterPointLJE(split, problem.train(), damping=1e-12)


def test_a_model_that_is_certain_of_everything_is_refused(problem):
    model = keras.models.clone_model(problem.model)
    model.set_weights([1e6 * weight for weight in problem.model.get_weights()])
    with pytest.raises(ValueError, match="Hessian of the loss is zero"):
        RepresenterPointLJE(InfluenceModel(model), problem.train())


def test_a_model_without_a_linear_head_is_refused(problem):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="inner"), layers.ReLU(), layers.Dense(3)]
    )
    with pytest.raises(ValueError, match="RepresenterPointL2"):
        RepresenterPointLJE(InfluenceModel(model, feature_layer="inner"), problem.train())


@pytest.mark.parametrize("setting", [{"gamma": 0.0}, {"damping": 0.0}, {"damping": -1.0}])
def test_a_bad_setting_is_refused(setting, split, problem):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RepresenterPointLJE(split, problem.train(), **setting)
