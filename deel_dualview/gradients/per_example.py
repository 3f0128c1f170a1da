"""PerExampleGradients: gradients of every example, in any weights, by the cheapest route that is right."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, describe, require
from deel_dualview.data.examples import RowsError
from deel_dualview.gradients.capture import capture
from deel_dualview.gradients.groups import (
    WeightGroup,
    Weights,
    check_weights,
    describe_weights,
    select_groups,
)
from deel_dualview.gradients.last_layer import LastLayerGradients
from deel_dualview.gradients.mapped import Mapping, automatic_mapping, batch_gradient, mapped_gradients
from deel_dualview.gradients.rules import layer_gradients
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.factors import LayerGradients, to_block
from deel_dualview.linalg.projections import IdentityProjection, Projection
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.replicas import ReplicatedFunction
from deel_dualview.models.train_sets import is_split, to_influence_model
from deel_dualview.typing import Function, Inputs

Route = Literal["auto", "closed-form", "vectorized-map", "map"]
"""How gradients are computed: `"auto"` takes the closed form for every layer that has one and goes through
examples one by one for the others."""

_NUM_VERIFIED = 2


class PerExampleGradients:
    """Gradients of a function of every example, in chosen weights of a model in inference mode.

    One block for each layer with trainable weights (see `WeightGroup` for the order inside), in the order of
    the model's trainable variables. A Dense layer that is called once on vectors gives an OuterProduct
    (output gradients (b, c), [inputs, 1] (b, d + has_bias)), any other layer a matrix. Penalties on weights
    are not part of the function.

    On the first batch closed forms are compared with automatic differentiation of single examples. A layer
    where they differ (weights that are used elsewhere too, examples that see each other) goes by the slower
    route, without harm.

    Args:
        model: the model, with its objective.
        weights: `"last"`, `"all"` or names of layers, at any depth.
        function: the `"loss"` at the target of each example; of a classifier also the `"logit"` or `"margin"` of the
            class.
        projection: applied to the gradients; none by default.
        route: how to compute them; a choice other than `"auto"` is for comparisons.

    Raises:
        TypeError: `weights` is neither a word nor a list of names, or `projection` is not a Projection.
        ValueError: an unknown function or route; at the first call, a layer that is unknown or has no
            trainable parameters, or one without a closed form where that was asked for.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        weights: Weights = "last",
        *,
        function: Function = "loss",
        projection: Projection | None = None,
        route: Route = "auto",
    ) -> None:
        check_choice("function", function, get_args(Function))
        check_choice("route", route, get_args(Route))
        check_weights(weights)
        if not isinstance(projection, Projection | None):
            raise TypeError(
                describe("`projection` must be one of linalg.projections.", {"projection": projection})
            )
        self.model = to_influence_model(model)
        self.weights = weights
        self.function = function
        self.projection = IdentityProjection() if projection is None else projection
        self.route = route
        self._last = LastLayerGradients(self.model, function)
        self._groups: tuple[WeightGroup, ...] | None = None
        self._in_closed_form: frozenset[int] | None = None
        self._compute = ReplicatedFunction(self._projected, self.model.strategy)
        self._traced: set[tuple[int, str]] = set()
        if is_split(self.model):
            self._check_layers()

    def __call__(self, inputs: Inputs, targets: np.ndarray | tf.Tensor) -> Blocks:
        """Return the gradients of a batch at `targets`, each block (b, ...).

        Args:
            inputs: of b examples.
            targets: their labels in the form of the objective (see `InfluenceModel.to_targets`), or the outputs to
                explain, integers (b,).
        """
        self.prepare(inputs, targets)
        if self.is_closed_last_layer:
            return self.projection(self._last(inputs, targets))
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        targets = _as_targets(targets)
        compute = self._compute.for_batch(targets)
        specs = tf.nest.map_structure(tracing.relaxed_spec, (inputs, targets))
        if (key := (id(compute), repr(specs))) not in self._traced:
            with self.model.lock:
                compute.get_concrete_function(*specs)
                self._traced.add(key)
        if targets.shape[0] == 0:
            # One example of zeros, and none of its rows: on some processors convolutions of no example have
            # another shape, which normalisation layers then refuse.
            one = tf.nest.map_structure(_one_of_zeros, (inputs, targets))
            return tf.nest.map_structure(lambda part: part[:0], compute(*one))
        return compute(inputs, targets)

    def from_features(self, features: tf.Tensor, logits: tf.Tensor, targets: np.ndarray) -> Blocks:
        """Return the gradients in the last layer where features (b, d) and outputs (b, c) are known."""
        return self.projection(self._last.from_features(features, logits, targets))

    def of_function(self, function: Function) -> "PerExampleGradients":
        """Return the gradients of another function, in the same weights and by the same routes."""
        other = PerExampleGradients(
            self.model, self.weights, function=function, projection=self.projection, route=self.route
        )
        other._groups, other._in_closed_form = self._groups, self._in_closed_form
        return other

    def prepare(self, inputs: Inputs, targets: np.ndarray | tf.Tensor) -> None:
        """Choose the route of every layer, by a comparison on the first examples; later calls do nothing.

        Random projections depend on the route, so all gradients that are to be compared should come from one
        object, prepared on the training set.
        """
        self.model.prepare(inputs)
        self.model.objective.check_function(self.function)
        if self.is_closed_last_layer:
            return
        self.model.refuse_positions("A gradient in other weights than those of a last layer")
        with self.model.lock:
            if self._in_closed_form is not None:
                return
            if self.route in ("vectorized-map", "map"):
                self._in_closed_form = frozenset()
                return
            few = _examples((inputs, self._compared_targets(targets)), 0, _NUM_VERIFIED)
            agreeing = self._agreeing(*few)
            lacking = [group.layer.name for i, group in enumerate(self.groups) if i not in agreeing]
            require(
                self.route == "auto" or not lacking,
                "These layers have no closed form that agrees with differentiation: use route='auto'.",
                {"layers": lacking},
            )
            self._in_closed_form = agreeing

    @property
    def groups(self) -> tuple[WeightGroup, ...]:
        """The chosen weights, layer by layer; the model must have been prepared."""
        if self._groups is None:
            self._groups = select_groups(self.model, self.weights)
        return self._groups

    @property
    def groups_in_closed_form(self) -> tuple[WeightGroup, ...]:
        """The groups whose closed form agreed with differentiation, in their order; after `prepare`."""
        if self.is_closed_last_layer:
            return self.groups
        return tuple(self.groups[index] for index in sorted(self._in_closed_form or ()))

    @property
    def size(self) -> int:
        """Number of parameters p, before any projection."""
        return sum(group.size for group in self.groups)

    def describe(self) -> dict[str, str]:
        """Return all settings that the gradients depend on, as text that keys a store."""
        return {
            "weights": describe_weights(self.model, self.weights),
            "function": self.function,
            "projection": self.projection.describe(),
            # By position: the same layers may have other names.
            "in closed form": ", ".join(map(str, sorted(self._in_closed_form or ()))),
        }

    def _check_layers(self) -> None:
        """Refuse weights, or a function, that the model does not have, before any data is read."""
        self.model.objective.check_function(self.function)
        if not self.is_closed_last_layer:
            self.model.refuse_positions("A gradient in other weights than those of a last layer")
        if self.is_closed_last_layer:
            self._last.head  # noqa: B018
        else:
            self._groups = select_groups(self.model, self.weights)

    @property
    def _mapping(self) -> Mapping:
        if self.route == "map" or self.route == "vectorized-map":
            return self.route
        return automatic_mapping(self.model.model)

    @property
    def is_closed_last_layer(self) -> bool:
        """Whether gradients are outer products with the features: in a last layer that is plain; after `prepare`."""
        if self.weights != "last" or self.route != "auto":
            return False
        head = self.model.split.head
        return head is None or head.is_plain

    @property
    def _compared_function(self) -> Function:
        """By which routes are compared: not the loss, whose gradient may be too small to tell them apart."""
        is_loss_of_class = self.model.is_classifier and self.function == "loss"
        return "margin" if is_loss_of_class else self.function

    def _compared_targets(self, targets: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Return targets by which routes are compared: outputs where the loss of a label may be zero."""
        if self.model.is_classifier:
            return _as_targets(targets)
        return tf.range(len(targets), dtype=tf.int64) % self.model.num_outputs

    def _projected(self, inputs: Inputs, targets: tf.Tensor) -> Blocks:
        return self.projection(self._gradients(inputs, targets, self._in_closed_form or frozenset()))

    def _gradients(
        self, inputs: Inputs, targets: tf.Tensor, in_closed_form: frozenset[int]
    ) -> LayerGradients:
        """Return the gradients of all groups, those at the given positions in closed form; while tracing."""
        found = self._closed_forms(inputs, targets, sorted(in_closed_form), self.function)
        rest = [index for index in range(len(self.groups)) if index not in in_closed_form]
        if rest:
            variables = [variable for index in rest for variable in self.groups[index].variables]
            mapping = self._mapping
            parts = mapped_gradients(self.model, variables, inputs, targets, self.function, mapping)
            found |= dict(zip(rest, self._flattened(parts, rest), strict=True))
        return tuple(found[index] for index in range(len(self.groups)))

    def _closed_forms(
        self, inputs: Inputs, targets: tf.Tensor, indices: Sequence[int], function: Function
    ) -> dict[int, Any]:
        """Return gradients by position, of those groups found to have a closed form; while tracing."""
        layers = [self.groups[index].layer for index in indices]
        if not layers:
            return {}
        objective = self.model.objective
        calls = capture(
            self.model, layers, inputs, lambda outputs: objective.evaluate(outputs, targets, function)
        )
        found = {
            index: layer_gradients(layer, calls.get(layer, ()))
            for index, layer in zip(indices, layers, strict=True)
        }
        return {index: gradients for index, gradients in found.items() if gradients is not None}

    def _flattened(self, parts: Sequence[tf.Tensor], indices: Sequence[int]) -> list[tf.Tensor]:
        remaining = iter(parts)
        return [
            self.groups[index].flatten([next(remaining) for _ in self.groups[index].variables])
            for index in indices
        ]

    def _agreeing(self, inputs: Inputs, targets: tf.Tensor) -> frozenset[int]:
        """Return the positions of groups whose closed form gives what differentiating an example does."""

        def closed_forms(inputs: Inputs, targets: tf.Tensor) -> dict[int, tf.Tensor]:
            found = self._closed_forms(inputs, targets, range(len(self.groups)), self._compared_function)
            return {index: blocks.to_dense((to_block(rows),)) for index, rows in found.items()}

        specs = tf.nest.map_structure(tracing.relaxed_spec, (inputs, targets))
        found = tf.function(closed_forms, autograph=False).get_concrete_function(*specs)(inputs, targets)
        expected = self._one_by_one(inputs, targets)
        return frozenset(index for index, rows in found.items() if self._agree(rows, expected[index]))

    def _one_by_one(self, inputs: Inputs, targets: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradients of all groups (b, p_k) by eagerly differentiating one after the other."""
        variables = [variable for group in self.groups for variable in group.variables]
        examples = []
        for row in range(targets.shape[0]):
            single, target = _examples((inputs, targets), row, row + 1)
            examples.append(batch_gradient(self.model, variables, single, target, self._compared_function))
        parts = [tf.stack(rows) for rows in zip(*examples, strict=True)]
        return self._flattened(parts, range(len(self.groups)))

    def _agree(self, rows: tf.Tensor, expected: tf.Tensor) -> bool:
        if not np.isfinite(expected).all():
            # Nothing to compare: an error names the examples that are not finite.
            return True
        is_half = self.model.model.compute_dtype in ("float16", "bfloat16")
        tolerance = 5e-2 if is_half else 1e-3
        return bool(np.abs(rows - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-6))


def _as_targets(targets: np.ndarray | tf.Tensor) -> tf.Tensor:
    targets = tf.convert_to_tensor(targets)
    return tf.cast(targets, tf.int64) if targets.dtype.is_integer else targets


def _one_of_zeros(tensor: tf.Tensor) -> tf.Tensor:
    return tf.zeros((1, *tensor.shape[1:]), tensor.dtype)


def _examples(batch: tuple[Inputs, tf.Tensor], start: int, stop: int) -> tuple[Inputs, tf.Tensor]:
    return tf.nest.map_structure(lambda tensor: tf.convert_to_tensor(tensor[start:stop]), batch)


def check_finite(gradients: Blocks, examples: str) -> Blocks:
    """Return the gradients unchanged.

    Args:
        gradients: of a batch.
        examples: what the examples are, for the message.

    Raises:
        RowsError: some are NaN or infinite; a pass over a dataset names their positions.
    """
    parts = [np.asarray(part) for part in tf.nest.flatten(gradients)]
    if all(np.isfinite(part).all() for part in parts):
        return gradients
    finite = np.all([np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts], axis=0)
    raise RowsError(
        f"Gradients must be finite, but those of some {examples} are NaN or infinite: fix or filter out "
        "these examples, or check the model's weights.",
        np.flatnonzero(~finite),
        {},
    )
