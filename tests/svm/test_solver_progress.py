"""The bar of the solver's gap, on states as the solver reports them and on a solve."""

import io
import math

import numpy as np
import pytest

from deel_dualview import DualSVMSolver
from deel_dualview.svm import SolverProgress
from deel_dualview.svm.progress import GapBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def state(gap, K=1.0, tolerance=1e-4):
    return SolverProgress(K, 1, 100, math.inf, tolerance, 10, gap)


def positions(states, Ks=(1.0,)):
    with GapBar(Ks, progress=False) as bar:
        found = []
        for one in states:
            bar.update(one)
            found.append(bar.position)
    return found


def test_the_bar_is_half_way_where_half_of_the_digits_are_gained():
    assert positions([state(1e-2), state(1e-3)]) == pytest.approx([0, 0.5])


def test_the_bar_stands_at_the_start_before_the_first_certificate():
    assert positions([state(math.inf)]) == [0]


def test_the_bar_is_full_at_the_tolerance_and_below_it():
    assert positions([state(1e-1), state(1e-4), state(1e-9)])[1:] == [1, 1]


def test_the_bar_never_goes_back():
    assert positions([state(1e-1), state(1e-3), state(1e-2)]) == pytest.approx([0, 2 / 3, 2 / 3])


def test_each_penalty_has_an_equal_part_of_the_bar():
    assert positions([state(1e-1, K=2.0), state(1e-4, K=2.0)], Ks=(4.0, 1.0, 2.0)) == pytest.approx([1, 2])


def test_a_penalty_on_the_way_moves_nothing():
    assert positions([state(1e-1, K=0.5), state(1e-4, K=0.5)]) == [0, 0]


def test_a_solve_fills_the_bar():
    features = np.random.default_rng(0).normal(size=(60, 4))
    labels = (features[:, :3] + 0.5).argmax(axis=1)
    with GapBar([0.1], progress=False) as bar:
        DualSVMSolver(progress=bar.update).solve(features, labels, 3, 0.1)
    assert bar.position == pytest.approx(1)


def test_a_gap_is_known_before_the_first_certificate():
    states = []
    features = np.random.default_rng(0).normal(size=(200, 4))
    labels = (features[:, :3] + np.random.default_rng(1).normal(size=(200, 3))).argmax(axis=1)
    DualSVMSolver(progress=states.append).solve(features, labels, 3, 1.0)
    assert [one for one in states if one.relative_gap == math.inf and one.estimated_gap < math.inf]


def test_the_last_gap_is_that_of_the_solution():
    states = []
    features = np.random.default_rng(0).normal(size=(60, 4))
    labels = (features[:, :3] + 0.5).argmax(axis=1)
    solution = DualSVMSolver(progress=states.append).solve(features, labels, 3, 0.1)
    assert states[-1].relative_gap == pytest.approx(solution.relative_gap, rel=0.1)


def test_a_short_solve_shows_nothing_on_a_terminal():
    stream = Terminal()
    with GapBar([1.0], progress=True, stream=stream) as bar:
        bar.update(state(1e-2))
    assert "%" not in stream.getvalue()


def test_a_long_solve_shows_its_gap_on_a_terminal(monkeypatch):
    monkeypatch.setattr("deel_dualview.svm.progress._DELAY", 1e-9)
    stream = Terminal()
    with GapBar([1.0], progress=True, stream=stream) as bar:
        bar._bar.mininterval = 0
        bar.update(state(1e-2))
        bar.update(state(1e-3))
    assert "50%" in stream.getvalue() and "gap 1.0e-03, tolerance 1e-04" in stream.getvalue()


def test_nothing_is_shown_where_the_output_is_no_terminal(monkeypatch):
    monkeypatch.setattr("deel_dualview.svm.progress._DELAY", 1e-9)
    stream = io.StringIO()
    with GapBar([1.0], progress=True, stream=stream) as bar:
        bar.update(state(1e-2))
    assert not stream.getvalue()
