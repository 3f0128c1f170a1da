"""The dual solver's interface: warm starts, paths, errors, early stops, precision of the inputs."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from svm_problems import make_problem, objectives, relative_penalty

from deel_dualview import ConvergenceWarning, DualSVMSolver


@pytest.fixture(scope="module")
def problem():
    return make_problem("random")


@pytest.fixture(scope="module")
def penalty(problem):
    return relative_penalty(problem[0], 1.0)


@pytest.fixture(scope="module")
def solution(problem, penalty):
    return DualSVMSolver().solve(*problem, penalty)


def test_a_warm_start_at_the_same_penalty_is_recognised(problem, penalty, solution):
    again = DualSVMSolver().solve(*problem, penalty, warm_start=solution)
    assert again.num_iterations == 0
    np.testing.assert_allclose(again.weights, solution.weights, atol=1e-12)
    np.testing.assert_allclose(again.coefficients.toarray(), solution.coefficients.toarray(), atol=1e-12)


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_a_warm_start_gives_the_same_solution(problem, penalty, solution, factor):
    solver = DualSVMSolver(tolerance=1e-6)
    cold = solver.solve(*problem, factor * penalty)
    warm = solver.solve(*problem, factor * penalty, warm_start=solution)
    assert warm.converged
    distance = np.linalg.norm(cold.weights - warm.weights)
    assert distance <= cold.weight_error_bound + warm.weight_error_bound


def test_a_path_keeps_the_order_of_its_penalties(problem, penalty):
    Ks = [10 * penalty, 0.1 * penalty, penalty, 0.1 * penalty]
    solutions = DualSVMSolver().fit_path(*problem, Ks)
    assert [solution.K for solution in solutions] == Ks
    assert all(solution.converged for solution in solutions)
    for solution in solutions:
        primal, _, _, _ = objectives(problem, solution.coefficients.toarray(), solution.K)
        np.testing.assert_allclose(solution.primal, primal, rtol=1e-9)


@pytest.mark.parametrize("convert", [np.float64, np.float16, tf.constant])
def test_other_number_types_are_converted(problem, penalty, convert):
    features = problem[0].astype(np.float16).astype(np.float32)
    given = convert(features) if convert is tf.constant else features.astype(convert)
    expected = DualSVMSolver().solve(features, problem[1], problem[2], penalty)
    found = DualSVMSolver().solve(given, tf.constant(problem[1]), problem[2], penalty)
    np.testing.assert_array_equal(found.weights, expected.weights)


def test_an_early_stop_warns_with_the_gap_and_the_knob(problem, penalty):
    with pytest.warns(ConvergenceWarning, match="raise `max_iterations` or") as caught:
        solution = DualSVMSolver(max_iterations=3).solve(*problem, penalty)
    assert not solution.converged
    assert f"{solution.relative_gap:.2e}" in str(caught[0].message)
    primal, dual, _, _ = objectives(problem, solution.coefficients.toarray(), solution.K)
    np.testing.assert_allclose([solution.primal, solution.dual], [primal, dual], rtol=1e-6)


def test_many_classes_at_a_hard_margin_stop_early_with_an_honest_certificate():
    problem = make_problem("forty_classes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = DualSVMSolver(max_iterations=40).solve(*problem, relative_penalty(problem[0], 1e3))
    primal, dual, _, _ = objectives(problem, solution.coefficients.toarray(), solution.K)
    np.testing.assert_allclose(solution.primal, primal, rtol=1e-7)
    np.testing.assert_allclose(solution.primal - solution.dual, primal - dual, rtol=1e-5)


def test_progress_is_reported_and_an_interrupt_passes(problem, penalty):
    def interrupt(progress):
        assert progress.num_active > 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DualSVMSolver(progress=interrupt).solve(*problem, penalty)


def test_a_class_without_examples_warns():
    features, labels, num_classes = make_problem("missing_class")
    with pytest.warns(UserWarning, match=r"classes without examples=\[2\]"):
        DualSVMSolver().solve(features, labels, num_classes, relative_penalty(features, 0.1))


def test_non_finite_features_are_refused_with_their_rows(problem, penalty):
    features = problem[0].copy()
    features[[4, 9], 1] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"must be finite.*rows=\[4, 9\]"):
        DualSVMSolver().solve(features, problem[1], problem[2], penalty)


def test_labels_out_of_range_are_refused(problem, penalty):
    with pytest.raises(ValueError, match=r"`labels` must lie in 0 .. 3"):
        DualSVMSolver().solve(problem[0], problem[1], 4, penalty)


def test_fractional_labels_are_refused(problem, penalty):
    with pytest.raises(TypeError, match="`labels` must be integers"):
        DualSVMSolver().solve(problem[0], problem[1].astype(float), problem[2], penalty)


def test_one_hot_labels_are_refused(problem, penalty):
    with pytest.raises(ValueError, match="take the argmax of one-hot rows"):
        DualSVMSolver().solve(problem[0], np.eye(5, dtype=int)[problem[1]], problem[2], penalty)


@pytest.mark.parametrize("shape", [(120,), (0, 8), (120, 0), (2, 60, 8)])
def test_features_that_are_no_matrix_are_refused(problem, penalty, shape):
    with pytest.raises(ValueError, match="`features` must be a matrix"):
        DualSVMSolver().solve(np.zeros(shape), problem[1], problem[2], penalty)


@pytest.mark.parametrize("K", [0.0, -1.0, float("nan"), float("inf")])
def test_a_useless_penalty_is_refused(problem, K):
    with pytest.raises(ValueError, match="`K` must be positive and finite"):
        DualSVMSolver().solve(*problem, K)


def test_one_class_is_refused(problem, penalty):
    with pytest.raises(ValueError, match="At least two classes"):
        DualSVMSolver().solve(problem[0], np.zeros(120, int), 1, penalty)


def test_an_empty_path_is_refused(problem):
    with pytest.raises(ValueError, match="at least one penalty"):
        DualSVMSolver().fit_path(*problem, [])


def test_a_warm_start_of_other_examples_is_refused(problem, penalty, solution):
    with pytest.raises(ValueError, match="same examples and classes"):
        DualSVMSolver().solve(problem[0][:50], problem[1][:50], problem[2], penalty, warm_start=solution)


@pytest.mark.parametrize("settings", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_useless_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DualSVMSolver(**settings)
