"""The predictions on which methods agree least, with the strongest proponents by each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview.auditing.agreement import Agreement
from deel_dualview.auditing.compared_method import Queries
from deel_dualview.auditing.evidence import plain_id
from deel_dualview.auditing.reading import SplitContents, gather_inputs, references_in, to_arrays
from deel_dualview.models import InfluenceModel
from deel_dualview.report.comparison import ComparedPrediction
from deel_dualview.report.findings import ExampleReference, Influence
from deel_dualview.report.output_findings import OutputReference

NUM_SHOWN = 3


def least_agreed(
    agreement: Agreement, queries: Queries, train: SplitContents, model: InfluenceModel
) -> tuple[ComparedPrediction, ...]:
    """Return the predictions of lowest mean rank correlation over all pairs of methods."""
    correlations = agreement.rank_correlations()
    pairs = np.triu_indices(correlations.shape[1], 1)
    means = correlations[:, *pairs].mean(axis=1)
    best = agreement.strongest()
    # NaN comes last: a query for which some method has nothing to say is no disagreement.
    first = np.argsort(means, kind="stable")[:NUM_SHOWN]
    labels = model.to_targets(train.labels)
    return tuple(
        ComparedPrediction(
            example=_reference("test", row, queries.examples.ids, queries.labels),
            prediction=int(queries.predictions[row]),
            confidence=float(queries.confidences[row]),
            rank_correlation=float(means[row]),
            proponents=tuple(
                tuple(
                    Influence(_reference("train", index, train.ids, labels), float(value), None)
                    for value, index in zip(values[row], indices[row], strict=True)
                    if value > 0
                )
                for values, indices in best
            ),
        )
        for row in map(int, first)
    )


def contents_of(
    predictions: Sequence[ComparedPrediction],
    train_set: tf.data.Dataset,
    train: SplitContents,
    queries: Queries,
) -> Mapping[tuple[str, int], Any]:
    """Return the contents of the examples that are shown, by split and index."""
    references = list(references_in(tuple(predictions)))
    wanted = {item.index for item in references if item.split == "train"}
    arrays = to_arrays(queries.examples.inputs)
    shown: dict[tuple[str, int], Any] = {
        ("train", index): example for index, example in gather_inputs(train_set, wanted, train.hashes).items()
    }
    for row in {item.index for item in references if item.split == "test"}:
        shown["test", row] = tf.nest.map_structure(lambda array, row=row: array[row], arrays)
    return shown


def _reference(split: Any, index: int, ids: Any, labels: np.ndarray | None) -> ExampleReference:
    own_id = None if ids is None else plain_id(np.asarray(ids)[index])
    if labels is not None and labels.ndim == 2:
        return OutputReference(split, int(index), own_id, None, tuple(map(float, labels[index])))
    return ExampleReference(split, int(index), own_id, None if labels is None else int(labels[index]))
