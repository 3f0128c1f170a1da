"""One pass over a split for what is small of every example, and one for the few examples that are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.auditing.broken import count_not_finite, zero_not_finite
from deel_dualview.auditing.duplicates import Sketcher, Sketches
from deel_dualview.data.examples import not_finite_rows
from deel_dualview.report.data_findings import Outliers
from deel_dualview.report.findings import ExampleReference


class SplitContents(NamedTuple):
    """What is kept of every example of a split: some 800 bytes, whatever the size of its inputs.

    Attributes:
        hashes: of the inputs alone, shape (n,) uint64.
        sketches: of the inputs, and of images mirrored.
        labels: as the dataset has them, shape (n, ...), or None.
        ids: shape (n,), or None.
        not_finite: positions of examples with NaN or infinity in their inputs, which were read as 0, increasing.
        not_finite_columns: for each input that is a table, how often each of its columns is; empty for others, and
            where there are none.
    """

    hashes: np.ndarray
    sketches: Sketches
    labels: np.ndarray | None
    ids: np.ndarray | None
    not_finite: np.ndarray
    not_finite_columns: list[np.ndarray]


def _keep_nothing(inputs: Any) -> None:
    """Keep nothing of a batch."""


def read_contents(
    dataset: tf.data.Dataset, sketcher: Sketcher, keep: Callable[[Any], object] = _keep_nothing
) -> SplitContents:
    """Hash and sketch every example of a dataset, in one pass; `keep` gets the inputs of every batch."""
    hashes, sketches, labels, ids, broken = [], [], [], [], [np.empty(0, np.int64)]
    columns: list[np.ndarray] = []
    for positions, element in data.enumerate_examples(dataset):
        batch = data.unpack(element)
        if len(rows := not_finite_rows(batch.inputs)):
            broken.append(positions[rows])
            counts = count_not_finite(batch.inputs)
            columns = [old + new for old, new in zip(columns, counts, strict=True)] if columns else counts
            batch = batch._replace(inputs=zero_not_finite(batch.inputs))
        keep(batch.inputs)
        hashes.append(hash_inputs(batch.inputs))
        sketches.append(sketcher.sketch(to_arrays(batch.inputs)))
        if batch.labels is not None:
            labels.append(data.to_array(batch.labels))
        if batch.ids is not None:
            ids.append(data.to_array(batch.ids))
    return SplitContents(
        np.concatenate(hashes),
        Sketches(*map(_as_wide, zip(*sketches, strict=True))),
        np.concatenate(labels) if labels else None,
        np.concatenate(ids) if ids else None,
        np.concatenate(broken),
        columns,
    )


def _as_wide(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join rows; those without numbers become zeros where others have some."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [part if part.shape[1] == width else np.zeros((len(part), width), part.dtype) for part in parts]
    )


def hash_inputs(inputs: Any) -> np.ndarray:
    """Return one hash per example of its inputs without its label, shape (b,)."""
    return data.hash_examples(data.Batch(inputs, None, None))


def to_arrays(inputs: Any) -> Any:
    """Turn a nest of tensors into one of arrays."""
    return tf.nest.map_structure(data.to_array, inputs)


def gather_inputs(dataset: tf.data.Dataset, indices: Iterable[int], hashes: np.ndarray) -> dict[int, Any]:
    """Return the inputs of a few examples by index: one pass, up to the largest index.

    Args:
        dataset: the split.
        indices: positions of the examples.
        hashes: of the inputs of all examples, from `read_contents`.

    Raises:
        ValueError: an example is no longer what it was in the first pass.
    """
    wanted = np.unique(np.fromiter(indices, np.int64))
    found: dict[int, Any] = {}
    for positions, element in data.enumerate_examples(dataset) if len(wanted) else ():
        inside = wanted[np.searchsorted(wanted, positions[0]) : np.searchsorted(wanted, positions[-1] + 1)]
        if len(inside):
            inputs = data.unpack(element).inputs
            rows = inside - positions[0]
            if not np.array_equal(hash_inputs(inputs)[rows], hashes[inside]):
                raise data.ChangedError(
                    data.changed_message("dataset", "other examples at the same positions")
                )
            arrays = to_arrays(inputs)
            found |= {int(index): _example(arrays, int(row)) for index, row in zip(inside, rows, strict=True)}
        if positions[-1] >= wanted[-1]:
            break
    return found


def references_in(value: Any) -> Iterator[ExampleReference]:
    """Yield every example that a finding, or anything in it, refers to: of outliers those that a page shows."""
    if isinstance(value, ExampleReference):
        yield value
    elif isinstance(value, Outliers):
        yield from references_in(value.examples[: value.num_shown])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from references_in(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from references_in(item)


def _example(arrays: Any, row: int) -> Any:
    """Copy one example out of a batch, which need not be kept for it."""
    return tf.nest.map_structure(lambda array: np.array(array[row]), arrays)
