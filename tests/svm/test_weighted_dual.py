"""Sample weights of the Crammer-Singer solver: penalties K w_i, with the certificate of the naive formulas."""

import numpy as np
import pytest
from svm_problems import make_problem, relative_penalty

from deel_dualview import DualSVMSolver

TIGHT = DualSVMSolver(tolerance=1e-7)


@pytest.fixture(scope="module", params=["random", "duplicates", "zero_rows", "two_classes", "missing_class"])
def problem(request):
    return make_problem(request.param)


@pytest.fixture(scope="module")
def weights(problem):
    return np.random.default_rng(1).choice([0.0, 1.0, 2.0, 3.0], len(problem[1]))


@pytest.mark.filterwarnings("ignore:Some classes have no example")
@pytest.mark.parametrize("strength", [0.1, 10.0, 1e3])
def test_the_certificate_of_a_weighted_problem_is_that_of_the_naive_formulas(problem, strength):
    features, labels, num_classes = problem
    weights = np.random.default_rng(2).exponential(size=len(labels)) ** 2
    weights[:4] = 0.0
    K = relative_penalty(features, strength)
    found = DualSVMSolver().solve(features, labels, num_classes, K, sample_weight=weights)
    alpha, rows = found.coefficients.toarray(), features.astype(np.float32).astype(np.float64)
    own = alpha[np.arange(len(labels)), labels]
    assert found.converged and not alpha[weights == 0].any()
    assert (own <= K * weights * (1 + 1e-12)).all() and (own >= 0).all()
    np.testing.assert_allclose(alpha.sum(axis=1), 0, atol=1e-12 * K)
    layer = rows.T @ alpha
    np.testing.assert_allclose(found.weights, layer, atol=1e-10 * (1 + np.abs(layer).max()))
    z = rows @ layer + 1 - np.eye(num_classes)[labels]
    slack = z.max(axis=1) - (rows @ layer)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(found.slack, slack, atol=1e-8 * (1 + slack.max()))
    np.testing.assert_allclose(found.primal, 0.5 * (layer**2).sum() + K * weights @ slack, rtol=1e-8)
    np.testing.assert_allclose(found.dual, own.sum() - 0.5 * (layer**2).sum(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Some classes have no example")
def test_an_example_of_weight_two_is_the_example_twice_and_of_weight_zero_is_left_out(problem, weights):
    features, labels, num_classes = problem
    copies = np.repeat(np.arange(len(labels)), weights.astype(int))
    K = relative_penalty(features, 3.0)
    weighted = TIGHT.solve(features, labels, num_classes, K, sample_weight=weights)
    repeated = TIGHT.solve(features[copies], labels[copies], num_classes, K)
    bound = weighted.weight_error_bound + repeated.weight_error_bound
    assert np.linalg.norm(weighted.weights - repeated.weights) <= bound
    np.testing.assert_allclose(weighted.primal, repeated.primal, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Some classes have no example")
def test_equal_examples_share_by_their_weights():
    features, labels, num_classes = make_problem("duplicates")
    half = len(labels) // 2
    weights = np.r_[np.ones(half), np.full(half, 3.0)]
    found = TIGHT.solve(features, labels, num_classes, relative_penalty(features, 3.0), sample_weight=weights)
    alpha = found.coefficients.toarray()
    np.testing.assert_allclose(alpha[half:], 3 * alpha[:half], rtol=1e-9, atol=1e-12)


def test_weights_of_one_change_nothing():
    features, labels, num_classes = make_problem("random")
    K = relative_penalty(features, 3.0)
    plain = DualSVMSolver().solve(features, labels, num_classes, K)
    found = DualSVMSolver().solve(features, labels, num_classes, K, sample_weight=np.ones(len(labels)))
    np.testing.assert_allclose(found.weights, plain.weights, rtol=1e-9, atol=1e-12)


def test_a_path_of_weighted_problems_is_their_solutions(weights):
    features, labels, num_classes = make_problem("random")
    weights = np.resize(weights, len(labels))
    Ks = [relative_penalty(features, strength) for strength in (10.0, 0.3)]
    path = TIGHT.fit_path(features, labels, num_classes, Ks, sample_weight=weights)
    for K, found in zip(Ks, path, strict=True):
        alone = TIGHT.solve(features, labels, num_classes, K, sample_weight=weights, warm_start=found)
        assert found.K == K and found.converged
        np.testing.assert_allclose(found.primal, alone.primal, rtol=1e-6)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_weights_that_are_all_zero_negative_or_not_finite_are_refused(wrong):
    features, labels, num_classes = make_problem("random")
    with pytest.raises(ValueError, match="sample_weight"):
        TIGHT.solve(features, labels, num_classes, 1.0, sample_weight=np.full(len(labels), wrong))
