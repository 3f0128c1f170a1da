"""Self-influence as closeness to the decision boundary: in the space of inputs, and in that of weights."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_positive, describe, require
from deel_dualview._summaries import Summarised
from deel_dualview.calculators.linearised import (
    Linearised,
    dense_gradient,
    leads,
    linearisation,
    logits_of_real_inputs,
    scaled_rows,
    squared_norms,
)
from deel_dualview.gradients.capture import call_for_logits
from deel_dualview.gradients.groups import Weights, check_weights, select_groups
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import is_split, to_influence_model
from deel_dualview.svm import ConvergenceWarning

_ROUNDING = 1e-6


class BoundaryCalculator(Summarised, ABC):
    """Base of self-influence by the distance to the decision boundary.

    A value is *minus* the distance that must be gone until the model predicts another class: at most 0, and
    the nearer to 0 the less it takes, so that, as with any self-influence, unusual and mislabelled examples
    come first. Labels take no part. There is no influence on other examples, hence no queries and no top-k of
    them.

    The distance is that of DeepFool: steps to the nearest boundary of the linearised model until the decision
    changes. For a linear decision that is the distance itself, otherwise an estimate. An example from which
    no boundary is reached has the value -inf, and a warning tells how many these are.

    Args:
        model: the classifier. Nothing is ever written to it.
        train_set: examples to evaluate, batched, elements `inputs`, `(inputs, labels)` or
            `(inputs, labels, ids)`.
        max_iterations: most steps for one example.
        tolerance: a margin counts as closed when it is at most this share of the one at the start.
        num_candidates: how many other classes, the most probable ones, are tried as nearest.

    Raises:
        TypeError: `model` is not a Keras model, or `train_set` is not a dataset.
        ValueError: bad settings, or a dataset that is not batched or empty.

    Source: Moosavi-Dezfooli et al. (2016), DeepFool, algorithm 2.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        max_iterations: int = 50,
        tolerance: float = 1e-4,
        num_candidates: int = 9,
    ) -> None:
        self.model = to_influence_model(model)
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.tolerance = check_positive("tolerance", tolerance)
        check_count("num_candidates", num_candidates)
        data.check_bounded(train_set, "train_set")
        data.check_same_twice(train_set, "train_set")
        self.train_set = train_set
        self.model.prepare(data.unpack(data.first_batch(train_set, "train_set")).inputs)
        self.num_candidates = min(num_candidates, self.model.num_classes - 1)

    @abstractmethod
    def _distances(self, inputs: Any) -> np.ndarray:
        """Return the distance of every example to the decision boundary, shape (b,); inf if none is found."""

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return minus the distance of every example, lazily, elements of shape (b,), float32.

        Args:
            train_set: other examples to evaluate, labelled or not; the constructor's by default.

        Warns:
            ConvergenceWarning: no boundary was found from some examples (told once, at the end).
        """
        examples = self.train_set if train_set is None else train_set
        data.check_batched(examples, "train_set")
        return data.lazy_dataset(lambda: self._values(examples), tf.TensorSpec([None], tf.float32))

    def _values(self, examples: tf.data.Dataset) -> Iterator[np.ndarray]:
        num_unreached = num_examples = 0
        for distances in self._all_distances(examples):
            num_unreached += int(np.isinf(distances).sum())
            num_examples += len(distances)
            yield -distances.astype(np.float32)
        if num_unreached:
            needed = (
                "No decision boundary was reached from some examples, which have the value -inf: allow more "
                "`max_iterations`, unless the model is constant around them."
            )
            received = {"examples": num_unreached, "of": num_examples, "max_iterations": self.max_iterations}
            warnings.warn(describe(needed, received), ConvergenceWarning, stacklevel=2)

    def _all_distances(self, examples: tf.data.Dataset) -> Iterator[np.ndarray]:
        if examples is not self.train_set:
            return data.map_batches(lambda batch: self._distances(batch.inputs), examples, "train_set")
        return (self._distances(data.unpack(part).inputs) for *_, part in data.compared_examples(examples))

    def _walk(self, linearise: Callable[[list[tf.Tensor]], Linearised], start: list[tf.Tensor]) -> np.ndarray:
        """Step until the decision changes; return how far that is from the start, shape (m,)."""
        point, here = start, linearise(start)
        goal = self.tolerance * here.margin + _ROUNDING * here.scale
        # An example on the boundary has margin 0 and is there.
        active = here.margin > 0
        for _ in range(self.max_iterations):
            if not tf.reduce_any(active):
                break
            point = [part + scaled_rows(step, active) for part, step in zip(point, here.steps, strict=True)]
            here = linearise(point)
            active &= here.margin > goal
        moved = [after - before for after, before in zip(point, start, strict=True)]
        return np.where(active, np.inf, tf.sqrt(squared_norms(moved)))

    def _rank(self, logits: tf.Tensor) -> tf.Tensor:
        """Return the predicted class and the candidates after it, shape (m, 1 + num_candidates)."""
        return tf.math.top_k(logits, 1 + self.num_candidates).indices


class SampleBoundaryCalculator(BoundaryCalculator):
    """Minus the Euclidean distance from an example to the nearest input that the model decides otherwise.

    The unit is that of the inputs as the model takes them; integer images (uint8) are moved in the real
    numbers and never clipped. See `BoundaryCalculator` for sign, limits and arguments.

    Raises:
        ValueError: inputs that are several tensors, or integers other than uint8 (tokens cannot be moved).
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        max_iterations: int = 50,
        tolerance: float = 1e-4,
        num_candidates: int = 9,
    ) -> None:
        super().__init__(
            model,
            train_set,
            max_iterations=max_iterations,
            tolerance=tolerance,
            num_candidates=num_candidates,
        )
        _check_movable(data.unpack(train_set.element_spec).inputs)
        self._check_differentiable()
        self._linearise = tf.function(self._linearised, autograph=False, reduce_retracing=True)

    def _check_differentiable(self) -> None:
        """Refuse a model through which no gradient reaches the inputs: all would seem infinitely far."""
        first = tf.cast(data.unpack(data.first_batch(self.train_set, "train_set")).inputs[:1], tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(first)
            logits = logits_of_real_inputs(self.model, first)
        require(
            tape.gradient(logits, first) is not None,
            "The distance in the space of inputs needs a model that is differentiable in them; this one "
            "rounds its inputs or looks them up. Use WeightsBoundaryCalculator.",
            {"inputs": data.unpack(self.train_set.element_spec).inputs},
        )

    def _distances(self, inputs: Any) -> np.ndarray:
        _check_movable(inputs)
        start = tf.cast(inputs, tf.float32)
        ranked = self._rank(self.model.logits(inputs))
        return self._walk(lambda point: Linearised(*self._linearise(point[0], ranked)), [start])

    def _linearised(self, inputs: tf.Tensor, ranked: tf.Tensor) -> Linearised:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            logits = logits_of_real_inputs(self.model, inputs)
            gaps = leads(logits, ranked)
        gradients = [[dense_gradient(tape, gap, inputs)] for gap in gaps]
        return linearisation(logits, ranked, gaps, gradients)


class WeightsBoundaryCalculator(BoundaryCalculator):
    """Minus the Euclidean distance from the model's weights to those that decide an example otherwise.

    With `weights="last"` the decision is linear in them, and the distance exact and in closed form: margin
    over sqrt(2) ||phi||, where phi ends in 1 if the layer has a bias (over ||phi|| for a model with one
    output). Any other choice walks for each example alone through weights of its own, at the cost of
    `num_candidates` gradients a step.

    Args:
        model: the classifier. Nothing is ever written to it.
        train_set: examples to evaluate, batched, elements `inputs`, `(inputs, labels)` or
            `(inputs, labels, ids)`.
        weights: which may move: `"last"`, the last Dense layer; `"all"` trainable ones; or names of layers.
        max_iterations: most steps for one example.
        tolerance: a margin counts as closed when it is at most this share of the one at the start.
        num_candidates: how many other classes, the most probable ones, are tried as nearest.

    Raises:
        ValueError: no such layer, a layer without trainable weights, `"last"` without a linear last layer.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        max_iterations: int = 50,
        tolerance: float = 1e-4,
        num_candidates: int = 9,
    ) -> None:
        own = to_influence_model(model)
        check_weights(weights)
        if is_split(own):
            select_groups(own, weights)
        super().__init__(
            own,
            train_set,
            max_iterations=max_iterations,
            tolerance=tolerance,
            num_candidates=num_candidates,
        )
        self.weights = weights
        self._variables = [variable for group in select_groups(own, weights) for variable in group.variables]
        self._linearise = tf.function(self._linearised, autograph=False, reduce_retracing=True)

    def _distances(self, inputs: Any) -> np.ndarray:
        head = self.model.split.head
        if self.weights == "last" and head is not None and head.is_plain and head.step is None:
            return self._distances_in_last_layer(inputs)
        ranked = self._rank(self.model.logits(inputs))
        start = [tf.convert_to_tensor(variable)[tf.newaxis] for variable in self._variables]
        return np.concatenate(
            [
                self._distance(data.slice_examples(inputs, row, row + 1), ranked[row : row + 1], start)
                for row in range(len(ranked))
            ]
        )

    def _distance(self, example: Any, ranked: tf.Tensor, start: list[tf.Tensor]) -> np.ndarray:
        return self._walk(lambda point: Linearised(*self._linearise(example, ranked, point)), start)

    def _distances_in_last_layer(self, inputs: Any) -> np.ndarray:
        features, logits = self.model.features_and_logits(inputs)
        norms = squared_norms([features]) + float(self.model.head is not None and self.model.head.has_bias)
        largest = tf.math.top_k(logits, 2).values
        one_output = len(self._variables[0].shape) == 2 and self._variables[0].shape[1] == 1
        # The gradient of the margin is (phi, -phi) in the columns of the two classes, phi in a single column.
        scale = tf.sqrt(norms if one_output else 2.0 * norms)
        return tf.math.divide_no_nan(largest[:, 0] - largest[:, 1], scale).numpy()

    def _linearised(self, example: Any, ranked: tf.Tensor, point: list[tf.Tensor]) -> Linearised:
        values = [part[0] for part in point]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(values)
            # Other weights for this call only: assigning them would change the user's model.
            with keras.StatelessScope(state_mapping=list(zip(self._variables, values, strict=True))):
                logits = call_for_logits(self.model, example)
            gaps = leads(logits, ranked)
        gradients = [[dense_gradient(tape, gap, value)[tf.newaxis] for value in values] for gap in gaps]
        return linearisation(logits, ranked, gaps, gradients)


def _check_movable(inputs: Any) -> None:
    """Refuse inputs (or their spec) that are not one tensor of numbers that may change continuously."""
    is_single = hasattr(inputs, "dtype") and hasattr(inputs, "shape")
    require(
        is_single and (inputs.dtype.is_floating or inputs.dtype == tf.uint8),
        "The distance in the space of inputs needs inputs that are one tensor of real numbers or uint8 "
        "pixels: tokens cannot be moved. Use WeightsBoundaryCalculator, or a model that starts after the "
        "embedding.",
        {"inputs": inputs},
    )
