"""Ranks of training examples that are known to matter, and one further step on the proponents."""

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import tensorflow as tf

from deel_dualview.metrics import MRR, RecallAtK, TailPatch

VALUES = np.array([[0.1, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 3.0, 0.5]])
RELEVANT = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]], bool)


def naive_ranks(values, relevant):
    """The rank of every relevant example, from 1, ties by the lower index."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return [1 + order.index(i) for i in range(len(values)) if relevant[i]]


def drawn(rng, m=7, n=23):
    values = rng.integers(0, 6, (m, n)).astype(float)  # many ties
    relevant = rng.random((m, n)) < 0.2
    relevant[:, 3] = True
    return values, relevant


def test_the_reciprocal_rank_by_hand():
    metric = MRR()
    metric.update_state(VALUES, RELEVANT)
    np.testing.assert_allclose(metric.scores, [1 / 3, 1 / 2, 1])
    assert metric.result().num_examples == 3


def test_the_reciprocal_rank_is_that_of_a_naive_twin(rng):
    values, relevant = drawn(rng)
    metric = MRR()
    metric.update_state(values[:3], relevant[:3])
    metric.update_state(scipy.sparse.csr_array(values[3:]), scipy.sparse.csr_array(relevant[3:]))
    expected = [1 / min(naive_ranks(*pair)) for pair in zip(values, relevant, strict=True)]
    np.testing.assert_allclose(metric.scores, expected)


@pytest.mark.parametrize("k", [1, 5, 23])
def test_recall_is_that_of_a_naive_twin(rng, k):
    values, relevant = drawn(rng)
    metric = RecallAtK(k)
    metric.update_state(tf.constant(values), relevant)
    ranks = [naive_ranks(*pair) for pair in zip(values, relevant, strict=True)]
    np.testing.assert_allclose(metric.scores, [np.mean([rank <= k for rank in own]) for own in ranks])


def test_the_first_proponents_alone_give_the_same(rng):
    values, relevant = drawn(rng)
    order = np.argsort(-values, axis=1, kind="stable")
    for metric, short in ((MRR(), 23), (RecallAtK(4), 6)):
        metric.update_state(values, relevant)
        expected = metric.scores
        metric.reset_state()
        metric.update_top_k(order[:, :short], relevant)
        np.testing.assert_allclose(metric.scores, expected)
    first = MRR()
    first.update_top_k(np.array([[1, 2]]), np.array([[True, False, False]]))
    assert first.result().value == 0.0


@pytest.mark.parametrize("metric", [MRR(), RecallAtK(2)])
@pytest.mark.parametrize(
    ("relevant", "error"),
    [
        (RELEVANT[:, :3], "shape"),
        (np.zeros_like(RELEVANT), "rows"),
        (RELEVANT * 2, "boolean"),
    ],
)
def test_what_is_relevant_is_checked(metric, relevant, error):
    with pytest.raises(ValueError, match=error):
        metric.update_state(VALUES, relevant)


def test_k_is_checked():
    with pytest.raises(ValueError, match="k"):
        RecallAtK(5).update_state(VALUES, RELEVANT)
    with pytest.raises(ValueError, match="training_indices"):
        RecallAtK(3).update_top_k(np.array([[0, 1]]), RELEVANT[:1])


RATE = 0.3


@pytest.fixture
def regression(rng):
    """A softmax regression: its weights, training and test examples, and log-probabilities of what it predicts."""
    weights, x, y = rng.normal(size=(4, 3)), rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    test = rng.normal(size=(5, 4))
    predicted = (test @ weights).argmax(axis=1)

    def log_probabilities(own):
        return scipy.special.log_softmax(test @ own, axis=1)[np.arange(5), predicted]

    return weights, x, y, log_probabilities


def test_tail_patch_is_the_mean_change_by_one_step_on_each_proponent(regression, rng):
    weights, x, y, log_probabilities = regression
    calls = []

    def step(position):
        calls.append(int(position[0]))
        errors = scipy.special.softmax(x[position] @ weights, axis=1) - np.eye(3)[y[position]]
        return log_probabilities(weights - RATE * x[position].T @ errors)

    values, before = rng.normal(size=(5, 9)), log_probabilities(weights)
    metric = TailPatch(step, k=3)
    metric.update_state(values[:2], before[:2])
    metric.update_state(values[2:], before[2:])
    for row, score in enumerate(metric.scores):
        changes = []
        for i in np.argsort(-values[row])[:3]:
            p = np.exp(x[i] @ weights) / np.exp(x[i] @ weights).sum()
            moved = weights - RATE * np.outer(x[i], p - np.eye(3)[y[i]])
            changes.append(log_probabilities(moved)[row] - before[row])
        np.testing.assert_allclose(score, np.mean(changes))
    assert len(calls) == len(set(calls))  # once for each proponent
    metric.reset_state()
    metric.update_top_k(np.argsort(-values, axis=1)[:, :4], before, num_train=9)
    np.testing.assert_allclose(metric.result().value, np.mean(metric.scores))


def test_proponents_by_gradients_raise_the_log_probability_and_opponents_lower_it(regression):
    weights, x, y, log_probabilities = regression

    def step(position):
        errors = scipy.special.softmax(x[position] @ weights, axis=1) - np.eye(3)[y[position]]
        return log_probabilities(weights - 1e-3 * x[position].T @ errors)

    before = log_probabilities(weights)
    values = np.stack([step(np.array([i])) - before for i in range(9)], axis=1)
    best, worst = TailPatch(step, k=2), TailPatch(step, k=2)
    best.update_state(values, before)
    worst.update_state(-values, before)
    assert best.result().value > 0 > worst.result().value


@pytest.mark.parametrize("returned", [np.zeros((5, 2)), np.zeros(0), np.full(5, np.nan), ["a"] * 5])
def test_what_a_step_returns_is_checked(returned):
    with pytest.raises(ValueError, match="step"):
        TailPatch(lambda _: returned, k=1).update_state(np.eye(5), np.zeros(5))


def test_arguments_of_tail_patch_are_checked():
    with pytest.raises(TypeError, match="step"):
        TailPatch("step")
    with pytest.raises(ValueError, match="log_probabilities"):
        TailPatch(lambda _: np.zeros(5)).update_state(np.eye(5), np.zeros(4))
