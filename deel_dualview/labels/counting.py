"""How many labels are wrong: a likelihood of probabilities that have not seen them, its bounds, or "cannot tell"."""

from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

from deel_dualview.labels.calibration import Calibration, calibrate
from deel_dualview.labels.heads import HeadScores, Problem

Status = Literal["counted", "at most", "cannot tell"]

NUM_RESAMPLINGS = 12
DEVIATIONS_OF_A_COUNT = 3.0
"""A count is given where it is more than so many of its standard deviations."""
APART = 0.7
"""Wrong labels would be seen where simulated ones lie at least so far apart from right ones on the test set (largest
difference of the distribution functions of their margins)."""
# Of the interval: 1.64 deviations are the sampling error of 90 %; a fifth more on either side is for the model of the
# count, which is wrong in detail. Without these factors 87 to 90 % of intervals covered the truth, with them 94 %.
_LOWER, _UPPER, _QUANTILE = 0.8, 1.25, 1.64
LEAST_EXAMPLES = 50
"""A count needs so many training and so many test labels: it was judged on sets of 60 and more."""
MOST_ABSENT = 0.05
"""Where classes that the test set lacks have more than this share of the training labels, nothing says how often right
labels of these look wrong."""
_RULE_OF_THREE = 3
"""Where no event is seen in many trials, three may be expected (95 %)."""
_NUM_ROUNDS, _TOLERANCE = 500, 1e-7
_MOSTLY = 0.5
# Of a noise matrix: where it has come to rest, and rates that have vanished. With many classes most soon do,
# and the few that are left are then kept alone.
_LEAST_CHANGE, _LEAST_RATE, _FEW_LEFT = 1e-5, 1e-9, 1 / 8


class LabelCount(NamedTuple):
    """How many training labels are wrong.

    Attributes:
        status: `"counted"`; `"at most"`, where no more than `at_most` are wrong, perhaps none; `"cannot tell"`.
        estimate: number of wrong labels, None unless counted.
        low: end of an interval of about 90 %, None unless counted.
        high: the other end.
        at_most: upper bound, None unless the status is `"at most"`.
        reason: why it is unknown, else "".
    """

    status: Status
    estimate: int | None = None
    low: int | None = None
    high: int | None = None
    at_most: int | None = None
    reason: str = ""


class Counted(NamedTuple):
    """A count, and the model of it.

    Attributes:
        number: how many are wrong.
        rate: the share of wrong labels.
        calibration: from scores of the head to probabilities.
    """

    number: LabelCount
    rate: float
    calibration: Calibration

    def wrong_as(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the probability that each label is wrong and each other class right, shape (b, c).

        Args:
            scores: of the head, shape (b, c).
            labels: given classes, shape (b,).
        """
        rows, num_classes = np.arange(len(labels)), scores.shape[1]
        others = np.exp(self.calibration.log_probabilities(scores))
        posteriors = wrong_posteriors(others[rows, labels], self.rate, num_classes)
        others[rows, labels] = 0
        others *= (posteriors / np.maximum(others.sum(axis=1), 1e-300))[:, None]
        return others


def count_wrong_labels(
    scores: HeadScores, problem: Problem, rng: np.random.Generator, num_train: int | None = None
) -> Counted:
    """Count the wrong labels of a training set by a head on its inputs, left out in closed form.

    Each label is wrong with probability q, and then any other class is as likely: q maximises
    sum_i log((1 - q) p_i + q (1 - p_i) / (c - 1)), p_i the probability of the given label. Wrong labels of examples
    that the test set's head mistakes too are not seen by it.

    Args:
        scores: of a head on what was not made with the training labels in view.
        problem: labels; those of the test set, which it must have, are taken as right.
        rng: resamples both sets, for the standard deviation of the count.
        num_train: size n of the training set, where scores and labels are those of examples drawn from it at random.
    """
    labels, test_labels, num_classes = problem
    num_train, rows = num_train or len(labels), np.arange(len(labels))
    calibration = calibrate(scores.test, test_labels)
    logs, test_logs = (
        calibration.log_probabilities(scores.train[:]),
        calibration.log_probabilities(scores.test),
    )
    given = np.exp(logs[rows, labels])
    of_test = np.exp(test_logs[np.arange(len(test_labels)), test_labels])
    rate = wrong_rate(given, num_classes)
    deviation = num_train * _rate_deviation(scores, problem, calibration, rng)
    number, surplus = num_train * rate, num_train * largest_excess(given, of_test)
    most = max(number, surplus, num_train * rate_by_noise_matrix(np.exp(logs), labels))
    at_most = min(num_train, max(_RULE_OF_THREE, int(np.ceil(most + 2 * deviation))))
    if min(len(labels), len(test_labels)) < LEAST_EXAMPLES:
        count = _cannot_tell(
            f"a count needs {LEAST_EXAMPLES} training and {LEAST_EXAMPLES} test labels at least"
        )
    elif (absent := float(np.mean(~np.isin(labels, test_labels)))) > MOST_ABSENT:
        count = _cannot_tell(
            f"the test set has no example of the classes of {absent:.0%} of the training labels"
        )
    elif number > num_train / 2:
        count = _cannot_tell("most labels differ from those of the test set: are the classes numbered alike")
    elif number > DEVIATIONS_OF_A_COUNT * deviation and round(number):
        low = _LOWER * (min(number, surplus) - _QUANTILE * deviation)
        high = _UPPER * (most + _QUANTILE * deviation)
        count = LabelCount("counted", round(number), max(0, int(low)), min(num_train, int(np.ceil(high))))
    elif distance_of_wrong_labels(test_logs, test_labels, rng) >= APART and at_most <= num_train / 2:
        count = LabelCount("at most", at_most=at_most)
    else:
        count = _cannot_tell("the inputs alone do not distinguish wrong labels from right ones well enough")
    return Counted(count, rate, calibration)


def _cannot_tell(reason: str) -> LabelCount:
    return LabelCount("cannot tell", reason=reason)


def wrong_rate(given: np.ndarray, num_classes: int) -> float:
    """Return the share q of wrong labels of the largest likelihood; see `count_wrong_labels`.

    Args:
        given: probability of each given label, shape (n,).
        num_classes: c.
    """
    rate = 0.05
    for _ in range(_NUM_ROUNDS):
        before, rate = rate, float(wrong_posteriors(given, rate, num_classes).mean())
        if abs(rate - before) < _TOLERANCE:
            break
    return rate


def wrong_posteriors(given: np.ndarray, rate: float, num_classes: int) -> np.ndarray:
    """Return the probability that each label is wrong (n,), where a share `rate` of all is."""
    right, wrong = (1 - rate) * given, rate * (1 - given) / (num_classes - 1)
    return wrong / np.maximum(right + wrong, 1e-300)


def rate_by_noise_matrix(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of wrong labels where each class has rates of its own to be given as each other.

    Args:
        probabilities: shape (n, c).
        labels: given classes, shape (n,).

    Source: expectation-maximisation, Dawid and Skene (1979), one annotator.
    """
    num_classes = probabilities.shape[1]
    # Entry (j, y): the probability that an example of class j is given label y.
    matrix = np.full((num_classes, num_classes), 0.05 / (num_classes - 1))
    np.fill_diagonal(matrix, 0.95)
    counts = np.zeros_like(matrix)
    order = np.argsort(labels, kind="stable")
    given, starts = np.unique(labels[order], return_index=True)
    groups = [probabilities[part] for part in np.split(order, starts[1:])]
    for number in range(_NUM_ROUNDS):
        # Posteriors are probabilities times entries of the matrix, over their sum; their sums over examples are wanted.
        for label, own in zip(given, groups, strict=True):
            shares = 1 / np.maximum(own @ matrix[:, label], 1e-300)
            counts[:, label] = matrix[:, label] * (shares @ own)
        before, matrix = matrix, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
        if np.abs(matrix - before).max() < _LEAST_CHANGE:
            break
        is_left = matrix > _LEAST_RATE
        if np.count_nonzero(is_left) < _FEW_LEFT * matrix.size:
            return _rate_by_sparse_matrix(probabilities, labels, np.where(is_left, matrix, 0.0), number + 1)
    return float(1 - np.trace(counts) / len(labels))


def _rate_by_sparse_matrix(
    probabilities: np.ndarray, labels: np.ndarray, matrix: np.ndarray, num_rounds: int
) -> float:
    """Go on with `rate_by_noise_matrix` after some rounds, where most of its entries have vanished, without these."""
    num_examples, num_classes = probabilities.shape
    # An entry for each example and class that it may belong to, and a pair for each rate.
    row, true = np.nonzero(matrix.T[labels])
    joint, given = probabilities[row, true], labels[row]
    pairs, pair = np.unique(true * num_classes + given, return_inverse=True)
    true, given = np.divmod(pairs, num_classes)
    rates = matrix[true, given]
    for _ in range(num_rounds, _NUM_ROUNDS):
        posteriors = joint * rates[pair]
        posteriors /= np.maximum(np.bincount(row, posteriors, num_examples), 1e-300)[row]
        counts = np.bincount(pair, posteriors, len(rates))
        totals = np.bincount(true, counts, num_classes)
        before, rates = rates, counts / np.maximum(totals, 1e-12)[true]
        if np.abs(rates - before).max() < _LEAST_CHANGE:
            break
        is_left = posteriors > _LEAST_RATE
        if np.count_nonzero(is_left) < len(is_left) / 2:
            row, joint = row[is_left], joint[is_left]
            found, pair = np.unique(pair[is_left], return_inverse=True)
            true, given, rates, counts = true[found], given[found], rates[found], counts[found]
    return float(1 - counts[true == given].sum() / num_examples)


def largest_excess(given: np.ndarray, of_test: np.ndarray) -> float:
    """Return by how much the training set has more labels of small probability, at most, than the test set.

    Args:
        given: probabilities of the training labels, shape (n,).
        of_test: of the test labels, shape (m,).
    """
    return max(0.0, float(_differences(given, of_test)[0].max()))


def deviations_easier(given: np.ndarray, of_test: np.ndarray) -> float:
    """Return how much easier the training labels look than the test labels, in standard deviations, from 0 on.

    Of a head that has not seen the labels it is small; it is large where features were made with them in view.

    Args:
        given: probabilities of the training labels, shape (n,).
        of_test: of the test labels, shape (m,).
    """
    differences, shares = _differences(given, of_test)
    spread = np.sqrt(shares * (1 - shares) * (1 / len(given) + 1 / len(of_test)))
    return max(0.0, float((-differences[spread > 0] / spread[spread > 0]).max(initial=0)))


def distance_of_wrong_labels(logs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Return how far apart right labels and simulated wrong ones lie, from 0 to 1, by their margins.

    Args:
        logs: log-probabilities of the test set, shape (m, c).
        labels: right classes, shape (m,).
        rng: draws a wrong class for each.
    """
    wrong = (labels + rng.integers(1, logs.shape[1], len(labels))) % logs.shape[1]
    return float(scipy.stats.ks_2samp(margins(logs, labels), margins(logs, wrong)).statistic)


def margins(logs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return log P_y - max_(j != y) log P_j, shape (n,), of log-probabilities (n, c) and labels (n,)."""
    rows = np.arange(len(labels))
    return logs[rows, labels] - logs[rows, likeliest_others(logs, labels)]


def are_off_by_one(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> bool:
    """Return whether labels are mostly the class after, or before, the predicted one (of the last, the first).

    Args:
        predictions: classes by the model, shape (m,).
        labels: given classes, shape (m,).
        num_classes: c.
    """
    shifts = (labels - predictions) % num_classes
    shifted = max((shifts == 1).mean(), (shifts == num_classes - 1).mean())
    return bool(shifted >= _MOSTLY and shifted > 2 * (shifts == 0).mean())


def likeliest_others(logs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the likeliest class besides the label, shape (n,), of log-probabilities (n, c) and labels (n,)."""
    others = logs.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return others.argmax(axis=1)


def _differences(given: np.ndarray, of_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F - G and G at every value where G <= .5; F, G the distribution functions of training and test set."""
    points = np.unique(np.concatenate([given, of_test]))
    shares = np.searchsorted(np.sort(of_test), points, side="right") / len(of_test)
    differences = np.searchsorted(np.sort(given), points, side="right") / len(given) - shares
    kept = shares <= 0.5
    kept[0] = True
    return differences[kept], shares[kept]


def _rate_deviation(
    scores: HeadScores, problem: Problem, calibration: Calibration, rng: np.random.Generator
) -> float:
    """Return the standard deviation of the rate over resampled training and test sets."""
    labels, test_labels, num_classes = problem
    rates = []
    for _ in range(NUM_RESAMPLINGS):
        tested = rng.integers(len(test_labels), size=len(test_labels))
        again = calibrate(scores.test[tested], test_labels[tested], calibration)
        rows = rng.integers(len(labels), size=len(labels))
        given = again.probabilities_of(labels[rows], scores.train[rows])
        rates.append(wrong_rate(given, num_classes))
    return float(np.std(rates, ddof=1))
