"""The objective of a Keras model: the one given, or the one that it was compiled with."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras

from deel_dualview._checks import describe, require
from deel_dualview.models import keras_graph
from deel_dualview.models.custom_loss import CustomLoss
from deel_dualview.models.objectives import (
    Huber,
    IndependentSigmoids,
    Objective,
    SoftmaxCrossEntropy,
    SquaredError,
)

Ending = Literal["logits", "softmax", "log-softmax", "sigmoid", "relu", "exponential", "softplus"]
"""How the outputs of a model follow from those of its last layer before its activation."""

LossFunction: TypeAlias = Objective | keras.losses.Loss | str | Callable[..., Any]
"""An objective, a Keras loss or its name, or a function of labels and outputs."""

ACTIVATIONS: tuple[Ending, ...] = ("relu", "exponential", "softplus")
"""Activations of a last layer of a regression, by their name in `keras.activations`."""
_CLASSIFIERS = ("sparse_categorical_crossentropy", "categorical_crossentropy")
_REGRESSIONS = (
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "log_cosh",
    "poisson",
)


def check_loss_function(loss_function: object) -> None:
    """Refuse what is no loss function, before any work.

    Raises:
        TypeError: it is neither an objective, a Keras loss, its name nor a function.
        ValueError: a name that Keras does not know.
    """
    if isinstance(loss_function, type) or not (
        loss_function is None
        or isinstance(loss_function, Objective | keras.losses.Loss | str)
        or callable(loss_function)
    ):
        raise TypeError(
            describe(
                "`loss_function` must be an objective such as SquaredError(), a Keras loss, its name, or a function of "
                "labels and outputs.",
                {"loss_function": loss_function},
            )
        )
    if isinstance(loss_function, str):
        keras.losses.get(loss_function)


@functools.cache
def _kept(objective: Objective) -> Objective:
    """Return the first of equal objectives, so that they share traces; it is never freed, which would lose these."""
    return objective


def find_objective(
    loss_function: LossFunction | None, compiled: Any, width: int, ending: Ending
) -> Objective:
    """Return the objective of a model; of equal ones the same object.

    Args:
        loss_function: the one given; by default the loss that the model was compiled with, where it shows
            a regression or independent labels, else the softmax (of one output: the binary) cross-entropy.
        compiled: the loss that the model was compiled with for its output, None for none.
        width: of its output.
        ending: how its outputs follow from those of its last layer.

    Raises:
        ValueError: an objective that does not fit how the model ends.

    Warns:
        UserWarning: the model was compiled with a loss that is not used.
    """
    return _kept(_found(loss_function, compiled, width, ending))


def _found(loss_function: LossFunction | None, compiled: Any, width: int, ending: Ending) -> Objective:
    if isinstance(loss_function, Objective):
        _check_fit(loss_function, ending)
        if isinstance(loss_function, CustomLoss) and loss_function.link is None:
            return CustomLoss(loss_function.function, ending)
        return loss_function
    loss = compiled if loss_function is None else loss_function
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = name_of(loss)
    settings = keras_graph.settings_of_loss(loss)
    smoothing = float(settings.get("label_smoothing", 0.0))
    if name == "mean_squared_error" and ending == "logits":
        return SquaredError()
    if name == "huber" and ending == "logits":
        return Huber(float(settings.get("delta", 1.0)))
    if name == "binary_crossentropy" and width > 1 and ending in ("logits", "sigmoid"):
        return IndependentSigmoids(smoothing)
    if ending in ACTIVATIONS:
        return _behind_activation(loss, name, ending)
    is_cross_entropy = name in (*_CLASSIFIERS, "binary_crossentropy")
    is_custom = not is_cross_entropy and (
        loss_function is not None or name in _REGRESSIONS and ending == "logits"
    )
    if not is_custom:
        # Independent labels behind a softmax are no cross-entropy of classes.
        is_used = is_cross_entropy and (name != "binary_crossentropy" or width == 1)
        if loss_function is None and loss is not None and not is_used:
            _warn_of_another_loss(loss)
        return SoftmaxCrossEntropy(smoothing if is_cross_entropy else 0.0)
    return CustomLoss(per_example(loss), ending)


def _behind_activation(loss: Any, name: str, ending: Ending) -> Objective:
    """Return the objective of a regression whose last layer has an activation.

    Raises:
        ValueError: no loss, or one of classifiers.
    """
    require(
        loss is not None and name not in (*_CLASSIFIERS, "binary_crossentropy"),
        f"A model that ends in {ending} is explained as a regression, by the loss that it was trained with: give "
        "InfluenceModel(model, loss_function=LOSS), for instance 'mse' or 'poisson'. A classifier ends in logits, "
        "softmax or sigmoid.",
        {"loss_function": name or loss},
    )
    return CustomLoss(per_example(loss), ending)


def per_example(loss: Any) -> Callable[..., Any]:
    """Return a loss without its reduction over the batch."""
    found: Callable[..., Any] = loss.call if isinstance(loss, keras.losses.Loss) else loss
    return found


def _warn_of_another_loss(loss: object) -> None:
    warnings.warn(
        describe(
            "The model is explained as a classifier with cross-entropy, and was compiled with another loss: pass "
            "InfluenceModel(model, loss_function=LOSS) to explain that one, or "
            "loss_function=SoftmaxCrossEntropy() to leave it so.",
            {"loss": getattr(loss, "__name__", type(loss).__name__)},
        ),
        UserWarning,
        stacklevel=2,
    )


def _check_fit(objective: Objective, ending: Ending) -> None:
    if isinstance(objective, SquaredError | Huber):
        require(
            ending == "logits",
            f"{type(objective).__name__} is of the outputs of a linear last layer, and this model ends in a {ending}: "
            "give the loss as a function, loss_function=keras.losses.mean_squared_error, or leave it out for a "
            "classifier.",
            {"loss_function": objective},
        )
    if isinstance(objective, IndependentSigmoids):
        require(
            ending in ("logits", "sigmoid"),
            f"Independent sigmoids are those of a sigmoid or linear last layer, and this model ends in a {ending}.",
            {"loss_function": objective},
        )


def compiled_loss(model: keras.Model) -> Any:
    """Return the loss that a model of one output was compiled with, None for none."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, list | tuple) and len(loss) == 1:
        return loss[0]
    return next(iter(loss.values())) if isinstance(loss, dict) and len(loss) == 1 else loss


def name_of(loss: Any) -> str:
    """Return the name of the function that a Keras loss computes."""
    if isinstance(loss, keras.losses.Loss):
        # LossFunctionWrapper keeps the function; a loss of one's own has none.
        loss = getattr(loss, "fn", None)
    name = getattr(loss, "__name__", "")
    return name if loss is not None and getattr(keras.losses, name, None) is loss else ""
