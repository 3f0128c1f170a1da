"""The dual solver: certificates, twins of the paper's formulas, invariants."""

import functools
import warnings

import numpy as np
import pytest
from sklearn.svm import LinearSVC
from svm_problems import PROBLEMS, make_problem, objectives, relative_penalty

from deel_dualview import DualSVMSolver


@pytest.fixture(scope="module", params=list(PROBLEMS))
def problem(request):
    return make_problem(request.param)


@pytest.fixture(scope="module")
def solved(problem):
    """Solutions of one problem by strength and tolerance, each of them found once."""
    return functools.cache(functools.partial(solve, problem))


def solve(problem, strength, **settings):
    features, labels, num_classes = problem
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some classes have no example")
        return DualSVMSolver(**settings).solve(
            features, labels, num_classes, relative_penalty(features, strength)
        )


@pytest.mark.parametrize("strength", [1e-3, 1e3])
def test_the_certificate_is_that_of_the_naive_formulas(problem, solved, strength):
    if problem[2] == 40 and strength == 1e3:
        pytest.skip("random labels in many classes at a hard margin take long; test_many_classes stops early")
    solution = solved(strength)
    primal, dual, weights, slack = objectives(problem, solution.coefficients.toarray(), solution.K)
    assert solution.converged
    assert solution.relative_gap <= solution.tolerance
    np.testing.assert_allclose(solution.weights, weights, atol=1e-10 * (1 + np.abs(weights).max()))
    np.testing.assert_allclose(solution.primal, primal, rtol=1e-8)
    # The naive P - D cancels: it is right to the rounding of P only.
    np.testing.assert_allclose(solution.dual, dual, rtol=1e-8)
    np.testing.assert_allclose(solution.slack, slack, atol=1e-9 * (1 + np.abs(slack).max()))


@pytest.mark.parametrize("strength", [1e-3, 10.0])
def test_lambda_is_feasible_and_the_coefficients_canonical(problem, solved, strength):
    solution = solved(strength)
    _, labels, _ = problem
    alpha = solution.coefficients.toarray()
    own = np.take_along_axis(alpha, labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(alpha.sum(axis=1), 0.0, atol=1e-12 * solution.K)
    assert own.min() >= 0.0
    assert own.max() <= solution.K * (1 + 1e-12)
    np.put_along_axis(alpha, labels[:, None], 0.0, axis=1)
    assert alpha.max() <= 0.0
    assert solution.coefficients.has_canonical_format
    assert np.all(solution.coefficients.data != 0.0)
    np.testing.assert_array_equal(solution.support_vectors, np.flatnonzero(own > 1e-4 * solution.K))


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_the_error_bound_holds_against_a_tight_reference(solved, strength):
    loose, tight = solved(strength, tolerance=1e-2), solved(strength, tolerance=1e-6)
    distance = np.linalg.norm(loose.weights - tight.weights)
    assert distance <= loose.weight_error_bound + tight.weight_error_bound
    assert loose.dual <= tight.primal * (1 + 1e-12)
    assert tight.dual <= loose.primal * (1 + 1e-12)


@pytest.mark.parametrize("name", ["random", "ill_conditioned", "two_classes", "wide"])
def test_weights_agree_with_liblinear(name):
    features, labels, num_classes = make_problem(name)
    K = relative_penalty(features, 1.0)
    solution = DualSVMSolver(tolerance=1e-6).solve(features, labels, num_classes, K)
    peer = LinearSVC(
        C=K, multi_class="crammer_singer", fit_intercept=False, tol=1e-8, max_iter=1_000_000, random_state=0
    )
    expected = peer.fit(features.astype(np.float64), labels).coef_.T
    # With two classes scikit-learn keeps their difference.
    found = solution.weights if num_classes > 2 else np.diff(solution.weights, axis=1)
    scale = np.linalg.norm(expected)
    np.testing.assert_allclose(found, expected, atol=2e-3 * scale)


def test_same_input_gives_the_same_bits():
    first, second = (solve(make_problem("random"), 10.0) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.coefficients.toarray(), second.coefficients.toarray())


def test_permuting_the_examples_permutes_the_result():
    features, labels, num_classes = make_problem("random")
    order = np.random.default_rng(5).permutation(len(labels))
    straight = solve((features, labels, num_classes), 1.0, tolerance=1e-7)
    permuted = solve((features[order], labels[order], num_classes), 1.0, tolerance=1e-7)
    difference = straight.coefficients.toarray()[order] - permuted.coefficients.toarray()
    assert np.abs(difference).max() < 5e-3 * straight.K  # certified gaps of 1e-7, lambda is no smoother
    np.testing.assert_allclose(permuted.weights, straight.weights, atol=straight.weight_error_bound * 2)


@pytest.mark.parametrize("strength", [0.1, 10.0, 1e3])
def test_exact_duplicates_get_equal_coefficients(strength):
    features, labels, num_classes = make_problem("duplicates")
    alpha = solve((features, labels, num_classes), strength).coefficients.toarray()
    half = len(labels) // 2
    np.testing.assert_array_equal(alpha[:half], alpha[half:])


def test_a_zero_row_stands_off_its_label():
    features, labels, num_classes = make_problem("zero_rows")
    solution = solve((features, labels, num_classes), 1.0)
    zero = np.flatnonzero(~features.any(axis=1))
    alpha = solution.coefficients.toarray()[zero]
    np.testing.assert_allclose(alpha[np.arange(len(zero)), labels[zero]], solution.K)
    assert set(zero) <= set(solution.support_vectors)
    np.testing.assert_allclose(solution.slack[zero], 1.0)


def test_the_inputs_are_left_alone():
    features, labels, num_classes = make_problem("random")
    copies = features.copy(), labels.copy()
    solve((features, labels, num_classes), 1.0)
    np.testing.assert_array_equal(features, copies[0])
    np.testing.assert_array_equal(labels, copies[1])


def test_the_mean_squared_norm_is_reported():
    features, labels, num_classes = make_problem("random")
    solution = solve((features, labels, num_classes), 1.0)
    np.testing.assert_allclose(
        solution.mean_squared_norm, np.mean(np.sum(features.astype(np.float64) ** 2, axis=1)), rtol=1e-6
    )
