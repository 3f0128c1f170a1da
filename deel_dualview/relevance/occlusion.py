"""Occlusion: what the influence of a pair loses when a patch of an image is covered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, require
from deel_dualview.relevance.scores import Score, ScoreBackEnd

_PATCHES_A_SIDE = 7


@dataclass(frozen=True)
class Occlusion(ScoreBackEnd):
    """The influence less that with a patch covered, spread evenly over the patch; no gradient is needed.

    tf-explain covers with 127.5, whatever the range of the pixels, and gives pictures; this is our own.

    Attributes:
        size: side of a patch in pixels; by default seven patches fit the longer side.
        fill: what pixels are covered with; by default the mean of the image in each channel.

    Source: Zeiler and Fergus (2014), section 4.2.
    """

    size: int | None = None
    fill: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            check_count("size", self.size)

    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        check_images(inputs, "occlusion")
        height, width = inputs.shape[1:3]
        size = self.size or math.ceil(max(height, width) / _PATCHES_A_SIDE)
        cover = (
            tf.reduce_mean(inputs, axis=(1, 2), keepdims=True)
            if self.fill is None
            else tf.constant(self.fill, tf.float32)
        )
        whole = score(inputs, rows)
        found = tf.zeros_like(inputs)
        for top in range(0, height, size):
            for left in range(0, width, size):
                is_covered = np.zeros((1, height, width, 1), bool)
                is_covered[:, top : top + size, left : left + size] = True
                lost = whole - score(tf.where(is_covered, cover, inputs), rows)
                share = is_covered.astype(np.float32) / (is_covered.sum() * inputs.shape[3])
                found += lost[:, tf.newaxis, tf.newaxis, tf.newaxis] * share
        return found


def check_images(inputs: tf.Tensor, rule: str) -> None:
    """Refuse inputs that are not images.

    Raises:
        ValueError: they are not of shape (b, height, width, channels).
    """
    require(
        inputs.shape.rank == 4,
        f"rule={rule!r} explains images, of shape (b, height, width, channels).",
        {"shape": tuple(inputs.shape)},
    )
