"""Classification heads fitted to the given labels, whose scores of a training example have not seen its label."""

import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from deel_dualview.labels.calibration import best_temperature, log_loss

NUM_LANDMARKS = {"cosine": 300, "euclidean": 400}
PENALTIES = np.geomspace(1e-4, 1e2, 13)
"""Of the ridge, relative to the mean squared norm of a row of kernel features."""
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""C n of scikit-learn's logistic regression."""
NUM_FOLDS = 5
_MAX_ROWS = 5000
"""Examples that one logistic regression is fitted to: more hardly change it, and take minutes."""
_ROWS_AT_ONCE = 8192
_LEAST_LOG_PROBABILITY = -30.0

Distance = Literal["cosine", "euclidean"]


class HeadScores(NamedTuple):
    """Class scores of a head; a softmax of them, at some temperature, gives its probabilities.

    Attributes:
        train: of every training example by a head that was not fitted to it, shape (n, c), float32.
        test: by the head of all training examples, shape (m, c), float32; no rows without a test set.
    """

    train: np.ndarray
    test: np.ndarray


class Problem(NamedTuple):
    """What a head is fitted to, and the labels that choose its strength.

    Attributes:
        labels: given classes of the training set, shape (n,), int64.
        test_labels: classes of the test set, shape (m,); none without a test set.
        num_classes: c.
    """

    labels: np.ndarray
    test_labels: np.ndarray
    num_classes: int

    @property
    def is_tested(self) -> bool:
        """Whether there is a test set."""
        return len(self.test_labels) > 0


def ridge_head(
    train: np.ndarray,
    test: np.ndarray,
    problem: Problem,
    *,
    distance: Distance,
    by_test: bool,
    rng: np.random.Generator,
) -> HeadScores:
    """Fit kernel ridge regression of one-hot labels, and leave each training example out in closed form.

    The kernel is exp(-d / g), g half the median of d; Nystroem features of some random rows stand for it.

    Args:
        train: a representation of the training set, shape (n, d).
        test: the same of the test set, shape (m, d).
        problem: labels.
        distance: `"cosine"` (d = 1 - cosine; random rows of the training set) or `"euclidean"` (d = squared distance;
            random rows of both sets, which keeps the two exchangeable).
        by_test: whether the penalty is that of the smallest log loss on the test labels, else that of the smallest
            squared error of the left-out scores. The latter is misled by features that were made with the labels in
            view.
        rng: chooses the random rows.

    Source: leave-one-out in closed form, Allen (1974); features, Williams and Seeger (2001).
    """
    targets = np.eye(problem.num_classes)[problem.labels]
    fitted = Ridge(*kernel_rows(train, test, distance=distance, rng=rng)).fit(targets)
    if by_test and problem.is_tested:
        errors = [best_temperature(fitted.of_test(penalty), problem.test_labels)[1] for penalty in PENALTIES]
    else:
        errors = [float(((fitted.left_out(penalty) - targets) ** 2).sum()) for penalty in PENALTIES]
    best = PENALTIES[int(np.argmin(errors))]
    return HeadScores(fitted.left_out(best).astype(np.float32), fitted.of_test(best).astype(np.float32))


def kernel_rows(
    train: np.ndarray, test: np.ndarray, *, distance: Distance, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return Nystroem features of the kernel of `ridge_head`, with a constant, of both sets: (n, r) and (m, r)."""
    if distance == "cosine":
        train, test = _unit(train), _unit(test)
    pool = train if distance == "cosine" else np.concatenate([train, test])
    chosen = rng.choice(len(pool), min(NUM_LANDMARKS[distance], len(pool)), replace=False)
    features = _Nystroem(pool[np.sort(chosen)], train, distance)
    return features(train), features(test)


class Ridge:
    """Ridge regression on rows, at any penalty, without and with each training example in closed form.

    Penalties are relative to the mean squared norm of a row.

    Args:
        rows: of the training set, shape (n, r), the constant among them.
        test_rows: of the test set, shape (m, r).
    """

    def __init__(self, rows: np.ndarray, test_rows: np.ndarray):
        values, vectors = np.linalg.eigh(rows.T @ rows)
        self._rows, self._test_rows = rows @ vectors, test_rows @ vectors
        self._values, self._mean_norm = np.maximum(values, 0), values.sum() / len(rows)

    def fit(self, targets: np.ndarray) -> "FittedRidge":
        """Fit to targets, shape (n, t)."""
        return FittedRidge(self, targets, self._rows.T @ targets)

    def at(self, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotated rows of both sets, (n, r) and (m, r), and what their products with targets are divided by."""
        return self._rows, self._test_rows, self._values + penalty * self._mean_norm


class FittedRidge(NamedTuple):
    """A `Ridge` with its targets (n, t) and their products with the rotated rows (r, t)."""

    ridge: Ridge
    targets: np.ndarray
    products: np.ndarray

    def left_out(self, penalty: float) -> np.ndarray:
        """Return what is predicted of every training example by the fit to all others, shape (n, t)."""
        rows, _, divisors = self.ridge.at(penalty)
        inverse = 1 / divisors
        leverages = (rows**2 @ inverse)[:, None]
        scores = rows @ (inverse[:, None] * self.products)
        return (scores - leverages * self.targets) / np.maximum(1 - leverages, 1e-9)

    def of_test(self, penalty: float) -> np.ndarray:
        """Return what is predicted of the test examples, shape (m, t)."""
        _, test_rows, divisors = self.ridge.at(penalty)
        return test_rows @ (self.products / divisors[:, None])


def logistic_head(
    train: np.ndarray, test: np.ndarray, problem: Problem, *, rng: np.random.Generator
) -> HeadScores:
    """Fit multinomial logistic regression on standardised rows, for the training set out of five folds.

    Its strength is that of the smallest log loss on the test labels, or without them out of the folds.

    Args:
        train: a representation of the training set, shape (n, d).
        test: the same of the test set, shape (m, d).
        problem: labels.
        rng: chooses the folds, and the examples to fit to where there are many.
    """
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1
    train, test = (train - mean) / scale, (test - mean) / scale
    folds = list(_folds(problem.labels, rng))

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression | DummyClassifier:
        if len(rows) > _MAX_ROWS:
            rows = rng.choice(rows, _MAX_ROWS, replace=False)
        if len(np.unique(problem.labels[rows])) == 1:
            return DummyClassifier().fit(train[rows], problem.labels[rows])
        model = LogisticRegression(C=strength / len(rows), max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            # A head that stopped early is a little more regularised; the temperature evens it out.
            warnings.simplefilter("ignore")
            return model.fit(train[rows], problem.labels[rows])

    def out_of_fold(strength: float) -> np.ndarray:
        scores = np.empty((len(train), problem.num_classes), np.float32)
        for kept, left_out in folds:
            scores[left_out] = _log_probabilities(
                fitted(kept, strength), train[left_out], problem.num_classes
            )
        return scores

    everything = np.arange(len(train))
    # More threads than a fit of this size can use make it several times slower.
    with threadpool_limits(1, "blas"):
        if problem.is_tested:
            tested = [
                _log_probabilities(fitted(everything, strength), test, problem.num_classes)
                for strength in STRENGTHS
            ]
            best = int(np.argmin([best_temperature(scores, problem.test_labels)[1] for scores in tested]))
            return HeadScores(out_of_fold(STRENGTHS[best]), tested[best])
        trained = [out_of_fold(strength) for strength in STRENGTHS]
        best = int(np.argmin([log_loss(scores, problem.labels) for scores in trained]))
        return HeadScores(trained[best], np.empty((0, problem.num_classes), np.float32))


class _Nystroem:
    """Features whose inner products are the kernel's values, exactly between the landmarks; the last is constant."""

    def __init__(self, landmarks: np.ndarray, rows: np.ndarray, distance: Distance):
        self._landmarks, self._distance = landmarks, distance
        self._width = float(np.median(self._distances(rows[:_ROWS_AT_ONCE])) / 2) or 1.0
        own = self._kernel(landmarks)
        values, vectors = np.linalg.eigh((own + own.T) / 2 + 1e-8 * len(landmarks) * np.eye(len(landmarks)))
        self._root = vectors / np.sqrt(np.maximum(values, 1e-12)) @ vectors.T

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        features = np.ones((len(rows), len(self._landmarks) + 1))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            features[part, :-1] = self._kernel(rows[part]) @ self._root
        return features

    def _kernel(self, rows: np.ndarray) -> np.ndarray:
        return np.exp(-self._distances(rows) / self._width)

    def _distances(self, rows: np.ndarray) -> np.ndarray:
        products = (rows @ self._landmarks.T).astype(np.float64)
        if self._distance == "cosine":
            return np.maximum(1 - products, 0)
        norms = (rows.astype(np.float64) ** 2).sum(axis=1)[:, None]
        return np.maximum(norms + (self._landmarks.astype(np.float64) ** 2).sum(axis=1) - 2 * products, 0)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def _folds(labels: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    seed = int(rng.integers(2**31))
    num_folds = min(NUM_FOLDS, len(labels))
    is_rare = np.bincount(labels).max() < num_folds
    splitter = (KFold if is_rare else StratifiedKFold)(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes of fewer examples than folds are no fault here.
        warnings.simplefilter("ignore", UserWarning)
        yield from splitter.split(labels, labels)


def _log_probabilities(
    model: LogisticRegression | DummyClassifier, rows: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return log-probabilities (b, c); a class that the fit has not seen gets a very small one."""
    found = np.full((len(rows), num_classes), _LEAST_LOG_PROBABILITY, np.float32)
    if not len(rows):
        return found
    # Not `predict_log_proba`: it warns where a probability is rounded to 0.
    probabilities = np.maximum(model.predict_proba(rows), np.exp(_LEAST_LOG_PROBABILITY))
    found[:, model.classes_] = np.log(probabilities)
    return found
