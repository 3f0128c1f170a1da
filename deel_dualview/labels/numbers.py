"""Label issues of a regression: training labels far from what heads predict that have not seen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.optimize
from sklearn.neighbors import NearestNeighbors

from deel_dualview.labels.finding import Representations, limited_threads
from deel_dualview.labels.heads import PENALTIES, Distance, HeadScores, Ridge, kernel_rows
from deel_dualview.labels.issues import HeadWeight
from deel_dualview.labels.output_issues import NUMBERS_ARE_RANKED, OutputLabelIssues

_NUM_ROUNDS, _CLIP = 3, 2.5
"""Labels farther than 2.5 robust deviations from what a head predicts are pulled in to there, and it is fitted again,
three times: one slip of the decimal point would else bend a fit of squares for all others."""
_FIRST_CLIP = 5.0
_NUM_NEIGHBOURS, _MOST_COMPARED = 10, 20_000
_NUM_WEIGHTINGS, _LEAST_OF_WEIGHTING = 10, 0.3
"""Residuals below 0.3 robust deviations count as squares: an exact fit of a few would else have all the weight."""
_LEAST_RESIDUAL = 0.1
"""Of a robust deviation; smaller residuals are as good as this, so that their logarithms stay near each other."""
_MAD = 1.4826
"""Of a normal distribution, the deviation over the median absolute one."""


def find_number_issues(
    representations: Representations,
    labels: np.ndarray,
    test_labels: np.ndarray | None,
    *,
    output_names: Sequence[str],
    ids: np.ndarray | None = None,
    seed: int = 0,
) -> OutputLabelIssues:
    """Rank the labels of a regression; see `label_issues`.

    Ridge regressions, on rows as they are and on kernel features, and nearest neighbours predict each label without
    having seen it, robustly; their mean is weighted by the absolute errors on the test labels. A score is the distance
    of a label from it, over how far labels of such examples usually are.

    Args:
        representations: of both sets.
        labels: of the training set, shape (n, c).
        test_labels: of the test set, shape (m, c), or None.
        output_names: shape (c,).
        ids: of the training examples.
        seed: of random rows.
    """
    rng = np.random.default_rng(seed)
    centre = np.median(labels, axis=0)
    unit = np.array([robust_deviation(column) for column in (labels - centre).T])
    given = (labels - centre) / unit
    tested = None if test_labels is None or not len(test_labels) else (test_labels - centre) / unit
    with limited_threads(len(labels)):
        heads, on_inputs = _fit_heads(representations, given, tested, rng)
        parts = [_score(heads, on_inputs, given, tested, output) for output in range(labels.shape[1])]
    predicted, scores, weights = zip(*parts, strict=True)
    return OutputLabelIssues(
        kind="numbers",
        given_labels=labels,
        suggested_labels=(np.stack(predicted, axis=1) * unit + centre).astype(np.float32),
        scores=np.stack(scores, axis=1),
        flagged=np.zeros(labels.shape, bool),
        counts=(NUMBERS_ARE_RANKED,) * labels.shape[1],
        heads=tuple(
            tuple(HeadWeight(name, float(weight)) for name, weight in zip(heads, own, strict=True))
            for own in weights
        ),
        output_names=tuple(output_names),
        ids=ids,
    )


def robust_deviation(values: np.ndarray) -> float:
    """Return the standard deviation of values (n,) by their median absolute deviation, positive whatever they are.

    Where more than half of them are equal, it is their mean absolute deviation from the median, and 1 where all are.
    """
    distances = np.abs(values - np.median(values))
    return float(_MAD * np.median(distances)) or float(distances.mean()) or 1.0


def _fit_heads(
    representations: Representations, labels: np.ndarray, tested: np.ndarray | None, rng: np.random.Generator
) -> tuple[dict[str, HeadScores], Ridge]:
    """Return what each head predicts of both sets, (n, c) and (m, c), and the kernel ridge on the inputs."""
    heads: dict[str, HeadScores] = {}
    for on, (rows, test) in representations.named().items():
        train = rows[:]
        # Features were made with the labels in view, so that these cannot choose the penalty.
        chosen_by = None if on == "inputs" else tested
        straight = _standardised(train, test)
        heads[f"ridge on {on}"] = _robust_ridge(Ridge(*map(_with_constant, straight)), labels, chosen_by)
        distance: Distance = "euclidean" if on == "inputs" else "cosine"
        ridge = Ridge(*kernel_rows(train, test, distance=distance, rng=rng))
        heads[f"kernel ridge on {on}"] = _robust_ridge(ridge, labels, chosen_by)
        if on == "inputs":
            heads[f"nearest neighbours on {on}"] = _neighbours(*straight, labels, rng)
    return heads, ridge  # the inputs are the last representation


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1
    return (train - mean) / scale, (test - mean) / scale


def _with_constant(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows.astype(np.float64), np.ones((len(rows), 1))], axis=1)


def _robust_ridge(ridge: Ridge, labels: np.ndarray, tested: np.ndarray | None) -> HeadScores:
    """Fit a ridge to each column of labels, its penalty that of the smallest absolute error.

    Errors are those on test labels, or without them those on training labels that were left out.

    Source: pseudo-values in the place of outlying labels, Huber (1981), Robust Statistics, section 7.8.
    """
    columns = []
    for output, own in enumerate(labels.T):
        pulled = np.clip(own, -_FIRST_CLIP, _FIRST_CLIP)
        penalty = _best_penalty(ridge, pulled, own, None if tested is None else tested[:, output])
        for _ in range(_NUM_ROUNDS):
            predicted = ridge.fit(pulled[:, None]).left_out(penalty)[:, 0]
            reach = _CLIP * robust_deviation(own - predicted)
            pulled = predicted + np.clip(own - predicted, -reach, reach)
        penalty = _best_penalty(ridge, pulled, own, None if tested is None else tested[:, output])
        fitted = ridge.fit(pulled[:, None])
        columns.append((fitted.left_out(penalty), fitted.of_test(penalty)))
    train, test = zip(*columns, strict=True)
    return HeadScores(np.concatenate(train, axis=1), np.concatenate(test, axis=1))


def _best_penalty(ridge: Ridge, pulled: np.ndarray, labels: np.ndarray, tested: np.ndarray | None) -> float:
    fitted = ridge.fit(pulled[:, None])
    errors = [
        np.abs(fitted.left_out(penalty)[:, 0] - labels).mean()
        if tested is None
        else np.abs(fitted.of_test(penalty)[:, 0] - tested).mean()
        for penalty in PENALTIES
    ]
    return float(PENALTIES[int(np.argmin(errors))])


def _neighbours(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> HeadScores:
    """Return the medians of the labels of the ten nearest other training examples."""
    references = np.sort(rng.permutation(len(train))[:_MOST_COMPARED])
    number = min(_NUM_NEIGHBOURS, len(references) - 1)
    if number < 1:
        return HeadScores(np.zeros_like(labels), np.zeros((len(test), labels.shape[1])))
    search = NearestNeighbors(n_neighbors=number + 1).fit(train[references])
    found = references[search.kneighbors(train, return_distance=False)]
    # An example is its own nearest one, but for copies of it, of which any may be left out.
    is_own = found == np.arange(len(train))[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    others = found[~is_own].reshape(len(train), number)
    predicted = np.median(labels[others], axis=1)
    if not len(test):
        return HeadScores(predicted, np.zeros((0, labels.shape[1])))
    of_test = references[search.kneighbors(test, number, return_distance=False)]
    return HeadScores(predicted, np.median(labels[of_test], axis=1))


def _score(
    heads: dict[str, HeadScores],
    on_inputs: Ridge,
    labels: np.ndarray,
    tested: np.ndarray | None,
    output: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions (n,) and scores (n,) of one output, and the weights of the heads."""
    own, trained = labels[:, output], np.stack([head.train[:][:, output] for head in heads.values()])
    weights = np.full(len(heads), 1 / len(heads))
    if tested is not None:
        weights = _weights(np.stack([head.test[:, output] for head in heads.values()]), tested[:, output])
    predicted = weights @ trained
    residuals = own - predicted
    # Half-way between one scale for all and one for examples like this one, on the scale of logarithms.
    scales = np.sqrt(robust_deviation(residuals) * _usual_residuals(on_inputs, residuals))
    return predicted, np.abs(residuals) / scales, weights


def _weights(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights (h,), positive with sum 1, of heads (h, m) that fit labels (m,) best in absolute values.

    Source: iteratively reweighted least squares, here of positive weights (Lawson and Hanson, 1974).
    """
    weights = np.full(len(predicted), 1 / len(predicted))
    for _ in range(_NUM_WEIGHTINGS):
        residuals = labels - weights @ predicted
        least = _LEAST_OF_WEIGHTING * robust_deviation(residuals)
        importance = 1 / np.sqrt(np.maximum(np.abs(residuals), least))
        found, _ = scipy.optimize.nnls((predicted * importance).T, labels * importance)
        if not found.sum():
            break
        weights = found / found.sum()
    return weights


def _usual_residuals(ridge: Ridge, residuals: np.ndarray) -> np.ndarray:
    """Return how large residuals (n,) of examples like each one usually are: left out, by a ridge of logarithms."""
    overall = robust_deviation(residuals)
    sizes = np.log(np.abs(residuals) + _LEAST_RESIDUAL * overall)
    fitted = ridge.fit((sizes - sizes.mean())[:, None])
    predicted = [fitted.left_out(penalty)[:, 0] for penalty in PENALTIES]
    errors = [((own + sizes.mean() - sizes) ** 2).mean() for own in predicted]
    best = int(np.argmin(errors))
    if errors[best] >= sizes.var():
        return np.full(len(residuals), overall)
    return np.asarray(overall * np.exp(predicted[best]))
