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
from deel_dualview.labels.heads import (
    HELD_BYTES,
    Distance,
    HeadScores,
    Problem,
    logistic_head,
    ridge_head,
    some_rows,
)
from deel_dualview.labels.issues import ClassPair, HeadWeight, LabelIssues
from deel_dualview.labels.leaking import has_leaking_column
from deel_dualview.linalg.rows import Rows, row_slices

_LEAST_PROBABILITY = 1e-12
_FEW = 10_000
_WITHOUT_TEST_LABELS = LabelCount("cannot tell", reason="a count needs a test set with labels that are right")
_OFF_BY_ONE = LabelCount(
    "cannot tell",
    reason="most test labels are the class next to the predicted one, as if one set were not numbered from 0",
)


class Representation(NamedTuple):
    """The examples of both sets as rows.

    Attributes:
        train: shape (n, d).
        test: shape (m, d); no rows without a test set.
    """

    train: Rows
    test: np.ndarray


def representation(train: Rows | None, test: Rows | None) -> Representation | None:
    """Return rows of both sets, None where one has none."""
    return None if train is None or test is None else Representation(train, test[:])


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
    held_bytes: int | None = None,
    leaking: str | None = None,
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
        held_bytes: up to which a head holds what has a row for every training example; `HELD_BYTES` by default.
        leaking: in words which columns give the label alone, such as "column id gives"; "" for none. By default they
            are looked for in tables of up to 100 columns.
    """
    held = HELD_BYTES if held_bytes is None else min(held_bytes, HELD_BYTES)
    rng = np.random.default_rng(seed)
    problem = Problem(labels, labels[:0] if test_labels is None else test_labels, len(class_names))
    with limited_threads(len(labels)):
        heads = _fit_heads(representations, problem, rng, held)
        stack = _Stack.fit(heads, problem, pred_probs)
        counted = _count(heads, problem, predictions[1], rng)
        if counted is not None:
            if leaking is None:
                is_leaking = has_leaking_column(representations.inputs.train, labels)
                leaking = "a column of the inputs gives" if is_leaking else ""
            counted = counted._replace(number=_as_far_as_known(counted.number, leaking))
        found = _score(stack, problem, counted)
    scores, suggested = found.scores, found.suggested
    flagged = np.zeros(len(labels), bool)
    if counted is not None and counted.number.estimate:
        flagged[np.argsort(-scores, kind="stable")[: counted.number.estimate]] = True
    easier = None
    if test_labels is not None:
        easier = deviations_easier(found.given, stack.given_by_features_of_test(problem.test_labels))
    return LabelIssues(
        given_labels=labels,
        suggested_labels=suggested,
        scores=scores,
        flagged=flagged,
        count=_WITHOUT_TEST_LABELS if counted is None else counted.number,
        class_pairs=_class_pairs(found, labels, flagged),
        training_accuracy=float((predictions[0] == labels).mean()),
        test_accuracy=None if test_labels is None else float((predictions[1] == test_labels).mean()),
        deviations_easier=easier,
        heads=stack.weights_by_name,
        ids=ids,
        class_names=tuple(class_names),
    )


def _as_far_as_known(number: LabelCount, leaking: str) -> LabelCount:
    """Return a count, or "cannot tell" where columns give the label: wrong labels fit such inputs like right ones."""
    if not leaking:
        return number
    reason = f"{leaking} the label alone, so that wrong labels fit the inputs as well as right ones do"
    return LabelCount("cannot tell", reason=reason)


def limited_threads(num_train: int) -> threadpool_limits:
    """Return a context in which matrices of few examples use one thread: several cost more than they save."""
    return threadpool_limits(1 if num_train < _FEW else None, "blas")


class _Head(NamedTuple):
    """A fitted head; `on` is the representation it is fitted to."""

    name: str
    on: str
    scores: HeadScores


def _fit_heads(
    representations: Representations, problem: Problem, rng: np.random.Generator, held_bytes: int
) -> list[_Head]:
    heads = []
    for on, (train, test) in representations.named().items():
        distance: Distance = "euclidean" if on == "inputs" else "cosine"
        by_test = on != "inputs"
        scores = ridge_head(
            train, test, problem, distance=distance, by_test=by_test, rng=rng, held_bytes=held_bytes
        )
        heads.append(_Head(f"kernel ridge on {on}", on, scores))
        if on != "inputs":
            scores = logistic_head(train, test, problem, rng=rng, held_bytes=held_bytes)
            heads.append(_Head(f"logistic regression on {on}", on, scores))
    return heads


class _Stack(NamedTuple):
    """The weighted mean of the probabilities of heads.

    Attributes:
        heads: in their order.
        temperatures: by which the scores of each are divided.
        weights: of each, and of the given probabilities, if there are any.
        pred_probs: given probabilities (n, c), or None.
    """

    heads: Sequence[_Head]
    temperatures: Sequence[float]
    weights: np.ndarray
    pred_probs: np.ndarray | None

    @classmethod
    def fit(cls, heads: Sequence[_Head], problem: Problem, pred_probs: np.ndarray | None) -> _Stack:
        """Choose temperatures and weights of the smallest log loss on the test labels.

        Without them every head counts alike: by the given labels those would win whose features were made with these
        in view.
        """
        labels = problem.test_labels
        if problem.is_tested:
            temperatures = [best_temperature(head.scores.test, labels)[0] for head in heads]
            tested = [
                _given(head.scores.test, temperature, labels)
                for head, temperature in zip(heads, temperatures, strict=True)
            ]
            weights = mixture_weights(np.array(tested))
        else:
            rows = some_rows(len(problem.labels))
            temperatures = [
                best_temperature(head.scores.train[rows], problem.labels[rows])[0] for head in heads
            ]
            weights = np.full(len(heads), 1 / len(heads))
        if pred_probs is not None:
            weights = np.append(weights / 2, 0.5)
        return cls(heads, temperatures, weights, pred_probs)

    @property
    def weights_by_name(self) -> tuple[HeadWeight, ...]:
        names = [head.name for head in self.heads]
        names += [] if self.pred_probs is None else ["given probabilities"]
        return tuple(
            HeadWeight(name, float(weight)) for name, weight in zip(names, self.weights, strict=True)
        )

    def log_probabilities(self, scores: Sequence[np.ndarray], rows: slice) -> np.ndarray:
        """Return log-probabilities (b, c) of training examples, of the scores of each head (b, c)."""
        parts = [
            _probabilities(own, temperature)
            for own, temperature in zip(scores, self.temperatures, strict=True)
        ]
        if self.pred_probs is not None:
            parts.append(np.asarray(self.pred_probs[rows]))
        mean = sum(weight * probabilities for weight, probabilities in zip(self.weights, parts, strict=True))
        return np.asarray(np.log(np.maximum(mean, _LEAST_PROBABILITY)))

    def place(self, on: str) -> int:
        """Return the place of the ridge on a representation."""
        return next(place for place, head in enumerate(self.heads) if head.on == on)

    def given_by_features_of_test(self, labels: np.ndarray) -> np.ndarray:
        """Return the probabilities of the test labels (m,) by the ridge on the features."""
        place = self.place("features")
        return _given(self.heads[place].scores.test, self.temperatures[place], labels)


class _Scored(NamedTuple):
    """What is found of every training example.

    Attributes:
        scores: shape (n,).
        suggested: the likeliest other class, shape (n,).
        given: probability of the label by the ridge on the features, shape (n,).
        expected: numbers of wrong labels by given and right class, shape (c, c); None where they are not counted.
    """

    scores: np.ndarray
    suggested: np.ndarray
    given: np.ndarray
    expected: np.ndarray | None


def _score(stack: _Stack, problem: Problem, counted: Counted | None) -> _Scored:
    """Score all training examples, in blocks."""
    labels, num_classes = problem.labels, problem.num_classes
    scores, given = np.empty(len(labels)), np.empty(len(labels))
    suggested = np.empty(len(labels), np.int64)
    expected = None
    if counted is not None and counted.number.status == "counted":
        expected = np.zeros((num_classes, num_classes))
    on_features, on_inputs = stack.place("features"), stack.place("inputs")
    for rows in row_slices(len(labels), num_classes):
        own, parts = labels[rows], [head.scores.train[rows] for head in stack.heads]
        logs = stack.log_probabilities(parts, rows)
        scores[rows], suggested[rows] = -margins(logs, own), likeliest_others(logs, own)
        given[rows] = _given(parts[on_features], stack.temperatures[on_features], own)
        if expected is not None and counted is not None:
            np.add.at(expected, own, counted.wrong_as(parts[on_inputs], own))
    return _Scored(scores, suggested, given, expected)


def _probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    return scipy.special.softmax(scores.astype(np.float64) / temperature, axis=1)


def _given(scores: np.ndarray, temperature: float, labels: np.ndarray) -> np.ndarray:
    """Return the probability of each label, shape (b,)."""
    return _probabilities(scores, temperature)[np.arange(len(labels)), labels]


def _count(
    heads: Sequence[_Head], problem: Problem, test_predictions: np.ndarray, rng: np.random.Generator
) -> Counted | None:
    if not problem.is_tested:
        return None
    scores, rows = next(head for head in heads if head.on == "inputs").scores, some_rows(len(problem.labels))
    counted = count_wrong_labels(
        HeadScores(scores.train[rows], scores.test),
        problem._replace(labels=problem.labels[rows]),
        rng,
        num_train=len(problem.labels),
    )
    if are_off_by_one(test_predictions, problem.test_labels, problem.num_classes):
        return counted._replace(number=_OFF_BY_ONE)
    return counted


def _class_pairs(found: _Scored, labels: np.ndarray, flagged: np.ndarray) -> tuple[ClassPair, ...]:
    """Return the pairs of classes with flagged labels, or with one wrong label at least by the count."""
    flags = np.unique(
        np.stack([labels[flagged], found.suggested[flagged]], axis=1), axis=0, return_counts=True
    )
    num_flagged = {(int(given), int(other)): int(count) for (given, other), count in zip(*flags, strict=True)}
    expected = found.expected
    kept = set(num_flagged)
    if expected is not None:
        kept |= {(int(given), int(other)) for given, other in np.argwhere(expected >= 1)}
    pairs = [
        ClassPair(*pair, None if expected is None else float(expected[pair]), num_flagged.get(pair, 0))
        for pair in sorted(kept)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-(pair.estimate or 0), -pair.num_flagged)))
