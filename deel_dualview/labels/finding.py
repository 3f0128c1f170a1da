"""From representations of both sets to label issues: heads, their weighted mean, scores and a count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from threadpoolctl import threadpool_limits

from deel_dualview.labels.calibration import best_temperature, mixture_weights
from deel_dualview.labels.counting import (
    Counted,
    LabelCount,
    are_off_by_one,
    count_wrong_labels,
    deviations_easier,
    likeliest_others,
    margins,
)
from deel_dualview.labels.heads import Distance, HeadScores, Problem, logistic_head, ridge_head
from deel_dualview.labels.issues import ClassPair, HeadWeight, LabelIssues

_LEAST_PROBABILITY = 1e-12
_FEW = 10_000
_WITHOUT_TEST_LABELS = LabelCount("cannot tell", reason="a count needs a test set with labels that are right")
_OFF_BY_ONE = LabelCount(
    "cannot tell",
    reason="most test labels are the class next to the predicted one: are the classes of both sets numbered from 0?",
)


class Representation(NamedTuple):
    """The examples of both sets as rows.

    Attributes:
        train: shape (n, d).
        test: shape (m, d); no rows without a test set.
    """

    train: np.ndarray
    test: np.ndarray


def representation(train: np.ndarray | None, test: np.ndarray | None) -> Representation | None:
    """Return rows of both sets, None where one has none."""
    return None if train is None or test is None else Representation(train, test)


class Representations(NamedTuple):
    """What heads are fitted to.

    Attributes:
        features: penultimate features.
        before: the layer before them, or None.
        inputs: the inputs as rows of a table (`InputTable`).
        early: penultimate features of an early checkpoint, or None.
    """

    features: Representation
    before: Representation | None
    inputs: Representation
    early: Representation | None = None

    def named(self) -> dict[str, Representation]:
        """Return those that there are, by name."""
        named = {
            "features": self.features,
            "layer before": self.before,
            "features of an early checkpoint": self.early,
            "inputs": self.inputs,
        }
        return {name: found for name, found in named.items() if found is not None}


def find_label_issues(
    representations: Representations,
    labels: np.ndarray,
    test_labels: np.ndarray | None,
    predictions: tuple[np.ndarray, np.ndarray],
    *,
    class_names: Sequence[str],
    ids: np.ndarray | None = None,
    pred_probs: np.ndarray | None = None,
    seed: int = 0,
) -> LabelIssues:
    """Rank training labels by heads that have not seen them, and count the wrong ones; see `label_issues`.

    Args:
        representations: of both sets.
        labels: given classes of the training set, shape (n,).
        test_labels: classes of the test set, shape (m,), or None.
        predictions: classes that the model predicts of the training set (n,) and of the test set (m,).
        class_names: shape (c,).
        ids: of the training examples.
        pred_probs: probabilities of the training examples by a model that has not seen their labels, shape (n, c).
        seed: of random rows, folds and resampling.
    """
    rng = np.random.default_rng(seed)
    problem = Problem(labels, labels[:0] if test_labels is None else test_labels, len(class_names))
    with limited_threads(len(labels)):
        heads = _fit_heads(representations, problem, rng)
        logs, weights = _stack(heads, problem, pred_probs)
        counted = _count(heads, problem, predictions[1], rng)
    scores = -margins(logs, labels)
    flagged = np.zeros(len(labels), bool)
    if counted is not None and counted.number.estimate:
        flagged[np.argsort(-scores, kind="stable")[: counted.number.estimate]] = True
    suggested = likeliest_others(logs, labels)
    easier = None
    if test_labels is not None:
        easier = deviations_easier(*(_given(*pair) for pair in _of_features(heads, problem)))
    return LabelIssues(
        given_labels=labels,
        suggested_labels=suggested,
        scores=scores,
        flagged=flagged,
        count=_WITHOUT_TEST_LABELS if counted is None else counted.number,
        class_pairs=_class_pairs(counted, labels, suggested, flagged, num_classes=problem.num_classes),
        training_accuracy=float((predictions[0] == labels).mean()),
        test_accuracy=None if test_labels is None else float((predictions[1] == test_labels).mean()),
        deviations_easier=easier,
        heads=tuple(HeadWeight(name, float(weight)) for name, weight in weights.items()),
        ids=ids,
        class_names=tuple(class_names),
    )


def limited_threads(num_train: int) -> threadpool_limits:
    """Return a context in which matrices of few examples use one thread: several cost more than they save."""
    return threadpool_limits(1 if num_train < _FEW else None, "blas")


class _Head(NamedTuple):
    """A fitted head; `on` is the representation it is fitted to."""

    name: str
    on: str
    scores: HeadScores


def _fit_heads(representations: Representations, problem: Problem, rng: np.random.Generator) -> list[_Head]:
    heads = []
    for on, (train, test) in representations.named().items():
        distance: Distance = "euclidean" if on == "inputs" else "cosine"
        scores = ridge_head(train, test, problem, distance=distance, by_test=on != "inputs", rng=rng)
        heads.append(_Head(f"kernel ridge on {on}", on, scores))
        if on != "inputs":
            scores = logistic_head(train, test, problem, rng=rng)
            heads.append(_Head(f"logistic regression on {on}", on, scores))
    return heads


def _stack(
    heads: Sequence[_Head], problem: Problem, pred_probs: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """Return log-probabilities (n, c) of the weighted mean of the heads, and the weights by name.

    Temperatures and weights are those of the smallest log loss on the test labels. Without them every head counts
    alike: by the given labels those would win whose features were made with these in view.
    """
    is_tested = problem.is_tested
    labels = problem.test_labels if is_tested else problem.labels
    rows, trained, tested = np.arange(len(labels)), [], []
    for head in heads:
        temperature = best_temperature(head.scores.test if is_tested else head.scores.train, labels)[0]
        trained.append(_probabilities(head.scores.train, temperature))
        if is_tested:
            tested.append(_probabilities(head.scores.test, temperature)[rows, labels])
    weights = mixture_weights(np.array(tested)) if is_tested else np.full(len(heads), 1 / len(heads))
    names = [head.name for head in heads]
    if pred_probs is not None:
        trained.append(pred_probs)
        names.append("given probabilities")
        weights = np.append(weights / 2, 0.5)
    mean = sum(weight * probabilities for weight, probabilities in zip(weights, trained, strict=True))
    return np.log(np.maximum(mean, _LEAST_PROBABILITY)), dict(zip(names, weights, strict=True))


def _probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    return scipy.special.softmax(scores.astype(np.float64) / temperature, axis=1)


def _count(
    heads: Sequence[_Head], problem: Problem, test_predictions: np.ndarray, rng: np.random.Generator
) -> Counted | None:
    if not problem.is_tested:
        return None
    counted = count_wrong_labels(next(head for head in heads if head.on == "inputs").scores, problem, rng)
    if are_off_by_one(test_predictions, problem.test_labels, problem.num_classes):
        return counted._replace(number=_OFF_BY_ONE)
    return counted


def _of_features(heads: Sequence[_Head], problem: Problem) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return (scores, labels) of the training and of the test set by the ridge on the features."""
    scores = next(head for head in heads if head.on == "features").scores
    temperature = best_temperature(scores.test, problem.test_labels)[0]
    return (
        (scores.train / temperature, problem.labels),
        (scores.test / temperature, problem.test_labels),
    )


def _given(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability of each label, shape (b,)."""
    return _probabilities(scores, 1.0)[np.arange(len(labels)), labels]


def _class_pairs(
    counted: Counted | None,
    labels: np.ndarray,
    suggested: np.ndarray,
    flagged: np.ndarray,
    *,
    num_classes: int,
) -> tuple[ClassPair, ...]:
    """Return the pairs of classes with flagged labels, or with one wrong label at least by the count."""
    num_flagged = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(num_flagged, (labels[flagged], suggested[flagged]), 1)
    expected = None
    if counted is not None and counted.number.status == "counted":
        others = np.exp(counted.log_probabilities)
        others[np.arange(len(labels)), labels] = 0
        others *= (counted.posteriors / np.maximum(others.sum(axis=1), 1e-300))[:, None]
        expected = np.zeros((num_classes, num_classes))
        np.add.at(expected, labels, others)
    kept = num_flagged > 0 if expected is None else (num_flagged > 0) | (expected >= 1)
    pairs = [
        ClassPair(
            int(given),
            int(other),
            None if expected is None else float(expected[given, other]),
            int(num_flagged[given, other]),
        )
        for given, other in np.argwhere(kept)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-(pair.estimate or 0), -pair.num_flagged)))
