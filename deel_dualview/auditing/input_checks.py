"""Checks of the inputs as they are, whatever the model: one finding with every problem of order, columns and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.auditing.collecting import Splits
from deel_dualview.auditing.columns import Column, Missing, find_column_problems, find_missing, is_identifier
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.image_checks import Properties, find_image_problems
from deel_dualview.auditing.order import find_order
from deel_dualview.linalg.rows import LazyRows
from deel_dualview.plots.formatting import name_column
from deel_dualview.report.findings import Severity
from deel_dualview.report.input_findings import InputProblem, InputProblems

_URGENCY = (Severity.ACT, Severity.LOOK, Severity.KNOW)


def find_input_problems(
    evidence: Evidence, splits: Splits, class_names: Sequence[str], input_names: Sequence[str]
) -> InputProblems:
    """Return the finding about the inputs, from what the pass over the contents has kept.

    Args:
        evidence: arrays of the audit.
        splits: both sets.
        class_names: of the classes.
        input_names: of the columns of a table, or of what else numbers of the inputs stand for.
    """
    found = [
        *_find_identical(splits.train.hashes),
        *_find_problems_of_columns(evidence, splits, input_names),
        *_find_problems_of_images(evidence, splits, class_names),
        *_find_problems_of_order(evidence, splits),
    ]
    problems = sorted(found, key=lambda problem: _URGENCY.index(problem.severity))
    if not problems:
        title = "Nothing is unusual about the order of the sets, and the columns or images in them"
        summary = "Whether they are in random order, columns without values or that number the examples, odd images."
    elif len(problems) == 1:
        title, summary = problems[0].title, "What was found in the inputs, whatever the model makes of them."
    else:
        first = problems[0].title
        title = f"{len(problems)} things are unusual about the inputs; first: {first[0].lower()}{first[1:]}"
        summary = "What was found in the inputs, whatever the model makes of them."
    return InputProblems(
        severity=problems[0].severity if problems else Severity.FINE,
        title=title,
        summary=summary,
        count=len(problems),
        share=float(bool(problems)),
        problems=tuple(problems),
    )


def _find_identical(hashes: np.ndarray) -> Iterator[InputProblem]:
    if len(hashes) > 1 and (hashes == hashes[0]).all():
        yield InputProblem(
            kind="identical",
            severity=Severity.ACT,
            title="All training examples have the same inputs",
            advice="Nothing can be learned from them: are they read from the right place, or all zero?",
            count=len(hashes),
        )


def _find_problems_of_order(evidence: Evidence, splits: Splits) -> Iterator[InputProblem]:
    rows, test_rows = splits.table.rows()
    kept_columns = _without_identifiers(splits, rows.shape[1])
    for split, own, labels, broken in (
        ("training", rows, evidence.train_labels, evidence.broken_train),
        ("test", test_rows, evidence.test_labels, evidence.broken_test),
    ):
        kept = np.setdiff1d(np.arange(len(own)), broken)
        contents = own.subset(kept) if isinstance(own, LazyRows) else own[kept]
        if len(kept_columns) < rows.shape[1]:
            contents = contents[:][:, kept_columns]
        if not len(kept_columns):
            # Examples that are all alike: their labels can still be in order.
            contents = np.zeros((len(contents), 1))
        yield from find_order(contents, None if labels is None else labels[kept], split)


def _without_identifiers(splits: Splits, width: int) -> np.ndarray:
    """Return the columns of the rows that do not number the examples: such a one makes neighbours alike by itself."""
    columns = np.concatenate(
        [np.empty((len(splits.train.hashes), 0)), *(item.train for item in splits.table.tables())], 1
    )
    if columns.shape[1] != width:
        return np.arange(width)
    return np.flatnonzero([not is_identifier(column) for column in columns.T])


def _find_problems_of_columns(
    evidence: Evidence, splits: Splits, input_names: Sequence[str]
) -> Iterator[InputProblem]:
    names = _names_of(splits.train_set, input_names)
    found = [contents.not_finite_columns for contents in (splits.train, splits.test)]
    missing = []
    for number, name in enumerate(names):
        train, test = (own[number] if own else np.empty(0, np.int64) for own in found)
        for column in range(max(len(train), len(test))):
            counts = [int(own[column]) if len(own) else 0 for own in (train, test)]
            missing.append(Missing(name(column), *counts))
    yield from find_missing(missing, evidence.num_train, evidence.num_test)
    columns = [
        Column(
            names[item.number](column),
            np.delete(item.train[:, column], evidence.broken_train),
            np.delete(item.test[:, column], evidence.broken_test),
        )
        for item in splits.table.tables()
        for column in range(item.train.shape[1])
    ]
    yield from find_column_problems(columns, np.delete(evidence.train_labels, evidence.broken_train))


def _find_problems_of_images(
    evidence: Evidence, splits: Splits, class_names: Sequence[str]
) -> Iterator[InputProblem]:
    train, test = splits.images.of("train"), splits.images.of("test")
    if train is not None and test is not None:
        train[evidence.broken_train] = np.nan
        test[evidence.broken_test] = np.nan
        yield from find_image_problems(evidence, Properties(train, test), class_names)


def _names_of(dataset: tf.data.Dataset, input_names: Sequence[str]) -> list[Callable[[int], str]]:
    """Return, for each input, what names its columns: the given names for a single one, else the name of the input."""
    inputs = data.unpack(dataset.element_spec).inputs
    leaves = tf.nest.flatten(inputs)
    if len(leaves) == 1:
        return [lambda column: name_column(column, input_names)]
    is_flat = isinstance(inputs, Mapping) and len(inputs) == len(leaves)
    # TensorFlow flattens dictionaries by sorted keys.
    names = sorted(map(str, inputs)) if is_flat else [f"input {number + 1}" for number in range(len(leaves))]
    is_single = [leaf.shape.rank == 1 or leaf.shape[1:].num_elements() == 1 for leaf in leaves]

    def namer(name: str, *, alone: bool) -> Callable[[int], str]:
        return lambda column: name if alone else f"{name}, column {column}"

    return [namer(name, alone=alone) for name, alone in zip(names, is_single, strict=True)]
