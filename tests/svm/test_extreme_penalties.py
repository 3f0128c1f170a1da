"""The dual solver at extreme penalties and on labels that contradict each other: the weights are right too."""

import numpy as np
import pytest
from svm_problems import check_certificate, make_problem, relative_penalty

from deel_dualview import ConvergenceWarning, DualSVMSolver

_TINY = [1e-9, 1e-4]


def _own(problem, solution):
    return solution.coefficients.toarray()[np.arange(len(problem[1])), problem[1]]


@pytest.mark.parametrize("strength", _TINY)
def test_weights_at_a_tiny_penalty_are_those_of_a_larger_one_scaled(strength):
    """Once all rows are inside the margin, the dual is a smallest norm: W is proportional to K."""
    problem = make_problem("random")
    base = DualSVMSolver(1e-6, 200).solve(*problem, relative_penalty(problem[0], 1e-3))
    small = DualSVMSolver().solve(*problem, relative_penalty(problem[0], strength * 1e-3))
    assert small.converged
    expected = base.weights * (small.K / base.K)
    error = np.linalg.norm(small.weights - expected) / np.linalg.norm(expected)
    assert error <= small.relative_weight_error + base.relative_weight_error + 1e-3
    assert small.relative_weight_error <= small.weight_tolerance < 0.03
    check_certificate(problem, small)


@pytest.mark.parametrize("strength", [1e-9, 1e-3])
def test_every_row_counts_as_a_support_vector_at_a_tiny_penalty(strength):
    problem = make_problem("random")
    solution = DualSVMSolver().solve(*problem, relative_penalty(problem[0], strength))
    assert solution.num_support_vectors == len(problem[1])


@pytest.mark.parametrize("strength", [1e6, 1e9, 1e12])
def test_a_hard_margin_is_reached_however_large_the_penalty(strength):
    problem = make_problem("wide")
    base = DualSVMSolver(1e-6, 100).solve(*problem, relative_penalty(problem[0], 1e4))
    hard = DualSVMSolver(max_iterations=100).solve(*problem, relative_penalty(problem[0], strength))
    assert hard.converged
    distance = np.linalg.norm(hard.weights - base.weights)
    assert distance <= hard.weight_error_bound + base.weight_error_bound
    assert hard.num_support_vectors == base.num_support_vectors > 3
    own = _own(problem, hard)
    assert set(np.flatnonzero(own > 1e-2 * own.max())) <= set(hard.support_vectors)
    check_certificate(problem, hard)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_weights_are_right_where_labels_contradict_each_other(share):
    features, labels, num_classes = make_problem("random")
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, num_classes, len(labels))
    problem = features, np.where(generator.random(len(labels)) < share, drawn, labels), num_classes
    K = relative_penalty(features, 0.05)
    solution = DualSVMSolver(max_iterations=200).solve(*problem, K)
    tight = DualSVMSolver(1e-6, 200).solve(*problem, K, warm_start=solution)
    distance = np.linalg.norm(solution.weights - tight.weights) / np.linalg.norm(tight.weights)
    assert distance <= 0.03
    check_certificate(problem, solution)


def test_labels_drawn_at_random_leave_weights_that_cannot_be_told_from_zero():
    features, labels, num_classes = make_problem("random")
    problem = features, np.random.default_rng(0).integers(0, num_classes, len(labels)), num_classes
    with pytest.warns(ConvergenceWarning, match="its weights may be off by"):
        solution = DualSVMSolver(max_iterations=40).solve(*problem, relative_penalty(features, 0.05))
    assert solution.relative_gap < 1e-4 < 1.0 < solution.relative_weight_error
    check_certificate(problem, solution)


def test_a_surrogate_of_nothing_is_certified_as_nothing():
    features, _, _ = make_problem("random")
    twice = np.repeat(features[:40], 2, axis=0)
    problem = twice, np.tile([0, 1], 40), 2
    solution = DualSVMSolver().solve(*problem, relative_penalty(twice, 0.1))
    np.testing.assert_allclose(solution.weights, 0.0, atol=1e-12)
    assert solution.relative_gap <= 1e-12


def test_features_of_zeros_have_a_surrogate_of_zeros():
    solution = DualSVMSolver().solve(np.zeros((6, 2)), np.arange(6) % 3, 3, 1.0)
    assert solution.converged and solution.relative_gap == solution.relative_weight_error == 0.0


def test_a_solution_within_the_gap_but_not_within_the_weights_warns_with_both():
    problem = make_problem("random")
    K = relative_penalty(problem[0], 1e-6)
    with pytest.warns(
        ConvergenceWarning, match="its weights may be off by .* choose a less extreme K"
    ) as caught:
        solution = DualSVMSolver(max_iterations=5).solve(*problem, K)
    assert solution.relative_gap <= solution.tolerance and not solution.converged
    assert f"{solution.relative_weight_error:.2e}" in str(caught[0].message)
    assert f"{solution.weight_tolerance:.2e}" in str(caught[0].message)


def test_a_warm_start_within_the_gap_but_not_within_the_weights_goes_on():
    problem = make_problem("random")
    K = relative_penalty(problem[0], 1e-3)
    poor = DualSVMSolver(1e-2).solve(*problem, K)
    solver = DualSVMSolver()
    found = solver.solve(*problem, K, warm_start=poor)
    assert poor.relative_gap <= solver.tolerance
    assert found.converged and found.num_iterations > 0


def test_a_penalty_below_what_numbers_resolve_is_never_called_converged():
    """There P - D rounds to nothing, which is no certificate."""
    problem = make_problem("random")
    with pytest.warns(ConvergenceWarning, match="choose a less extreme K"):
        solution = DualSVMSolver(max_iterations=30).solve(*problem, relative_penalty(problem[0], 1e-20))
    assert not solution.converged and solution.relative_weight_error > solution.weight_tolerance
