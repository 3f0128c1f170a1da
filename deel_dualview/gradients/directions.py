"""Per-example gradients at unit length, right also where the gradient itself is too small for float32."""

import numpy as np
import tensorflow as tf

from deel_dualview.gradients.per_example import PerExampleGradients
from deel_dualview.gradients.preconditioner import AdamPreconditioner
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.typing import Inputs


class UnitGradients:
    """Gradients of every example divided by their norms; one that is zero stays zero.

    The gradient of the cross-entropy of class y is -(1 - p_y) times that of its margin, and 1 - p_y is 0 in float32
    beyond a margin of about 100. The direction is therefore taken from the margin, whose gradient has the size of the
    features however certain the model is.

    Args:
        gradients: what is divided by its norm: the weights, the function and the projection.
        preconditioner: D of the norm sqrt(<g, D g>); by default the Euclidean one.
    """

    def __init__(
        self, gradients: PerExampleGradients, preconditioner: AdamPreconditioner | None = None
    ) -> None:
        self._sign, self._gradients, self._preconditioner = 1.0, gradients, preconditioner
        objective = gradients.model.objective
        # With smoothed labels the gradient is no multiple of the margin's.
        if gradients.function == "loss" and gradients.model.is_classifier and not objective.label_smoothing:
            self._sign, self._gradients = -1.0, gradients.of_function("margin")

    def __call__(self, inputs: Inputs, targets: np.ndarray | tf.Tensor) -> Blocks:
        """Return the unit gradients of a batch at `targets` (b, ...), each block (b, ...)."""
        return self._unit(self._gradients(inputs, targets))

    @property
    def is_closed_last_layer(self) -> bool:
        """Whether they follow from the features, see `PerExampleGradients`."""
        return self._gradients.is_closed_last_layer

    def from_features(self, features: tf.Tensor, logits: tf.Tensor, targets: np.ndarray) -> Blocks:
        """Return the unit gradients in the last layer where features (b, d) and outputs (b, c) are known."""
        return self._unit(self._gradients.from_features(features, logits, targets))

    def _unit(self, gradients: Blocks) -> Blocks:
        found = blocks.scaled(blocks.unit(gradients), self._sign)
        if self._preconditioner is None:
            return found
        norms = tf.sqrt(self._preconditioner.squared_norms(found))
        return blocks.scaled(found, tf.math.divide_no_nan(tf.ones_like(norms), norms)[:, tf.newaxis])
