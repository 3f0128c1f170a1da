"""Classification heads fitted to the given labels, whose scores of a training example have not seen its label."""

import warnings
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from deel_dualview.labels.calibration import best_temperature, log_loss
from deel_dualview.linalg.rows import LazyRows, MappedRows, Rows, mean_and_deviation, row_slices

NUM_LANDMARKS = {"cosine": 300, "euclidean": 400}
PENALTIES = np.geomspace(1e-4, 1e2, 13)
"""Of the ridge, relative to the mean squared norm of a row of kernel features."""
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""C n of scikit-learn's logistic regression."""
NUM_FOLDS = 5
_MAX_ROWS = 5000
"""Examples that one logistic regression is fitted to: more hardly change it, and take minutes."""
_ROWS_AT_ONCE = 8192
HELD_BYTES = 2**29
"""Of a head: what has a row for every training example is held up to here, else computed anew where it is needed."""
MOST_COMPARED = 100_000
"""Training examples by which a number is chosen, or estimated: at random of more."""
_LEAST_LOG_PROBABILITY = -30.0
_ALL = slice(None)

Distance = Literal["cosine", "euclidean"]


class HeadScores(NamedTuple):
    """Class scores of a head; a softmax of them, at some temperature, gives its probabilities.

    Attributes:
        train: of every training example by a head that was not fitted to it, shape (n, c), float32; beyond
            `HELD_BYTES` they are computed as they are taken.
        test: by the head of all training examples, shape (m, c), float32; no rows without a test set.
    """

    train: Rows
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


class OneHot(LazyRows):
    """One-hot rows of classes.

    Args:
        classes: shape (n,).
        num_classes: c.
    """

    def __init__(self, classes: np.ndarray, num_classes: int) -> None:
        self._classes = classes
        self.shape = len(classes), num_classes

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        classes = self._classes[rows]
        found = np.zeros((len(classes), self.shape[1]))
        found[np.arange(len(classes)), classes] = 1
        return found


def some_rows(num_rows: int) -> np.ndarray | slice:
    """Return the positions of the rows by which a number is chosen: all, or random ones of many, increasing."""
    if num_rows <= MOST_COMPARED:
        return slice(0, num_rows)
    return np.sort(np.random.default_rng(0).choice(num_rows, MOST_COMPARED, replace=False))


def ridge_head(
    train: Rows,
    test: np.ndarray,
    problem: Problem,
    *,
    distance: Distance,
    by_test: bool,
    rng: np.random.Generator,
    held_bytes: int = HELD_BYTES,
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
        held_bytes: up to which what has a row for every training example is held.

    Source: leave-one-out in closed form, Allen (1974); features, Williams and Seeger (2001).
    """
    targets = OneHot(problem.labels, problem.num_classes)
    rows, test_rows = kernel_rows(train, test, distance=distance, rng=rng, held_bytes=held_bytes)
    fitted = Ridge(rows, test_rows, targets).fit(targets)
    if by_test and problem.is_tested:
        errors = [best_temperature(fitted.of_test(penalty), problem.test_labels)[1] for penalty in PENALTIES]
    else:
        errors = fitted.squared_errors(PENALTIES).tolist()
    best = PENALTIES[int(np.argmin(errors))]
    left_out = MappedPositions(len(train), problem.num_classes, lambda part: fitted.left_out(best, part))
    return HeadScores(left_out.held(held_bytes), fitted.of_test(best).astype(np.float32))


class MappedPositions(LazyRows):
    """Rows (n, c) of float32 that a function of positions, or a slice, computes."""

    def __init__(self, num_rows: int, num_columns: int, function: Callable[..., np.ndarray]) -> None:
        self.shape, self._function = (num_rows, num_columns), function

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._function(rows).astype(np.float32, copy=False)

    def held(self, most_bytes: int) -> Rows:
        """Return all rows as an array where they take at most so many bytes, else these."""
        if 4 * self.shape[0] * self.shape[1] > most_bytes:
            return self
        found = np.empty(self.shape, np.float32)
        for part in row_slices(*self.shape):
            found[part] = self[part]
        return found


def kernel_rows(
    train: Rows,
    test: np.ndarray,
    *,
    distance: Distance,
    rng: np.random.Generator,
    held_bytes: int = HELD_BYTES,
) -> tuple[Rows, np.ndarray]:
    """Return Nystroem features of the kernel of `ridge_head`, with a constant, of both sets: (n, r) and (m, r)."""
    pool = len(train) + (0 if distance == "cosine" else len(test))
    chosen = np.sort(rng.choice(pool, min(NUM_LANDMARKS[distance], pool), replace=False))
    of_train = chosen < len(train)
    landmarks = np.concatenate([train[chosen[of_train]], test[chosen[~of_train] - len(train)]])
    features = _Nystroem(landmarks, train[:_ROWS_AT_ONCE], distance)
    rows = MappedRows(train, features, len(landmarks) + 1)
    if 8 * rows.shape[0] * rows.shape[1] > held_bytes:
        return rows, features(test)
    return features(train), features(test)


class Ridge:
    """Ridge regression on rows, at any penalty, without and with each training example in closed form.

    Penalties are relative to the mean squared norm of a row.

    Args:
        rows: of the training set, shape (n, r), the constant among them.
        test_rows: of the test set, shape (m, r).
        targets: that it will be fitted to, shape (n, t): rows that are computed are so once less.
    """

    def __init__(self, rows: Rows, test_rows: np.ndarray, targets: Rows | None = None):
        size = rows.shape[1]
        self._targets, self._target_products = targets, np.empty(0)
        if isinstance(rows, np.ndarray):
            self._targets, products = None, rows.T @ rows
        else:
            products = np.zeros((size, size))
            by_targets = np.zeros((size, 0 if targets is None else targets.shape[1]))
            for part in row_slices(*rows.shape):
                block = rows[part]
                products += block.T @ block
                if targets is not None:
                    by_targets += block.T @ targets[part]
        values, vectors = np.linalg.eigh(products)
        if self._targets is not None:
            self._target_products = vectors.T @ by_targets
        self._rows: Rows = (
            rows @ vectors
            if isinstance(rows, np.ndarray)
            else MappedRows(rows, lambda block: block @ vectors, size)
        )
        self._test_rows = test_rows @ vectors
        self._values, self._mean_norm = np.maximum(values, 0), values.sum() / len(rows)

    def fit(self, targets: Rows) -> "FittedRidge":
        """Fit to targets, shape (n, t)."""
        if targets is self._targets:
            return FittedRidge(self, targets, self._target_products)
        if isinstance(self._rows, np.ndarray) and isinstance(targets, np.ndarray):
            return FittedRidge(self, targets, self._rows.T @ targets)
        products = np.zeros((self._rows.shape[1], targets.shape[1]))
        for part in row_slices(len(targets), max(self._rows.shape[1], targets.shape[1])):
            products += self._rows[part].T @ targets[part]
        return FittedRidge(self, targets, products)

    def at(self, penalty: float) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Return rotated rows of both sets, (n, r) and (m, r), and what their products with targets are divided by."""
        return self._rows, self._test_rows, self._values + penalty * self._mean_norm


class FittedRidge(NamedTuple):
    """A `Ridge` with its targets (n, t) and their products with the rotated rows (r, t)."""

    ridge: Ridge
    targets: Rows
    products: np.ndarray

    def left_out(self, penalty: float, part: slice | np.ndarray = _ALL) -> np.ndarray:
        """Return what is predicted of training examples by the fit to all others, shape (b, t); of all by default."""
        rows, _, divisors = self.ridge.at(penalty)
        return self._left_out(rows[part], self.targets[part], 1 / divisors)

    def _left_out(self, rows: np.ndarray, targets: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        leverages = (rows**2 @ inverse)[:, None]
        scores = rows @ (inverse[:, None] * self.products)
        return np.asarray((scores - leverages * targets) / np.maximum(1 - leverages, 1e-9))

    def squared_errors(self, penalties: np.ndarray) -> np.ndarray:
        """Return the summed squared errors of `left_out` for each penalty; of some examples where there are many."""
        chosen, errors = some_rows(len(self.targets)), np.zeros(len(penalties))
        positions = np.arange(len(self.targets))[chosen]
        for part in row_slices(len(positions), self.targets.shape[1]):
            rows, targets = self.ridge.at(0.0)[0][positions[part]], self.targets[positions[part]]
            for place, penalty in enumerate(penalties):
                left_out = self._left_out(rows, targets, 1 / self.ridge.at(float(penalty))[2])
                errors[place] += ((left_out - targets) ** 2).sum()
        return errors

    def of_test(self, penalty: float) -> np.ndarray:
        """Return what is predicted of the test examples, shape (m, t)."""
        _, test_rows, divisors = self.ridge.at(penalty)
        return test_rows @ (self.products / divisors[:, None])


def logistic_head(
    train: Rows,
    test: np.ndarray,
    problem: Problem,
    *,
    rng: np.random.Generator,
    held_bytes: int = HELD_BYTES,
) -> HeadScores:
    """Fit multinomial logistic regression on standardised rows, for the training set out of five folds.

    Its strength is that of the smallest log loss on the test labels, or without them out of the folds.

    Args:
        train: a representation of the training set, shape (n, d).
        test: the same of the test set, shape (m, d).
        problem: labels.
        rng: chooses the folds, and the examples to fit to where there are many.
        held_bytes: up to which what has a row for every training example is held.
    """
    mean, scale = mean_and_deviation(train)
    test = (test - mean) / scale
    folds = list(_folds(problem.labels, rng))
    fold_of = np.empty(len(train), np.int8)
    for number, (_, left_out) in enumerate(folds):
        fold_of[left_out] = number

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression | DummyClassifier:
        if len(rows) > _MAX_ROWS:
            rows = rng.choice(rows, _MAX_ROWS, replace=False)
        inputs = (train[rows] - mean) / scale
        if len(np.unique(problem.labels[rows])) == 1:
            return DummyClassifier().fit(inputs, problem.labels[rows])
        model = LogisticRegression(C=strength / len(rows), max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            # A head that stopped early is a little more regularised; the temperature evens it out.
            warnings.simplefilter("ignore")
            return model.fit(inputs, problem.labels[rows])

    def out_of_fold(strength: float) -> MappedPositions:
        models = [fitted(kept, strength) for kept, _ in folds]

        def predict(part: slice | np.ndarray) -> np.ndarray:
            inputs, own = (train[part] - mean) / scale, fold_of[part]
            scores = np.empty((len(own), problem.num_classes), np.float32)
            for number, model in enumerate(models):
                inside = np.flatnonzero(own == number)
                if len(inside):
                    scores[inside] = _log_probabilities(model, inputs[inside], problem.num_classes)
            return scores

        return MappedPositions(len(train), problem.num_classes, predict)

    everything = np.arange(len(train))
    # More threads than a fit of this size can use make it several times slower.
    with threadpool_limits(1, "blas"):
        if problem.is_tested:
            tested = [
                _log_probabilities(fitted(everything, strength), test, problem.num_classes)
                for strength in STRENGTHS
            ]
            best = int(np.argmin([best_temperature(scores, problem.test_labels)[1] for scores in tested]))
            return HeadScores(out_of_fold(STRENGTHS[best]).held(held_bytes), tested[best])
        trained, chosen = [out_of_fold(strength) for strength in STRENGTHS], some_rows(len(train))
        best = int(np.argmin([log_loss(scores[chosen], problem.labels[chosen]) for scores in trained]))
        return HeadScores(trained[best].held(held_bytes), np.empty((0, problem.num_classes), np.float32))


class _Nystroem:
    """Features whose inner products are the kernel's values, exactly between the landmarks; the last is constant."""

    def __init__(self, landmarks: np.ndarray, rows: np.ndarray, distance: Distance):
        self._landmarks, self._distance = (_unit(landmarks) if distance == "cosine" else landmarks), distance
        self._width = float(np.median(self._distances(rows)) / 2) or 1.0
        own = self._kernel(self._landmarks)
        values, vectors = np.linalg.eigh((own + own.T) / 2 + 1e-8 * len(landmarks) * np.eye(len(landmarks)))
        self._root = vectors / np.sqrt(np.maximum(values, 1e-12)) @ vectors.T

    def __call__(self, rows: Rows) -> np.ndarray:
        features = np.ones((len(rows), len(self._landmarks) + 1))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            features[part, :-1] = self._kernel(rows[part]) @ self._root
        return features

    def _kernel(self, rows: np.ndarray) -> np.ndarray:
        return np.exp(-self._distances(rows) / self._width)

    def _distances(self, rows: np.ndarray) -> np.ndarray:
        if self._distance == "cosine":
            return np.maximum(1 - (_unit(rows) @ self._landmarks.T).astype(np.float64), 0)
        products = (rows @ self._landmarks.T).astype(np.float64)
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
