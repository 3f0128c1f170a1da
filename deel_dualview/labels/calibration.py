"""From class scores to probabilities: temperatures, class biases and a weighted mean, by the labels of the test set."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

_LOG_TEMPERATURES = (np.log(1e-3), np.log(1e2))
_BIAS_PENALTY = 1e-3
_NUM_ROUNDS = 200
# Class scores that are worked on together.
_NUMBERS = 2**17
# Far below what a resampling changes.
_STOP = {"maxiter": 60, "ftol": 1e-7}


class Calibration(NamedTuple):
    """Probabilities are the softmax of `scores / temperature + biases`.

    Attributes:
        temperature: positive.
        biases: of the classes, shape (c,).
    """

    temperature: float
    biases: np.ndarray

    def log_probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return log-probabilities of class scores, both of shape (b, c)."""
        logits = self._logits(scores)
        logits -= _log_of_sum(logits)[:, None]
        return logits

    def probabilities_of(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the probability of one class an example, shape (b,), by class scores (b, c)."""
        logits = self._logits(scores)
        return np.exp(logits[np.arange(len(labels)), labels] - _log_of_sum(logits))

    def _logits(self, scores: np.ndarray) -> np.ndarray:
        logits = scores.astype(np.float64)
        logits /= self.temperature
        logits += self.biases
        return logits


def _exponentials(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return exp(logits - m) (b, c), their sums (b,) and m (b,), the largest of each row."""
    top = logits.max(axis=1)
    powers = logits - top[:, None]
    np.exp(powers, out=powers)
    return powers, powers.sum(axis=1), top


def _log_of_sum(logits: np.ndarray) -> np.ndarray:
    """Return log sum_j exp(logits_ij), shape (b,), a third of the time of SciPy's."""
    total = np.empty(len(logits))
    # A part of the rows at a time stays in the cache.
    size = max(_NUMBERS // logits.shape[1], 1)
    for start in range(0, len(logits), size):
        _, sums, top = _exponentials(logits[start : start + size])
        total[start : start + size] = np.log(sums) + top
    return total


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log softmax(scores) (b, c) of the labels (b,)."""
    logs = scipy.special.log_softmax(scores.astype(np.float64), axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def best_temperature(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the temperature T of the smallest log loss of softmax(scores / T), and that loss.

    Args:
        scores: shape (b, c).
        labels: shape (b,).
    """
    shifted = scores.astype(np.float64)
    shifted = shifted - shifted[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        return float(_log_of_sum(shifted * np.exp(-log_temperature)).mean())

    found = scipy.optimize.minimize_scalar(
        loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 0.02, "maxiter": 25}
    )
    return float(np.exp(found.x)), float(found.fun)


def calibrate(scores: np.ndarray, labels: np.ndarray, start: Calibration | None = None) -> Calibration:
    """Fit a temperature and class biases by the log loss, the biases lightly penalised.

    Args:
        scores: shape (b, c).
        labels: shape (b,).
        start: where to begin.
    """
    scores = scores.astype(np.float64)
    number, num_classes = scores.shape
    own = scores[np.arange(number), labels]
    shares = np.bincount(labels, minlength=num_classes) / number
    if start is None:
        start = Calibration(best_temperature(scores, labels)[0], np.zeros(num_classes))

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        inverse, biases = np.exp(-point[0]), point[1:]
        logits = scores * inverse
        logits += biases
        given = own * inverse + biases[labels]
        probabilities, sums, top = _exponentials(logits)
        probabilities /= (sums * number)[:, None]
        value = (np.log(sums) + top - given).mean() + _BIAS_PENALTY * (biases**2).sum()
        slope = (own.mean() - np.vdot(probabilities, scores)) * inverse
        slopes = probabilities.sum(axis=0) - shares + 2 * _BIAS_PENALTY * biases
        return float(value), np.concatenate([[slope], slopes])

    begin = np.concatenate([[np.log(start.temperature)], start.biases])
    bounds = [_LOG_TEMPERATURES, *[(-20.0, 20.0)] * num_classes]
    found = scipy.optimize.minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=_STOP)
    return Calibration(float(np.exp(found.x[0])), found.x[1:])


def mixture_weights(probabilities: np.ndarray) -> np.ndarray:
    """Return the weights w (h,), positive with sum 1, of the largest likelihood of sum_k w_k p_k.

    Args:
        probabilities: what each of h heads gives the labels of m examples, shape (h, m). Each head has a pseudo-count
            of one example.

    Source: expectation-maximisation, Dempster et al. (1977).
    """
    num_heads, num_examples = probabilities.shape
    weights = np.full(num_heads, 1 / num_heads)
    for _ in range(_NUM_ROUNDS):
        joint = weights[:, None] * probabilities + 1e-300
        shares = (joint / joint.sum(axis=0)).sum(axis=1)
        weights = (shares + 1) / (num_examples + num_heads)
    return weights
