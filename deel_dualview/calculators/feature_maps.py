"""How penultimate features enter a kernel surrogate: as they are, shortened or z-scored, and a bias."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.linalg.rows import LazyRows
from deel_dualview.typing import Kernel

_BLOCK_SIZE = 8192
# Between them, float32 sums of squares are as exact as ever.
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-25, 1e35

TEMPERED_POWER = 0.1
"""Largest power to which the tempered kernel raises the length of the features."""


class FeatureMap(NamedTuple):
    """phi(x) of a surrogate: `[(features - shift) / scale, at another length, optionally 1]`.

    Attributes:
        shift: shape (d,), float32.
        scale: shape (d,), float32, never zero.
        power: rows of length l get the length l^power: 1 leaves them as they are, 0 is unit length. A zero row
            stays zero.
        has_bias: whether the constant 1 is appended as the last feature.
    """

    shift: np.ndarray
    scale: np.ndarray
    power: float
    has_bias: bool

    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        """Map features (b, d) to kernel features (b, d) or, with a bias, (b, d + 1)."""
        mapped = (tf.cast(features, tf.float32) - self.shift) / self.scale
        if self.power != 1:
            # By the largest entry first: the square of a large one would overflow. A zero row is divided by 1, so that
            # its gradient is finite too.
            largest = _positive(tf.reduce_max(tf.abs(mapped), axis=1, keepdims=True))
            mapped = mapped / largest
            length = tf.sqrt(_positive(tf.reduce_sum(mapped**2, axis=1, keepdims=True)))
            mapped = mapped / length * (length**self.power * largest**self.power)
        if self.has_bias:
            mapped = tf.concat([mapped, tf.ones((tf.shape(mapped)[0], 1))], axis=1)
        return mapped

    def of_array(self, features: np.ndarray) -> np.ndarray:
        """Map an array, as a call does but for roundings, with few passes over it."""
        is_scaled = self.shift.any() or bool((self.scale != 1).any())
        mapped = (features - self.shift) / self.scale if is_scaled else features
        if self.power != 1:
            squares = np.einsum("nd,nd->n", mapped, mapped)
            if not ((squares > _LEAST_SQUARE) & (squares < _LARGEST_SQUARE)).all():
                # Rows of zeros, too.
                return np.asarray(self(features))
            mapped = mapped * squares[:, np.newaxis] ** np.float32((self.power - 1) / 2)
        return np.pad(mapped, ((0, 0), (0, 1)), constant_values=1) if self.has_bias else mapped

    @property
    def is_identity(self) -> bool:
        """Whether features stay what they are."""
        return (
            self.power == 1 and not self.has_bias and not self.shift.any() and bool((self.scale == 1).all())
        )

    def weights_on_features(self, weights: np.ndarray) -> np.ndarray:
        """Return the surrogate's weights (d [+ 1], c) as weights (d, c) on the features before the map.

        At another length they are so up to one positive factor an example, which changes no direction.
        """
        return weights[: len(self.scale)] / self.scale[:, np.newaxis]


def fit_feature_map(
    features: np.ndarray | LazyRows, kernel: Kernel, bias: bool, power: float = TEMPERED_POWER
) -> FeatureMap:
    """Make the map for a kernel, from the training features where it needs statistics.

    Args:
        features: training features, shape (n, d).
        kernel: `"tempered"`, `"cosine"`, `"linear"` or `"standardized"`; the last leaves features that never vary (a
            dead ReLU) at zero instead of dividing by their zero deviation.
        bias: whether to append the constant 1.
        power: of the length under the tempered kernel.
    """
    num_features = features.shape[1]
    shift, scale = np.zeros(num_features, np.float32), np.ones(num_features, np.float32)
    if kernel == "standardized":
        mean, deviation = _moments(features)
        shift = mean.astype(np.float32)
        # Rounding alone makes a constant feature deviate, in proportion to its size.
        varies = deviation > 1e-5 * np.maximum(np.abs(mean), deviation.max(initial=1e-30))
        scale = np.where(varies, deviation, 1.0).astype(np.float32)
    powers = {"cosine": 0.0, "tempered": power}
    return FeatureMap(shift, scale, powers.get(kernel, 1.0), bias)


def _moments(features: np.ndarray | LazyRows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns, in two passes, float64."""
    blocks = [slice(start, start + _BLOCK_SIZE) for start in range(0, len(features), _BLOCK_SIZE)]
    mean = sum(features[rows].sum(axis=0, dtype=np.float64) for rows in blocks) / len(features)
    squares = sum(((features[rows] - mean) ** 2).sum(axis=0) for rows in blocks)
    return mean, np.sqrt(squares / len(features))


def _positive(sizes: tf.Tensor) -> tf.Tensor:
    return tf.where(sizes > 0, sizes, tf.ones_like(sizes))
