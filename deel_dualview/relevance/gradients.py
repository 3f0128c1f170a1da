"""Gradients, integrated gradients and SmoothGrad of the influence of a pair, through tf-explain's helpers.

tf-explain's `explain` gives pictures (absolute values, one channel, 0..255) of a class score. Its helpers below give
numbers, of whatever they are handed as the model. They are called as plain Python functions: as the `tf.function`s that
they are, they would be traced anew for every batch of pairs, and keep all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, describe
from deel_dualview.models import InfluenceModel
from deel_dualview.relevance.scores import NOT_DIFFERENTIABLE, Score, ScoreBackEnd, check_differentiable


class GradientBackEnd(ScoreBackEnd):
    """A back end that needs tf-explain and gradients with respect to the inputs."""

    def check(self, model: InfluenceModel) -> None:
        check_differentiable(model)
        tf_explain()


@dataclass(frozen=True)
class GradientsInputs(GradientBackEnd):
    """Gradient of the influence times the input: what a small change of every pixel in proportion would do.

    Source: Shrikumar et al. (2017), section 2.2.
    """

    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        return inputs * _gradients(inputs, rows, score)


@dataclass(frozen=True)
class IntegratedGradients(GradientBackEnd):
    """Gradients between a baseline and the input, averaged, times their difference.

    Adds up to the influence less that of the baseline in the place of the example. tf-explain leaves the difference
    out, and weighs the ends of the path like all other points; here the points are the middles of equal steps.

    Attributes:
        num_steps: points on the way.
        baseline: the value of every pixel where nothing is seen, in the unit of the inputs: black.

    Source: Sundararajan et al. (2017), equations 1 and 3.
    """

    num_steps: int = 20
    baseline: float = 0.0

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)

    @property
    def rows_per_pair(self) -> int:
        return self.num_steps

    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        difference = inputs - self.baseline
        fractions = (np.arange(self.num_steps, dtype=np.float32) + 0.5) / self.num_steps
        fractions = fractions.reshape(1, -1, *[1] * (inputs.shape.rank - 1))
        points = self.baseline + fractions * difference[:, tf.newaxis]
        repeated = np.repeat(rows, self.num_steps)
        averaged = tf_explain().IntegratedGradients.get_integrated_gradients.python_function(
            tf.reshape(points, (-1, *inputs.shape[1:])),
            lambda changed: _column(score(changed, repeated)),
            0,
            self.num_steps,
        )
        return difference * _finite(averaged)


@dataclass(frozen=True)
class SmoothGrad(GradientBackEnd):
    """Gradients at noisy copies of the input, averaged, times the input.

    tf-explain's own average is of the gradient of a loss of probabilities, and its noise of NumPy's global generator;
    only its gradient is taken.

    Attributes:
        num_samples: noisy copies.
        noise: deviation of the noise, as a fraction of each example's range of values.
        seed: of the noise, which is the same for every pair.

    Source: Smilkov et al. (2017), section 3.
    """

    num_samples: int = 20
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("num_samples", self.num_samples)
        check_positive("noise", self.noise)

    @property
    def rows_per_pair(self) -> int:
        return self.num_samples

    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        shape = (1, self.num_samples, *inputs.shape[1:])
        axes = list(range(1, inputs.shape.rank))
        largest, least = (reduce(inputs, axes, keepdims=True) for reduce in (tf.reduce_max, tf.reduce_min))
        deviation = self.noise * (largest - least)
        noisy = inputs[:, tf.newaxis] + deviation[:, tf.newaxis] * tf.random.stateless_normal(
            shape, (self.seed, 0)
        )
        repeated = np.repeat(rows, self.num_samples)
        gradients = _gradients(tf.reshape(noisy, (-1, *inputs.shape[1:])), repeated, score)
        return inputs * tf.reduce_mean(tf.reshape(gradients, noisy.shape), axis=1)


def tf_explain() -> Any:
    """Return tf-explain's module of explainers.

    Raises:
        ImportError: it, or OpenCV that it needs, is not installed.
    """
    try:
        from tf_explain import core
    except ImportError as error:
        needed = (
            "This rule calls tf-explain, which is not installed (or OpenCV, which it needs): "
            "pip install 'deel-dualview[tf-explain]'. Rules of layer-wise relevance propagation and 'occlusion' go "
            "without."
        )
        raise ImportError(describe(needed, {"error": str(error)})) from error
    return core


def _gradients(inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
    gradients = tf_explain().VanillaGradients.compute_gradients.python_function(
        inputs, lambda changed: _column(score(changed, rows)), 0
    )
    return _finite(gradients)


def _column(values: tf.Tensor) -> tf.Tensor:
    """Return influence values as a model's only output."""
    return values[:, tf.newaxis]


def _finite(gradients: tf.Tensor | None) -> tf.Tensor:
    """Return gradients; where the length of a row of zeros was differentiated, 0."""
    if gradients is None:
        raise ValueError(NOT_DIFFERENTIABLE)
    return tf.where(tf.math.is_finite(gradients), gradients, tf.zeros_like(gradients))
