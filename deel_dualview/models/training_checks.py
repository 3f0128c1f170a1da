"""Checks before a recorded training: loss, labels, augmentation, and that the model repeats."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.models import tracing
from deel_dualview.models.keras_graph import as_compiled, compiled_loss_weights, settings_of_loss
from deel_dualview.models.keras_losses import check_loss_function, compiled_loss, name_of
from deel_dualview.models.objectives import Objective
from deel_dualview.models.training_steps import Augment, TrainingSteps, is_seed

_NUM_CHECKED = 8
"""Examples on which the model, its loss and the augmentation are tried before the training."""


def loss_of(model: keras.Model, loss_function: Any) -> keras.losses.Loss:
    """Return the loss as `compile` makes it, in the type of the weights where these are float64.

    Raises:
        TypeError: no loss, or none of Keras' kind.
        ValueError: a reduction under which weights of examples do not take them out, or weights of losses.
    """
    loss = compiled_loss(model) if loss_function is None else loss_function
    if loss is None or isinstance(loss, Objective):
        needed = (
            "A recorded training needs a Keras loss, or a compiled model: give loss_function="
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or the loss that it is trained with. "
            "The model is not compiled, or an objective was given."
        )
        raise TypeError(describe(needed, {"loss_function": loss}))
    check_loss_function(loss)
    weights = compiled_loss_weights(model) if loss_function is None else None
    require(
        not weights,
        "A recorded training does not support the `loss_weights` of a compiled model: give loss_function=, and scale "
        "the learning rate.",
        {"loss_weights": weights},
    )
    found = as_compiled(
        keras.losses.get(loss) if isinstance(loss, str) else loss, model.trainable_variables[0].dtype
    )
    require(
        found.reduction in ("sum_over_batch_size", "mean", "sum"),
        "A recorded training takes the mean of the losses of a batch, or their sum: give the loss with "
        "reduction='sum_over_batch_size' or 'sum'.",
        {"reduction": found.reduction},
    )
    return found


def check_augment(augment: Augment | None, steps: TrainingSteps) -> None:
    """Refuse an augmentation that changes shapes or types, or that does not repeat.

    It is traced twice and one trace is called twice, as trainings and derivatives do: stateful random operations differ
    in two calls, and numbers of NumPy, which a trace keeps, in two traces.

    Raises:
        TypeError: it is no function of two arguments.
        ValueError: its results change.
    """
    if augment is None:
        return
    needed = "`augment` must be a function of the inputs of an example and a seed: augment(inputs, seed)."
    if not callable(augment):
        raise TypeError(describe(needed, {"augment": augment}))
    try:
        signature = inspect.signature(augment)
    except ValueError:
        signature = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(describe(needed, {"augment": augment, "signature": str(signature)})) from None
    _, given, _ = steps.plain_batch(0)
    for number in range(min(_NUM_CHECKED, len(tf.nest.flatten(given)[0]))):
        example = tf.nest.map_structure(lambda tensor, number=number: tensor[number], given)
        _check_same_kind(example, augment(example, tf.constant([0, number])))
    # A call of its own each: a traced function keeps what NumPy drew while it was traced.
    one, other = (tf.function(lambda: steps.batch(tf.constant(0))[1]) for _ in range(2))
    require(
        _bytes_of(first := one()) == _bytes_of(one()) and _bytes_of(first) == _bytes_of(other()),
        "`augment` must give the same for the same seed, or the training cannot be repeated: draw random numbers by "
        "stateless functions of that seed, such as tf.random.stateless_normal(shape, seed), not by tf.random.normal or "
        "NumPy.",
        {"augment": augment},
    )


def _check_same_kind(given: Any, found: Any) -> None:
    def kind(tensors: Any) -> Any:
        return tf.nest.map_structure(lambda one: (tuple(one.shape), one.dtype.name), tensors)

    try:
        changed: Any = kind(tf.nest.map_structure(tf.convert_to_tensor, found))
    except (ValueError, TypeError, AttributeError):
        changed = found
    needed = "`augment` must return inputs of the shape and type that it is given."
    require(bool(np.all(changed == kind(given))), needed, {"given": kind(given), "returned": changed})


def _bytes_of(tensors: Any) -> list[bytes]:
    return [np.asarray(tensor).tobytes() for tensor in tf.nest.flatten(tensors)]


def _check_labels(steps: TrainingSteps, labels: Any, outputs: Any) -> None:
    """Refuse labels that do not fit the loss and the outputs of a few examples, or classes that there are not.

    Raises:
        ValueError: they do not fit.
    """
    require(
        tf.is_tensor(outputs) and tf.is_tensor(labels),
        "A recorded training is of models with one output, whose labels are one tensor.",
        {"outputs": type(outputs).__name__, "labels": type(labels).__name__},
    )
    shapes = {"shape of labels": tuple(labels.shape), "shape of outputs": tuple(outputs.shape)}
    require(
        labels.dtype.is_floating or labels.dtype.is_integer or labels.dtype.is_bool,
        "Labels must be numbers: encode texts as classes 0, 1, ...",
        {"dtype": labels.dtype.name},
    )
    if name_of(steps.loss) == "sparse_categorical_crossentropy":
        own = (
            labels.shape[:-1]
            if labels.shape.rank == outputs.shape.rank and labels.shape[-1] == 1
            else labels.shape
        )
        require(
            own.rank == outputs.shape.rank - 1,
            "A sparse loss takes the number of a class for each example, not one-hot rows: give those to "
            "CategoricalCrossentropy.",
            shapes,
        )
        classes = np.asarray(steps.labels).reshape(-1)
        classes = classes[classes != settings_of_loss(steps.loss).get("ignore_class")]
        is_known = (classes >= 0) & (classes < outputs.shape[-1])
        require(
            bool(is_known.all()),
            f"Labels must be classes 0..{outputs.shape[-1] - 1}, as the model has {outputs.shape[-1]} outputs.",
            {"labels": np.unique(classes[~is_known])},
        )
    try:
        losses = steps.loss.call(*steps.as_compared(labels, outputs))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        needed = f"The loss cannot be computed of the labels and outputs of a few examples: {error}"
        raise ValueError(describe(needed, shapes)) from error
    shape, num = tuple(losses.shape), len(labels)
    require(
        shape in ((num,), (num, 1), tuple(outputs.shape[:-1])) and shape[:1] == (num,),
        "A loss must return one number for each example, without a mean over the batch.",
        {"shape of losses": shape, **shapes},
    )


def check_weights_of(model: keras.Model) -> None:
    """Refuse a model without trainable weights of one type, or whose layers penalise activations.

    Raises:
        ValueError: it is one.
    """
    require(
        model.built and bool(model.trainable_variables),
        "The model must be built and have trainable weights: call it once on a batch, or give it a keras.Input.",
        {"model": model.name},
    )
    types = {variable.dtype for variable in model.trainable_variables}
    require(len(types) == 1, "All trainable weights must be of one type.", {"types": sorted(types)})
    penalising = [
        layer.name
        for layer in tracing.all_layers(model)
        if getattr(layer, "activity_regularizer", None) is not None
    ]
    require(
        not penalising,
        "Penalties of activations depend on examples in a way that the examples' weights do not take out.",
        {"layers": penalising},
    )


def check_repeatable(model: keras.Model, steps: TrainingSteps) -> None:
    """Refuse labels that do not fit, a model whose calls at one step differ, and one that changes other variables.

    Raises:
        ValueError: it does.
    """
    _, inputs, labels = steps.batch(0)
    few, few_labels = tf.nest.map_structure(lambda tensor: tensor[:_NUM_CHECKED], (inputs, labels))
    row = steps.start([variable.value for variable in model.trainable_variables])[0]
    first, others, _ = steps.call(row, 0, few)
    _check_labels(steps, few_labels, first)
    # Another state of Keras' global generator, from which layers without a seed generator draw.
    keras.random.uniform((1,))
    second, _, _ = steps.call(row, 0, few)
    is_equal = all(
        np.asarray(one).tobytes() == np.asarray(other).tobytes()
        for one, other in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True)
    )
    require(
        is_equal,
        "Two calls of the model in training mode with the same weights and seeds gave other outputs, so that its "
        "training cannot be repeated. Random layers must draw from a `keras.random.SeedGenerator` that they keep as an "
        "attribute, as `keras.layers.Dropout` does.",
        {"model": model.name},
    )
    variables = list(model.non_trainable_variables)
    changed = [
        variable.path
        for variable, value in zip(variables, others, strict=True)
        if not is_seed(variable) and np.asarray(value).tobytes() != np.asarray(variable.value).tobytes()
    ]
    require(
        not changed,
        "Layers change these variables while the model trains (as batch normalisation does), and with them what "
        "other examples do: freeze such layers by `layer.trainable = False`, or use LayerNormalization or "
        "GroupNormalization.",
        {"variables": changed},
    )
