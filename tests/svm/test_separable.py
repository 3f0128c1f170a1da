"""Machines of one output each: certificates, twins in NumPy and scikit-learn, invariants."""

import numpy as np
import pytest
from separable_problems import (
    check_certificate,
    coordinate_descent,
    make_features,
    make_targets,
    objectives,
    signs,
)
from sklearn.svm import LinearSVC, LinearSVR

from deel_dualview import DualSVMSolver, PerOutputSVMSolver

_EPSILON = 0.2
KINDS = ["regression", "median", "binary"]


def solve(kind, features, targets, K, solver=None, **settings):
    solver = solver or PerOutputSVMSolver(1e-7)
    if kind == "binary":
        return solver.solve_binary(features, targets, K, **settings)
    return solver.solve_regression(features, targets, K, epsilon=width(kind), **settings)


def width(kind):
    return _EPSILON if kind == "regression" else 0.0


def make(kind, n=60, d=6):
    features = make_features(n, d)
    targets = make_targets(features)
    return features, signs(targets) if kind == "binary" else targets


@pytest.fixture(scope="module", params=["regression", "binary"])
def kind(request):
    return request.param


# Coordinate descent of the tests takes too long at a large K on more examples than features.
@pytest.fixture(scope="module", params=[(40, 5, 1e-3), (40, 5, 0.3), (15, 20, 10.0)])
def case(request):
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def solved(request, case):
    """A kind of machine, its features, targets and solution."""
    n, d, K = case
    features, targets = make(request.param, n, d)
    return request.param, features, targets, solve(request.param, features, targets, K)


@pytest.fixture(scope="module")
def usual(kind):
    """Features, targets and the solution at an ordinary penalty."""
    features, targets = make(kind)
    return features, targets, solve(kind, features, targets, 0.3)


def test_the_certificate_is_that_of_the_text_book(solved):
    kind, features, targets, solution = solved
    check_certificate(features, targets, solution, width(kind), binary=kind == "binary")


def test_it_converges_to_the_tolerance(solved):
    solution = solved[-1]
    assert solution.converged
    assert (solution.relative_gap <= solution.tolerance).all()


def test_objective_and_weights_are_those_of_coordinate_descent(solved):
    kind, features, targets, solution = solved
    settings = {"epsilon": width(kind), "binary": kind == "binary"}
    beta = coordinate_descent(features, targets, solution.K, **settings)
    primal, dual, w = objectives(features, targets, beta, solution.K, **settings)
    slow = np.sqrt(2 * np.maximum(primal - dual, 0.0))
    np.testing.assert_allclose(solution.primal, dual, rtol=1e-5)
    distance = np.linalg.norm(solution.weights - w, axis=0)
    assert (distance <= solution.weight_error_bound + slow + 1e-9).all()


def test_the_conditions_of_optimality_hold(solved):
    """Coefficients: 0 within the zone, at the bound beyond it, in between only on its edge."""
    kind, features, targets, solution = solved
    beta = solution.coefficients.toarray()
    residuals = targets - features.astype(np.float64) @ solution.weights
    size = np.linalg.norm(features, axis=1)[:, None] * solution.weight_error_bound + 1e-9
    beyond = np.abs(residuals) > width(kind) + size
    if kind == "binary":
        beyond = targets * residuals > size
    np.testing.assert_array_equal(beta[beyond], solution.K * np.sign(residuals[beyond]))
    inside = np.abs(residuals) < width(kind) - size
    if kind == "binary":
        inside = targets * residuals < -size
    np.testing.assert_array_equal(beta[inside], 0.0)


def test_the_coefficients_are_sparse(usual):
    features, targets, solution = usual
    coefficients = solution.coefficients
    assert coefficients.has_canonical_format
    assert np.all(coefficients.data != 0.0)
    free = np.abs(coefficients.data) < solution.K
    assert 0 < free.sum() <= features.shape[1] * targets.shape[1]
    assert coefficients.nnz < targets.size


def test_influences_add_up_to_the_output(usual):
    features, _, solution = usual
    kernel = features.astype(np.float64) @ features.astype(np.float64).T
    np.testing.assert_allclose(
        solution.coefficients.toarray().T @ kernel, (features @ solution.weights).T, atol=1e-10
    )


@pytest.mark.parametrize("K", [0.3, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_agree_with_liblinear(kind, K):
    features, targets = make(kind, 40, 5)
    targets = targets[:, :2]
    solution = solve(kind, features, targets, K)
    settings = {"C": K, "fit_intercept": False, "tol": 1e-9, "max_iter": 10_000_000, "random_state": 0}
    for j, target in enumerate(targets.T):
        if kind == "binary":
            peer = LinearSVC(loss="hinge", **settings).fit(features.astype(np.float64), target)
        else:
            peer = LinearSVR(epsilon=width(kind), loss="epsilon_insensitive", dual=True, **settings)
            peer.fit(features.astype(np.float64), target)
        w = peer.coef_.reshape(-1)
        np.testing.assert_allclose(solution.weights[:, j], w, atol=1e-3 * np.linalg.norm(w))
        beta = solution.coefficients[:, [j]].toarray()
        value = objectives(features, target[:, None], beta, K, width(kind), binary=kind == "binary")[0]
        slack = target * (features @ w)
        loss = 1 - slack if kind == "binary" else np.abs(features @ w - target) - width(kind)
        np.testing.assert_allclose(value, 0.5 * w @ w + K * np.maximum(loss, 0).sum(), rtol=1e-5)


def test_a_binary_machine_is_the_crammer_singer_machine_of_two_classes_at_half_the_penalty():
    features, targets = make("binary")
    labels = (targets[:, 0] < 0).astype(int)
    pair = DualSVMSolver(1e-7).solve(features, labels, 2, 0.15)
    one = solve("binary", features, targets[:, :1], 0.3)
    np.testing.assert_allclose(
        one.weights[:, 0], pair.weights[:, 0] - pair.weights[:, 1], atol=1e-3 * np.linalg.norm(one.weights)
    )
    np.testing.assert_allclose(one.primal[0], 2 * pair.primal, rtol=1e-6)
    bound = 2 * pair.weight_error_bound + one.weight_error_bound[0]
    assert np.linalg.norm(one.weights[:, 0] - pair.weights @ [1, -1]) <= bound


def test_same_input_gives_the_same_bits(kind, usual):
    features, targets, first = usual
    second = solve(kind, features, targets, 0.3)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.coefficients.toarray(), second.coefficients.toarray())


def test_an_output_is_solved_as_if_it_were_alone(kind, usual):
    features, targets, together = usual
    alone = solve(kind, features, targets[:, 1:2], 0.3)
    bound = together.weight_error_bound[1] + alone.weight_error_bound[0]
    assert np.linalg.norm(together.weights[:, 1] - alone.weights[:, 0]) <= bound + 1e-9


def test_permuting_the_examples_permutes_the_result(kind, usual):
    features, targets, straight = usual
    order = np.random.default_rng(5).permutation(len(features))
    permuted = solve(kind, features[order], targets[order], 0.3)
    np.testing.assert_allclose(
        permuted.coefficients.toarray(), straight.coefficients.toarray()[order], atol=5e-3 * 0.3
    )


def test_a_sample_weight_of_two_is_an_example_given_twice(kind):
    features, targets = make(kind)
    weights = np.where(np.arange(len(features)) < 20, 2.0, 1.0)
    weighted = solve(kind, features, targets, 0.3, sample_weight=weights)
    twice = solve(kind, np.r_[features, features[:20]], np.r_[targets, targets[:20]], 0.3)
    np.testing.assert_array_equal(weighted.weights, twice.weights)
    coefficients = twice.coefficients.toarray()
    np.testing.assert_array_equal(coefficients[:20], coefficients[60:])
    np.testing.assert_array_equal(weighted.coefficients.toarray()[:20], 2 * coefficients[:20])


def test_sample_weights_are_certified_with_their_own_bounds(kind):
    features, targets = make(kind)
    weights = np.random.default_rng(2).exponential(size=len(features)) ** 3
    weights[:3] = 0.0
    solution = solve(kind, features, targets, 0.3, sample_weight=weights)
    check_certificate(features, targets, solution, width(kind), weights, binary=kind == "binary")
    assert solution.converged
    beta = solution.coefficients.toarray()
    assert not beta[:3].any()
    assert (np.abs(beta) == 0.3 * weights[:, None])[3:].any()


def test_an_epsilon_for_each_output_is_that_output_alone():
    features, targets = make("regression")
    solver = PerOutputSVMSolver(1e-7)
    together = solver.solve_regression(features, targets, 1.0, epsilon=[0.0, 0.2, 1.0])
    alone = solver.solve_regression(features, targets[:, 2:], 1.0, epsilon=1.0)
    np.testing.assert_allclose(together.weights[:, 2], alone.weights[:, 0], atol=1e-3)
    assert np.diff(together.coefficients.tocsc().indptr).tolist() == sorted(
        np.diff(together.coefficients.tocsc().indptr), reverse=True
    )


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_a_warm_start_gives_the_same_solution(kind, usual, factor):
    features, targets, start = usual
    cold = solve(kind, features, targets, 0.3 * factor)
    warm = solve(kind, features, targets, 0.3 * factor, warm_start=start)
    distance = np.linalg.norm(cold.weights - warm.weights, axis=0)
    assert warm.converged
    assert (distance <= cold.weight_error_bound + warm.weight_error_bound + 1e-9).all()


def test_a_warm_start_at_the_same_penalty_takes_no_step(kind, usual):
    features, targets, start = usual
    again = solve(kind, features, targets, 0.3, warm_start=start)
    assert not again.num_iterations.any()
    np.testing.assert_allclose(again.coefficients.toarray(), start.coefficients.toarray(), atol=1e-12)


def test_the_levels_of_many_examples_lead_to_the_solution(kind):
    features = make_features(4500, 5)
    targets = make_targets(features, t=2)
    targets = signs(targets) if kind == "binary" else targets
    solution = solve(kind, features, targets, 0.3, PerOutputSVMSolver())
    check_certificate(features, targets, solution, width(kind), binary=kind == "binary")
    assert solution.converged
