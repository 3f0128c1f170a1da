"""Examples as calculators take them: the model is called once, for all that follows from its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.data.examples import RowsError
from deel_dualview.gradients import PerExampleGradients, UnitGradients
from deel_dualview.linalg.blocks import Blocks, scaled
from deel_dualview.models import InfluenceModel
from deel_dualview.typing import Inputs


class Represented:
    """A batch of b examples, known by their inputs or by their features.

    Nothing is computed before it is needed. Features and logits come of one call of the model; where the features are
    known, logits and gradients in a last layer follow from them without any.

    Args:
        model: whose features they are.
        labels: shape (b,) or one-hot, or None.
        inputs: of the examples; None where they are known by their features.
        features: shape (b, d); by default those of the inputs.
        sample_weight: of training examples, shape (b,); None for evaluated ones, whose weights do not matter.
    """

    def __init__(
        self,
        model: InfluenceModel,
        labels: tf.Tensor | np.ndarray | None,
        *,
        inputs: Inputs | None = None,
        features: tf.Tensor | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> None:
        self.model, self.labels, self.inputs = model, labels, inputs
        self.sample_weight = sample_weight
        if features is not None:
            self.features = features

    def __len__(self) -> int:
        return int(self.features.shape[0]) if self.inputs is None else data.num_examples(self.inputs)

    @cached_property
    def features(self) -> tf.Tensor:
        """Penultimate features, shape (b, d)."""
        return self._called[0]

    @cached_property
    def logits(self) -> tf.Tensor:
        """Outputs to explain, such as class logits, shape (b, c)."""
        return self.model.logits_of_features(self.features) if self.inputs is None else self._called[1]

    @property
    def targets(self) -> np.ndarray:
        """The labels in the form of the objective: classes (b,), int64, or rows of numbers (b, c), float32."""
        return self.model.to_targets(self.labels)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """Weights of the examples in the training objective, shape (b,), class weights included; None if all are 1."""
        return self.model.example_weights(None if self.labels is None else self.targets, self.sample_weight)

    def gradients(self, gradients: PerExampleGradients | UnitGradients, targets: np.ndarray) -> Blocks:
        """Return gradients at `targets` (b, ...): from the features where they follow from them."""
        if gradients.is_closed_last_layer:
            return gradients.from_features(self.features, self.logits, targets)
        return gradients(self.inputs, targets)

    def training_gradients(self, gradients: PerExampleGradients | UnitGradients) -> Blocks:
        """Return gradients at the labels times the weights, see `weighted`."""
        return weighted(self.gradients(gradients, self.targets), gradients, self.weights)

    def by(self, model: InfluenceModel) -> Represented:
        """Return the same examples as another model represents them."""
        if model is self.model:
            return self
        return Represented(model, self.labels, inputs=self.inputs, sample_weight=self.sample_weight)

    def without_inputs(self) -> Represented:
        """Return the batch as its features and logits alone, which are computed now."""
        other = Represented(self.model, self.labels, features=self.features, sample_weight=self.sample_weight)
        other.logits = self.logits
        return other

    def parts(self, size: int) -> list[Represented]:
        """Return the batch in parts of at most `size` examples."""
        if len(self) <= size:
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, len(self), size)]

    @staticmethod
    def joined(batches: Iterable[Represented], size: int) -> Iterator[Represented]:
        """Yield the examples of batches that are known by their features in batches of at least `size`, but the last.

        Args:
            batches: of evaluated examples of one model.
            size: number of examples.
        """
        waiting: list[Represented] = []
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= size:
                yield _join(waiting)
                waiting = []
        if waiting:
            yield _join(waiting)

    def check_finite(self) -> Represented:
        """Return the batch itself.

        Raises:
            RowsError: features or logits are NaN or infinite.
        """
        finite = np.isfinite(self.features).all(axis=1) & np.isfinite(self.logits).all(axis=1)
        if finite.all():
            return self
        raise RowsError(
            "The model computes NaN or infinite features or logits for evaluated examples: filter out those "
            "examples, or check the model's weights.",
            np.flatnonzero(~finite),
            {},
        )

    @cached_property
    def _called(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self.model.features_and_logits(self.inputs)

    def _part(self, rows: slice) -> Represented:
        labels = None if self.labels is None else self.labels[rows]
        inputs = None if self.inputs is None else data.slice_examples(self.inputs, rows.start, rows.stop)
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        part = Represented(self.model, labels, inputs=inputs, sample_weight=weights)
        # Known features and logits are not computed again.
        for name in ("features", "logits"):
            if name in vars(self) or "_called" in vars(self):
                vars(part)[name] = getattr(self, name)[rows]
        return part


def _join(batches: list[Represented]) -> Represented:
    if len(batches) == 1:
        return batches[0]
    labels = None
    if batches[0].labels is not None:
        labels = np.concatenate([np.asarray(batch.labels) for batch in batches])
    features = tf.concat([batch.features for batch in batches], axis=0)
    joined = Represented(batches[0].model, labels, features=features)
    joined.logits = tf.concat([batch.logits for batch in batches], axis=0)
    return joined


def weighted(
    found: Blocks, gradients: PerExampleGradients | UnitGradients, weights: np.ndarray | None
) -> Blocks:
    """Return gradients times the weights (b,) of their examples; at unit length only a weight of 0 changes them."""
    if weights is None:
        return found
    factors = np.sign(weights) if isinstance(gradients, UnitGradients) else weights
    return scaled(found, factors[:, np.newaxis])


def training_batch(model: InfluenceModel, batch: data.Batch) -> Represented:
    """Return a batch of training examples, with their sample weights."""
    weights = data.sample_weights(batch)
    return Represented(model, batch.labels, inputs=batch.inputs, sample_weight=weights)


class RepresentedExamples:
    """Evaluated examples after one call of the model on each: in the place of their dataset, for several questions.

    Args:
        make: gives an iteration over their batches.
        keep: whether the batches are kept, or made anew at every iteration.
    """

    def __init__(self, make: Callable[[], Iterator[Represented]], *, keep: bool) -> None:
        self._batches: Iterable[Represented] | None = list(make()) if keep else None
        self._make = make

    def __iter__(self) -> Iterator[Represented]:
        return self._make() if self._batches is None else iter(self._batches)

    @cached_property
    def logits(self) -> np.ndarray:
        """Outputs of all examples, such as class logits, shape (m, c), float32."""
        return np.concatenate([batch.logits.numpy() for batch in self])
