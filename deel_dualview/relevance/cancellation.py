"""Cancellation in heatmaps, and whether gradients times inputs have less of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview.models import InfluenceModel
from deel_dualview.models.inputs import structure_of, used
from deel_dualview.relevance.base import Side
from deel_dualview.relevance.layerwise import feature_function, looks_up
from deel_dualview.relevance.scores import Score, of_rows
from deel_dualview.typing import Inputs

MUCH_CANCELLATION = 5.0
"""From this cancellation on, gradients times inputs are computed for comparison."""
WORSE = 1.05
"""This many times the cancellation of gradients times inputs is worse than it: less may be rounding and stabilisers."""


def cancellation(relevance: Inputs, num_lead: int, explained: Any) -> np.ndarray:
    """Return sum |relevance| / |explained| of every pair: 1 where nothing cancels and nothing leaks.

    Args:
        relevance: of the pairs, each tensor of their shape and (...).
        num_lead: how many axes the shape of the pairs has.
        explained: what the heatmap of each should add up to.

    Returns:
        In the shape of `explained`, float32; infinite where nothing is to be explained and something is shown.
    """
    parts = [np.abs(np.asarray(part, np.float64)) for part in tf.nest.flatten(relevance)]
    sizes = sum(part.reshape(*part.shape[:num_lead], -1).sum(axis=-1) for part in parts)
    explained = np.abs(np.asarray(explained, np.float64))
    found = np.divide(sizes, explained, out=np.where(sizes > 0, np.inf, 0.0), where=explained > 0)
    return found.astype(np.float32)


class GradientCancellation:
    """Cancellation of gradients times inputs, for the pairs whose heatmaps have much.

    Costs one pass forward and one back for each of these pairs, and nothing for the others.

    Args:
        model: which the influence is of.
    """

    def __init__(self, model: InfluenceModel) -> None:
        self._features_of = None if looks_up(model) else feature_function(model)
        self._structure = structure_of(model.model)

    def __call__(self, side: Side, own: np.ndarray, explained: np.ndarray) -> np.ndarray:
        """Return the cancellation of gradients times inputs, shape (p,), float32.

        Args:
            side: of p pairs.
            own: cancellation of the heatmaps, shape (p,).
            explained: what they should add up to, shape (p,).

        Returns:
            NaN for pairs without much cancellation, and for inputs that have no gradient or are several.
        """
        found = np.full(len(own), np.nan, np.float32)
        rows = np.flatnonzero(own > MUCH_CANCELLATION)
        if not len(rows) or self._features_of is None:
            return found
        tensors = used(self._structure, side.inputs)
        if len(tensors) == 1:
            inputs = tf.cast(tensors[0], tf.float32)
            products = of_rows(self._features_of, side, inputs, rows, _products)
            found[rows] = cancellation(products, 1, explained[rows])
        return found


def is_worse(own: Any, of_gradients: Any) -> np.ndarray:
    """Tell of which pairs the heatmap has more cancellation than gradients times inputs; not where that is unknown."""
    return np.asarray(own) > WORSE * np.nan_to_num(np.asarray(of_gradients), nan=np.inf)


def _products(inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = score(inputs, rows)
    try:
        gradients = tape.gradient(values, inputs)
    except LookupError:
        # An operation that relevance has a rule for, and TensorFlow no gradient.
        gradients = None
    if gradients is None:
        return tf.fill(tf.shape(inputs), np.nan)
    return inputs * tf.where(tf.math.is_finite(gradients), gradients, tf.zeros_like(gradients))
