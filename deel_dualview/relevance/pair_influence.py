"""The influence of known pairs as a function of the features of one side."""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf

from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.contributions import FeatureContributions, Pairs

Varied = Literal["features", "train_features"]
"""Which field of the pairs varies: the features of the evaluated or of the training examples."""


class PairInfluence:
    """The influence of pairs as a function of the features of one side; those of the other side are fixed.

    Differentiable: also what the features change of the length that they are divided by, or of the gradient of a
    loss. Explained classes, labels and coefficients stay what they are.

    Args:
        calculator: whose influence it is.
        pairs: all of them, one evaluated example for each, so that features has shape (p, d).
        varied: which side varies.
    """

    def __init__(self, calculator: BaseInfluenceCalculator, pairs: Pairs, varied: Varied) -> None:
        self._calculator = calculator
        self._pairs = pairs
        self._varied = varied

    def __call__(self, features: tf.Tensor, rows: np.ndarray) -> FeatureContributions:
        """Return the influence, by features, of pairs with other features on one side.

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
        return self._calculator.feature_contributions(chosen._replace(**{self._varied: features}))

    def of_features(self, features: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
        """Return the influence without the share of the constant feature, shape (n,)."""
        return tf.reduce_sum(self(features, rows).features, axis=1)

    def whole(self, features: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
        """Return the influence, shape (n,)."""
        contributions = self(features, rows)
        return tf.reduce_sum(contributions.features, axis=1) + contributions.constant
