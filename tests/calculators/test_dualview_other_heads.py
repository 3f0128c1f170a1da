"""DualView of regressions and of independent labels: one machine an output, with its certificate."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_objectives import HEADS, Head, make_head
from sklearn.svm import LinearSVC, LinearSVR

from deel_dualview import (
    CustomLoss,
    DualRelevance,
    DualSVMSolver,
    DualView,
    InfluenceModel,
    PerOutputSVMSolver,
)

EXACT = PerOutputSVMSolver(tolerance=1e-9)


@pytest.fixture(scope="module", params=["squared-1", "squared-3", "sigmoids-3", "huber-2"])
def head(request) -> Head:
    return make_head(*HEADS[request.param])


@pytest.fixture(scope="module")
def dualview(head) -> DualView:
    return DualView(head.model, head.train_set(), target=0)


def values(calculator: DualView, head: Head) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(head.test_set())))


def test_influences_and_the_bias_add_up_to_the_surrogate(head, dualview):
    outputs = dualview.surrogate_logits(head.test_set())
    sums = values(dualview, head).sum(axis=1) + dualview.surrogate_bias[0]
    np.testing.assert_allclose(sums, outputs[:, 0], rtol=1e-4, atol=1e-5)


def test_the_certificate_bounds_the_distance_to_the_exact_surrogate(head, dualview):
    exact = DualView(head.model, head.train_set(), target=0, solver=EXACT)
    difference = np.abs(exact.surrogate_logits(head.test_set()) - dualview.surrogate_logits(head.test_set()))
    bound = dualview.logit_error_bound(head.test_set()) + exact.logit_error_bound(head.test_set())
    assert dualview.surrogate.converged
    assert (difference.max(axis=1) <= bound + 1e-6).all()


def test_top_k_is_that_of_all_values(head, dualview):
    found = np.concatenate([indices for _, indices in dualview.top_k_indices(head.test_set(), k=4)])
    expected = np.argsort(-values(dualview, head), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(found, expected)


def test_the_surrogate_of_a_regression_is_near_a_linear_model():
    head = make_head(*HEADS["squared-1"])
    fidelity = DualView(head.model, head.train_set()).surrogate_fidelity(head.test_set())
    assert fidelity.r_squared > 0.9 and fidelity.rank_correlation > 0.9
    assert fidelity.completeness_error < 1e-5


def test_examples_inside_of_the_zone_have_no_influence():
    head = make_head(*HEADS["squared-1"])
    dualview = DualView(head.model, head.train_set(), solver=EXACT)
    residuals = np.abs(head.labels - dualview.surrogate_logits(head.train_set()))[:, 0] / head.labels.std()
    influences = np.concatenate(list(dualview.compute_influence_values()))
    assert 0 < (influences != 0).sum() < len(influences)
    np.testing.assert_array_equal(influences[residuals < 0.29], 0)
    assert (influences[residuals > 0.31] != 0).all()


def test_a_regression_has_the_surrogate_of_liblinear():
    head = make_head(*HEADS["squared-1"])
    dualview = DualView(head.model, head.train_set(), K=0.1, solver=EXACT)
    mean, deviation = head.labels.mean(), head.labels.std()
    penalty = 0.1 / (head.inputs**2).sum(axis=1).mean()
    peer = LinearSVR(epsilon=0.3, C=penalty, fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    peer.fit(head.inputs, (head.labels[:, 0] - mean) / deviation)
    expected = peer.predict(head.test_inputs) * deviation + mean
    np.testing.assert_allclose(
        dualview.surrogate_logits(head.test_set())[:, 0], expected, rtol=1e-3, atol=1e-4
    )


def test_independent_labels_have_the_surrogates_of_liblinear():
    head = make_head(*HEADS["sigmoids-3"])
    dualview = DualView(head.model, head.train_set(), K=0.1, target=2, solver=EXACT)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (head.inputs, head.test_inputs)]
    peer = LinearSVC(C=0.1, loss="hinge", fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    peer.fit(unit[0], head.labels[:, 2])
    expected = peer.decision_function(unit[1])
    np.testing.assert_allclose(
        dualview.surrogate_logits(head.test_set())[:, 2], expected, rtol=1e-3, atol=1e-4
    )


def test_the_unit_of_the_labels_scales_the_influences():
    head = make_head(*HEADS["squared-1"])
    in_thousands = head._replace(labels=head.labels / 1000)
    found, expected = (values(DualView(one.model, one.train_set()), one) for one in (in_thousands, head))
    np.testing.assert_allclose(1000 * found, expected, rtol=1e-4, atol=1e-4)


def test_labels_that_are_all_equal_leave_no_influence():
    head = make_head(*HEADS["squared-1"])
    constant = head._replace(labels=np.full_like(head.labels, 7.0))
    with pytest.warns(UserWarning, match="labels of an output are equal"):
        dualview = DualView(constant.model, constant.train_set())
    assert not values(dualview, constant).any()
    np.testing.assert_allclose(dualview.surrogate_logits(constant.test_set()), 7.0)


def test_the_label_of_a_single_number_explains_that_number():
    head = make_head(*HEADS["squared-1"])
    labelled = head.train_set().take(1)
    by_label, by_index = (
        np.concatenate(
            list(
                DualView(head.model, head.train_set(), target=target).estimate_influence_values_in_batches(
                    labelled
                )
            )
        )
        for target in ("label", 0)
    )
    np.testing.assert_array_equal(by_label, by_index)


def test_the_label_of_several_numbers_is_no_output():
    head = make_head(*HEADS["squared-3"])
    dualview = DualView(head.model, head.train_set(), target="label")
    with pytest.raises(ValueError, match="target=INDEX"):
        list(dualview.estimate_influence_values_in_batches(head.train_set()))


def test_a_custom_loss_has_no_surrogate():
    model = make_head(*HEADS["custom-2"])
    assert isinstance(model.objective, CustomLoss)
    with pytest.raises(ValueError, match="RepresenterPointL2"):
        DualView(model.model, model.train_set())


def test_a_solver_of_another_kind_of_model_is_refused():
    head = make_head(*HEADS["squared-1"])
    with pytest.raises(TypeError, match="PerOutputSVMSolver"):
        DualView(head.model, head.train_set(), solver=DualSVMSolver())


def test_what_needs_classes_is_refused(dualview):
    with pytest.raises(ValueError, match="classifier"):
        dualview.suggested_labels  # noqa: B018
    with pytest.raises(ValueError, match="classifier"):
        dualview.fit_path([0.1])


def test_relevance_of_a_regression_adds_up_to_the_influence():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, "relu", use_bias=False), keras.layers.Dense(1)]
    )
    network.compile(loss="mse")
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(40, 4)).astype(np.float32)
    labels = inputs[:, 0] - inputs[:, 1] ** 2
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(10)
    dualview = DualView(InfluenceModel(network), train_set)
    (found,) = DualRelevance(dualview).explain(train_set.take(1), k=2)
    sums = tf.reduce_sum(found.test_relevance, axis=-1) + found.bias_share + found.test_leak
    np.testing.assert_allclose(sums, found.top.influence_values, rtol=1e-4, atol=1e-5)
    assert np.abs(found.test_leak).max() < 0.05 * np.abs(found.top.influence_values).max()
