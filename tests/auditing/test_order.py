"""Whether a set is in random order: sorted, drifting and clumped sets are found, shuffled ones are not."""

import numpy as np
import pytest
import scipy.stats

from deel_dualview.auditing.order import blocks_test, find_order, neighbours_test, runs_test
from deel_dualview.report import Severity


def clusters(seed, num=400, num_classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    return 4 * rng.normal(size=(num_classes, 6))[labels] + rng.normal(size=(num, 6)), labels


@pytest.mark.parametrize("seed", range(5))
def test_a_set_in_random_order_raises_no_alarm(seed):
    assert list(find_order(*clusters(seed), "training")) == []


def test_a_set_sorted_by_label_is_found_by_all_three_tests():
    rows, labels = clusters(0)
    order = np.argsort(labels, kind="stable")
    (problem,) = find_order(rows[order], labels[order], "test")
    assert problem.title == "The test set is not in random order" and problem.severity is Severity.KNOW
    assert (
        "look alike" in problem.advice and "unevenly" in problem.advice and "side by side" in problem.advice
    )


def test_inputs_that_drift_are_found_without_labels():
    rows, _ = clusters(0)
    drifting = rows + np.linspace(0, 12, len(rows))[:, np.newaxis]
    (problem,) = find_order(drifting, None, "training")
    assert "look alike" in problem.advice and "unevenly" not in problem.advice


def test_batches_of_one_class_are_found_though_classes_are_spread_evenly():
    labels = np.repeat(np.arange(100) % 4, 4)
    rows = np.random.default_rng(0).normal(size=(400, 3))
    (problem,) = find_order(rows, labels, "training")
    assert "side by side" in problem.advice and "unevenly" not in problem.advice


def test_labels_in_turn_are_no_problem():
    rows = np.random.default_rng(0).normal(size=(400, 3))
    assert list(find_order(rows, np.arange(400) % 4, "training")) == []


@pytest.mark.parametrize("num_different", [1, 3])
def test_rows_that_are_equally_near_raise_no_alarm(num_different):
    rows = np.random.default_rng(0).integers(0, num_different, (300, 1)).astype(float)
    assert list(find_order(rows, None, "training")) == []


def test_little_is_said_about_few_examples():
    assert list(find_order(np.arange(40.0)[:, np.newaxis], np.arange(40) // 20, "training")) == []


def test_the_neighbours_of_a_sorted_set_are_as_near_as_can_be():
    rows = np.arange(1000.0)[:, np.newaxis]
    found = neighbours_test(rows)
    assert found.effect > 0.9 and found.chance == 0.001
    assert neighbours_test(rows) == found


def test_runs_have_the_mean_and_deviation_of_permutations():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 60, p=[0.6, 0.3, 0.1])
    counts = [((other := rng.permutation(labels))[1:] == other[:-1]).sum() for _ in range(4000)]
    equal = (labels[1:] == labels[:-1]).sum()
    largest = len(labels) - 3
    # A Monte Carlo mean and deviation of 4,000 draws.
    expected = (equal - np.mean(counts)) / (largest - np.mean(counts))
    np.testing.assert_allclose(runs_test(labels).effect, expected, atol=0.01)
    ordered = np.sort(labels)
    from_permutations = (largest - 0.5 - np.mean(counts)) / np.std(counts)
    np.testing.assert_allclose(scipy.stats.norm.isf(runs_test(ordered).chance), from_permutations, rtol=0.03)
    assert runs_test(ordered).effect == pytest.approx(1)


def test_the_association_with_blocks_is_0_in_random_order_and_1_in_a_sorted_set():
    labels = np.random.default_rng(0).permutation(np.arange(1000) % 10)
    assert blocks_test(labels).effect < 0.05
    assert blocks_test(np.sort(labels)).effect == pytest.approx(1, abs=0.01)
