"""Per-example gradients in the last Dense layer, in closed form and factored."""

import functools
from functools import cached_property
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, describe
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.heads import Head
from deel_dualview.models.objectives import Objective
from deel_dualview.typing import Function, Inputs


class LastLayerGradients:
    """Gradients in the last Dense layer: `delta (x) [phi, 1]`, both factors kept.

    The function that is differentiated is the loss at a target (for a classifier the cross-entropy of a class), or a
    class' logit or log odds. Rows of the gradient are those of the transposed kernel with the bias as its last
    column: size p = outputs * (d + has_bias). A binary classifier with one output z has one row: its logits are (-z /
    2, z / 2), so the gradient of a logit is +-phi / 2. A fixed affine step after the layer, such as a temperature, is
    differentiated through.

    Args:
        model: a model with a linear head.
        function: `"loss"`, `"logit"` or `"margin"`.

    Raises:
        ValueError: an unknown function, or (at the first call) a model without a linear head.
    """

    def __init__(self, model: InfluenceModel, function: Function = "loss") -> None:
        check_choice("function", function, get_args(Function))
        self.model = model
        self.function = function

    def __call__(self, inputs: Inputs, targets: np.ndarray | tf.Tensor) -> Blocks:
        """Return the gradients of a batch at `targets` (b, ...), as one OuterProduct."""
        return self.from_features(*self.model.features_and_logits(inputs), targets)

    def from_features(
        self, features: tf.Tensor, logits: tf.Tensor, targets: np.ndarray | tf.Tensor
    ) -> tuple[OuterProduct]:
        """Return the gradients where features (b, d) and outputs (b, c) are known already."""
        model, targets = self.model, tf.convert_to_tensor(targets)
        model.objective.check_function(self.function)
        specs = tuple(tracing.relaxed_spec(part) for part in (features, logits, targets))
        factors = _factors(model.objective, self.function, model.is_binary, self.head.has_bias, specs)
        delta, extended = factors(features, logits, targets)
        return (OuterProduct(self.head.pulled(delta), extended),)

    @property
    def size(self) -> int:
        """Number of parameters p of the last layer."""
        num_outputs, has_bias = self._shape
        return num_outputs * (self.model.num_features + has_bias)

    @cached_property
    def head(self) -> Head:
        """The last layer.

        Raises:
            ValueError: the model's features feed none, or its weights are not a kernel and a bias.
        """
        head = self.model.split.head
        if head is not None and not head.is_plain:
            needed = (
                "The last layer has no closed form: what it multiplies by is not its kernel itself (LoRA, or a class "
                "of one's own)."
            )
            raise ValueError(describe(needed, {"layer": head.layer.name}))
        if head is None:
            needed = (
                "Gradients in the last layer need a model whose features feed its last Dense layer; choose "
                "layers by name instead, weights=[NAME, ...] or weights='all', or a method that needs no linear last "
                "layer: DualView, RepresenterPointL2 or FeatureSimilarity."
            )
            raise ValueError(describe(needed, {"feature_layer": self.model.feature_layer}))
        return head

    @property
    def _shape(self) -> tuple[int, bool]:
        """Number of the layer's own outputs (one in a model with one output), whether it has a bias."""
        return self.head.units, self.head.has_bias


@functools.cache
def _factors(objective: Objective, function: Function, is_binary: bool, has_bias: bool, specs: Any) -> Any:
    """Return a function of features, outputs and targets that is traced once, for batches of any size."""

    @tf.function(input_signature=specs, autograph=False)
    def factors(features: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        delta = objective.gradient(logits, targets, function)
        if is_binary:
            # d(-z / 2, z / 2) / dz.
            delta = (delta[:, 1:] - delta[:, :1]) / 2.0
        ones = tf.ones((tf.shape(features)[0], int(has_bias)))
        return delta, tf.concat([features, ones], axis=1)

    return factors
