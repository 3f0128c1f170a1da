"""Per-example gradients by calling the model on one example at a time: slower, and right for every layer."""

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf
from keras import layers

from deel_dualview.gradients.capture import call_for_logits
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.inputs import arranged, structure_of
from deel_dualview.typing import Function, Inputs

Mapping = Literal["vectorized-map", "map"]

# `tf.vectorized_map` kills the process on MultiHeadAttention (oneDNN), fails on recurrent layers and is slow
# on depthwise convolutions: only kinds of layers that were tried are let in.
_VECTORIZABLE = (
    layers.InputLayer,
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Softmax,
    layers.Flatten,
    layers.Reshape,
    layers.Dropout,
    layers.Rescaling,
    layers.BatchNormalization,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.ZeroPadding2D,
    layers.Add,
    layers.Concatenate,
)


def automatic_mapping(model: keras.Model) -> Mapping:
    """Return the faster way of going through examples among those known to work for all layers of a model."""
    containers = (keras.Sequential, keras.Model)
    found = [layer for layer in tracing.all_layers(model) if type(layer) not in containers]
    return "vectorized-map" if all(type(layer) in _VECTORIZABLE for layer in found) else "map"


def mapped_gradients(
    model: InfluenceModel,
    variables: Sequence[keras.Variable],
    inputs: Inputs,
    targets: tf.Tensor,
    function: Function,
    mapping: Mapping,
) -> list[tf.Tensor]:
    """Return the gradients of every example, one tensor (b, *shape) for each variable; use while tracing.

    Args:
        model: prepared.
        variables: weights to differentiate in.
        inputs: a batch.
        targets: labels in the form of the objective, or outputs to explain, (b, ...).
        function: what is differentiated.
        mapping: `tf.vectorized_map` or `tf.map_fn`.
    """

    def of_one(example: tuple[Inputs, tf.Tensor]) -> list[tf.Tensor]:
        single, target = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], example)
        return batch_gradient(model, variables, single, target, function)

    # What the model does not read may be strings, which a vectorised map knows nothing of.
    elements = (arranged(structure_of(model.model), inputs), targets)
    if mapping == "vectorized-map":
        return tf.vectorized_map(of_one, elements, fallback_to_while_loop=False)
    signature = [tf.TensorSpec(variable.shape, tf.float32) for variable in variables]
    return tf.map_fn(of_one, elements, fn_output_signature=signature)


def batch_gradient(
    model: InfluenceModel,
    variables: Sequence[keras.Variable],
    inputs: Inputs,
    targets: tf.Tensor,
    function: Function,
) -> list[tf.Tensor]:
    """Return the gradient of the sum of the function over a batch, dense, float32, one for each variable."""
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        # A Keras variable itself cannot be watched.
        tape.watch(values)
        total = tf.reduce_sum(model.objective.evaluate(call_for_logits(model, inputs), targets, function))
    gradients = tape.gradient(total, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]
