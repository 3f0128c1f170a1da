"""What a calculator and the model say of both sets, as the arrays that findings are made of."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.special
import tensorflow as tf

from deel_dualview import data
from deel_dualview.auditing.broken import find_not_finite, with_finite_inputs
from deel_dualview.auditing.duplicates import Sketcher
from deel_dualview.auditing.evidence import Evidence, SurrogateEvidence
from deel_dualview.auditing.image_properties import ImageProperties
from deel_dualview.auditing.reading import SplitContents, read_contents
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView, Evaluation
from deel_dualview.calculators.represented import RepresentedExamples
from deel_dualview.labels import InputTable
from deel_dualview.models import InfluenceModel
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.search import ORDER

_BYTES_OF_A_VALUE, _MOST_BYTES = 12, 2**30


class Splits(NamedTuple):
    """Both datasets with what one pass over each has kept."""

    train_set: tf.data.Dataset
    test_set: tf.data.Dataset
    train: SplitContents
    test: SplitContents
    table: InputTable
    images: ImageProperties

    @classmethod
    def read(cls, train: tf.data.Dataset, test: tf.data.Dataset, table: InputTable) -> Splits:
        """Read both; a set with NaN or infinity in its inputs is replaced by one with 0 in their place."""
        sketcher, images = Sketcher(), ImageProperties()

        def keep(inputs: Any, split: str) -> None:
            table.add(inputs, split)
            images.add(inputs, split)

        contents = [
            read_contents(dataset, sketcher, functools.partial(keep, split=name))
            for name, dataset in (("train", train), ("test", test))
        ]
        finite = [
            with_finite_inputs(dataset) if len(found.not_finite) else dataset
            for dataset, found in zip((train, test), contents, strict=True)
        ]
        return cls(finite[0], finite[1], contents[0], contents[1], table, images)

    def not_finite(self) -> Iterator[NotFiniteInputs]:
        """Yield the finding about NaN and infinity in the inputs, if there are any."""
        yield from find_not_finite(
            self.train.not_finite,
            self.test.not_finite,
            num_train=len(self.train.hashes),
            num_test=len(self.test.hashes),
        )

    def test_labels(self, model: InfluenceModel) -> np.ndarray | None:
        """Return the classes of the test set, shape (m,), None without labels."""
        return None if self.test.labels is None else model.to_classes(self.test.labels)

    def check_labels(self, model: InfluenceModel) -> None:
        """Refuse labels that do not fit the model, before long work."""
        model.prepare(data.unpack(data.first_batch(self.train_set, "train")).inputs)
        for name, contents in (("train", self.train), ("test", self.test)):
            if contents.labels is not None:
                with data.naming_positions(0, name):
                    model.to_targets(contents.labels)


def gather_from_surrogate(
    calculator: DualView,
    splits: Splits,
    evaluated: RepresentedExamples,
    k: int,
    most_bytes: int | None = None,
) -> tuple[Evidence, np.ndarray]:
    """Gather what findings are made of from DualView, with the kernel features (m, d) of the test set.

    Args:
        calculator: of the audit.
        splits: both sets.
        evaluated: the test set after one call of the model.
        k: how many proponents and opponents are shown.
        most_bytes: that all attributions may take, else the k strongest on either side are kept; 1 GiB by default.
    """
    model = calculator.model
    evaluations = list(calculator.evaluate(evaluated))
    kernel_features = np.concatenate([batch.kernel_features for batch in evaluations])
    predictions, confidences = _predictions(np.concatenate([batch.model_logits for batch in evaluations]))
    found = surrogate_evidence(calculator, evaluations)
    num_bytes = _BYTES_OF_A_VALUE * int(found.support_vectors[predictions].sum())
    holds_all = num_bytes <= (_MOST_BYTES if most_bytes is None else most_bytes)
    evidence = Evidence(
        num_classes=model.num_classes,
        k=k,
        broken_train=splits.train.not_finite,
        broken_test=splits.test.not_finite,
        train_labels=calculator.train_labels,
        train_ids=calculator.train_ids,
        self_influence=self_influence(calculator, splits),
        test_labels=splits.test_labels(model),
        test_ids=splits.test.ids,
        predictions=predictions,
        confidences=confidences,
        attributions=(
            calculator.sparse_influence_values(evaluated)
            if holds_all
            else strongest(calculator, evaluated, k)
        ),
        surrogate=found,
        holds_all=holds_all,
    )
    return evidence, kernel_features


def surrogate_evidence(calculator: DualView, evaluations: Sequence[Evaluation]) -> SurrogateEvidence:
    """Return what only DualView has, of the test set."""
    solution, num_outputs = calculator.surrogate, calculator.model.num_outputs
    norms = np.linalg.norm(np.concatenate([batch.kernel_features for batch in evaluations]), axis=1)
    return SurrogateEvidence(
        support_vectors=np.bincount(solution.coefficients.indices, minlength=num_outputs),
        logits=np.concatenate([batch.surrogate_logits for batch in evaluations]),
        logit_error_bounds=np.max(solution.weight_error_bound) * norms,
    )


def gather_without_surrogate(
    calculator: BaseInfluenceCalculator, splits: Splits, evaluated: RepresentedExamples, k: int
) -> Evidence:
    """Gather it from any other calculator, and from the model itself in the place of a surrogate."""
    model = calculator.model
    predictions, confidences = _predictions(evaluated.logits)
    return Evidence(
        num_classes=model.num_classes,
        k=k,
        broken_train=splits.train.not_finite,
        broken_test=splits.test.not_finite,
        train_labels=model.to_classes(splits.train.labels),
        train_ids=splits.train.ids,
        self_influence=self_influence(calculator, splits),
        test_labels=splits.test_labels(model),
        test_ids=splits.test.ids,
        predictions=predictions,
        confidences=confidences,
        attributions=strongest(calculator, evaluated, k),
        surrogate=None,
        holds_all=False,
    )


def _zero_at(positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (n,) with 0 where an example is not to be ranked."""
    if not len(positions):
        return values
    values = values.copy()
    values[positions] = 0
    return values


def _predictions(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted classes (m,) and their probabilities (m,)."""
    return logits.argmax(axis=1), scipy.special.softmax(logits.astype(np.float64), axis=1).max(axis=1)


def self_influence(calculator: BaseInfluenceCalculator, splits: Splits) -> np.ndarray:
    """Return the self-influence of the training set (n,), 0 where an example is not to be ranked."""
    values = list(calculator.compute_influence_values(splits.train_set).as_numpy_iterator())
    return _zero_at(splits.train.not_finite, np.concatenate(values))


def strongest(
    calculator: BaseInfluenceCalculator, evaluated: RepresentedExamples, k: int
) -> scipy.sparse.csr_array:
    """Return the k strongest values for and against each prediction, shape (m, n), without zeros.

    All would not fit into memory.
    """
    ends = [
        list(calculator.top_k_indices(evaluated, k, order).as_numpy_iterator())
        for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    ]
    values, indices = (
        np.concatenate([np.concatenate([batch[part] for batch in end]) for end in ends], axis=1)
        for part in (0, 1)
    )
    kept = []
    for row, own in zip(indices, values, strict=True):
        columns, first = np.unique(row, return_index=True)
        kept.append((columns[own[first] != 0], first[own[first] != 0]))
    return scipy.sparse.csr_array(
        (
            np.concatenate([row[first] for row, (_, first) in zip(values, kept, strict=True)]),
            np.concatenate([columns for columns, _ in kept]),
            np.cumsum([0, *(len(columns) for columns, _ in kept)]),
        ),
        shape=(len(values), calculator.num_train),
    )
