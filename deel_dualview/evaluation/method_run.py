"""One method on one trained model: the calculator made once, its answers streamed, its cost kept."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.method_specs import MethodSpec
from deel_dualview.evaluation.recorded_models import NUM_RECORDED, TrainingRetrainer, training_of
from deel_dualview.evaluation.retraining import HeadRetrainer, KeptOutputs
from deel_dualview.evaluation.trained_models import ImageData, Subject
from deel_dualview.models import InfluenceModel
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.report.provenance import PeakMemory, Stopwatch
from deel_dualview.stores import MemoryStore

MAX_VALUES = 2**22
"""So many influence values are in memory at once, unless a single query has more."""
MAX_BATCH = 128
_MAX_FORWARD = 512
_Item = TypeVar("_Item")


class Queries(NamedTuple):
    """Test examples that are explained.

    Attributes:
        images: shape (m, ...).
        labels: true classes, before any perturbation, shape (m,).
        predictions: the model's classes, shape (m,).
    """

    images: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Queries:
        """Return some of them."""
        return Queries(self.images[rows], self.labels[rows], self.predictions[rows])

    @property
    def size(self) -> int:
        """How many there are, m."""
        return len(self.labels)


class MethodRun:
    """A method on one model.

    Args:
        spec: the method.
        subject: the model and its training set.
        images: the dataset as it was before any perturbation.
        tests: positions of the test examples to ask about, in their order.
        num_test: how many of them most questions take.
        folder: where outputs of models trained on subsets are kept.
        untrained: in place of the subject's model; asked about the classes that queries say are predicted.
        progress: whether work is shown by bars.
    """

    def __init__(
        self,
        spec: MethodSpec,
        subject: Subject,
        images: ImageData,
        tests: np.ndarray,
        num_test: int,
        folder: pathlib.Path,
        *,
        untrained: keras.Model | None = None,
        progress: bool = True,
    ):
        self.spec, self.subject, self.images, self.untrained = spec, subject, images, untrained
        self.tests, self.num_test, self.folder, self.progress = tests, num_test, folder, progress
        self.setup_seconds = self.setup_cpu_seconds = 0.0
        self.added_bytes: int | None = None
        self.explaining, self.valuing = Stopwatch(), Stopwatch()

    @cached_property
    def model(self) -> InfluenceModel:
        """The model that is explained."""
        return InfluenceModel(self.subject.model if self.untrained is None else self.untrained)

    def with_untrained(self, model: keras.Model) -> MethodRun:
        """Return the same run of a model that has learned nothing."""
        return MethodRun(
            self.spec,
            self.subject,
            self.images,
            self.tests,
            self.num_test,
            self.folder,
            untrained=model,
            progress=self.progress,
        )

    @cached_property
    def calculator(self) -> BaseInfluenceCalculator:
        """The method's calculator, ready to answer: its graphs are traced by one batch of queries."""
        # What is differentiated through a training keeps its values: one test example, the last, is explained.
        is_recorded = self.subject.training is not None
        first = self.images.test_images[self.tests[-1:] if is_recorded else self.tests[: self.batch_size]]
        self.model.prepare(next(iter(self.subject.train))[0])
        memory, start, start_cpu = PeakMemory(), time.perf_counter(), time.process_time()
        spec = self.spec.with_checkpoints(self._checkpoints() if self.spec.needs_checkpoints else None)
        spec = spec.with_training(self.subject.training)
        made = spec.build(self.model, self.subject.train, MemoryStore(progress=self.progress))
        for _ in made.top_k_indices(self.batches(first), 1):
            pass
        self.setup_seconds, self.added_bytes = time.perf_counter() - start, memory.added_bytes
        self.setup_cpu_seconds = time.process_time() - start_cpu
        require(
            made.target == "prediction",
            "Methods are evaluated on the model's predictions: build each with target='prediction'.",
            {"method": self.spec.name, "target": made.target},
        )
        made.target = "prediction" if self.untrained is None else "label"
        return made

    def _checkpoints(self) -> Checkpoints:
        found = self.subject.checkpoints
        if self.untrained is None:
            return found
        return Checkpoints([self.model], found.learning_rates[-1:], found.epochs[-1:])

    @property
    def has_calculator(self) -> bool:
        """Whether the calculator could be made."""
        return "calculator" in vars(self)

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self.subject.original_labels)

    @property
    def batch_size(self) -> int:
        """Queries that are answered at once."""
        return max(1, min(MAX_BATCH, MAX_VALUES // self.num_train))

    @cached_property
    def train_labels(self) -> np.ndarray:
        """The labels that the model was trained on, shape (n,)."""
        return np.concatenate([np.asarray(data.unpack(batch).labels) for batch in self.subject.train]).ravel()

    @cached_property
    def retrainer(self) -> HeadRetrainer | TrainingRetrainer:
        """Trains on parts of the training set: the last layer, or the network where its training is recorded."""
        if self.subject.training is not None:
            return self.recorded
        return HeadRetrainer(self.model, self.subject.train, self.images.test_images)

    @cached_property
    def recorded(self) -> TrainingRetrainer:
        """Runs the recorded training again, for the outputs of the first `NUM_RECORDED` test examples of the draw.

        Raises:
            ValueError: the model has none.
        """
        return TrainingRetrainer(
            training_of(self.subject), self.images.test_images[self.tests[:NUM_RECORDED]]
        )

    @cached_property
    def kept_outputs(self) -> KeptOutputs:
        """Outputs of models trained on subsets, which all methods share."""
        return KeptOutputs(self.folder, self.model.fingerprint)

    def shown(self, items: Iterable[_Item], told: str) -> Iterator[_Item]:
        """Yield items, one step of a bar each."""
        yield from tqdm(items, desc=told, leave=False, disable=None if self.progress else True)

    def queries(self, rows: np.ndarray | None = None, images: np.ndarray | None = None) -> Queries:
        """Return test examples with what the model says of them.

        Args:
            rows: positions in the test set; the first `num_test` of the draw by default.
            images: in place of theirs.
        """
        rows = self.tests[: self.num_test] if rows is None else rows
        images = self.images.test_images[rows] if images is None else images
        batches = tf.data.Dataset.from_tensor_slices(images).batch(_MAX_FORWARD)
        logits = np.concatenate([self.model.logits(batch).numpy() for batch in batches])
        return Queries(images, self.images.test_labels[rows], logits.argmax(axis=1))

    def top_k(self, queries: Queries, k: int) -> np.ndarray:
        """Return the positions of the k first proponents of every query, shape (m, k)."""
        asked = self.calculator.top_k_indices(self.batches(queries.images), k)
        answers = self._answers(asked, queries, self.explaining, "explaining")
        return np.concatenate([indices.numpy() for _, (_, indices) in answers])

    def values(self, queries: Queries) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows of the queries, their influence values (b, n)), never all at once."""
        batches = self.batches(queries.images)
        if self.untrained is not None:
            batches = self.batches((queries.images, queries.predictions))
        asked = self.calculator.estimate_influence_values_in_batches(batches)
        for rows, values in self._answers(asked, queries, self.valuing, "influence values"):
            yield rows, values.numpy()

    def self_influence(self) -> np.ndarray:
        """Return the self-influence of every training example, shape (n,)."""
        return np.concatenate([values.numpy() for values in self.calculator.compute_influence_values()])

    def restart_clocks(self) -> None:
        """Forget the seconds of earlier questions, but not those of the set-up."""
        self.explaining, self.valuing = Stopwatch(), Stopwatch()

    def costs(self) -> dict[str, float | int | None]:
        """Return seconds and bytes so far."""
        return {
            "setup_seconds": self.setup_seconds,
            "setup_cpu_seconds": self.setup_cpu_seconds,
            "seconds_per_query": self.explaining.per_query,
            "cpu_seconds_per_query": self.explaining.cpu_per_query,
            "seconds_per_row_of_values": self.valuing.per_query,
            "cpu_seconds_per_row_of_values": self.valuing.cpu_per_query,
            "additional_memory_bytes": self.added_bytes,
        }

    def batches(self, images: Any) -> tf.data.Dataset:
        """Return inputs in batches as large as values of all training examples allow."""
        return tf.data.Dataset.from_tensor_slices(images).batch(self.batch_size)

    def _answers(
        self, asked: tf.data.Dataset, queries: Queries, watch: Stopwatch, told: str
    ) -> Iterator[tuple[slice, Any]]:
        """Yield (rows, answer) for each batch of queries, and keep the time."""
        starts = range(0, queries.size, self.batch_size)
        blocks = [slice(start, min(start + self.batch_size, queries.size)) for start in starts]
        sizes = (rows.stop - rows.start for rows in blocks)
        show = None if self.progress else True
        with tqdm(total=queries.size, desc=told, unit="query", leave=False, disable=show) as bar:
            for rows, answer in zip(blocks, watch.over(iter(asked), sizes), strict=True):
                yield rows, answer
                bar.update(rows.stop - rows.start)


def draw_tests(num_available: int, seed: int) -> np.ndarray:
    """Return the positions of the test examples to ask about: a seeded permutation without its first fifth.

    The first fifth (2,000 of MNIST's 10,000) is left for choosing settings, as in the DualView paper.
    """
    return np.random.default_rng(seed).permutation(num_available)[num_available // 5 :]
