"""A loss of the user's own as an objective, differentiated automatically."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.models import links
from deel_dualview.models.labels import to_rows
from deel_dualview.models.objectives import HessianKind, Objective

_MOST_OUTPUTS = 64


@dataclass(frozen=True, repr=False)
class CustomLoss(Objective):
    """Any loss, differentiated automatically in the outputs: for models of at most 64 outputs.

    Args:
        function: `function(labels, outputs)`, as Keras writes losses, to the loss of every example, shape (b,), from
            labels (b, t), float32, and the outputs of the model (b, c), float32 or float64. It must be twice
            differentiable, and treat every example by itself.
        link: how the outputs of the model follow from those of its last layer: `"logits"` (they are the same),
            `"softmax"`, `"sigmoid"`, or `"relu"`, `"exponential"`, `"softplus"`. An InfluenceModel finds it.

    Raises:
        TypeError: `function` cannot be called.
    """

    hessian_kind: ClassVar[HessianKind] = "full"
    needs_targets: ClassVar[bool] = True
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    link: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                describe(
                    "A custom loss must be a function of labels and outputs.", {"function": self.function}
                )
            )

    def __repr__(self) -> str:
        return f"CustomLoss({self._name}, link={self.link!r})"

    @property
    def _name(self) -> str:
        """Name of the function, without its address."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def from_native(self, outputs: tf.Tensor, link: str) -> tf.Tensor:
        if link == "softmax":
            return links.log_softmax(outputs)
        return links.inverse_sigmoid(outputs) if link == "sigmoid" else outputs

    def targets(self, labels: np.ndarray, num_outputs: int) -> np.ndarray:
        require(
            num_outputs <= _MOST_OUTPUTS,
            f"A custom loss is differentiated output by output, up to {_MOST_OUTPUTS} of them: use an "
            "objective with closed forms (SoftmaxCrossEntropy, IndependentSigmoids, SquaredError, Huber).",
            {"outputs": num_outputs},
        )
        return to_rows(labels, None, "Labels of a custom loss")

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        native = links.native_of(outputs, self.link or "logits")
        values = tf.convert_to_tensor(self.function(tf.cast(targets, outputs.dtype), native))
        require(
            values.shape.rank == 1,
            "A custom loss must return one number for every example, shape (b,): do not average over the batch "
            "(reduction='none').",
            {"shape": values.shape},
        )
        return tf.cast(values, outputs.dtype)

    def loss_gradient(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            values = self.loss(outputs, targets)
        return tape.gradient(values, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def hessian_factor(self, outputs: tf.Tensor, targets: tf.Tensor | None = None) -> tf.Tensor:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            columns = tf.unstack(self.loss_gradient(outputs, targets), axis=1)
        rows = [
            tape.gradient(column, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            for column in columns
        ]
        matrices = tf.stack(rows, axis=1)
        return (matrices + tf.linalg.matrix_transpose(matrices)) / 2.0

    def describe(self) -> str:
        """Return the name of the function and a hash of its gradients at fixed points: code has no other identity."""
        generator = np.random.default_rng(0)
        found = []
        for width in (1, 2, 3, 10):
            outputs = tf.constant(generator.normal(size=(8, width)))
            for labels in (generator.random((8, width)), generator.integers(0, width, (8, 1)).astype(float)):
                try:
                    found.append(self.loss_gradient(outputs, tf.constant(labels)).numpy().tobytes())
                except (ValueError, TypeError, tf.errors.OpError):
                    found.append(b"refused")
        digest = hashlib.sha256(b"".join(found)).hexdigest()
        return f"CustomLoss({self._name}, {self.link}, {digest})"
