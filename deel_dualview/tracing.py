"""Where a Keras model can be split."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.inputs import arranged, structure_of
from deel_dualview.recording import LayerCall, recorded
from deel_dualview.typing import Inputs


class Split(NamedTuple):
    """Where the features are taken, and the linear head that they feed (None if there is none).

    Attributes:
        layer: the layer whose input or output is the features.
        takes_input: whether it is its input.
        head: the Dense layer that the features feed.
        num_features: width d of the flattened features.
        num_outputs: width of the model's output.
    """

    layer: keras.Layer
    takes_input: bool
    head: keras.layers.Dense | None
    num_features: int
    num_outputs: int


def call_model(model: keras.Model, inputs: Inputs) -> tf.Tensor:
    """Call the model in inference mode on inputs of any numeric type, in any form that `model.predict` takes."""
    structure = structure_of(model)
    if structure is None:
        # Only Functional models cast their inputs; a convolution would refuse an image of integers.
        return model(tf.nest.map_structure(_image_to_float, inputs), training=False)
    return model(arranged(structure, inputs), training=False)


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


def layer_by_name(model: keras.Model, name: str) -> keras.Layer:
    """Return the one layer of that name, at any depth."""
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


def find_split(model: keras.Model, feature_layer: str | keras.Layer | None, specs: Inputs) -> Split:
    """Trace the model once and find where its features are.

    Args:
        model: the user's classifier.
        feature_layer: the layer whose output is the features; None for the input of the last Dense layer.
        specs: specs of the inputs, batch dimension None.

    Raises:
        ValueError: no Dense layer, an output that is not (b, c), a shared head or feature layer.
    """
    named = layer_by_name(model, feature_layer) if isinstance(feature_layer, str) else feature_layer
    dense = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.Dense)]
    watched = list({id(layer): layer for layer in [*dense, *([named] if named is not None else [])]}.values())
    seen: dict[str, list[LayerCall] | tf.Tensor] = {}

    def trace(inputs: Inputs) -> None:
        with recorded(watched) as seen["calls"]:
            seen["outputs"] = call_model(model, inputs)

    # autograph=False: Keras does not convert the calls of layers either, and errors stay readable.
    tf.function(trace, autograph=False).get_concrete_function(specs)
    calls, width = seen["calls"], _output_width(seen["outputs"])
    return _split_at_head(calls, width) if named is None else _split_after(calls, named, width)


def _output_width(outputs: tf.Tensor) -> int:
    if not tf.is_tensor(outputs) or outputs.shape.rank != 2 or outputs.shape[1] is None:
        found = getattr(outputs, "shape", type(outputs).__name__)
        raise ValueError(
            "A classifier must have one output of shape (batch, classes); wrap a model with several outputs in one "
            f"that returns the logits to explain. Received: output={found}."
        )
    return int(outputs.shape[1])


def _split_at_head(calls: list[LayerCall], width: int) -> Split:
    advice = "Name the layer whose output to take as features: InfluenceModel(model, feature_layer=NAME)."
    if not calls:
        raise ValueError(
            f"The features are the input of the last Dense layer, but this model calls none. {advice} "
            "Received: a model without a Dense layer."
        )
    last = calls[-1]
    if last.layer.units != width or last.inputs.shape.rank != 2:
        raise ValueError(
            f"The last Dense layer of the model does not make its {width} outputs. {advice} Received: layer "
            f"{last.layer.name!r} with {last.layer.units} units on inputs of shape {last.inputs.shape}."
        )
    if sum(call.layer is last.layer for call in calls) > 1:
        raise ValueError(
            "The classification head is called more than once in one forward pass, so its input is not unique. "
            f"{advice} Received: shared layer {last.layer.name!r}."
        )
    return Split(last.layer, True, last.layer, int(last.inputs.shape[1]), width)


def _split_after(calls: list[LayerCall], named: keras.Layer, width: int) -> Split:
    own = [call for call in calls if call.layer is named]
    if len(own) != 1 or not tf.is_tensor(own[0].outputs):
        raise ValueError(
            "`feature_layer` must be called exactly once in a forward pass and return one tensor. "
            "Name another by InfluenceModel(model, feature_layer=...), or wrap the model's parts: "
            "InfluenceModel.from_parts(feature_extractor, head). "
            f"Received: layer {named.name!r}, called {len(own)} time(s)."
        )
    features = own[0].outputs
    num_features = features.shape[1:].num_elements()
    if not num_features:
        raise ValueError(
            "The features must have a fixed size; pool or pad the sequence before the layer that you name. "
            f"Received: feature_layer={named.name!r} with output of shape {features.shape}."
        )
    feeds = [call for call in calls if isinstance(call.layer, keras.layers.Dense) and call.inputs is features]
    is_head = len(feeds) == 1 and feeds[0].layer.units == width and features.shape.rank == 2
    return Split(named, False, feeds[0].layer if is_head else None, num_features, width)
