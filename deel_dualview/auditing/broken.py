"""Inputs with NaN or infinity: an audit goes on without them, and says which examples they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.findings import Severity


def zero_not_finite(inputs: Any) -> Any:
    """Return a nest of tensors with 0 in the place of NaN and infinity."""

    def zero(leaf: tf.Tensor) -> tf.Tensor:
        return (
            tf.where(tf.math.is_finite(leaf), leaf, tf.zeros_like(leaf)) if leaf.dtype.is_floating else leaf
        )

    return tf.nest.map_structure(zero, inputs)


def count_not_finite(inputs: Any) -> list[np.ndarray]:
    """Return, for each input of a batch that is a table, how often each column is NaN or infinite; none for others."""
    return [
        np.atleast_1d((~np.isfinite(data.to_array(leaf))).sum(axis=0))
        if leaf.dtype.is_floating and len(leaf.shape) <= 2
        else np.empty(0, np.int64)
        for leaf in tf.nest.flatten(inputs)
    ]


def with_finite_inputs(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset with 0 in the place of NaN and infinity in its inputs."""

    def replace(*element: Any) -> Any:
        batch = data.unpack(element)
        return tuple(
            part for part in batch._replace(inputs=zero_not_finite(batch.inputs)) if part is not None
        )

    return dataset.map(replace)


def find_not_finite(
    train: np.ndarray, test: np.ndarray, *, num_train: int, num_test: int
) -> Iterator[NotFiniteInputs]:
    """Yield the finding, if there is anything to find.

    Args:
        train: positions of training examples with inputs that are not finite.
        test: positions of such test examples.
        num_train: n.
        num_test: m.
    """
    count = len(train) + len(test)
    if not count:
        return
    yield NotFiniteInputs(
        severity=Severity.ACT,
        title=(
            "All training examples have NaN or infinity in the inputs"
            if len(train) == num_train
            else f"{count:,} {'example has' if count == 1 else 'examples have'} NaN or infinity in the inputs"
        ),
        summary=(
            f"{len(train):,} of {num_train:,} training and {len(test):,} of {num_test:,} test examples. These numbers "
            "were read as 0 here, and these examples are left out of label errors, influential examples and explained "
            "predictions. A model that was trained on them learned from whatever its layers made of NaN."
        ),
        count=count,
        share=count / (num_train + num_test),
        train_positions=tuple(train.tolist()),
        test_positions=tuple(test.tolist()),
    )
