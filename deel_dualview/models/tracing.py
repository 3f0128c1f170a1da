"""Calls of a Keras model, and its layers."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.models.inputs import arranged, structure_of
from deel_dualview.typing import Inputs


def call_model(model: keras.Model, inputs: Inputs) -> tf.Tensor:
    """Call the model in inference mode on inputs of any numeric type, in any form that `model.predict` takes."""
    structure = structure_of(model)
    if structure is None:
        # Only Functional models cast their inputs; a convolution would refuse an image of integers.
        return model(tf.nest.map_structure(_image_to_float, inputs), training=False)
    return model(arranged(structure, inputs), training=False)


@contextlib.contextmanager
def with_own_errors(model: keras.Model, inputs: Inputs) -> Iterator[None]:
    """Run a trace of a model, whose Python functions (of a `tf.numpy_function`) raise their errors as they are."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError):
        # Eagerly Keras leaves them the class and the message that they have; in a graph they are TensorFlow's.
        call_model(model, inputs)
        raise


def _image_to_float(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype in (tf.uint8, tf.float64) else tensor


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Return every layer below the model, each once, parents before children."""
    found = model._flatten_layers(include_self=False, recursive=True)
    return list({id(layer): layer for layer in found}.values())


def place_of(model: keras.Model, layer: keras.Layer) -> str:
    """Return which of the model's layers one is: the same for equal models, whatever Keras named them."""
    position = [other is layer for other in all_layers(model)].index(True)
    return f"layer {position} ({type(layer).__name__})"


def named_layer(model: keras.Model, name: str | keras.Layer | None) -> keras.Layer | None:
    """Return the one layer of that name, at any depth; a layer, or None, as it is.

    Raises:
        TypeError: `name` is something else.
        ValueError: no layer has this name, or several have it.
    """
    if name is None or isinstance(name, keras.Layer):
        return name
    if not isinstance(name, str):
        raise TypeError(
            "`feature_layer` must be the name of a layer, as in feature_layer='dense_1', or the layer itself. "
            f"Received: feature_layer={name!r}."
        )
    named = [layer for layer in all_layers(model) if layer.name == name]
    if len(named) != 1:
        names = ", ".join(layer.name for layer in all_layers(model))
        raise ValueError(
            f"`feature_layer` must name exactly one layer of the model; {len(named)} layers have this name. "
            f"The layers are: {names}. Received: feature_layer={name!r}."
        )
    return named[0]


def relaxed_spec(tensor: tf.Tensor | tf.TensorSpec) -> tf.TensorSpec:
    """Return the spec of a batch of any size."""
    if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
        tensor = np.asarray(tensor)
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def input_specs(model: keras.Model) -> Inputs | None:
    """Return the specs of the model's inputs where it knows them before it is called, else None."""
    structure = structure_of(model)
    return None if structure is None else tf.nest.map_structure(relaxed_spec, structure)


def variable_ids(model: keras.Model) -> set[int]:
    """Identify the weights of all layers, those of a wrapper that is not built itself included."""
    return {id(weight) for layer in all_layers(model) for weight in layer.weights}
