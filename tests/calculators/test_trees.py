"""Calculators on tree ensembles against naive float64 twins on dense one-hot leaves, and how little is stored."""

from typing import NamedTuple

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import xgboost
from tree_cases import BOOSTED, FORESTS, INPUTS, NUMBERS, QUERIES, THREE, TWO
from tree_cases import xgboost_classifier as boosted

import deel_dualview as dv
from deel_dualview.linalg import spans
from deel_dualview.stores import features as stored

NUM_TRAIN, DAMPING = len(INPUTS), 0.1


class Twin(NamedTuple):
    """A boosted classifier as one-hot leaves and logits, by its own library alone."""

    model: dv.TreeEnsembleModel
    train: np.ndarray
    queries: np.ndarray
    train_outputs: np.ndarray
    query_outputs: np.ndarray
    labels: np.ndarray

    @property
    def num_outputs(self):
        return self.train_outputs.shape[1]

    def train_set(self, batch_size=40):
        return tf.data.Dataset.from_tensor_slices((INPUTS, self.labels)).batch(batch_size)

    def probabilities(self, outputs):
        if self.num_outputs == 1:
            return scipy.special.expit(outputs)
        return scipy.special.softmax(outputs, axis=1)

    def targets(self, classes):
        return classes[:, None] if self.num_outputs == 1 else np.eye(3)[classes]

    def gradients(self, features, outputs, classes):
        """In the rows of the transposed kernel with the bias as last column, shape (b, c * d)."""
        errors = self.probabilities(outputs) - self.targets(classes)
        return np.einsum("bc,bd->bcd", errors, features).reshape(len(features), -1)

    def predicted(self):
        if self.num_outputs == 1:
            return (self.query_outputs[:, 0] > 0).astype(int)
        return self.query_outputs.argmax(axis=1)

    def hessian(self):
        """Of the mean loss, damped."""
        p = self.probabilities(self.train_outputs)
        blocks = p[:, :, None] * (np.eye(self.num_outputs) - p[:, None]) if self.num_outputs > 1 else None
        blocks = (p * (1 - p))[:, :, None] if blocks is None else blocks
        size = self.num_outputs * self.train.shape[1]
        matrix = np.einsum("bij,bd,be->idje", blocks, self.train, self.train).reshape(size, size) / NUM_TRAIN
        return matrix + DAMPING * np.trace(matrix) / size * np.eye(size)

    def training_gradients(self):
        return self.gradients(self.train, self.train_outputs, self.labels)

    def query_gradients(self):
        return self.gradients(self.queries, self.query_outputs, self.predicted())


def make_twin(labels):
    booster = boosted(labels)
    outputs = [
        booster.predict(rows, output_margin=True).reshape(len(rows), -1).astype(float)
        for rows in (INPUTS, QUERIES)
    ]
    # Every leaf as (tree, node).
    leaves = [
        (number, int(line.split(":")[0]))
        for number, tree in enumerate(booster.get_booster().get_dump())
        for line in tree.splitlines()
        if "leaf" in line
    ]
    trees, nodes = np.array(sorted(leaves)).T
    rows = [
        np.hstack([booster.apply(inputs)[:, trees] == nodes, np.ones((len(inputs), 1))]).astype(float)
        for inputs in (INPUTS, QUERIES)
    ]
    return Twin(dv.TreeEnsembleModel(booster), *rows, *outputs, labels)


@pytest.fixture(scope="module")
def binary():
    return make_twin(TWO)


@pytest.fixture(scope="module")
def multi_class():
    return make_twin(THREE)


@pytest.fixture(params=["two classes", "three classes"])
def twin(request, binary, multi_class):
    return binary if request.param == "two classes" else multi_class


def query_set(batch_size=5):
    return tf.data.Dataset.from_tensor_slices(QUERIES).batch(batch_size)


def values(calculator):
    return np.concatenate([*calculator.estimate_influence_values_in_batches(query_set()).as_numpy_iterator()])


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_influence_functions_are_those_of_one_hot_leaves(twin, monkeypatch):
    train_set = twin.train_set()
    monkeypatch.setattr("deel_dualview.ihvp.base.DENSE_LIMIT", 1)
    if twin.num_outputs == 1:
        inverse = dv.ExactIHVP(twin.model, train_set)
    else:
        inverse = dv.ConjugateGradientDescentIHVP(twin.model, train_set, tolerance=3e-6)
    calculator = dv.FirstOrderInfluenceCalculator(twin.model, train_set, inverse)
    solved = np.linalg.solve(twin.hessian(), twin.query_gradients().T).T
    expected = solved @ twin.training_gradients().T / NUM_TRAIN
    same(values(calculator), expected)
    group = train_set.unbatch().take(7).batch(4)
    found = next(iter(calculator.estimate_influence_values_group(query_set(12), group)))
    same(found, expected[:, :7].sum(axis=1))


def test_relative_influence_is_that_of_one_hot_leaves(twin):
    solved = np.linalg.solve(twin.hessian(), twin.training_gradients().T).T
    expected = twin.query_gradients() @ (solved / np.linalg.norm(solved, axis=1, keepdims=True)).T
    same(values(dv.RelatIF(twin.model, twin.train_set())), expected)


def test_gradient_products_are_those_of_one_hot_leaves(twin):
    expected = twin.query_gradients() @ twin.training_gradients().T
    same(values(dv.GradDot(twin.model, twin.train_set())), expected)


def test_representers_of_the_model_are_those_of_one_hot_leaves(twin):
    """At theta itself: the step of size gamma is left out here, and there too small to be seen."""
    calculator = dv.RepresenterPointLJE(twin.model, twin.train_set(), gamma=1e-9)
    kernel, bias = twin.model.head.get_weights()
    theta = np.vstack([kernel, bias]).T.astype(float).reshape(1, -1)
    gradients = twin.training_gradients()
    # One output z is explained on the logits (-z / 2, z / 2).
    signs = twin.predicted()[:, None] - 0.5 if twin.num_outputs == 1 else np.eye(3)[twin.predicted()]
    directions = np.einsum("bc,bd->bcd", signs, twin.queries).reshape(len(QUERIES), -1)
    rows = theta + np.linalg.solve(twin.hessian(), (gradients.mean(axis=0) - gradients).T).T
    same(values(calculator), directions @ rows.T / NUM_TRAIN)
    assert calculator.correlation(query_set()) > 0.999


def test_contributions_of_representers_add_up_to_the_retrained_layer(twin):
    calculator = dv.RepresenterPointL2(twin.model, twin.train_set())
    logits = calculator.surrogate_logits(query_set())
    explained = logits[np.arange(len(QUERIES)), twin.predicted()]
    np.testing.assert_allclose(values(calculator).sum(axis=1), explained, atol=1e-4)
    weights = np.vstack([calculator.surrogate_weights, calculator.surrogate_bias])
    outputs = twin.train @ weights
    errors = scipy.special.softmax(outputs, axis=1) - np.eye(outputs.shape[1])[twin.labels]
    if twin.num_outputs == 1:
        # That of one output, of which the two logits are halves.
        weights, errors = 2 * weights[:, 1:], errors[:, 1:]
    alpha = -errors / (2 * calculator.lambda_regularization * NUM_TRAIN)
    np.testing.assert_allclose(twin.train.T @ alpha, weights, atol=1e-4)


def test_the_surrogate_of_the_leaves_is_certified_and_its_influences_add_up(multi_class):
    calculator = dv.DualView(multi_class.model, multi_class.train_set(), kernel="cosine")
    assert calculator.surrogate.relative_gap < 1e-3
    unit = [
        rows[:, :-1] / np.sqrt(rows[:, :-1].sum(axis=1, keepdims=True))
        for rows in (multi_class.train, multi_class.queries)
    ]
    alpha = calculator.surrogate.coefficients.toarray()[:, multi_class.predicted()].T
    same(values(calculator), alpha * (unit[1] @ unit[0].T))
    sums = calculator.surrogate_logits(query_set())[np.arange(len(QUERIES)), multi_class.predicted()]
    np.testing.assert_allclose(values(calculator).sum(axis=1), sums, atol=1e-4)


def test_more_leaves_than_examples_are_fitted_in_their_span(multi_class, monkeypatch):
    solver = dv.DualSVMSolver(tolerance=3e-6)
    expected = dv.DualView(multi_class.model, multi_class.train_set(), kernel="cosine", solver=solver)
    monkeypatch.setattr(spans, "WIDE", 0)
    monkeypatch.setattr(spans, "LEAST_WIDE", 0)
    found = dv.DualView(multi_class.model, multi_class.train_set(), kernel="cosine", solver=solver)
    assert found.surrogate.relative_gap <= 1e-6
    np.testing.assert_allclose(found.surrogate.weights, expected.surrogate.weights, atol=1e-3)
    np.testing.assert_allclose(values(found), values(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("method", "case"),
    [
        (dv.FirstOrderInfluenceCalculator, "binary"),
        (dv.FirstOrderInfluenceCalculator, "multi_class"),
        (dv.LeverageCorrectedInfluenceCalculator, "binary"),
        (dv.RelatIF, "binary"),
        (dv.RepresenterPointLJE, "multi_class"),
    ],
)
def test_few_examples_of_many_leaves_have_the_same_influence_in_their_span(
    method, case, request, monkeypatch
):
    twin = request.getfixturevalue(case)
    train_set = twin.train_set().unbatch().take(13).batch(5)
    expected = values(method(twin.model, train_set))
    monkeypatch.setattr(spans, "LEAST_WIDE", 0)
    found = method(twin.model, train_set)
    held = found.expansion.factor if method is dv.RepresenterPointLJE else found.ihvp._factor
    assert len(held) == twin.num_outputs * 13
    same(values(found), expected)


def test_similarity_is_the_share_of_trees_with_a_common_leaf(binary):
    found = np.abs(values(dv.FeatureSimilarity(binary.model, binary.train_set())))
    leaves = [rows[:, :-1] for rows in (binary.queries, binary.train)]
    same(found, leaves[0] @ leaves[1].T / leaves[0].sum(axis=1, keepdims=True))


def test_a_store_holds_one_number_for_each_tree(binary):
    store = dv.MemoryStore()
    calculator = dv.GradDot(binary.model, binary.train_set(), store=store)
    num_trees = binary.model.leaves.num_trees
    # Beside a label and a hash an example.
    assert calculator.stored_bytes == NUM_TRAIN * (4 * num_trees + 8 + 8)


def test_a_directory_holds_the_leaves_for_another_run(binary, tmp_path):
    def calculator():
        return dv.GradDot(binary.model, binary.train_set(), store=dv.DiskStore(tmp_path, progress=False))

    np.testing.assert_array_equal(values(calculator()), values(calculator()))


def test_values_do_not_depend_on_how_many_dense_rows_are_made_at_once(binary, monkeypatch):
    calculator = dv.GradDot(binary.model, binary.train_set())
    expected = values(calculator)
    monkeypatch.setattr(stored, "_NUMBERS_AT_ONCE", 7 * binary.train.shape[1])
    same(values(calculator), expected)


def test_a_dense_matrix_of_many_leaves_is_refused_with_a_way_out(binary, monkeypatch):
    monkeypatch.setattr(stored, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="features='trees'"):
        dv.DualView(binary.model, binary.train_set())


def test_what_trees_add_are_few_features_for_every_method(binary):
    booster = boosted(binary.labels)
    model = dv.TreeEnsembleModel(booster, features="trees")
    calculator = dv.RepresenterPointLJE(model, binary.train_set())
    assert calculator.expansion.weights.shape == (binary.num_outputs, model.leaves.num_trees + 1)
    assert calculator.correlation(query_set()) > 0.999


def test_influence_on_a_regression_adds_up_to_its_surrogate():
    model = dv.TreeEnsembleModel(BOOSTED["scikit-learn, regression"][0]())
    train_set = tf.data.Dataset.from_tensor_slices((INPUTS, NUMBERS)).batch(40)
    calculator = dv.DualView(model, train_set)
    sums = values(calculator).sum(axis=1) + calculator.surrogate_bias
    np.testing.assert_allclose(sums, calculator.surrogate_logits(query_set())[:, 0], atol=1e-4)


@pytest.fixture(scope="module")
def forest():
    return (
        dv.TreeEnsembleModel(FORESTS["forest"]()),
        tf.data.Dataset.from_tensor_slices((INPUTS, THREE)).batch(40),
    )


@pytest.mark.parametrize("method", [dv.RepresenterPointL2, dv.FeatureSimilarity])
def test_forests_of_classes_are_explained_by_what_needs_no_linear_head(method, forest):
    found = next(iter(method(*forest).top_k(query_set(), k=3)))
    assert found.training_indices.shape == (5, 3)


@pytest.mark.parametrize("method", [dv.FirstOrderInfluenceCalculator, dv.RepresenterPointLJE])
def test_forests_of_classes_are_refused_by_gradients_with_a_way_out(method, forest):
    with pytest.raises(ValueError, match="RepresenterPointL2"):
        method(*forest)


def test_relevance_in_the_inputs_of_trees_is_refused(binary):
    with pytest.raises(ValueError, match="constant but for its thresholds"):
        dv.DualRelevance(dv.FeatureSimilarity(binary.model, binary.train_set()), rule="gradients-inputs")


def test_missing_numbers_in_a_dataset_name_the_setting_for_them():
    booster = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(INPUTS, TWO)
    inputs = np.where(INPUTS > 1.5, np.nan, INPUTS)
    with pytest.raises(ValueError, match="missing"):
        dv.FeatureSimilarity(
            dv.TreeEnsembleModel(booster), tf.data.Dataset.from_tensor_slices((inputs, TWO)).batch(40)
        )
