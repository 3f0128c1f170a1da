"""Which weights gradients are taken in: one group for each layer with trainable weights of its own."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.gradients.rules import kernel_axes
from deel_dualview.models import InfluenceModel, tracing

Weights = Literal["last", "all"] | Sequence[str]
"""The last Dense layer, all trainable weights, or the layers of these names (with the layers inside them)."""


class WeightGroup(NamedTuple):
    """The trainable weights of one layer, those of layers inside it excepted.

    As a vector of size p they are, for a layer with one weight matrix (Dense, Conv1D, Conv2D, Embedding,
    EinsumDense), the rows of the transposed kernel (outputs c, inputs d) with the bias as last column: entry
    (i, j) at i * (d + has_bias) + j. For any other layer they are its variables, each flattened, one after
    the other.

    Attributes:
        layer: the layer.
        variables: its own trainable variables, in its order.
    """

    layer: keras.Layer
    variables: tuple[keras.Variable, ...]

    @property
    def size(self) -> int:
        """Number of parameters p."""
        return sum(int(np.prod(variable.shape)) for variable in self.variables)

    @property
    def num_outputs(self) -> int:
        """Number of outputs c of a layer with one weight matrix."""
        axes = kernel_axes(self.layer)
        return 1 if axes is None else self._num_outputs(axes[0])

    def flatten(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return one tensor (n, *shape) for each variable as rows (n, p)."""
        axes, num_rows = kernel_axes(self.layer), tf.shape(tensors[0])[0]
        if axes is None:
            return tf.concat(
                [tf.reshape(tensor, (num_rows, int(np.prod(tensor.shape[1:])))) for tensor in tensors], axis=1
            )
        produced, contracted = axes
        num_outputs = self._num_outputs(produced)
        kernel = tf.transpose(tensors[0], [0, *(axis + 1 for axis in (*produced, *contracted))])
        matrix = tf.reshape(kernel, (num_rows, num_outputs, int(np.prod(kernel.shape[1:])) // num_outputs))
        columns = [tf.reshape(bias, (num_rows, num_outputs, 1)) for bias in tensors[1:]]
        return tf.reshape(tf.concat([matrix, *columns], axis=2), (num_rows, self.size))

    def unflatten(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Return rows (n, p) as one tensor (n, *shape) for each variable: the inverse of `flatten`."""
        axes, num_rows = kernel_axes(self.layer), tf.shape(rows)[0]
        shapes = [tuple(variable.shape) for variable in self.variables]
        if axes is None:
            parts = tf.split(rows, [int(np.prod(shape)) for shape in shapes], axis=1)
            return [tf.reshape(part, (num_rows, *shape)) for part, shape in zip(parts, shapes, strict=True)]
        order, num_outputs = [*axes[0], *axes[1]], self._num_outputs(axes[0])
        matrix = tf.reshape(rows, (num_rows, num_outputs, self.size // num_outputs))
        num_inputs = int(np.prod(shapes[0])) // num_outputs
        kernel = tf.reshape(matrix[:, :, :num_inputs], (num_rows, *(shapes[0][axis] for axis in order)))
        back = [0, *(order.index(axis) + 1 for axis in range(len(order)))]
        biases = [tf.reshape(matrix[:, :, num_inputs], (num_rows, *shape)) for shape in shapes[1:]]
        return [tf.transpose(kernel, back), *biases]

    def _num_outputs(self, produced: list[int]) -> int:
        return int(np.prod([self.variables[0].shape[axis] for axis in produced]))


def select_groups(model: InfluenceModel, weights: Weights) -> tuple[WeightGroup, ...]:
    """Return the groups of the chosen weights, in the order of the model's trainable variables.

    Statistics of batch normalisation are not trainable, hence never among them; nor is a frozen layer under
    `"all"`.

    Args:
        model: prepared, so that its layers are built.
        weights: which weights.

    Raises:
        TypeError: `weights` is neither a word nor a sequence of names.
        ValueError: no such layer, a name twice, a layer without trainable parameters, or none at all.
    """
    groups = _all_groups(model.model)
    names = check_weights(weights)
    if weights == "last":
        return _last_group(model, groups)
    if weights == "all":
        require(bool(groups), "The model has no trainable weights.", {"model": model.model.name})
        return groups
    inside = {id(layer) for name in names for layer in _with_inner(_named(model.model, name))}
    for name in names:
        own = {id(layer) for layer in _with_inner(_named(model.model, name))}
        require(
            any(id(group.layer) in own for group in groups),
            "Gradients are taken in trainable parameters: this layer has none (nor has a frozen one). "
            f"Layers with some are: {', '.join(group.layer.name for group in groups)}.",
            {"layer": name},
        )
    return tuple(group for group in groups if id(group.layer) in inside)


def check_weights(weights: Weights) -> tuple[str, ...]:
    """Return the names of layers that a choice of weights holds: none of a word.

    Raises:
        TypeError: `weights` is neither a word nor a sequence of names.
        ValueError: no name, or one twice.
    """
    if isinstance(weights, str) and weights in ("last", "all"):
        return ()
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        raise TypeError(
            describe(
                "`weights` must be 'last', 'all' or a list of names of layers, as in weights=['dense_1'].",
                {"weights": weights},
            )
        )
    names = tuple(weights)
    is_right = bool(names) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    require(is_right, "`weights` must name at least one layer, each once.", {"weights": weights})
    return names


def describe_weights(model: InfluenceModel, weights: Weights) -> str:
    """Return the chosen weights as text that keys a store: layers by position, as names count up in a process."""
    positions = {id(layer): position for position, layer in enumerate(tracing.all_layers(model.model))}
    return ", ".join(
        f"{len(group.variables)} of layer {positions.get(id(group.layer), 'model')}"
        for group in select_groups(model, weights)
    )


def _last_group(model: InfluenceModel, groups: tuple[WeightGroup, ...]) -> tuple[WeightGroup, ...]:
    head = model.split.head
    found = tuple(group for group in groups if head is not None and group.layer is head.layer)
    require(
        bool(found),
        "weights='last' needs a trainable last Dense layer that the features feed; choose layers by name "
        "instead: weights=[NAME, ...] or weights='all'.",
        {"feature_layer": model.feature_layer},
    )
    return found


def _named(model: keras.Model, name: str) -> keras.Layer:
    found = [layer for layer in tracing.all_layers(model) if layer.name == name]
    require(
        len(found) == 1,
        f"`weights` must name layers of the model, but {len(found)} layers have this name. The layers are: "
        f"{', '.join(layer.name for layer in tracing.all_layers(model))}.",
        {"layer": name},
    )
    return found[0]


def _with_inner(layer: keras.Layer) -> list[keras.Layer]:
    return layer._flatten_layers(include_self=True, recursive=True)


def _all_groups(model: keras.Model) -> tuple[WeightGroup, ...]:
    """Give every trainable variable to the innermost layer that has it."""
    owners: dict[int, keras.Layer] = {}
    for layer in [model, *tracing.all_layers(model)]:
        owners.update((id(variable), layer) for variable in layer.trainable_variables)
    groups: dict[int, WeightGroup] = {}
    for variable in model.trainable_variables:
        layer = owners[id(variable)]
        known = groups.get(id(layer), WeightGroup(layer, ()))
        groups[id(layer)] = WeightGroup(layer, (*known.variables, variable))
    return tuple(groups.values())
