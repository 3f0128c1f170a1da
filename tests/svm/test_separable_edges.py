"""Machines of one output each: extreme and degenerate inputs, errors, early stops."""

import warnings

import numpy as np
import pytest
from separable_problems import check_certificate, make_features, make_targets, signs

from deel_dualview import ConvergenceWarning, PerOutputSVMSolver


@pytest.fixture(scope="module")
def features():
    return make_features(40, 5)


@pytest.fixture(scope="module")
def targets(features):
    return make_targets(features, t=2)


def _regression(features, targets, K=1.0, epsilon=0.2, **settings):
    solution = PerOutputSVMSolver().solve_regression(features, targets, K, epsilon=epsilon, **settings)
    check_certificate(features, targets, solution, epsilon, settings.get("sample_weight"))
    return solution


def _binary(features, labels, K=1.0):
    solution = PerOutputSVMSolver().solve_binary(features, labels, K)
    check_certificate(features, labels, solution, binary=True)
    return solution


@pytest.mark.parametrize("K", [1e-20, 1e-6])
def test_at_a_tiny_penalty_every_example_is_at_its_bound(features, targets, K):
    for solution, expected in (
        (_regression(features, targets, K, 0.0), K * np.sign(targets)),
        (_binary(features, signs(targets), K), K * signs(targets)),
    ):
        assert solution.converged
        np.testing.assert_array_equal(solution.coefficients.toarray(), expected)


@pytest.mark.parametrize("K", [1e4, 1e9, 1e15])
def test_labels_that_can_be_separated_reach_the_hard_margin(K):
    wide = make_features(15, 20)
    labels = signs(make_targets(wide))
    base, hard = _binary(wide, labels, 1e3), _binary(wide, labels, K)
    assert base.converged and hard.converged
    distance = np.linalg.norm(base.weights - hard.weights, axis=0)
    assert (distance <= base.weight_error_bound + hard.weight_error_bound).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_targets_of_another_unit_give_weights_in_that_unit(features, targets, scale):
    usual = _regression(features, targets)
    scaled = _regression(features, targets * scale, scale, 0.2 * scale)
    assert scaled.converged
    bound = usual.weight_error_bound * scale + scaled.weight_error_bound
    assert (np.linalg.norm(usual.weights * scale - scaled.weights, axis=0) <= bound).all()


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**60])
def test_features_of_another_unit_give_the_same_scores(features, targets, scale):
    usual = _regression(features, targets)
    scaled = _regression(features * np.float32(scale), targets, scale**-2)
    np.testing.assert_array_equal(scaled.weights * scale, usual.weights)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_features_of_very_different_sizes_are_solved(features, targets, epsilon):
    columns = features * np.logspace(3, -3, 5).astype(np.float32)
    rows = features * np.logspace(2, -2, 40).astype(np.float32)[:, None]
    assert _regression(columns, targets, 1.0, epsilon).converged
    assert _regression(rows, targets, 1.0, epsilon).converged


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_examples_are_enough(features, targets, n):
    assert _regression(features[:n], targets[:n]).converged
    assert _binary(features[:n], signs(targets)[:n]).converged


def test_one_example_has_the_solution_in_closed_form():
    solution = PerOutputSVMSolver(1e-9).solve_regression([[2.0]], [[3.0, 3.0]], K=9.0, epsilon=1.0)
    np.testing.assert_allclose(solution.coefficients.toarray(), [[0.5, 0.5]], rtol=1e-4)
    np.testing.assert_allclose(solution.weights, [[1.0, 1.0]], rtol=1e-4)


def test_one_label_alone_is_fitted(features):
    solution = _binary(features, np.ones((40, 1)))
    assert solution.converged
    assert (solution.coefficients.data > 0).all()


def test_constant_targets_are_fitted_by_the_constant_feature(features):
    solution = _regression(features, np.full((40, 1), 3.0), 100.0, 0.0)
    assert solution.converged
    np.testing.assert_allclose(features @ solution.weights, 3.0, atol=0.1)


def test_targets_within_the_zone_have_a_surrogate_of_nothing(features, targets):
    solution = _regression(features, targets, epsilon=float(np.abs(targets).max()))
    assert solution.converged and solution.coefficients.nnz == 0
    np.testing.assert_array_equal(solution.relative_gap, 0.0)
    np.testing.assert_array_equal(solution.num_iterations, 0)


def test_examples_that_contradict_each_other_cancel(features, targets):
    solution = _regression(np.r_[features, features], np.r_[targets, -targets], 0.05, 0.0)
    assert solution.converged
    np.testing.assert_allclose(solution.weights, 0.0, atol=1e-12)


def test_rows_of_zeros_stand_at_their_bound_and_in_the_objective(features, targets):
    rows = features.copy()
    rows[::7] = 0.0
    solution = _regression(rows, targets)
    beyond = np.abs(targets[::7]) > 0.2
    expected = np.where(beyond, np.sign(targets[::7]), 0.0)
    np.testing.assert_array_equal(solution.coefficients.toarray()[::7], expected)
    assert solution.converged


def test_features_of_zeros_have_a_surrogate_of_zeros(targets):
    solution = _regression(np.zeros((40, 3), np.float32), targets)
    assert solution.converged and not solution.weights.any()
    assert not solution.gap.any() and (solution.primal > 0).all()


def test_examples_without_any_weight_have_a_surrogate_of_zeros(features, targets):
    solution = _regression(features, targets, sample_weight=np.zeros(40))
    assert solution.converged and solution.coefficients.nnz == 0 and not solution.weights.any()


def test_duplicates_share_a_coefficient_equally(features, targets):
    order = np.r_[np.arange(40), np.arange(10), np.arange(10)]
    solution = _regression(features[order], targets[order])
    coefficients = solution.coefficients.toarray()
    np.testing.assert_array_equal(coefficients[:10], coefficients[40:50])
    np.testing.assert_array_equal(coefficients[:10], coefficients[50:])


def test_an_early_stop_warns_with_the_gap_and_keeps_the_certificate(features, targets):
    with pytest.warns(ConvergenceWarning, match="raise `max_iterations` or") as caught:
        solution = PerOutputSVMSolver(max_iterations=2).solve_regression(features, targets, 30.0)
    assert not solution.converged
    check_certificate(features, targets, solution)
    assert f"{solution.relative_gap[~solution.is_converged].max():.2e}" in str(caught[0].message)


@pytest.mark.parametrize(("K", "epsilon"), [(1e8, 0.0), (1e14, 0.2)])
def test_a_penalty_beyond_arithmetic_stops_early_near_the_solution(features, targets, K, epsilon):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        far = _regression(features, targets, K, epsilon)
    near = _regression(features, targets, 1e3, epsilon)
    distance = np.linalg.norm(far.weights - near.weights, axis=0)
    assert (distance <= 0.3 * np.linalg.norm(near.weights, axis=0)).all()


def test_the_inputs_are_left_alone(features, targets):
    copies = features.copy(), targets.copy()
    _regression(features, targets)
    np.testing.assert_array_equal(features, copies[0])
    np.testing.assert_array_equal(targets, copies[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"K": 0.0}, "`K` must be positive"),
        ({"epsilon": -0.1}, "`epsilon` must not be negative"),
        ({"epsilon": [0.1, 0.2, 0.3]}, "one for each output"),
        ({"sample_weight": np.ones(39)}, "`sample_weight` must hold one number an example"),
        ({"sample_weight": np.r_[np.ones(38), -1, np.nan]}, r"rows=\[38, 39\]"),
        ({"targets": np.ones(40)}, "`targets` must hold one row an example"),
        ({"targets": np.ones((39, 2))}, "`targets` must hold one row an example"),
        ({"targets": np.full((40, 1), "x")}, "`targets` must hold real numbers"),
        ({"targets": np.where(np.arange(40) == 7, np.inf, 0.0)[:, None]}, r"must be finite.*rows=\[7\]"),
        ({"features": np.ones(40)}, "`features` must be a matrix"),
    ],
)
def test_unusable_input_is_refused(features, targets, settings, message):
    with pytest.raises(ValueError, match=message):
        PerOutputSVMSolver().solve_regression(
            **{"features": features, "targets": targets, "K": 1.0} | settings
        )


def test_labels_other_than_signs_are_refused_with_their_rows(features):
    labels = np.ones((40, 2))
    labels[5, 1] = 0.0
    with pytest.raises(ValueError, match=r"must be -1 or \+1.*rows=\[5\]"):
        PerOutputSVMSolver().solve_binary(features, labels, 1.0)


def test_a_warm_start_of_other_examples_is_refused(features, targets):
    start = _regression(features[:20], targets[:20])
    with pytest.raises(ValueError, match="same examples and outputs"):
        _regression(features, targets, warm_start=start)


@pytest.mark.parametrize("settings", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_useless_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PerOutputSVMSolver(**settings)
