"""Findings about test predictions: wrong or uncertain ones explained, and who influences most of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from deel_dualview.auditing.evidence import Evidence, severity_of
from deel_dualview.linalg.rows import Rows, mean_and_deviation
from deel_dualview.report.findings import (
    ClassInfluence,
    CommonProponent,
    Confusion,
    ExplainedPrediction,
    Influence,
    InfluentialExample,
    InfluentialExamples,
    Severity,
    UncertainPredictions,
    WrongPredictions,
)
from deel_dualview.report.output_findings import PredictionErrors
from deel_dualview.report.wording import joined

NUM_EXPLAINED = 12
NUM_INFLUENTIAL = 6
NUM_CONFUSIONS, NUM_COMMON = 6, 6
NUM_CLASSES_SHOWN = 20
"""Of more classes, those with most predictions: pictures of thousands would fit neither a page nor memory."""
MANY_WRONG = 0.05
"""From this share of wrong predictions on, the finding is a warning."""
MOST_NAMED, CLASSES_A_NAME, FEW_ERRORS, TIMES_THEIR_SHARE = 2, 4, 30, 1.5
"""A title names the one or two classes that half of the errors fall on, of at least four times as many classes, of 30
errors or more, and where this is 1.5 times their share of the test set: else it says little."""
FEW_PREDICTIONS = 10
"""A class with fewer predictions than this says nothing about an example that is behind most of them."""


def find_wrong_predictions(
    evidence: Evidence, class_names: Sequence[str] = ()
) -> WrongPredictions | UncertainPredictions:
    """Explain the wrong predictions of most confidence, or without test labels those of least confidence.

    Args:
        evidence: arrays of the audit.
        class_names: for the title; without them it has no names.
    """
    if evidence.test_labels is None:
        return _uncertain(evidence)
    wrong = np.flatnonzero(evidence.predictions != evidence.test_labels)
    shown = wrong[~np.isin(wrong, evidence.broken_test)]
    surest = shown[np.argsort(-evidence.confidences[shown], kind="stable")][:NUM_EXPLAINED]
    share = len(wrong) / evidence.num_test
    severity = severity_of(share, warn_from=MANY_WRONG)
    return WrongPredictions(
        severity=severity,
        title=_wrong_title(len(wrong), evidence.num_test)
        + _concentration(evidence.test_labels, wrong, class_names),
        summary=(
            f"The {len(surest)} of which the model is surest, with the training examples that speak for and "
            "against what it said. A proponent that looks mislabelled, or out of place, is where to start."
            if len(surest)
            else "The model is right on every test example, so there is nothing to explain."
        ),
        count=len(wrong),
        share=share,
        predictions=tuple(explain(evidence, index) for index in surest),
        confusions=_confusions(evidence, evidence.test_labels, wrong),
        matrix=_matrix(evidence, evidence.test_labels),
    )


_Explained = TypeVar("_Explained", bound=WrongPredictions | UncertainPredictions | PredictionErrors)


def with_likeness(finding: _Explained, train_features: Rows, test_features: np.ndarray) -> _Explained:
    """Return a finding with the likeness of each of its pairs.

    Args:
        finding: explained predictions.
        train_features: penultimate features, shape (n, d).
        test_features: shape (m, d).
    """
    # A unit that is dead on the training set counts as it is.
    centre, scale = mean_and_deviation(train_features)
    places = sorted(
        {own.example.index for item in finding.predictions for own in (*item.proponents, *item.opponents)}
    )
    rows = dict(zip(places, train_features[np.array(places, np.int64)], strict=True))

    def unit(row: np.ndarray) -> np.ndarray:
        scaled = (row - centre) / scale
        length = np.linalg.norm(scaled)
        return scaled / length if length > 0 else scaled

    def extended(item: Any) -> Any:
        query = unit(test_features[item.example.index])
        pairs = [
            tuple(
                dataclasses.replace(own, likeness=float(query @ unit(rows[own.example.index])))
                for own in group
            )
            for group in (item.proponents, item.opponents)
        ]
        return dataclasses.replace(item, proponents=pairs[0], opponents=pairs[1])

    explained: Any = tuple(map(extended, finding.predictions))
    return dataclasses.replace(finding, predictions=explained)


def _matrix(evidence: Evidence, labels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix; that of many classes would fit no page."""
    num_classes = evidence.num_classes
    if num_classes > NUM_CLASSES_SHOWN:
        return ()
    counts = np.bincount(labels * num_classes + evidence.predictions, minlength=num_classes**2)
    return tuple(tuple(row) for row in counts.reshape(num_classes, num_classes).tolist())


def _confusions(evidence: Evidence, labels: np.ndarray, wrong: np.ndarray) -> tuple[Confusion, ...]:
    """Return the most frequent confusions with the training examples that most often speak for them."""
    if not len(wrong):
        return ()
    pairs, counts = np.unique(
        np.stack([labels[wrong], evidence.predictions[wrong]]), axis=1, return_counts=True
    )
    found = []
    for place in np.argsort(-counts, kind="stable")[:NUM_CONFUSIONS]:
        label, prediction = map(int, pairs[:, place])
        queries = wrong[(labels[wrong] == label) & (evidence.predictions[wrong] == prediction)]
        strongest = [_top_proponents_of(evidence, int(query)) for query in queries]
        indices, often = np.unique(np.concatenate(strongest), return_counts=True)
        order = np.lexsort((indices, -often))[:NUM_COMMON]
        found.append(
            Confusion(
                label=label,
                prediction=prediction,
                count=len(queries),
                num_labelled=int((labels == label).sum()),
                proponents=tuple(
                    CommonProponent(evidence.reference("train", indices[position]), int(often[position]))
                    for position in order
                ),
            )
        )
    return tuple(found)


def explain(evidence: Evidence, index: int) -> ExplainedPrediction:
    """Return the k strongest proponents and opponents of one test prediction; ties go to the lower index."""
    prediction = int(evidence.predictions[index])
    surrogate = evidence.surrogate
    logit = None if surrogate is None else float(surrogate.logits[index, prediction])
    proponents, opponents = (
        tuple(
            Influence(
                evidence.reference("train", column),
                value,
                value / logit if logit is not None and logit > 0 else None,
            )
            for column, value in found
        )
        for found in strongest_of(evidence, index)
    )
    return ExplainedPrediction(
        example=evidence.reference("test", index),
        prediction=prediction,
        confidence=float(evidence.confidences[index]),
        surrogate_prediction=None if surrogate is None else int(surrogate.logits[index].argmax()),
        logit=logit,
        logit_error_bound=None if surrogate is None else float(surrogate.logit_error_bounds[index]),
        proponents=proponents,
        opponents=opponents,
    )


def strongest_of(evidence: Evidence, index: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Return the k strongest proponents and opponents of a test example, as (position, value); ties by position."""
    columns, values = _row(evidence, index)
    ends = [
        [position for position in order[: evidence.k] if sign * values[position] > 0]
        for sign, order in ((1, np.lexsort((columns, -values))), (-1, np.lexsort((columns, values))))
    ]
    found = [[(int(columns[position]), float(values[position])) for position in end] for end in ends]
    return found[0], found[1]


def find_influential_examples(evidence: Evidence) -> InfluentialExamples:
    """Find, per predicted class, the training examples most often among the k strongest proponents."""
    strongest = top_proponents(evidence)
    # Where every value is 0 there is no order.
    is_ranked = np.array([_row(evidence, index)[1].any() for index in range(evidence.num_test)])
    classes = []
    for label in range(evidence.num_classes):
        queries = np.flatnonzero((evidence.predictions == label) & is_ranked)
        if len(queries):
            classes.append(_class_influence(evidence, label, queries, strongest))
    few = min(FEW_PREDICTIONS, evidence.num_test)
    largest = [group for group in classes if group.examples and group.num_predictions >= few]
    busiest = max(
        (group.examples[0].num_predictions / group.num_predictions for group in largest), default=0.0
    )
    classes = sorted(classes, key=lambda group: -group.num_predictions)[:NUM_CLASSES_SHOWN]
    distinct = len(np.unique(np.concatenate([*strongest, np.empty(0, np.int64)])))
    return InfluentialExamples(
        severity=Severity.KNOW if is_ranked.all() else Severity.LOOK,
        title=f"{distinct:,} of {evidence.num_train:,} training examples stand behind the predictions",
        summary=(
            f"Counted are the {evidence.k} strongest proponents of every test prediction. The busiest single "
            f"example is behind {busiest:.0%} of the predictions of {evidence.its_class}: if it is odd, so are they."
            + _left_out(int((~is_ranked).sum()))
        ),
        count=distinct,
        share=busiest,
        k=evidence.k,
        classes=tuple(sorted(classes, key=lambda group: group.label)),
    )


def _left_out(count: int) -> str:
    if count == 0:
        return ""
    predictions = "One prediction is" if count == 1 else f"{count:,} predictions are"
    return f" {predictions} left out: every influence value is exactly 0, which ranks no training example."


def _class_influence(
    evidence: Evidence, label: int, queries: np.ndarray, strongest: list[np.ndarray]
) -> ClassInfluence:
    indices, counts = np.unique(
        np.concatenate([*(strongest[query] for query in queries), np.empty(0, np.int64)]), return_counts=True
    )
    order = np.lexsort((indices, -counts))[:NUM_INFLUENTIAL]
    values = evidence.attributions[queries]
    logits = np.empty(0) if evidence.surrogate is None else evidence.surrogate.logits[queries, label]
    total = float(logits[logits > 0].sum())
    return ClassInfluence(
        label=label,
        num_predictions=len(queries),
        num_proponents=len(indices),
        examples=tuple(
            InfluentialExample(
                example=evidence.reference("train", indices[position]),
                num_predictions=int(counts[position]),
                mean_share=(
                    float(values[:, [indices[position]]].sum()) / total
                    if total > 0 and evidence.holds_all
                    else None
                ),
            )
            for position in order
        ),
    )


def top_proponents(evidence: Evidence) -> list[np.ndarray]:
    """Return the training indices of the k strongest proponents of every test example; none of a broken one."""
    return [_top_proponents_of(evidence, index) for index in range(evidence.num_test)]


def _top_proponents_of(evidence: Evidence, index: int) -> np.ndarray:
    if np.isin(index, evidence.broken_test):
        return np.empty(0, np.int64)
    columns, values = _row(evidence, index)
    order = np.lexsort((columns, -values))[: evidence.k]
    found = columns[order][values[order] > 0].astype(np.int64)
    return found[~np.isin(found, evidence.broken_train)]


def _row(evidence: Evidence, index: int) -> tuple[np.ndarray, np.ndarray]:
    matrix = evidence.attributions
    stretch = slice(matrix.indptr[index], matrix.indptr[index + 1])
    return matrix.indices[stretch], matrix.data[stretch]


def _wrong_title(count: int, num_test: int) -> str:
    if count == 0:
        return "No test prediction is wrong"
    return f"{count:,} of {num_test:,} test predictions {'is' if count == 1 else 'are'} wrong"


def _concentration(labels: np.ndarray, wrong: np.ndarray, class_names: Sequence[str]) -> str:
    """Return what a title adds where one or two classes of many have half of the errors; "" elsewhere."""
    num_classes = len(class_names)
    if len(wrong) < FEW_ERRORS:
        return ""
    sizes, errors = (np.bincount(own, minlength=num_classes) for own in (labels, labels[wrong]))
    order = np.argsort(-errors, kind="stable")
    for number in range(1, min(MOST_NAMED, num_classes // CLASSES_A_NAME) + 1):
        named = order[:number]
        share = errors[named].sum() / len(wrong)
        if share >= 0.5 and share >= TIMES_THEIR_SHARE * sizes[named].sum() / len(labels):
            return f", {share:.0%} of them on {joined([class_names[label] for label in named])}"
    return ""


def _uncertain(evidence: Evidence) -> UncertainPredictions:
    order = np.argsort(evidence.confidences, kind="stable")
    least = order[~np.isin(order, evidence.broken_test)][:NUM_EXPLAINED]
    unsure = int((evidence.confidences < 0.5).sum())
    return UncertainPredictions(
        severity=Severity.LOOK if unsure else Severity.FINE,
        title=f"The {len(least)} least certain predictions",
        summary=(
            "The test set has no labels, so which predictions are wrong is unknown. Of "
            f"{evidence.num_test:,} predictions, {unsure:,} have less than 50 % confidence."
        ),
        count=unsure,
        share=unsure / evidence.num_test,
        predictions=tuple(explain(evidence, index) for index in least),
    )
