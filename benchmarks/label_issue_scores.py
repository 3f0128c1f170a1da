"""Scores and counts that label issues are compared with; a higher score is a likelier error."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deel_dualview import DualView, FirstOrderInfluenceCalculator, InfluenceModel

BASELINES = (
    "loss",
    "margin",
    "cleanlab in sample",
    "cleanlab out of fold",
    "out-of-fold loss",
    "kNN(10)",
    "self-influence",
    "DualView's slack",
)
REFERENCES = ("loss", "cleanlab out of fold", "kNN(10)")
"""The bars of a setting are set by the best of these in it."""
NUM_FOLDS, NUM_NEIGHBORS = 5, 10
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""C n of the logistic heads of cleanlab out of fold; cross-validation on the given labels chooses."""
BATCH_SIZE = 256
_TINY, _LARGEST = 1e-12, 600.0


class Subject(NamedTuple):
    """A trained network with its training set, as the scores see it.

    Attributes:
        model: the network.
        train_set: batches of inputs and given labels.
        labels: given labels, (n,).
        features: of the last hidden layer, (n, d).
        logits: of the network, (n, c), before a softmax that would round them.
    """

    model: keras.Model
    train_set: tf.data.Dataset
    labels: np.ndarray
    features: np.ndarray
    logits: np.ndarray


class Count(NamedTuple):
    """What cleanlab says of the number of wrong labels: count, calibrated count, and what it flags (n,)."""

    count: int
    calibrated: int
    flagged: np.ndarray


class Baselines(NamedTuple):
    """Scores by name, each (n,), seconds of each, counts by name."""

    scores: dict[str, np.ndarray]
    seconds: dict[str, float]
    counts: dict[str, Count]


def baselines(subject: Subject) -> Baselines:
    """Return all of `BASELINES`, and cleanlab's counts in sample and out of fold."""
    labels, features, logits = subject.labels, subject.features, subject.logits
    probabilities, out_of_fold = scipy.special.softmax(logits, axis=1), {}
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}

    def cleanlab_out_of_fold() -> np.ndarray:
        out_of_fold["chosen"] = _out_of_fold(
            features, labels, [strength / len(labels) for strength in STRENGTHS]
        )
        return quality_issue(labels, out_of_fold["chosen"], "self_confidence")

    makers: dict[str, Callable[[], np.ndarray]] = {
        "loss": lambda: losses(logits, labels),
        "margin": lambda: margins(logits, labels),
        "cleanlab in sample": lambda: quality_issue(labels, probabilities, "normalized_margin"),
        "cleanlab out of fold": cleanlab_out_of_fold,
        "out-of-fold loss": lambda: losses(_logs(_out_of_fold(features, labels, [1.0])), labels),
        "kNN(10)": lambda: neighbor_disagreement(features, labels, NUM_NEIGHBORS),
        "self-influence": lambda: _self_influence(subject),
        "DualView's slack": lambda: DualView(subject.model, subject.train_set).surrogate.slack,
    }
    for name in BASELINES:
        start = time.perf_counter()
        scores[name] = np.asarray(makers[name](), np.float64)
        seconds[name] = round(time.perf_counter() - start, 3)
    counts = {
        "cleanlab in sample": cleanlab_count(labels, probabilities),
        "cleanlab out of fold": cleanlab_count(labels, out_of_fold["chosen"]),
    }
    return Baselines(scores, seconds, counts)


def subject_of(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> Subject:
    """Run a network once over its training set."""
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(BATCH_SIZE)
    influence_model = InfluenceModel(model)
    found = [influence_model.features_and_logits(batch) for batch, _ in train_set]
    features, logits = (np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True))
    return Subject(model, train_set, labels, features, logits)


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each label, exact where it is tiny: log(1 + sum_(j != y) exp(z_j - z_y))."""
    return np.log1p(np.exp(np.minimum(_differences(logits, labels), _LARGEST)).sum(axis=1))


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the largest logit of another class less that of the label."""
    return _differences(logits, labels).max(axis=1)


def neighbor_disagreement(features: np.ndarray, labels: np.ndarray, num_neighbors: int) -> np.ndarray:
    """Return the share of the nearest other examples, by cosine, that have another label."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=num_neighbors).fit(features / np.maximum(lengths, _TINY))
    neighbors = search.kneighbors(return_distance=False)
    return (labels[neighbors] != labels[:, None]).mean(axis=1)


def quality_issue(labels: np.ndarray, probabilities: np.ndarray, method: str) -> np.ndarray:
    """Return one minus cleanlab's label quality."""
    rank = _cleanlab("rank")
    return 1 - rank.get_label_quality_scores(labels, probabilities, method=method)


def cleanlab_count(labels: np.ndarray, probabilities: np.ndarray) -> Count:
    """Return cleanlab's counts and flags with its default settings, in this process."""
    count, filters = _cleanlab("count"), _cleanlab("filter")
    flagged = filters.find_label_issues(labels, probabilities, n_jobs=1)
    return Count(
        int(count.num_label_issues(labels, probabilities)),
        int(count.num_label_issues(labels, probabilities, estimation_method="off_diagonal_calibrated")),
        np.asarray(flagged, bool),
    )


def _cleanlab(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"cleanlab.{module}")
    except ImportError as error:
        raise ImportError(
            'cleanlab is one of the scores that are compared. Install it with `pip install -e ".[benchmarks]"`. '
            f"Received: {error}."
        ) from error


def _differences(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return logits less that of the label, -inf at the label."""
    rows = np.arange(len(labels))
    differences = logits - logits[rows, labels][:, None]
    differences[rows, labels] = -np.inf
    return differences


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, _TINY))


def _out_of_fold(features: np.ndarray, labels: np.ndarray, penalties: list[float]) -> np.ndarray:
    """Return out-of-fold probabilities of the logistic head of the penalty with the smallest log loss."""
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    found = []
    for penalty in penalties:
        head = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300, tol=1e-3))
        found.append(cross_val_predict(head, features, labels, cv=folds, method="predict_proba"))
    return min(found, key=lambda probabilities: losses(_logs(probabilities), labels).mean())


def _self_influence(subject: Subject) -> np.ndarray:
    values = FirstOrderInfluenceCalculator(subject.model, subject.train_set).compute_influence_values()
    return np.concatenate([*values])
