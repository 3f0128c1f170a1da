"""The queries that all methods explain, and one method with the seconds that it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.method_specs import MethodSpec
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.models import InfluenceModel
from deel_dualview.models.label_kinds import explained_target, label_kind, predicted_numbers
from deel_dualview.report.comparison import ComparedMethod
from deel_dualview.stores import Store

MAX_VALUES = 2**20
"""So many influence values of each method are in memory at once, unless a single query has more."""
MAX_BATCH = 64


class Queries(NamedTuple):
    """The predictions that all methods explain, m of them.

    Attributes:
        dataset: in batches of about equal size, so that graphs need not be traced again.
        represented: the same after one call of the model, in the same batches.
        examples: all of them as arrays.
        labels: classes (m,), or labels of the outputs (m, c), or None.
        predictions: the model's classes, or the explained outputs, shape (m,).
        confidences: their probabilities, or the predicted numbers, shape (m,).
        target: what is explained: `"prediction"`, or 0, the first of several numbers.
    """

    dataset: tf.data.Dataset
    represented: RepresentedExamples
    examples: data.Batch
    labels: np.ndarray | None
    predictions: np.ndarray
    confidences: np.ndarray
    target: str | int = "prediction"

    @property
    def size(self) -> int:
        """How many there are, m."""
        return len(self.predictions)

    def of(self, calculator: BaseInfluenceCalculator) -> tf.data.Dataset | RepresentedExamples:
        """Return what a method takes: features, which the network has computed once for all, where they suffice."""
        return self.represented if calculator.follows_from_features else self.dataset

    @classmethod
    def read(
        cls, model: InfluenceModel, test_set: tf.data.Dataset, num_queries: int, *, num_train: int
    ) -> Queries:
        """Read the first `num_queries` of the test examples, once and for all methods."""
        check_count("num_queries", num_queries)
        data.check_batched(test_set, "test_set")
        model.check_inputs(data.unpack(test_set.element_spec).inputs, "test_set")
        single = test_set.unbatch().take(num_queries)
        have_ranks = all(leaf.shape.rank is not None for leaf in tf.nest.flatten(single.element_spec))
        # Batches of several lengths are filled up to the longest of all.
        batched = single.padded_batch(num_queries) if have_ranks else single.batch(num_queries)
        taken = next(iter(batched), None)
        require(taken is not None, "The test set must hold an example.", {"test_set": test_set})
        batch = data.unpack(taken)
        data.check_finite(batch.inputs, 0, "test_set")
        with data.naming_positions(0, "test_set"):
            labels = None if batch.labels is None else model.to_targets(batch.labels)
        all_of_them = Represented(model, batch.labels, inputs=batch.inputs).check_finite().without_inputs()
        logits = all_of_them.logits.numpy()
        num_batches = -(-len(logits) // max(1, min(MAX_BATCH, MAX_VALUES // num_train)))
        size = -(-len(logits) // num_batches)
        return cls(
            tf.data.Dataset.from_tensor_slices(taken).batch(size),
            RepresentedExamples(lambda: iter(all_of_them.parts(size)), keep=True),
            batch,
            labels,
            *_explained(model, logits),
            explained_target(model),
        )


def _explained(model: InfluenceModel, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return classes with their probabilities, or explained outputs with the predicted numbers or probabilities."""
    kind, rows = label_kind(model), np.arange(len(logits))
    if kind == "numbers":
        return np.zeros(len(logits), np.int64), predicted_numbers(model, logits)[:, 0]
    likeliest = logits.argmax(axis=1)
    if kind == "labels":
        return likeliest, scipy.special.expit(logits[rows, likeliest].astype(np.float64))
    return likeliest, scipy.special.softmax(logits.astype(np.float64), axis=1).max(axis=1)


@dataclass
class TimedMethod:
    """A method under comparison.

    Args:
        spec: the method.
        calculator: ready to answer.
        setup_seconds: until then.
    """

    spec: MethodSpec
    calculator: BaseInfluenceCalculator
    setup_seconds: float
    _seconds: list[float] = field(default_factory=list)
    _num_queries: int = 0

    @classmethod
    def prepare(
        cls,
        spec: MethodSpec,
        model: InfluenceModel,
        train_set: tf.data.Dataset,
        queries: Queries,
        store: Store,
    ) -> TimedMethod:
        """Make the calculator and have it answer one batch of queries, for which its graphs are traced."""
        start = time.perf_counter()
        calculator = spec.build(model, train_set, store)
        next(iter(calculator.estimate_influence_values_in_batches(queries.of(calculator))))
        seconds = time.perf_counter() - start
        require(
            calculator.target == queries.target,
            f"Methods are compared on the model's predictions: build each with target={queries.target!r}.",
            {"method": spec.name, "target": calculator.target},
        )
        require(
            calculator.model is model or calculator.model.fingerprint == model.fingerprint,
            "All methods must explain the same model.",
            {"method": spec.name},
        )
        return cls(spec, calculator, seconds)

    def values(self, queries: Queries) -> Iterator[np.ndarray]:
        """Yield the influence values (b, n) of each batch of queries, and keep the time."""
        batches = iter(self.calculator.estimate_influence_values_in_batches(queries.of(self.calculator)))
        while True:
            start = time.perf_counter()
            values = next(batches, None)
            if values is None:
                return
            self._seconds.append(time.perf_counter() - start)
            self._num_queries += len(values)
            yield values.numpy()

    def report(self) -> ComparedMethod:
        """Return what a report has of the method."""
        described = self.spec.describe(self.calculator)
        return ComparedMethod(
            name=self.spec.name,
            title=described.title,
            value=described.value,
            calculator=described.calculator,
            setup_seconds=self.setup_seconds,
            seconds_per_query=sum(self._seconds) / self._num_queries,
            stored_bytes=self.calculator.stored_bytes,
        )
