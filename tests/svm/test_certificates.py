"""Every certificate of the dual solver, recomputed in NumPy float64 from alpha alone."""

import warnings

import numpy as np
import pytest
from svm_problems import PROBLEMS, check_certificate, make_problem, relative_penalty

from deel_dualview import ConvergenceWarning, DualSVMSolver

# Where forty classes have random labels, a hard margin takes long: the steps are limited for all.
_STEPS = 40


@pytest.fixture(scope="module", params=list(PROBLEMS))
def problem(request):
    return make_problem(request.param)


@pytest.fixture(autouse=True)
def _expected_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some classes have no example")
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _solve(problem, strength, *, warm_start=None, tolerance=1e-4, max_iterations=_STEPS):
    solver = DualSVMSolver(tolerance, max_iterations)
    return solver.solve(*problem, relative_penalty(problem[0], strength), warm_start=warm_start)


@pytest.mark.parametrize("tolerance", [0.2, 1e-4])
def test_a_cold_start_is_certified_truly_at_any_tolerance(problem, tolerance):
    check_certificate(problem, _solve(problem, 3.0, tolerance=tolerance))


@pytest.mark.parametrize("steps", [2])
def test_an_early_stop_is_certified_truly(problem, steps):
    check_certificate(problem, _solve(problem, 30.0, max_iterations=steps))


@pytest.mark.parametrize("strength", [0.03])
def test_a_warm_start_that_hardly_moves_is_certified_truly(problem, strength):
    """From a larger K, alpha shrinks and rows without any fall inside the margin: the frozen part of the gap."""
    start = _solve(problem, 100.0)
    check_certificate(problem, _solve(problem, strength, warm_start=start, max_iterations=1))


@pytest.mark.parametrize("strength", [0.03])
def test_a_warm_start_that_converges_is_certified_truly(problem, strength):
    start = _solve(problem, 10.0, tolerance=1e-2)
    check_certificate(problem, _solve(problem, strength, warm_start=start, tolerance=1e-3))


def test_every_solution_of_a_path_is_certified_truly(problem):
    Ks = [relative_penalty(problem[0], strength) for strength in (10.0, 1e-3, 0.1)]
    for solution in DualSVMSolver(1e-3, _STEPS).fit_path(*problem, Ks):
        check_certificate(problem, solution)


@pytest.mark.parametrize("name", ["duplicates", "zero_rows"])
def test_the_canonical_point_is_certified_with_the_rows_that_it_leaves_alone(name):
    """At a loose tolerance frozen rows keep a part of the gap when duplicates and zero rows are settled."""
    problem = make_problem(name)
    for strength in (1.0, 10.0, 100.0):
        check_certificate(problem, _solve(problem, strength, tolerance=0.2))


def test_a_certificate_of_rows_that_stand_on_other_classes_counts_them():
    """Rows of wrong labels stand on a wrong class with all of K, outside of the working set."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    features = (np.eye(3)[labels] * 5 + 0.3 * generator.normal(size=(200, 3))).astype(np.float32)
    labels[:40] = (labels[:40] + 1) % 3
    problem = features, labels, 3
    for strength in (0.1, 1.0, 10.0):
        for tolerance in (0.1, 1e-4):
            check_certificate(problem, _solve(problem, strength, tolerance=tolerance))
