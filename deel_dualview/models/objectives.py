"""Objectives: the loss of an example as a function of the outputs of the model, with its derivatives in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, check_positive, is_number, require
from deel_dualview.data.examples import RowsError
from deel_dualview.models import links
from deel_dualview.models.labels import to_classes, to_rows
from deel_dualview.typing import Function

HessianKind = Literal["softmax", "diagonal", "full"]
"""Form of the Hessian of a loss in the outputs: diag(p) - p p' given by p (b, c), a diagonal (b, c), or (b, c, c)."""


class Objective(ABC):
    """Loss of an example as a function of the outputs z of the last layer, before any softmax or sigmoid.

    Of a training example the loss is taken at its label, of an evaluated one usually at an output to explain. Both are
    *targets*: labels in the form of the objective, or the index of an output, integers of shape (b,). Of an output,
    every objective but the softmax has the value -z_j in the place of a loss, so that an influence is positive where
    the training example raises it.

    Subclasses are immutable, and equal where they compute the same.
    """

    hessian_kind: ClassVar[HessianKind] = "diagonal"
    needs_targets: ClassVar[bool] = False
    """Whether the Hessian depends on the labels."""
    label_smoothing: float = 0.0
    """Share of every label that is spread evenly over the classes, or over yes and no."""

    def num_outputs(self, width: int) -> int:
        """Return the number c of outputs that can be explained of a model whose last layer has `width`."""
        return width

    def from_native(self, outputs: tf.Tensor, link: str) -> tf.Tensor:
        """Return the outputs of the model as z, shape (b, c), float32.

        Args:
            outputs: as the model gives them.
            link: `"logits"` where these are z, `"softmax"` or `"sigmoid"` of it.
        """
        del link
        return outputs

    @abstractmethod
    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return labels in the form of the objective.

        Raises:
            ValueError: they do not fit it (the message says of which examples).
        """

    @abstractmethod
    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of every example at its label, shape (b,), twice differentiable almost everywhere."""

    @abstractmethod
    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the gradient of every loss in the outputs, shape (b, c)."""

    @abstractmethod
    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        """Return what the Hessian of every loss in the outputs is made from, in the form of `hessian_kind`.

        Args:
            outputs: shape (b, c).
            targets: labels; needed where `needs_targets`.
        """

    def hessian(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        """Return the Hessian of every loss in the outputs, shape (b, c, c)."""
        factor = self.hessian_factor(outputs, targets)
        if self.hessian_kind == "full":
            return factor
        if self.hessian_kind == "diagonal":
            return tf.linalg.diag(factor)
        return tf.linalg.diag(factor) - factor[:, :, tf.newaxis] * factor[:, tf.newaxis, :]

    def check_function(self, function: Function) -> None:
        """Refuse a function that the objective does not have.

        Raises:
            ValueError: it is neither `"loss"` nor, of a softmax, `"logit"` or `"margin"`.
        """
        check_choice("function", function, ("loss", "logit", "margin"))
        require(
            function == "loss",
            "Logits and margins of a class are those of classifiers with a softmax: use function='loss'.",
            {"function": function, "objective": self},
        )

    def evaluate(self, outputs: tf.Tensor, targets: tf.Tensor, function: Function = "loss") -> tf.Tensor:
        """Return the function of every example at its target, shape (b,)."""
        del function
        if targets.dtype.is_integer:
            return -tf.gather(outputs, targets, batch_dims=1)
        return self.loss(outputs, targets)

    def gradient(self, outputs: tf.Tensor, targets: tf.Tensor, function: Function = "loss") -> tf.Tensor:
        """Return the gradient of the function of every example in the outputs, shape (b, c)."""
        del function
        if targets.dtype.is_integer:
            return -tf.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        return self.loss_gradient(outputs, targets)

    def predicted(self, outputs: tf.Tensor) -> np.ndarray:
        """Return the output that `target="prediction"` explains of every example, shape (b,), int64.

        Raises:
            ValueError: there are several, of which none is the prediction.
        """
        require(
            outputs.shape[1] == 1,
            "The model predicts several numbers: say which to explain by target=INDEX.",
            {"outputs": outputs.shape[1]},
        )
        return np.zeros(outputs.shape[0], np.int64)

    def describe(self) -> str:
        """Return what the objective computes, as text that keys a store."""
        return repr(self)


@dataclass(frozen=True, repr=False)
class SoftmaxCrossEntropy(Objective):
    """Cross-entropy of one of c classes: `log sum_j exp z_j - z_y`, for integer or one-hot labels.

    A model with one output z is a classifier of two classes with the logits (-z / 2, z / 2): binary cross-entropy.

    Args:
        label_smoothing: s, 0 <= s < 1; `(1 - s) z_y + s mean_j z_j` takes the place of z_y, as in Keras. It is part of
            the loss of evaluated examples too.
    """

    hessian_kind: ClassVar[HessianKind] = "softmax"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.label_smoothing)

    def __repr__(self) -> str:
        return _named_with_smoothing(self)

    def num_outputs(self, width: int) -> int:
        return max(2, width)

    def from_native(self, outputs: tf.Tensor, link: str) -> tf.Tensor:
        return links.as_logits(outputs, link)

    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        return to_classes(labels, num_outputs)

    def soft_labels(self, classes: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the probabilities that the loss compares with, shape (n, c), float64: one-hot without smoothing."""
        return (
            np.eye(num_classes)[classes] * (1.0 - self.label_smoothing) + self.label_smoothing / num_classes
        )

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)
        if not self.label_smoothing:
            return losses
        return losses + self.smoothing_term(
            outputs, tf.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        )

    def smoothing_term(self, outputs: tf.Tensor, one_hot: tf.Tensor) -> tf.Tensor:
        """Return what smoothing adds to losses: s (z_y - mean_j z_j), for outputs (..., c), shape (...)."""
        excess = tf.reduce_sum(outputs * one_hot, axis=-1) - tf.reduce_mean(outputs, axis=-1)
        return self.label_smoothing * excess

    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        one_hot = tf.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        others = (1.0 - one_hot) * tf.nn.softmax(outputs)
        # Not p - 1 for the own class: an example fitted exactly has no gradient, one fitted well a precise one.
        gradient = others - one_hot * tf.reduce_sum(others, axis=1, keepdims=True)
        if not self.label_smoothing:
            return gradient
        return gradient + self.label_smoothing * (one_hot - 1.0 / outputs.shape[1])

    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        return tf.nn.softmax(outputs)

    def check_function(self, function: Function) -> None:
        check_choice("function", function, ("loss", "logit", "margin"))

    def evaluate(self, outputs: tf.Tensor, targets: tf.Tensor, function: Function = "loss") -> tf.Tensor:
        one_hot = tf.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        own = tf.reduce_sum(outputs * one_hot, axis=1)
        if function == "logit":
            return own
        margin = own - tf.reduce_logsumexp(_without(outputs, one_hot), axis=1)
        if function == "margin":
            return margin
        # TensorFlow's cross-entropy has the gradient p - 1, which loses the digits of an example well fitted.
        losses = tf.math.softplus(-margin)
        return losses + self.smoothing_term(outputs, one_hot) if self.label_smoothing else losses

    def gradient(self, outputs: tf.Tensor, targets: tf.Tensor, function: Function = "loss") -> tf.Tensor:
        if function == "loss":
            return self.loss_gradient(outputs, targets)
        one_hot = tf.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        return one_hot if function == "logit" else one_hot - tf.nn.softmax(_without(outputs, one_hot))

    def predicted(self, outputs: tf.Tensor) -> np.ndarray:
        return tf.argmax(outputs, axis=1).numpy()


@dataclass(frozen=True, repr=False)
class IndependentSigmoids(Objective):
    """Binary cross-entropy of every label by itself, averaged over the c labels as Keras does: multi-label models.

    Labels are rows of c zeros and ones. `target="prediction"` explains the label with the largest logit.

    Args:
        label_smoothing: s, 0 <= s < 1; a label y is compared with as `(1 - s) y + s / 2`, as in Keras.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.label_smoothing)

    def __repr__(self) -> str:
        return _named_with_smoothing(self)

    def from_native(self, outputs: tf.Tensor, link: str) -> tf.Tensor:
        return links.inverse_sigmoid(outputs) if link == "sigmoid" else outputs

    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        rows = to_rows(labels, num_outputs, "Labels of independent sigmoids")
        wrong = np.flatnonzero(((rows != 0) & (rows != 1)).any(axis=1))
        if wrong.size:
            raise RowsError(
                "Labels of independent sigmoids must be rows of zeros and ones.",
                wrong,
                {"first of these labels": labels[wrong[0]]},
            )
        return rows

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        targets = tf.cast(targets, outputs.dtype)
        # softplus(-margin) keeps the digits of a label that is fitted well.
        losses = tf.math.softplus((1.0 - 2.0 * targets) * outputs)
        if self.label_smoothing:
            losses += self.label_smoothing * (targets - 0.5) * outputs
        return tf.reduce_mean(losses, axis=1)

    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        signs = 1.0 - 2.0 * tf.cast(targets, outputs.dtype)
        gradient = signs * tf.sigmoid(signs * outputs)
        if self.label_smoothing:
            gradient -= self.label_smoothing * signs / 2.0
        return gradient / outputs.shape[1]

    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        return tf.sigmoid(outputs) * tf.sigmoid(-outputs) / outputs.shape[1]

    def predicted(self, outputs: tf.Tensor) -> np.ndarray:
        return tf.argmax(outputs, axis=1).numpy()


@dataclass(frozen=True)
class SquaredError(Objective):
    """Squared error, averaged over the c outputs as Keras does: `sum_j (z_j - y_j)^2 / c`."""

    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        return to_rows(labels, num_outputs, "Labels of a regression")

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean((outputs - tf.cast(targets, outputs.dtype)) ** 2, axis=1)

    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return 2.0 * (outputs - tf.cast(targets, outputs.dtype)) / outputs.shape[1]

    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        return tf.ones_like(outputs) * (2.0 / outputs.shape[1])


@dataclass(frozen=True)
class Huber(Objective):
    """Squared error up to `delta`, linear beyond it, averaged over the c outputs as Keras does.

    `sum_j h(z_j - y_j) / c`, with h(r) = r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2).
    """

    needs_targets: ClassVar[bool] = True
    delta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("delta", self.delta)

    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        return to_rows(labels, num_outputs, "Labels of a regression")

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        residuals = tf.abs(outputs - tf.cast(targets, outputs.dtype))
        inside = tf.minimum(residuals, self.delta)
        return tf.reduce_mean(inside**2 / 2 + self.delta * (residuals - inside), axis=1)

    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        residuals = outputs - tf.cast(targets, outputs.dtype)
        return tf.clip_by_value(residuals, -self.delta, self.delta) / outputs.shape[1]

    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        is_inside = tf.abs(outputs - tf.cast(targets, outputs.dtype)) <= self.delta
        return tf.cast(is_inside, outputs.dtype) / outputs.shape[1]


def _check_smoothing(label_smoothing: float) -> None:
    require(
        is_number(label_smoothing) and 0 <= label_smoothing < 1,
        "`label_smoothing` must be a number of at least 0 and below 1.",
        {"label_smoothing": label_smoothing},
    )


def _named_with_smoothing(objective: Objective) -> str:
    smoothing = objective.label_smoothing
    # Without any as in former releases, whose stores are keyed by it.
    return f"{type(objective).__name__}({f'label_smoothing={smoothing}' if smoothing else ''})"


def _without(logits: tf.Tensor, one_hot: tf.Tensor) -> tf.Tensor:
    """Send the own class' logit to where its exponential is exactly zero (not -inf: 0 * inf is NaN)."""
    return tf.where(one_hot > 0, logits.dtype.min, logits)
