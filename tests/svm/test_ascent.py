"""Blocked dual ascent, on problems small enough for naive twins."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from svm_problems import check_certificate, make_problem, relative_penalty
from test_simplex import twin

from deel_dualview import ConvergenceWarning, DualSVMSolver
from deel_dualview.svm.ascent import Ascent
from deel_dualview.svm.block_visits import Form, _project_by_pairs, padded_size, rows_of_call, visitor
from deel_dualview.svm.features import Features
from deel_dualview.svm.problem import check_problem
from deel_dualview.svm.proximal import ProximalPoint


@pytest.fixture(autouse=True)
def _large(monkeypatch):
    """Problems of any size count as large, with a level of 32 rows."""
    monkeypatch.setattr("deel_dualview.svm.dual._LARGE", 0)
    monkeypatch.setattr("deel_dualview.svm.ascent._LEVEL", 32)


@pytest.fixture
def newton(monkeypatch):
    """A solver by Newton steps alone."""

    def solve(problem, K, **settings):
        with monkeypatch.context() as patch:
            patch.setattr("deel_dualview.svm.dual._LARGE", np.inf)
            return DualSVMSolver(1e-6).solve(*problem, K, **settings)

    return solve


def assert_same_weights(found, expected):
    bound = found.weight_error_bound + expected.weight_error_bound
    assert found.converged and np.linalg.norm(found.weights - expected.weights) <= bound


@pytest.mark.parametrize("strength", [0.1, 1.9])
def test_a_solution_by_ascent_is_that_of_newton_steps(newton, strength):
    problem = make_problem("random")
    K = relative_penalty(problem[0], strength)
    found = DualSVMSolver().solve(*problem, K)
    check_certificate(problem, found)
    assert_same_weights(found, newton(problem, K))


def test_rows_of_zeros_stand_off_their_label():
    problem = make_problem("zero_rows")
    found = DualSVMSolver().solve(*problem, relative_penalty(problem[0], 1.0))
    check_certificate(problem, found)
    zero = np.flatnonzero(~problem[0].any(axis=1))
    np.testing.assert_allclose(found.coefficients.toarray()[zero, problem[1][zero]], found.K)


def test_exact_duplicates_get_equal_coefficients_though_visited_one_after_the_other():
    problem = make_problem("duplicates")
    found = DualSVMSolver().solve(*problem, relative_penalty(problem[0], 1.0))
    check_certificate(problem, found)
    half = len(problem[1]) // 2
    alpha = found.coefficients.toarray()
    np.testing.assert_array_equal(alpha[:half], alpha[half:])


def test_weighted_examples_keep_to_their_own_penalties(newton):
    problem = make_problem("random")
    weights = np.random.default_rng(2).exponential(size=len(problem[1])) ** 2
    weights[:4] = 0.0
    K = relative_penalty(problem[0], 1.0)
    found = DualSVMSolver().solve(*problem, K, sample_weight=weights)
    own = found.coefficients.toarray()[np.arange(len(weights)), problem[1]]
    assert (own <= K * weights * (1 + 1e-12)).all() and (own >= 0).all()
    assert_same_weights(found, newton(problem, K, sample_weight=weights))


def test_the_ascent_gives_the_same_bits_again():
    problem = make_problem("random")
    first, second = (DualSVMSolver().solve(*problem, relative_penalty(problem[0], 1.0)) for _ in range(2))
    np.testing.assert_array_equal(first.coefficients.toarray(), second.coefficients.toarray())


def test_a_solution_is_recognised_as_a_warm_start_and_leads_to_other_penalties():
    problem = make_problem("random")
    K = relative_penalty(problem[0], 0.1)
    start = DualSVMSolver().solve(*problem, K)
    assert DualSVMSolver().solve(*problem, K, warm_start=start).num_iterations == 0
    check_certificate(problem, DualSVMSolver().solve(*problem, 3 * K, warm_start=start))


@pytest.mark.filterwarnings("ignore:Some classes have no example")
def test_newton_steps_take_over_where_the_ascent_is_slow(monkeypatch):
    features, labels, _ = make_problem("ill_conditioned")
    problem = features[:, :8], labels, 5
    starts = []
    monkeypatch.setattr(
        "deel_dualview.svm.dual.ProximalPoint",
        lambda *arguments: starts.append(arguments[-1]) or ProximalPoint(*arguments),
    )
    found = DualSVMSolver(1e-7).solve(*problem, relative_penalty(problem[0], 1.9))
    check_certificate(problem, found)
    assert found.converged and found.num_iterations > starts[0] > 0


def test_a_stopped_ascent_is_certified_truly_and_reports_its_passes():
    problem, states = make_problem("random"), []
    with pytest.warns(ConvergenceWarning, match="raise `max_iterations`"):
        found = DualSVMSolver(max_iterations=3, progress=states.append).solve(
            *problem, relative_penalty(problem[0], 1.0)
        )
    check_certificate(problem, found)
    assert found.num_iterations == 3 == states[-1].iteration


def test_a_cycle_passes_over_its_rows_again_while_its_goal_is_far():
    features, labels, num_classes = make_problem("random")
    problem = check_problem(features, labels, num_classes, relative_penalty(features, 1.0))
    ascent = Ascent(problem, 1e-4, 100, lambda *_: None)
    ascent._cycle(np.ones(len(labels)), goal=0.0, least=2.0 * len(labels))
    assert ascent.num_iterations > 1


def test_the_host_computes_nothing_of_features_that_a_gpu_holds(monkeypatch):
    """A GPU is pretended: the host reads the features to hand them over and to find equal rows, no more."""
    readers, read = set(), Features.__getitem__

    def recorded(features, rows):
        readers.add(sys._getframe(1).f_code.co_name)
        return read(features, rows)

    monkeypatch.setattr(Features, "__getitem__", recorded)
    monkeypatch.setattr(Features, "is_on_gpu", True)
    problem = make_problem("duplicates")
    check_certificate(problem, DualSVMSolver().solve(*problem, relative_penalty(problem[0], 1.0)))
    assert readers == {"tensor", "row_keys", "first_equal_rows"}


def test_what_fills_up_a_call_moves_nothing():
    generator, n, size = np.random.default_rng(0), 70, 17
    features = np.maximum(generator.normal(size=(n, size)), 0).astype(np.float32)
    problem = check_problem(features, np.arange(n) % size, size, 1.0)
    ascent = Ascent(problem, 1e-4, 100, lambda *_: None)
    assert ascent._padded_weights().shape == (18, 18)
    for rows in (np.arange(n), np.arange(5)):
        _, weights = ascent._visit(rows, ascent._padded_weights(), tf.constant(1.0))
        ascent._weights = weights.numpy()[:size, :size]
    alpha = np.eye(size)[problem.labels] - ascent._lambda[np.arange(n)].toarray()
    expected = np.pad(alpha.T @ features, [(0, 1), (0, 1)])
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-4)


def _visit(num_classes, num_rows, form=None, seed=0):
    """A call at random weights: rows, labels, lambda before, weights before, and the result."""
    generator, d, K = np.random.default_rng(seed), 8, 0.5
    size = rows_of_call(num_classes, d)
    rows = np.maximum(generator.normal(size=(size, d)) + 0.3, 0).astype(np.float32)
    labels = generator.integers(0, num_classes, size).astype(np.int32)
    before = (K * np.eye(num_classes)[labels]).astype(np.float32)
    weights = np.zeros((num_classes, d), np.float32)
    arrays = rows, labels, np.full(size, K, np.float32), before, weights, np.ones(num_classes, np.float32)
    found = visitor(num_classes, d, form)(*map(tf.constant, arrays), tf.constant(num_rows), tf.constant(1.0))
    return rows, labels, before, K, found


WHOLE_BLOCKS = Form(rows_of_call(64, 8), 64, 64, 4)  # a block moves together: what suits a GPU


@pytest.mark.parametrize(
    ("num_classes", "form"),
    [(5, None), (64, None), (64, WHOLE_BLOCKS), (512, None)],
    ids=["rows", "groups", "blocks", "short blocks"],
)
def test_a_visit_raises_the_dual_and_keeps_lambda_on_its_simplex(num_classes, form):
    rows, labels, before, K, found = _visit(num_classes, 192, form)
    after = found.multipliers.numpy().astype(np.float64)
    np.testing.assert_allclose(after.sum(axis=1), K, rtol=1e-5)
    assert after.min() >= -1e-6
    np.testing.assert_array_equal(after[192:], before[192:])
    alpha = before - after
    W = rows.astype(np.float64).T @ alpha
    np.testing.assert_allclose(found.weights.numpy().T, W, atol=1e-4)
    assert alpha[np.arange(len(labels)), labels].sum() - 0.5 * np.square(W).sum() > 0


@pytest.mark.parametrize("num_classes", [5, 64])
def test_the_first_row_of_a_visit_moves_to_the_exact_maximum(num_classes):
    rows, labels, before, K, found = _visit(num_classes, 1)
    z = 1.0 - np.eye(num_classes)[labels[:1]]
    expected = twin(before[:1] + z / np.square(rows[0]).sum(), K)
    np.testing.assert_allclose(found.multipliers.numpy()[:1], expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 10, 64, 100, 513, 2048])
def test_a_padded_size_is_at_most_an_eighth_larger(size):
    assert size <= padded_size(size) <= size * 9 / 8


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_a_projection_by_pairs_of_classes_is_exact_with_ties_and_classes_left_out(size):
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)
    values[3], values[5] = values.max(), -1e30
    found = _project_by_pairs(tf.constant(values[:, None]), tf.constant(size))
    np.testing.assert_allclose(found.numpy().T, twin(values[None].astype(np.float64), size), rtol=1e-5)
