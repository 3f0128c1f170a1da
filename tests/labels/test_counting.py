"""The count of wrong labels: a likelihood's maximum, within its interval, or "cannot tell"."""

import numpy as np
import pytest
from scipy.special import softmax

from deel_dualview.labels import counting
from deel_dualview.labels.calibration import Calibration
from deel_dualview.labels.counting import are_off_by_one
from deel_dualview.labels.heads import HeadScores, Problem


def population(rng, num_examples, num_classes=4, sharpness=4.0):
    """Scores of which the softmax is the truth, and labels drawn from it."""
    centres = rng.integers(0, num_classes, num_examples)
    scores = rng.normal(size=(num_examples, num_classes)) + sharpness * np.eye(num_classes)[centres]
    drawn = (softmax(scores, axis=1).cumsum(axis=1) > rng.random((num_examples, 1))).argmax(axis=1)
    return scores, drawn


def with_wrong(rng, labels, number, num_classes=4):
    given = labels.copy()
    rows = rng.choice(len(labels), number, replace=False)
    given[rows] = (labels[rows] + rng.integers(1, num_classes, number)) % num_classes
    return given


def count(rng, number, *, sharpness=4.0, num_train=2000, num_test=1000):
    scores, labels = population(rng, num_train, sharpness=sharpness)
    test_scores, test_labels = population(rng, num_test, sharpness=sharpness)
    problem = Problem(with_wrong(rng, labels, number), test_labels, 4)
    return counting.count_wrong_labels(HeadScores(scores, test_scores), problem, rng)


def test_the_rate_has_the_largest_likelihood(rng):
    given, num_classes = rng.beta(5, 1, 400), 5
    rates = np.linspace(1e-4, 0.999, 4000)
    likelihoods = [np.log((1 - q) * given + q * (1 - given) / (num_classes - 1)).sum() for q in rates]
    assert counting.wrong_rate(given, num_classes) == pytest.approx(rates[np.argmax(likelihoods)], abs=1e-3)


def test_posteriors_are_those_of_bayes(rng):
    given = rng.random(6)
    right, wrong = 0.9 * given, 0.1 * (1 - given) / 2
    np.testing.assert_allclose(counting.wrong_posteriors(given, 0.1, 3), wrong / (right + wrong))


@pytest.mark.parametrize("number", [60, 200, 600])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_counted_within_the_interval(number, seed):
    found = count(np.random.default_rng(seed), number).number
    assert found.status == "counted"
    assert number / 2 <= found.estimate <= 2 * number
    assert found.low <= number <= found.high


@pytest.mark.parametrize("seed", range(6))
def test_right_labels_are_never_counted_as_wrong(seed):
    found = count(np.random.default_rng(seed), 0).number
    assert found.status == "at most" and found.estimate is None
    assert 0 <= found.at_most < 200


def test_classes_that_overlap_in_the_inputs_give_no_count():
    found = count(np.random.default_rng(0), 40, sharpness=0.5).number
    assert found.status == "cannot tell" and found.reason
    assert (found.estimate, found.low, found.high, found.at_most) == (None, None, None, None)


def test_scores_need_not_be_calibrated(rng):
    """Temperature and class biases come of the test labels."""
    scores, labels = population(rng, 2000)
    test_scores, test_labels = population(rng, 1000)
    shift = np.array([1.0, -2.0, 0.5, 0.5])
    distorted = HeadScores(0.2 * scores + 0.2 * shift, 0.2 * test_scores + 0.2 * shift)
    problem = Problem(with_wrong(rng, labels, 200), test_labels, 4)
    found = counting.count_wrong_labels(distorted, problem, rng).number
    assert found.low <= 200 <= found.high and 100 <= found.estimate <= 400


def test_a_noise_matrix_finds_labels_that_go_one_way(rng):
    scores, labels = population(rng, 4000)
    given = labels.copy()
    changed = (labels == 0) & (rng.random(4000) < 0.3)
    given[changed] = 1
    rate = counting.rate_by_noise_matrix(softmax(scores, axis=1), given)
    assert rate == pytest.approx(changed.mean(), abs=0.02)


def noise_rate(probabilities, labels, num_rounds):
    """The rate by dense posteriors, (n, c), one after the other."""
    num_classes = probabilities.shape[1]
    matrix = np.full((num_classes, num_classes), 0.05 / (num_classes - 1))
    np.fill_diagonal(matrix, 0.95)
    for _ in range(num_rounds):
        posteriors = probabilities * matrix.T[labels]
        posteriors /= posteriors.sum(axis=1, keepdims=True)
        counts = posteriors.T @ np.eye(num_classes)[labels]
        before, matrix = matrix, counts / counts.sum(axis=1, keepdims=True)
        if np.abs(matrix - before).max() < 1e-5:
            break
    return 1 - np.trace(counts) / len(labels)


def test_the_noise_matrix_of_many_classes_is_that_of_all_its_entries(rng, monkeypatch):
    """From where most have vanished, those that are left go on alone."""
    scores, labels = population(rng, 400, num_classes=60)
    probabilities, given = softmax(scores, axis=1), with_wrong(rng, labels, 40, 60)
    calls, sparse = [], counting._rate_by_sparse_matrix
    monkeypatch.setattr(
        counting, "_rate_by_sparse_matrix", lambda *arguments: calls.append(0) or sparse(*arguments)
    )
    rate = counting.rate_by_noise_matrix(probabilities, given)
    assert calls and rate == pytest.approx(noise_rate(probabilities, given, 500), abs=1e-6)


def test_probabilities_of_labels_are_those_of_the_softmax(rng):
    scores, labels = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    calibration = Calibration(0.3, rng.normal(size=7))
    expected = softmax(scores.astype(float) / 0.3 + calibration.biases, axis=1)
    np.testing.assert_allclose(np.exp(calibration.log_probabilities(scores)), expected)
    np.testing.assert_allclose(calibration.probabilities_of(labels, scores), expected[np.arange(50), labels])


def test_the_excess_is_the_largest_difference_of_the_distribution_functions():
    given, of_test = np.array([0.1, 0.2, 0.3, 0.9, 0.9]), np.array([0.2, 0.8, 0.9, 0.95])
    # Up to .3: 3 of 5 beside 1 of 4.
    assert counting.largest_excess(given, of_test) == pytest.approx(3 / 5 - 1 / 4)
    assert counting.largest_excess(of_test, of_test) == 0


def test_training_labels_that_look_as_easy_as_the_test_labels_are_no_evidence_of_memory(rng):
    assert counting.deviations_easier(rng.random(2000), rng.random(1000)) < 3
    assert counting.deviations_easier(rng.random(2000) ** 0.5, rng.random(1000)) > 3


def test_margins_are_the_gap_to_the_best_other_class():
    logs = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    np.testing.assert_allclose(counting.margins(logs, np.array([0, 1])), np.log([0.7 / 0.2, 0.3 / 0.6]))


@pytest.mark.parametrize(("num_train", "num_test"), [(2000, 3), (2000, 49), (49, 1000)])
def test_few_labels_give_no_count(num_train, num_test):
    found = count(
        np.random.default_rng(0), min(200, num_train // 4), num_train=num_train, num_test=num_test
    ).number
    assert found.status == "cannot tell" and "50 training and 50 test labels" in found.reason


def test_classes_that_are_numbered_otherwise_give_no_count(rng):
    scores, labels = population(rng, 1000)
    test_scores, test_labels = population(rng, 500)
    problem = Problem((labels + 1) % 4, test_labels, 4)
    found = counting.count_wrong_labels(HeadScores(scores, test_scores), problem, rng).number
    assert found.status == "cannot tell" and "numbered alike" in found.reason


@pytest.mark.parametrize(("kept", "is_known"), [([0], False), ([0, 1, 2], False), ([0, 1, 2, 3], True)])
def test_a_test_set_without_some_of_the_classes_gives_no_count(kept, is_known, rng):
    """Nothing shows how often right labels of the others look wrong; counts were many times too large."""
    scores, labels = population(rng, 2000)
    test_scores, test_labels = population(rng, 2000)
    rows = np.isin(test_labels, kept)
    problem = Problem(with_wrong(rng, labels, 200), test_labels[rows], 4)
    found = counting.count_wrong_labels(HeadScores(scores, test_scores[rows]), problem, rng).number
    assert (found.status == "counted") == is_known
    if not is_known:
        share = np.mean(~np.isin(problem.labels, kept))
        assert f"no example of the classes of {share:.0%} of the training labels" in found.reason


def test_a_rare_class_may_be_missing_in_the_test_set(rng):
    scores, labels = population(rng, 2000)
    test_scores, test_labels = population(rng, 1000)
    is_rare, is_rare_in_test = labels == 3, test_labels == 3
    rows = np.concatenate([np.flatnonzero(~is_rare), np.flatnonzero(is_rare)[:40]])
    problem = Problem(with_wrong(rng, labels[rows], 150), test_labels[~is_rare_in_test], 4)
    found = counting.count_wrong_labels(
        HeadScores(scores[rows], test_scores[~is_rare_in_test]), problem, rng
    ).number
    assert "no example of the classes" not in found.reason


def test_scores_that_tell_nothing_give_no_count(rng):
    constant = HeadScores(np.ones((400, 3)), np.ones((200, 3)))
    problem = Problem(np.arange(400) % 3, np.arange(200) % 3, 3)
    assert counting.count_wrong_labels(constant, problem, rng).number.status == "cannot tell"


def test_an_upper_bound_is_never_less_than_three(rng):
    """Of an event that was not seen, three may be expected."""
    labels, test_labels = np.arange(200) % 4, np.arange(100) % 4
    sure = HeadScores(20 * np.eye(4)[labels], 20 * np.eye(4)[test_labels])
    found = counting.count_wrong_labels(sure, Problem(labels, test_labels, 4), rng).number
    assert found.status == "at most" and found.at_most >= 3


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_that_are_off_by_one_are_recognised(shift, rng):
    predictions = rng.integers(0, 5, 200)
    assert are_off_by_one(predictions, (predictions + shift) % 5, 5)


def test_labels_that_are_mostly_predicted_are_not_off_by_one(rng):
    labels = rng.integers(0, 5, 200)
    predictions = np.where(rng.random(200) < 0.6, labels, (labels + 1) % 5)
    assert not are_off_by_one(predictions, labels, 5)


def test_random_labels_are_not_off_by_one(rng):
    assert not are_off_by_one(rng.integers(0, 3, 200), rng.integers(0, 3, 200), 3)
