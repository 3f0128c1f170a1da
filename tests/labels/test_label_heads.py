"""Heads on a representation: no training example's scores have seen its own label."""

import numpy as np
import pytest
from scipy.special import softmax

from deel_dualview.labels.calibration import best_temperature
from deel_dualview.labels.heads import PENALTIES, Problem, logistic_head, ridge_head

NO_TEST = np.empty(0, np.int64)


def clusters(rng, num_each=20, num_classes=3, spread=0.7, width=4):
    labels = np.repeat(np.arange(num_classes), num_each)
    return np.eye(num_classes, width)[labels] + rng.normal(0, spread, (len(labels), width)), labels


def kernel_rows(landmarks, rows, kind, width=None):
    """The features of the ridge in plain NumPy: kernel values to the landmarks, whitened, and a constant."""

    def distances_of(rows):
        if kind == "cosine":
            return 1 - rows @ landmarks.T
        return ((rows[:, None] - landmarks[None]) ** 2).sum(axis=2)

    distances, own = distances_of(rows), distances_of(landmarks)
    width = np.median(distances) / 2 if width is None else width
    values, vectors = np.linalg.eigh(np.exp(-own / width) + 1e-8 * len(landmarks) * np.eye(len(landmarks)))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return np.hstack([np.exp(-distances / width) @ root, np.ones((len(rows), 1))]), width


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("by_test", [True, False])
def test_the_ridge_leaves_each_example_out_as_if_fitted_again_without_it(rng, kind, by_test):
    train, labels = clusters(rng)
    test, test_labels = clusters(rng, 10)
    found = ridge_head(
        train,
        test,
        Problem(labels, test_labels, 3),
        distance=kind,
        by_test=by_test,
        rng=np.random.default_rng(0),
    )
    if kind == "cosine":
        train, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, test))
    landmarks = train if kind == "cosine" else np.concatenate([train, test])
    rows, width = kernel_rows(landmarks, train, kind)
    test_rows, _ = kernel_rows(landmarks, test, kind, width)
    targets = np.eye(3)[labels]
    mean_norm = (rows**2).sum() / len(rows)

    def weights(kept, penalty):
        gram = rows[kept].T @ rows[kept] + penalty * mean_norm * np.eye(rows.shape[1])
        return np.linalg.solve(gram, rows[kept].T @ targets[kept])

    everything = np.arange(len(rows))
    by_penalty = {
        penalty: np.stack([rows[i] @ weights(np.delete(everything, i), penalty) for i in everything])
        for penalty in PENALTIES
    }
    if by_test:
        errors = [best_temperature(test_rows @ weights(everything, p), test_labels)[1] for p in PENALTIES]
    else:
        errors = [((by_penalty[penalty] - targets) ** 2).sum() for penalty in PENALTIES]
    best = PENALTIES[np.argmin(errors)]
    np.testing.assert_allclose(found.train, by_penalty[best], atol=1e-4)
    np.testing.assert_allclose(found.test, test_rows @ weights(everything, best), atol=1e-4)


def head_of(kind, rows, problem, rng):
    if kind == "logistic":
        return logistic_head(rows, rows[:0], problem, rng=rng)
    return ridge_head(rows, rows[:0], problem, distance=kind, by_test=True, rng=rng)


@pytest.mark.parametrize("kind", ["logistic", "cosine", "euclidean"])
def test_labels_that_follow_from_nothing_are_not_predicted(rng, kind):
    """Every example has a column of its own, by which a head that had seen its label would know it."""
    labels = rng.integers(0, 2, 120)
    scores = head_of(kind, np.eye(120), Problem(labels, NO_TEST, 2), rng).train
    assert (scores.argmax(axis=1) == labels).mean() < 0.65


@pytest.mark.parametrize("kind", ["logistic", "cosine", "euclidean"])
def test_labels_that_follow_from_the_rows_are_predicted(rng, kind):
    train, labels = clusters(rng, 40, spread=0.2)
    scores = head_of(kind, train, Problem(labels, NO_TEST, 3), rng).train
    assert (scores.argmax(axis=1) == labels).mean() > 0.97


def test_the_logistic_head_takes_the_strength_that_predicts_the_test_labels_best(rng):
    train, labels = clusters(rng, 30, width=40)
    test, test_labels = clusters(rng, 100, width=40)
    tested = logistic_head(train, test, Problem(labels, test_labels, 3), rng=rng).test
    from sklearn.linear_model import LogisticRegression

    mean, scale = train.mean(axis=0), train.std(axis=0)
    losses = []
    for strength in (1, 10, 100, 1000):
        model = LogisticRegression(C=strength / 90, max_iter=1000).fit((train - mean) / scale, labels)
        logs = model.predict_log_proba((test - mean) / scale)
        losses.append(best_temperature(logs, test_labels)[1])
    assert best_temperature(tested, test_labels)[1] == pytest.approx(min(losses), abs=2e-3)
    assert max(losses) - min(losses) > 0.02


@pytest.mark.parametrize("num_rare", [1, 3])
def test_classes_with_fewer_examples_than_folds_get_scores(rng, num_rare):
    train, labels = clusters(rng, 10)
    train, labels = train[: 20 + num_rare], labels[: 20 + num_rare]
    scores = logistic_head(train, train[:0], Problem(labels, NO_TEST, 3), rng=rng).train
    np.testing.assert_allclose(softmax(scores, axis=1).sum(axis=1), 1, rtol=1e-5)
    assert np.isfinite(scores).all()


def test_a_class_of_one_example_beside_another_class_gets_scores(rng):
    labels = np.array([0] * 9 + [1])
    scores = logistic_head(
        rng.normal(size=(10, 3)), np.empty((0, 3)), Problem(labels, NO_TEST, 2), rng=rng
    ).train
    assert scores.shape == (10, 2) and np.isfinite(scores).all()


def test_rows_that_are_all_equal_are_no_obstacle(rng):
    labels = np.arange(12) % 3
    for kind in ("cosine", "euclidean"):
        scores = head_of(kind, np.ones((12, 4)), Problem(labels, NO_TEST, 3), rng).train
        assert np.isfinite(scores).all()
