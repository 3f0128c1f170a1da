"""Newton steps of the dual solver against naive twins in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.svm.newton import InnerState, find_movers, line_search, newton_step, proximal_multipliers
from deel_dualview.svm.passes import adjoint, margins
from deel_dualview.svm.problem import CHUNK

_SIZE, _SIGMA = tf.constant(0.5, tf.float64), tf.constant(0.2, tf.float64)


@pytest.fixture(scope="module")
def inner():
    """Rows, anchor and a state at random weights: many rows stand on a vertex."""
    generator = np.random.default_rng(0)
    rows, labels = generator.normal(size=(300, 5)).astype(np.float32), generator.integers(0, 4, 300)
    anchor = tf.constant(0.5 * np.eye(4)[labels])
    weights = tf.constant(generator.normal(size=(5, 4)))
    z = margins(tf.constant(rows), labels.astype(np.int32), weights)
    multipliers = proximal_multipliers(anchor, _SIGMA, z, _SIZE)
    dual_weights = adjoint(tf.constant(rows), anchor - multipliers)
    return tf.constant(rows), anchor, InnerState(weights, dual_weights, z, multipliers)


def _line(inner):
    rows, _, state = inner
    direction = 0.002 * (state.dual_weights - state.weights)
    return direction, tf.matmul(tf.cast(rows, tf.float64), direction)


def test_some_rows_stay_where_they_are_whatever_the_step(inner):
    _, anchor, state = inner
    _, change = _line(inner)
    movers = find_movers(state, anchor, _SIZE, _SIGMA, change).numpy()
    assert 0 < len(movers) < 300


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0])
def test_only_movers_change_their_multipliers_along_the_line(inner, step):
    _, anchor, state = inner
    _, change = _line(inner)
    movers = find_movers(state, anchor, _SIZE, _SIGMA, change).numpy()
    after = proximal_multipliers(anchor, _SIGMA, state.margins + step * change, _SIZE)
    changed = np.flatnonzero((after.numpy() != state.multipliers.numpy()).any(axis=1))
    assert set(changed) <= set(movers)


def test_the_line_search_finds_the_same_step_on_the_movers_as_on_all_rows(inner):
    _, anchor, state = inner
    direction, change = _line(inner)
    movers = find_movers(state, anchor, _SIZE, _SIGMA, change)
    few = state._replace(
        margins=tf.gather(state.margins, movers), multipliers=tf.gather(state.multipliers, movers)
    )
    step, _ = line_search(few, tf.gather(anchor, movers), _SIZE, _SIGMA, direction, tf.gather(change, movers))
    expected, _ = line_search(state, anchor, _SIZE, _SIGMA, direction, change)
    np.testing.assert_allclose(step, expected, rtol=1e-9)


@pytest.mark.parametrize("guess", ["own", "everything"])
def test_a_step_goes_downhill_whatever_support_is_guessed(inner, guess):
    rows, anchor, state = inner
    own = state.multipliers > 0
    support = own if guess == "own" else tf.ones_like(own)
    step = (tf.constant(0.1), tf.constant(300), tf.constant(2000))
    after, report = newton_step(rows, state, support, anchor, _SIZE, _SIGMA, None, *step)
    before = 0.5 * np.sum(np.square(state.weights - state.dual_weights))
    assert float(report.residual) < before
    z = (
        rows.numpy().astype(np.float64) @ after.weights.numpy()
        + (state.margins - _scores(rows, state)).numpy()
    )
    expected = proximal_multipliers(anchor, _SIGMA, tf.constant(z), _SIZE)
    np.testing.assert_allclose(after.multipliers, expected, atol=1e-5)


def test_the_support_of_the_solution_leads_there_in_one_step(inner):
    """Continued affinely, lambda solves a linear system: what the next stage is started with."""
    rows, anchor, start = inner
    settings = (anchor, _SIZE, _SIGMA, None, tf.constant(1e-6), tf.constant(300), tf.constant(2000))
    state = start
    for _ in range(30):
        state, report = newton_step(rows, state, state.multipliers > 0, *settings)
    assert float(report.residual) < 1e-9
    _, guessed = newton_step(rows, start, state.multipliers > 0, *settings)
    _, plain = newton_step(rows, start, start.multipliers > 0, *settings)
    assert float(guessed.residual) < 1e-6 < 1e-3 * float(plain.residual)


def _scores(rows, state):
    return tf.matmul(tf.cast(rows, tf.float64), state.weights)


@pytest.mark.parametrize("num_rows", [0, 1, CHUNK, 2 * CHUNK + 3])
def test_passes_over_rows_equal_the_products_they_stand_for(num_rows):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(num_rows, 3)).astype(np.float32)
    labels = generator.integers(0, 2, num_rows).astype(np.int32)
    weights, coefficients = generator.normal(size=(3, 2)), generator.normal(size=(num_rows, 2))
    coefficients[::2] = 0.0
    expected = rows.astype(np.float64) @ weights + 1.0 - np.eye(2)[labels]
    np.testing.assert_allclose(margins(tf.constant(rows), labels, tf.constant(weights)), expected, atol=1e-12)
    product = adjoint(tf.constant(rows), tf.constant(coefficients))
    np.testing.assert_allclose(product, rows.astype(np.float64).T @ coefficients, atol=1e-10)
