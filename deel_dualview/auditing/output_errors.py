"""The finding about errors of numbers or independent labels: how large they are, and the largest ones explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.metrics import average_precision_score, f1_score

from deel_dualview.auditing.evidence import PROBABLE, OutputEvidence, severity_of
from deel_dualview.auditing.predictions import MANY_WRONG, NUM_EXPLAINED, strongest_of
from deel_dualview.report.findings import Influence, Measure, Severity
from deel_dualview.report.output_findings import (
    ExplainedOutput,
    OutputScore,
    PlottedExamples,
    PredictionErrors,
    WrongLabelPredictions,
)

MUCH_LARGER = 2.0
"""Errors on the test set that are so many times those on the training set are worth a look."""
_MOST_PLOTTED, _PLOTTED_OUTPUTS, _NUM_MARKED = 600, 2, 30


def find_output_errors(evidence: OutputEvidence, suspects: np.ndarray) -> PredictionErrors:
    """Measure the predictions of both sets, and explain the largest errors, or the most unusual predictions.

    Args:
        evidence: arrays of the audit.
        suspects: positions of training examples and their outputs by decreasing label score, shape (n c, 2).
    """
    explained = evidence.predictions
    errors = evidence.errors("test")
    own = np.take_along_axis(_surprises(evidence), explained[:, np.newaxis], axis=1)[:, 0]
    order = np.argsort(-own, kind="stable")
    shown = order[~np.isin(order, evidence.broken_test)][:NUM_EXPLAINED]
    predictions = tuple(explain_output(evidence, int(index)) for index in shown)
    scores = tuple(_scores(evidence))
    if not evidence.has_numbers:
        share = float("nan") if errors is None else float(errors.mean())
        return WrongLabelPredictions(
            severity=Severity.KNOW if errors is None else severity_of(share, warn_from=MANY_WRONG),
            title=(
                "The test set has no labels: how many predictions are wrong is unknown"
                if errors is None
                else f"{int(errors.sum()):,} of {errors.size:,} test labels are predicted wrong"
            ),
            summary="Each label counts by itself. "
            + _shown(len(shown), "the model is most surely wrong", "the model is least sure", errors),
            count=0 if errors is None else int(errors.sum()),
            share=share,
            scores=scores,
            predictions=predictions,
        )
    return PredictionErrors(
        severity=_severity(evidence),
        title=_title(evidence),
        summary=_shown(
            len(shown), "the error is largest", "the prediction is farthest from the training labels", errors
        ),
        count=0 if errors is None else len(errors),
        share=float("nan"),
        scores=scores,
        predictions=predictions,
        plotted=tuple(_plotted(evidence, suspects, shown)),
    )


def explain_output(evidence: OutputEvidence, index: int) -> ExplainedOutput:
    """Return the k training examples that raise the explained output of a test example most, and lower it most."""
    output = int(evidence.predictions[index])
    surrogate = evidence.surrogate
    proponents, opponents = (
        tuple(Influence(evidence.reference("train", column), value, None) for column, value in found)
        for found in strongest_of(evidence, index)
    )
    return ExplainedOutput(
        example=evidence.reference("test", index),
        output=output,
        predicted=float(evidence.test_outputs[index, output]),
        given=None if evidence.test_rows is None else float(evidence.test_rows[index, output]),
        value=None if surrogate is None else float(surrogate.logits[index, output]),
        error_bound=None if surrogate is None else float(surrogate.logit_error_bounds[index]),
        proponents=proponents,
        opponents=opponents,
    )


def r_squared(outputs: np.ndarray, rows: np.ndarray) -> float:
    """Return 1 - sum of squared errors / sum of squared deviations from the mean; NaN of labels that do not differ."""
    spread = float(((rows - rows.mean(axis=0)) ** 2).sum())
    return 1 - float(((outputs - rows) ** 2).sum()) / spread if spread > 0 else float("nan")


def _surprises(evidence: OutputEvidence) -> np.ndarray:
    """Return what test examples are ordered by, shape (m, c)."""
    outputs, rows = evidence.test_outputs, evidence.test_rows
    if rows is not None:
        # Of labels by how sure the model is of what does not hold.
        return np.abs(outputs - rows) / evidence.units
    if evidence.has_numbers:
        return np.asarray(np.abs(outputs - np.median(evidence.train_rows, axis=0)) / evidence.units)
    return -np.abs(outputs - PROBABLE)


def _shown(number: int, largest: str, unusual: str, errors: np.ndarray | None) -> str:
    return (
        f"The {number} test examples of which {unusual if errors is None else largest}, with the training examples "
        "that raise and lower the output most. One with an odd label is where to start."
    )


def _parts(
    evidence: OutputEvidence,
) -> list[tuple[Literal["train", "test"], np.ndarray, np.ndarray]]:
    """Return labels and predictions of both sets without broken examples."""
    kept = np.setdiff1d(np.arange(evidence.num_train), evidence.broken_train)
    parts: list[tuple[Literal["train", "test"], np.ndarray, np.ndarray]] = [
        ("train", evidence.train_rows[kept], evidence.train_outputs[kept])
    ]
    if evidence.test_rows is not None:
        kept = np.setdiff1d(np.arange(evidence.num_test), evidence.broken_test)
        parts.append(("test", evidence.test_rows[kept], evidence.test_outputs[kept]))
    return parts


def _scores(evidence: OutputEvidence) -> list[OutputScore]:
    measure = _measures_of_numbers if evidence.has_numbers else _measures_of_labels
    return [
        OutputScore(
            output, split, len(rows), tuple(measure(evidence, output, rows[:, output], own[:, output]))
        )
        for output in range(evidence.num_classes)
        for split, rows, own in _parts(evidence)
    ]


def _measures_of_numbers(
    evidence: OutputEvidence, output: int, labels: np.ndarray, predictions: np.ndarray
) -> list[Measure]:
    errors = (predictions - labels).astype(np.float64)
    write = evidence.words.value
    found = [
        ("R²", r_squared(predictions, labels), "1 is perfect, 0 no better than the mean of the labels."),
        ("Mean absolute error", float(np.abs(errors).mean()), "In the unit of the labels."),
        ("Root mean squared error", float(np.sqrt((errors**2).mean())), "Large errors weigh more."),
        ("Largest error", float(np.abs(errors).max()), "Of a single example."),
    ]
    return [
        Measure(name, value, f"{value:.3f}" if name == "R²" else write(output, value), meaning)
        for name, value, meaning in found
        if np.isfinite(value)
    ]


def _measures_of_labels(
    evidence: OutputEvidence, output: int, labels: np.ndarray, predictions: np.ndarray
) -> list[Measure]:
    holds, predicted = labels > PROBABLE, predictions > PROBABLE
    found = [
        ("Holds", float(holds.mean()), "Share of the examples that have the label."),
        ("Right", float((holds == predicted).mean()), "Share of right decisions."),
    ]
    if holds.any():
        found += [
            ("F1", float(f1_score(holds, predicted)), "Of precision and recall, the harmonic mean."),
            (
                "Average precision",
                float(average_precision_score(holds, predictions)),
                "Of the ranking by probability; at random it is the share that has the label.",
            ),
        ]
    return [
        Measure(name, value, f"{value:.1%}" if name in ("Holds", "Right") else f"{value:.3f}", meaning)
        for name, value, meaning in found
    ]


def _squared(evidence: OutputEvidence) -> list[float]:
    """Return the root mean squared errors of the sets that have labels, over all outputs in units."""
    return [
        float(np.sqrt((((own - rows) / evidence.units) ** 2).mean())) for _, rows, own in _parts(evidence)
    ]


def _severity(evidence: OutputEvidence) -> Severity:
    parts = _parts(evidence)
    _, rows, outputs = parts[-1]
    if len(parts) == 1:
        return Severity.KNOW
    worst = min(
        r_squared(own, given) for own, given in zip(outputs.T, rows.T, strict=True) if np.ptp(given) > 0
    ) if np.ptp(rows, axis=0).any() else float("nan")  # fmt: skip
    if worst <= 0:
        return Severity.ACT
    trained, tested = _squared(evidence)
    return Severity.LOOK if tested > MUCH_LARGER * trained else Severity.KNOW


def _title(evidence: OutputEvidence) -> str:
    parts, names = _parts(evidence), evidence.words.names
    if len(parts) == 1:
        return "The test set has no labels: the errors on new examples are unknown"
    _, rows, outputs = parts[1]
    found = [r_squared(outputs[:, output], rows[:, output]) for output in range(len(names))]
    if len(names) > 1:
        worst = int(np.argmin(np.nan_to_num(found, nan=np.inf)))
        return f"Of the {len(names)} numbers {names[worst]} is predicted worst: R² {found[worst]:.2f} on the test set"
    error = evidence.words.value(0, float(np.abs(outputs - rows).mean()))
    worse = ": no better than the mean of the labels" if found[0] <= 0 else ""
    trained, tested = _squared(evidence)
    more = (
        f", {tested / trained:.1f} times as far off as in training"
        if tested > MUCH_LARGER * trained > 0
        else ""
    )
    explained = f"R² {found[0]:.2f}" if np.isfinite(found[0]) else "all labels alike"
    return f"Test predictions are off by {error} in the mean ({explained}){worse}{more}"


def _plotted(evidence: OutputEvidence, suspects: np.ndarray, shown: np.ndarray) -> list[PlottedExamples]:
    """Return examples to plot: evenly spaced ones of a large set, and all that are marked."""
    found = []
    splits: list[tuple[Literal["train", "test"], np.ndarray | None, np.ndarray, Sequence[int]]] = [
        ("train", evidence.train_rows, evidence.train_outputs, ()),
        ("test", evidence.test_rows, evidence.test_outputs, shown.tolist()),
    ]
    for output in sorted(
        {*range(min(evidence.num_classes, _PLOTTED_OUTPUTS)), *evidence.predictions.tolist()}
    ):
        own = suspects[suspects[:, 1] == output, 0][:_NUM_MARKED]
        for split, rows, outputs, explained in splits:
            if rows is None:
                continue
            marked = own if split == "train" else np.asarray(explained, np.int64)
            spaced = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_PLOTTED)).astype(np.int64)
            kept = np.union1d(spaced, marked).astype(np.int64)
            found.append(
                PlottedExamples(
                    output,
                    split,
                    tuple(map(float, rows[kept, output])),
                    tuple(map(float, outputs[kept, output])),
                    tuple(np.isin(kept, marked).tolist()),
                )
            )
    return found
