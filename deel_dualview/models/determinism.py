"""Checks that a model computes the same each time that it is called, and the same when it is traced."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models import tracing
from deel_dualview.models.recording import LayerCall, recorded
from deel_dualview.typing import Inputs

# Of the largest value: above what the order of additions changes, below any noise that is meant to matter.
_REPEATED, _REPEATED_IN_HALF = 1e-4, 1e-2
_TRACED, _TRACED_IN_HALF = 1e-3, 5e-2


def check_eager() -> None:
    """Refuse to work where TensorFlow cannot trace a model of its own.

    Raises:
        TypeError: inside of a `tf.function` or of `Dataset.map`, or where functions are run eagerly.
    """
    if not tf.executing_eagerly():
        raise TypeError(
            "Influence is computed eagerly and cannot be part of a `tf.function` or of `Dataset.map`: call it from "
            "Python, for instance in a loop over the dataset."
        )
    if tf.config.functions_run_eagerly():
        raise TypeError(
            "Influence needs traced functions, which are switched off: call `tf.config.run_functions_eagerly(False)`."
        )


def is_half(model: keras.Model) -> bool:
    """Return whether any layer of a model computes in 16 bits."""
    layers = [model, *tracing.all_layers(model)]
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)


def check_repeatable(model: keras.Model, inputs: Inputs, first: tf.Tensor, second: tf.Tensor) -> None:
    """Refuse a model whose second output differs from its first one, for the same inputs.

    Args:
        model: called twice in inference mode.
        inputs: of both calls.
        first: its output, (b, c).
        second: its output of the second call.

    Raises:
        ValueError: it differs; the message names the layer where that can be found.
    """
    tolerance = _REPEATED_IN_HALF if is_half(model) else _REPEATED
    if not _agree(first, second, tolerance):
        raise_random(model, inputs)


def raise_random(model: keras.Model, inputs: Inputs) -> None:
    """Raise the error that says that a model is random at inference.

    Raises:
        ValueError: always.
    """
    layer = _random_layer(model, inputs)
    require(
        False,
        "The model is random at inference, or keeps state: two calls with training=False and the same inputs gave "
        "other outputs, so no influence on them is defined. Take out the noise or dropout that is applied whatever "
        "`training` is, or give it a fixed seed.",
        {"model": model.name, "layer": "unknown" if layer is None else layer.name},
    )


def check_traced(
    model: keras.Model, inputs: Inputs, traced: Sequence[tf.Tensor], own: Sequence[tf.Tensor]
) -> None:
    """Raise an error if a trace computes other outputs than its model.

    Args:
        model: the model.
        inputs: of both.
        traced: features and outputs of the trace.
        own: the same of an eager call.

    Raises:
        ValueError: they differ: the model is random, or the trace is damaged.
    """
    tolerance = _TRACED_IN_HALF if is_half(model) else _TRACED
    if all(_agree(*pair, tolerance) for pair in zip(traced, own, strict=True)):
        return
    if _random_layer(model, inputs) is not None:
        raise_random(model, inputs)
    require(
        False,
        "The model computes something else in a `tf.function` than when it is called eagerly. Do its layers depend on "
        "Python values that change, or did another thread change it meanwhile?",
        {"model": model.name},
    )


def _random_layer(model: keras.Model, inputs: Inputs) -> keras.Layer | None:
    """Return the first layer that makes other outputs of the same inputs in two calls, if it can be found."""
    first, second = (_calls(model, inputs) for _ in range(2))
    if [call.layer for call in first] != [call.layer for call in second]:
        return None
    for one, other in zip(first, second, strict=True):
        if _are_equal(one.inputs, other.inputs) and not _are_equal(one.outputs, other.outputs):
            return one.layer
    return None


def _calls(model: keras.Model, inputs: Inputs) -> list[LayerCall]:
    with recorded(tracing.all_layers(model)) as calls:
        tracing.call_model(model, inputs)
    return calls


def _are_equal(one: Any, other: Any) -> bool:
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    # By their bytes: NaN is equal to itself.
    return all(np.asarray(first).tobytes() == np.asarray(second).tobytes() for first, second in pairs)


def _agree(one: tf.Tensor, other: tf.Tensor, tolerance: float) -> bool:
    first, second = (tf.cast(part, tf.float32).numpy() for part in (one, other))
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    return np.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)
