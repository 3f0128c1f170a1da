"""Steps of Keras optimizers as pure functions of state and gradient, so that a training can be differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.models.keras_graph import leaves_out_of_weight_decay, second_moments

_UNSUPPORTED = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "amsgrad",
)


@dataclass(frozen=True)
class OptimizerStep(ABC):
    """One step of an optimizer on all weights, which are one row of p numbers.

    The state has shape (1 + slots, p): the weights, and what the optimizer keeps of each.

    Attributes:
        weight_decay: lambda of `weights *= 1 - rate * lambda`, before the step; 0 for none.
    """

    weight_decay: float

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Numbers that the optimizer keeps for every weight."""

    @abstractmethod
    def __call__(
        self, state: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        """Return the state after a step.

        Args:
            state: shape (1 + slots, p).
            gradient: of the loss, shape (p,).
            rate: the learning rate, a scalar.
            number: of the step, a scalar, from 1.
        """

    def decayed(self, weights: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """Return the weights after their decay."""
        return weights * (1 - rate * self.weight_decay) if self.weight_decay else weights


@dataclass(frozen=True)
class DescentStep(OptimizerStep):
    """Gradient descent, with momentum where it is not 0."""

    momentum: float
    is_nesterov: bool

    @property
    def num_slots(self) -> int:
        return 1 if self.momentum else 0

    def __call__(
        self, state: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        weights = self.decayed(state[0], rate)
        if not self.momentum:
            return (weights - rate * gradient)[tf.newaxis]
        velocity = self.momentum * state[1] - rate * gradient
        change = self.momentum * velocity - rate * gradient if self.is_nesterov else velocity
        return tf.stack([weights + change, velocity])


@dataclass(frozen=True)
class AdamStep(OptimizerStep):
    """Adam as Keras has it: epsilon is added to the square root of the second moment, before its correction."""

    beta_1: float
    beta_2: float
    epsilon: float

    @property
    def num_slots(self) -> int:
        return 2

    def __call__(
        self, state: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        number = tf.cast(number, state.dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, state.dtype), tf.constant(self.beta_2, state.dtype)
        first = state[1] + (gradient - state[1]) * (1 - self.beta_1)
        second = state[2] + (tf.square(gradient) - state[2]) * (1 - self.beta_2)
        rate_now = rate * tf.sqrt(1 - beta_2**number) / (1 - beta_1**number)
        change = first * rate_now / (_root(second) + self.epsilon)
        return tf.stack([self.decayed(state[0], rate) - change, first, second])


def step_of(optimizer: Any) -> OptimizerStep:
    """Return the step of a Keras optimizer.

    Raises:
        TypeError: it is neither `SGD`, `Adam` nor `AdamW`.
        ValueError: it has a setting that is not supported.
    """
    known = (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)
    if type(optimizer) not in known:
        needed = "`optimizer` must be SGD(...), Adam(...) or AdamW(...) of keras.optimizers, as must the compiled one."
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            needed += (
                " Mixed float16 wraps it in a LossScaleOptimizer, whose scale changes while it trains: give "
                "optimizer= of one of these classes, which scales no loss, or train under mixed_bfloat16."
            )
        received = optimizer if optimizer is None or isinstance(optimizer, str) else type(optimizer).__name__
        raise TypeError(describe(needed, {"optimizer": received}))
    settings = optimizer.get_config()
    used = {name: settings[name] for name in _UNSUPPORTED if settings.get(name)}
    require(not used, "A recorded training does not support these settings of an optimizer.", used)
    require(
        not leaves_out_of_weight_decay(optimizer),
        "A recorded training applies weight decay to all trainable weights or to none.",
        {"optimizer": type(optimizer).__name__},
    )
    decay = float(settings["weight_decay"] or 0.0)
    if isinstance(optimizer, keras.optimizers.SGD):
        return DescentStep(decay, float(settings["momentum"]), bool(settings["nesterov"]))
    return AdamStep(decay, *(float(settings[name]) for name in ("beta_1", "beta_2", "epsilon")))


def adam_scales(model: keras.Model) -> dict[int, tf.Tensor]:
    """Return what the Adam that trained a model multiplies the mean gradient of each weight by.

    1 / (sqrt(v_hat) + epsilon), where v_hat is the average of squared gradients, corrected for its start at 0, and
    epsilon is corrected alike, as Keras has it.

    Args:
        model: compiled with `Adam` or `AdamW`, and trained.

    Returns:
        By the ids of the trained variables, tensors of their shapes, float32.

    Raises:
        ValueError: another optimizer or none, or one that has taken no step.
    """
    optimizer: Any = getattr(model, "optimizer", None)
    # Of a model in mixed precision.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    needed = "`preconditioner='adam'` needs a model that was compiled with Adam or AdamW, and trained with it"
    require(
        isinstance(optimizer, keras.optimizers.Adam),
        f"{needed}: other optimizers keep no average of squared gradients.",
        {"optimizer": type(optimizer).__name__},
    )
    num_steps = int(optimizer.iterations)
    require(
        bool(optimizer.built) and num_steps > 0,
        f"{needed}: it has taken no step. `compile` after the training takes the averages away, as does loading "
        "weights alone: train, or load the whole model by keras.models.load_model.",
        {"steps": num_steps},
    )
    correction = (1 - optimizer.beta_2**num_steps) ** 0.5
    return {
        key: correction / (tf.sqrt(tf.cast(tf.convert_to_tensor(moment), tf.float32)) + optimizer.epsilon)
        for key, moment in second_moments(optimizer).items()
    }


def learning_rates(optimizer: keras.optimizers.Optimizer, num_steps: int) -> np.ndarray:
    """Return the learning rate of every step of an optimizer, or of its schedule, shape (num_steps,), float64."""
    rate: Any = optimizer.get_config()["learning_rate"]
    if not isinstance(rate, dict):
        return np.full(num_steps, float(rate))
    schedule = keras.optimizers.schedules.deserialize(rate)
    return np.array([float(schedule(number)) for number in range(num_steps)])


def _root(second: tf.Tensor) -> tf.Tensor:
    """Return the square root, of slope 0 at 0: a second moment of 0 stays 0 with every change of first order."""
    is_zero = second <= 0
    return tf.where(is_zero, tf.zeros_like(second), tf.sqrt(tf.where(is_zero, tf.ones_like(second), second)))
