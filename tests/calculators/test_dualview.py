"""DualView against the paper's equations, and what its surrogate promises."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from deel_dualview import ORDER, DiskStore, DualSVMSolver, DualView, InfluenceModel, NoStore
from deel_dualview.calculators import support_vectors
from deel_dualview.calculators.feature_maps import fit_feature_map


@pytest.fixture(scope="module")
def split(problem):
    return InfluenceModel(problem.model)


@pytest.fixture(scope="module")
def dualview(split, problem):
    return DualView(split, problem.train(), K=0.3, kernel="cosine", solver=DualSVMSolver(tolerance=1e-7))


def phi_by_hand(split, inputs, kernel="cosine"):
    features = split.features(inputs).numpy().astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True) if kernel == "cosine" else features


def equation_6(lambdas, labels, train_features, test_feature, c):
    """The paper's attribution of one test example, in plain loops."""
    attributions = []
    for i, label in enumerate(labels):
        product = train_features[i] @ test_feature
        if label == c:
            attributions.append(sum(lambdas[i, j] for j in range(lambdas.shape[1]) if j != c) * product)
        else:
            attributions.append(-lambdas[i, c] * product)
    return attributions


def lambdas_of(dualview, labels):
    solution = dualview.surrogate
    return solution.K * np.eye(3)[labels] - solution.coefficients.toarray()


def test_values_are_equation_6(dualview, split, problem):
    train, test = phi_by_hand(split, problem.train_inputs), phi_by_hand(split, problem.test_inputs)
    lambdas = lambdas_of(dualview, problem.train_labels)
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    expected = [
        equation_6(lambdas, problem.train_labels, train, x, c) for x, c in zip(test, classes, strict=True)
    ]
    np.testing.assert_allclose(
        dualview.sparse_influence_values(problem.test()).toarray(), expected, atol=1e-5
    )


def test_weights_are_equation_15(dualview, split, problem):
    train, labels = phi_by_hand(split, problem.train_inputs), problem.train_labels
    lambdas = lambdas_of(dualview, labels)
    for j in range(3):
        own = sum(
            sum(lambdas[i, k] for k in range(3) if k != labels[i]) * train[i]
            for i in range(60)
            if labels[i] == j
        )
        others = sum(lambdas[i, j] * train[i] for i in range(60) if labels[i] != j)
        np.testing.assert_allclose(dualview.surrogate.weights[:, j], own - others, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "bias"), [("tempered", True), ("cosine", False), ("linear", True), ("standardized", True)]
)
def test_contributions_add_up_to_the_surrogate_logit(kernel, bias, split, problem):
    calculator = DualView(split, problem.train(), K=1.0, kernel=kernel, bias=bias)
    sums = calculator.sparse_influence_values(problem.test()).sum(axis=1)
    logits = calculator.surrogate_logits(problem.test())
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    explained = logits[np.arange(len(classes)), classes]
    np.testing.assert_allclose(sums, explained, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert calculator.surrogate_fidelity(problem.test()).completeness_error < 1e-4


def test_only_support_vectors_have_influence(dualview, problem):
    values = dualview.sparse_influence_values(problem.test())
    assert isinstance(values, scipy.sparse.csr_array) and values.shape == (15, 60)
    assert 0 < len(np.unique(values.indices)) < 60
    assert set(values.indices) <= set(np.flatnonzero(np.diff(dualview.surrogate.coefficients.indptr)))


def test_the_order_of_queries_is_kept_when_classes_are_grouped(dualview, problem):
    whole = dualview.sparse_influence_values(problem.test(15)).toarray()
    single = dualview.sparse_influence_values(problem.test(1)).toarray()
    np.testing.assert_allclose(whole, single, atol=1e-6)


@pytest.mark.parametrize("order", ORDER)
def test_support_vectors_that_are_read_in_blocks_give_the_same(split, problem, tmp_path, monkeypatch, order):
    held = DualView(split, problem.train(), kernel="cosine", bias=True)
    monkeypatch.setattr(support_vectors, "_CACHED_BYTES", 0)
    monkeypatch.setattr(support_vectors, "_ROWS_AT_ONCE", 7)
    store = DiskStore(tmp_path / "store", shard_size=5, progress=False)
    read = DualView(split, problem.train(), kernel="cosine", bias=True, store=store)
    pairs = [calculator.top_k_indices(problem.test(15), 6, order=order) for calculator in (held, read)]
    for (values, indices), (expected, expected_indices) in zip(*pairs, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(indices, expected_indices)
    for method in ("compute_influence_values", "estimate_influence_values_in_batches"):
        arguments = () if method == "compute_influence_values" else (problem.test(15),)
        found, expected = (
            np.concatenate(list(getattr(one, method)(*arguments).as_numpy_iterator())) for one in (read, held)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_query_of_a_calculator_without_a_store_runs_the_network_on_the_query_alone(
    split, problem, monkeypatch
):
    calculator = DualView(split, problem.train(), store=NoStore(progress=False))
    monkeypatch.setattr(type(calculator._stored()), "__iter__", lambda stored: pytest.fail("read again"))
    next(iter(calculator.top_k_indices(problem.test(15), 3)))


def test_self_influence_has_the_squared_norm(split, problem):
    calculator = DualView(split, problem.train(), K=1.0, kernel="linear")
    norms = (phi_by_hand(split, problem.train_inputs, "linear") ** 2).sum(axis=1)
    own = calculator.surrogate.coefficients.toarray()[np.arange(60), problem.train_labels]
    found = np.concatenate(list(calculator.compute_influence_values()))
    np.testing.assert_allclose(found, own * norms, rtol=1e-4, atol=1e-6)


def test_influence_vectors_give_the_values_by_inner_products(dualview, split, problem):
    vectors = list(dualview.compute_influence_vector())
    left, right = (np.concatenate([vector[part] for vector in vectors]) for part in (0, 1))
    classes = split.logits(problem.test_inputs).numpy().argmax(axis=1)
    values = left[:, classes].T * (phi_by_hand(split, problem.test_inputs) @ right.T)
    np.testing.assert_allclose(values, dualview.sparse_influence_values(problem.test()).toarray(), atol=1e-5)


def test_K_is_scale_free(split, problem):
    inner = keras.Sequential([keras.Input((8,)), layers.Rescaling(10.0)])
    head = layers.Dense(3)
    head.build((None, 8))
    scaled = InfluenceModel.from_parts(
        keras.Sequential([keras.Input((6,)), problem.model.layers[0], inner]), head
    )
    small = DualView(split, problem.train(), K=1.0, kernel="linear")
    large = DualView(scaled, problem.train(), K=1.0, kernel="linear")
    assert pytest.approx(small.surrogate.K / 100, rel=1e-4) == large.surrogate.K
    np.testing.assert_array_equal(large.surrogate.support_vectors, small.surrogate.support_vectors)


@pytest.mark.parametrize("kernel", ["tempered", "cosine", "linear", "standardized"])
def test_K_is_the_penalty_times_exactly_the_mean_squared_norm(kernel, split, problem):
    calculator = DualView(split, problem.train(), K=0.7, kernel=kernel)
    phi = np.concatenate([vector[1] for vector in calculator.compute_influence_vector()]).astype(np.float64)
    mean = np.mean(np.sum(phi**2, axis=1))
    np.testing.assert_allclose(calculator.surrogate.K * mean, 0.7, rtol=1e-5)
    np.testing.assert_allclose(calculator.surrogate.mean_squared_norm, mean, rtol=1e-5)


def test_a_class_without_examples_works_with_a_warning(split, problem):
    present = problem.train().unbatch().filter(lambda x, y: y != 2).batch(16)
    with pytest.warns(UserWarning, match="2"):
        calculator = DualView(split, present)
    assert np.isfinite(calculator.sparse_influence_values(problem.test()).toarray()).all()


def test_the_bias_is_reported(split, problem):
    calculator = DualView(split, problem.train(), K=1.0, bias=True)
    assert calculator.surrogate.weights.shape == (9, 3)
    np.testing.assert_array_equal(calculator.surrogate_bias, calculator.surrogate.weights[-1])
    assert not DualView(split, problem.train(), K=1.0).surrogate_bias.any()


def test_standardized_features_that_never_vary_stay_zero():
    features = np.array([[1.0, 0.0, 5.0], [2.0, 0.0, 5.0], [3.0, 0.0, 5.0]], np.float32)
    mapped = fit_feature_map(features, "standardized", False)(features).numpy()
    np.testing.assert_allclose(mapped[:, 0], [-1.2247, 0, 1.2247], atol=1e-4)
    np.testing.assert_array_equal(mapped[:, 1:], 0)


def test_features_that_are_constant_but_for_rounding_stay_zero():
    features = (
        np.full((300, 1), 7.3, np.float32)
        + np.float32(1e-6) * np.arange(300, dtype=np.float32)[:, None] / 300
    )
    np.testing.assert_allclose(fit_feature_map(features, "standardized", False)(features), 0, atol=1e-4)


def test_the_tempered_kernel_keeps_the_direction_and_shortens_the_range_of_lengths():
    rows = np.array([[3, 4], [0.03, -0.04], [0, 0], [1.5e30, 2e30]], np.float32)
    mapped = fit_feature_map(rows, "tempered", False)(rows).numpy()
    lengths = np.array([5, 0.05, 1, 2.5e30])
    expected = rows / lengths[:, None] * lengths[:, None] ** 0.1
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["tempered", "cosine"])
def test_a_row_of_zeros_has_a_finite_gradient(kernel):
    rows = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(fit_feature_map(rows.numpy(), kernel, False)(rows))
    assert np.isfinite(tape.gradient(total, rows)).all()


def test_huge_features_keep_their_direction_at_unit_length():
    mapped = fit_feature_map(np.zeros((1, 2), np.float32), "cosine", False)(
        np.array([[3e30, 4e30]], np.float32)
    )
    np.testing.assert_allclose(mapped, [[0.6, 0.8]], rtol=1e-6)


def test_features_too_large_for_the_linear_kernel_are_refused_as_such():
    model = keras.Sequential([keras.Input((2,)), layers.Activation("linear"), layers.Dense(2)])
    inputs = np.array([[1, 0], [0, 1], [2, 1], [1, 2]], np.float32) * np.float32(1e25)
    train = tf.data.Dataset.from_tensor_slices((inputs, np.array([0, 1, 0, 1]))).batch(4)
    assert np.isfinite(DualView(InfluenceModel(model), train).surrogate.weights).all(), (
        "the cosine kernel takes them"
    )
    with pytest.raises(ValueError, match="too large"):
        DualView(InfluenceModel(model), train, kernel="linear")


def test_zero_features_have_no_influence_and_no_nan():
    """A dead example: every unit of the penultimate layer is off."""
    model = keras.Sequential([keras.Input((2,)), layers.ReLU(), layers.Dense(2)])
    inputs = np.array([[1, 0], [0, 1], [-1, -1], [2, 0.5]], np.float32)
    train = tf.data.Dataset.from_tensor_slices((inputs, np.array([0, 1, 0, 0]))).batch(4)
    values = DualView(InfluenceModel(model), train, K=1.0).sparse_influence_values(train).toarray()
    assert np.isfinite(values).all() and not values[:, 2].any() and not values[2].any()


def test_all_zero_features_are_refused():
    model = keras.Sequential([keras.Input((2,)), layers.ReLU(), layers.Dense(2)])
    train = tf.data.Dataset.from_tensor_slices((-np.ones((4, 2), "float32"), np.array([0, 1, 0, 1]))).batch(4)
    with pytest.raises(ValueError, match="zero for every training example"):
        DualView(InfluenceModel(model), train)


@pytest.mark.parametrize("K", [0.0, -1.0, float("nan"), float("inf")])
def test_K_must_be_positive(K, split, problem):
    with pytest.raises(ValueError, match="K"):
        DualView(split, problem.train(), K=K)


def test_an_unknown_kernel_is_refused(split, problem):
    with pytest.raises(ValueError, match="cosine"):
        DualView(split, problem.train(), kernel="rbf")


def test_the_logit_error_bound_holds(split, problem):
    loose = DualView(split, problem.train(), K=1.0, solver=DualSVMSolver(tolerance=1e-2))
    tight = DualView(split, problem.train(), K=1.0, solver=DualSVMSolver(tolerance=1e-7))
    bound = loose.logit_error_bound(problem.test())
    error = np.abs(loose.surrogate_logits(problem.test()) - tight.surrogate_logits(problem.test())).max(
        axis=1
    )
    assert bound.shape == (15,) and (error <= bound * (1 + 1e-6) + 1e-7).all()


def test_the_surrogate_agrees_with_a_model_that_is_the_surrogate(split, problem, dualview):
    """The surrogate's own weights as a model's head: perfect fidelity."""
    twin = keras.models.clone_model(problem.model)
    twin.set_weights(problem.model.get_weights())
    twin.layers[-1].kernel.assign(dualview.surrogate.weights)
    twin.layers[-1].bias.assign(np.zeros(3))
    fidelity = DualView(InfluenceModel(twin), problem.train(), K=0.3).surrogate_fidelity(problem.test())
    assert fidelity.agreement == 1.0 and fidelity.matthews_correlation == 1.0
    assert fidelity.logit_cosine > 0.999 and fidelity.weight_cosine > 0.999
    assert fidelity.kendall_tau > 0.95


def test_fidelity_of_logits_is_what_numpy_says(dualview, split, problem):
    fidelity = dualview.surrogate_fidelity(problem.test())
    ours, theirs = dualview.surrogate_logits(problem.test()), split.logits(problem.test_inputs).numpy()
    assert fidelity.agreement == (ours.argmax(1) == theirs.argmax(1)).mean()
    cosines = []
    for first, second in zip(
        ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), strict=True
    ):
        cosines.append(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    assert fidelity.logit_cosine == pytest.approx(np.mean(cosines), abs=1e-5)


def test_suggested_labels_are_the_best_other_class(dualview, problem):
    logits = dualview.surrogate_logits(problem.train())
    logits[np.arange(60), problem.train_labels] = -np.inf
    np.testing.assert_array_equal(dualview.suggested_labels, logits.argmax(axis=1))


def test_slack_finds_swapped_labels():
    """Well separated clusters with three wrong labels: they have the three largest slacks."""
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    inputs = (0.3 * rng.normal(size=(60, 3)) + 3 * np.eye(3)[labels]).astype("float32")
    given = labels.copy()
    given[[5, 20, 44]] = (given[[5, 20, 44]] + 1) % 3
    model = keras.Sequential([keras.Input((3,)), layers.Activation("linear"), layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((inputs, given)).batch(16)
    calculator = DualView(InfluenceModel(model), train)
    assert set(np.argsort(-calculator.surrogate.slack)[:3]) == {5, 20, 44}
    np.testing.assert_array_equal(calculator.suggested_labels[[5, 20, 44]], labels[[5, 20, 44]])


def test_the_path_over_K_grows_sparser_and_keeps_the_order_given(dualview):
    path = dualview.fit_path([10.0, 0.01, 0.3])
    assert [solution.num_support_vectors for solution in path] == sorted(
        [solution.num_support_vectors for solution in path]
    ) or path[1].num_support_vectors > path[0].num_support_vectors
    np.testing.assert_allclose(path[2].weights, dualview.surrogate.weights, atol=1e-3)


def test_a_binary_sigmoid_model_works(problem):
    labels = (problem.train_labels == 1).astype(int)
    model = keras.Sequential(
        [keras.Input((6,)), problem.model.layers[0], layers.Dense(1, activation="sigmoid")]
    )
    train = tf.data.Dataset.from_tensor_slices((problem.train_inputs, labels)).batch(16)
    calculator = DualView(InfluenceModel(model), train, K=1.0)
    weights = calculator.surrogate.weights
    np.testing.assert_allclose(weights[:, 0], -weights[:, 1], atol=1e-8)
    (top,) = calculator.top_k(problem.test(15), k=2)
    assert top.influence_values.shape == (15, 2)
