"""How far a linear surrogate agrees with the model that it stands for."""

import threading
import warnings
from dataclasses import dataclass

import numpy as np

from deel_dualview._checks import describe

_NUM_RANKED = 1000
LEAST_AGREEMENT, LEAST_EXAMPLES = 0.9, 50
"""A surrogate that decides as the model does on a smaller share of at least so many examples draws a warning."""


@dataclass(frozen=True)
class SurrogateFidelity:
    """Agreement of the surrogate's logits with the model's on m examples.

    Logits and weights are centred over the classes before a cosine is taken: a constant added to all logits changes
    no prediction, and the surrogate's always sum to zero.

    Attributes:
        num_examples: m.
        agreement: share of examples with the same predicted class.
        matthews_correlation: multi-class Matthews correlation of the two predictions, 1 for equal ones.
        logit_cosine: mean cosine of the two logit vectors of an example.
        kendall_tau: mean rank correlation of the two logit vectors (of at most 1,000 examples, evenly spaced).
        weight_cosine: mean cosine of the weight vectors of a class; None for a model without a linear head.
        completeness_error: largest difference between a surrogate logit and the sum of its contributions, relative to
            the largest logit.
    """

    num_examples: int
    agreement: float
    matthews_correlation: float
    logit_cosine: float
    kendall_tau: float
    weight_cosine: float | None
    completeness_error: float


class AgreementMonitor:
    """Counts on how many explained examples the surrogate decides as the model does, and warns once of few.

    Args:
        settings: of the calculator, for the message.
        remedy: what to change.
    """

    def __init__(self, settings: dict[str, object], remedy: str) -> None:
        self._settings, self._remedy = settings, remedy
        self._lock = threading.Lock()
        self._num_examples = self._num_equal = 0
        self._has_warned = False

    def add(self, model_logits: np.ndarray, surrogate_logits: np.ndarray) -> None:
        """Count a batch of logits, both (m, c).

        Warns:
            UserWarning: once, where they agree on less than 90 % of all examples so far, of 50 or more.
        """
        with self._lock:
            self._num_examples += len(model_logits)
            self._num_equal += int((model_logits.argmax(axis=1) == surrogate_logits.argmax(axis=1)).sum())
            agreement = self._num_equal / max(self._num_examples, 1)
            is_good = self._num_examples < LEAST_EXAMPLES or agreement >= LEAST_AGREEMENT
            if is_good or self._has_warned:
                return
            self._has_warned = True
        needed = (
            "The surrogate should predict what the model predicts: where it does not, influence values may not "
            f"explain the model. {self._remedy} (This warning comes once.)"
        )
        received = {"agreement": round(agreement, 3), "evaluated examples": self._num_examples}
        warnings.warn(describe(needed, received | self._settings), UserWarning, stacklevel=4)


def measure(
    model_logits: np.ndarray,
    surrogate_logits: np.ndarray,
    *,
    contributions: tuple[np.ndarray, np.ndarray],
    kernel: np.ndarray | None,
    weights: np.ndarray,
) -> SurrogateFidelity:
    """Compare the surrogate with the model.

    Args:
        model_logits: shape (m, c).
        surrogate_logits: shape (m, c).
        contributions: explained classes (m,) and the sums of their contributions (m,).
        kernel: the model's last weights, shape (d, c), or None.
        weights: the surrogate's weights on the same features, shape (d, c).
    """
    # Statistics libraries are slow to import and needed only here.
    from sklearn.metrics import matthews_corrcoef

    ours, theirs = surrogate_logits.argmax(axis=1), model_logits.argmax(axis=1)
    classes, sums = contributions
    explained = surrogate_logits[np.arange(len(classes)), classes]
    error = np.abs(sums - explained).max() / max(np.abs(surrogate_logits).max(), np.finfo(np.float32).tiny)
    return SurrogateFidelity(
        num_examples=len(ours),
        agreement=float((ours == theirs).mean()),
        matthews_correlation=float(matthews_corrcoef(theirs, ours)),
        logit_cosine=float(cosines(centred(surrogate_logits), centred(model_logits)).mean()),
        kendall_tau=mean_kendall_tau(surrogate_logits, model_logits),
        weight_cosine=None
        if kernel is None
        else float(cosines(centred(weights).T, centred(kernel).T).mean()),
        completeness_error=float(error),
    )


def centred(rows: np.ndarray) -> np.ndarray:
    """Take the mean over classes off every row (r, c)."""
    return rows.astype(np.float64) - rows.mean(axis=1, keepdims=True, dtype=np.float64)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, 0 where one of them is zero."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.einsum("ij,ij->i", first, second) / np.maximum(norms, np.finfo(np.float64).tiny)


def mean_kendall_tau(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean of Kendall's tau-b; rows of equal values have no rank and are left out."""
    from scipy.stats import kendalltau

    rows = np.unique(np.linspace(0, len(first) - 1, min(len(first), _NUM_RANKED)).astype(int))
    values = np.array([kendalltau(first[row], second[row]).statistic for row in rows])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
