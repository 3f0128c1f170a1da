"""What every way from the influence of a pair to the parts of its inputs has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.contributions import Pairs
from deel_dualview.models import InfluenceModel
from deel_dualview.typing import Inputs


class Side(NamedTuple):
    """The training or the evaluated examples of pairs, the other side of which is fixed.

    Attributes:
        inputs: of b examples, each of which stands in r pairs in a row.
        start: what every penultimate feature contributes to the influence of a pair, shape (b r, d).
        influence: of pairs as a function of this side's features; the constant feature's share is left out.
    """

    inputs: Inputs
    start: tf.Tensor
    influence: Influence


Explainer: TypeAlias = Callable[[Side], Inputs]
"""From a side to the relevance of its inputs: in their structure, each tensor (b r, ...), float32."""


class BackEnd(ABC):
    """A way to trace the influence of a pair back to the inputs of one side; frozen settings.

    Relevance is in the unit of the influence value, positive where it supports the explained output.
    """

    @abstractmethod
    def prepare(self, model: InfluenceModel) -> Explainer:
        """Return the explainer of a model's inputs.

        Args:
            model: which the influence is of.

        Raises:
            ValueError: the model cannot be explained in this way.
            ImportError: a package is missing; the message tells how to install it.
        """


class Influence:
    """The influence of pairs as a function of the features of one side; those of the other side are fixed.

    Differentiable: also what the features change of the length that they are divided by, or of the gradient of a
    loss. Explained classes, labels and coefficients stay what they are.

    Args:
        calculator: whose influence it is.
        pairs: all of them, one evaluated example for each, so that features has shape (p, d).
        side: `"features"` or `"train_features"`: which field of the pairs varies.
    """

    def __init__(self, calculator: BaseInfluenceCalculator, pairs: Pairs, side: str) -> None:
        self._calculator = calculator
        self._pairs = pairs
        self._side = side

    def __call__(self, features: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
        """Return the influence of pairs with other features on one side.

        Args:
            features: shape (n, d).
            rows: which pair each of them stands in, shape (n,).
        """
        pairs = self._pairs
        chosen = Pairs(
            tf.gather(pairs.features, rows),
            pairs.classes[rows],
            tf.gather(pairs.train_features, rows),
            pairs.train_labels[rows],
            pairs.train_indices[rows],
        )
        chosen = chosen._replace(**{self._side: features})
        return tf.reduce_sum(self._calculator.feature_contributions(chosen).features, axis=1)
