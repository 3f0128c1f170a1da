"""A few numbers of every image, from the pass that reads the contents: what an eye sees before it sees the object."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data

BRIGHTNESS, CONTRAST, SHARPNESS, COLOUR = "brightness", "contrast", "sharpness", "colour"
PROPERTIES = (BRIGHTNESS, CONTRAST, SHARPNESS, COLOUR)
SMALLEST_SIDE, SMALLEST_SHARP_SIDE = 8, 16
"""Smaller arrays are no images; in small ones every edge is as sharp as any."""
_LARGEST_SIDE = 128
"""Of larger images every second (third, ...) pixel is read, and for the sharpness the centre."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""


def is_images(shape: tuple[int, ...]) -> bool:
    """Return whether a batch of this shape holds images: (b, h, w, 1 | 3 | 4), or square ones without channels.

    Without channels only square arrays are taken for images, since others may be signals.
    """
    if len(shape) == 3:
        return shape[1] == shape[2] >= SMALLEST_SIDE
    return len(shape) == 4 and shape[3] in (1, 3, 4) and min(shape[1:3]) >= SMALLEST_SIDE


def measure(images: np.ndarray) -> np.ndarray:
    """Return the properties of images (b, h, w[, channels]), shape (b, 4) float32, in the units of the pixels.

    Brightness is the mean of the luminance, contrast its standard deviation, sharpness the standard deviation of its
    Laplacian over the contrast (which does not change with the scale of the pixels), colour the mean difference
    between the largest and the smallest channel. NaN is what an image does not have: sharpness where it is of one
    colour or small, colour where it has one channel.
    """
    channels = images if images.ndim == 4 else images[..., np.newaxis]
    height, width = channels.shape[1:3]
    step = -(-max(height, width) // _LARGEST_SIDE)
    found = np.full((len(channels), len(PROPERTIES)), np.nan, np.float32)
    thinned = channels[:, ::step, ::step].astype(np.float32)
    luminance = _luminance(thinned)
    found[:, 0] = luminance.mean(axis=(1, 2))
    found[:, 1] = luminance.std(axis=(1, 2))
    # Rounding leaves a constant image a little of it.
    found[luminance.max(axis=(1, 2)) == luminance.min(axis=(1, 2)), 1] = 0
    if min(height, width) >= SMALLEST_SHARP_SIDE:
        centre = luminance if step == 1 else _luminance(_centre(channels).astype(np.float32))
        with np.errstate(divide="ignore", invalid="ignore"):
            sharpness = _laplacian(centre).std(axis=(1, 2)) / centre.std(axis=(1, 2))
        found[:, 2] = np.where(np.isfinite(sharpness) & (found[:, 1] > 0), sharpness, np.nan)
    if thinned.shape[3] >= 3:
        red, green, blue = (thinned[..., channel] for channel in range(3))
        largest, smallest = (way(way(red, green), blue) for way in (np.maximum, np.minimum))
        found[:, 3] = (largest - smallest).mean(axis=(1, 2))
    return found


class ImageProperties:
    """Collects the properties of the images of both sets, batch by batch: 16 bytes of each.

    Where the model has several inputs they are those of the first that is images.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}
        self._low, self._high = np.inf, -np.inf

    def add(self, inputs: Any, split: str) -> None:
        """Measure the images of a batch of `"train"` or `"test"`, if there are any."""
        for leaf in tf.nest.flatten(inputs):
            if is_images(tuple(leaf.shape)) and (leaf.dtype.is_floating or leaf.dtype.is_integer):
                images = data.to_array(leaf)
                self._low = min(self._low, float(images.min()))
                self._high = max(self._high, float(images.max()))
                self._parts.setdefault(split, []).append(measure(images))
                return

    def of(self, split: str) -> np.ndarray | None:
        """Return the properties (n, 4) of a set; None where it has no images, or all are of one colour.

        Brightness, contrast and colour are shares of the range of the pixels of both sets.
        """
        parts = self._parts.get(split)
        if not parts or not self._high > self._low:
            return None
        found = np.concatenate(parts).astype(np.float64)
        found[:, 0] -= self._low
        found[:, [0, 1, 3]] /= self._high - self._low
        return found


def _luminance(images: np.ndarray) -> np.ndarray:
    if images.shape[3] < 3:
        return images[..., 0]
    red, green, blue = (weight * images[..., channel] for channel, weight in enumerate(_LUMINANCE))
    red += green
    red += blue
    return red


def _laplacian(values: np.ndarray) -> np.ndarray:
    """Return the sum of the four neighbours less four times the pixel, inside the border."""
    found = -4 * values[:, 1:-1, 1:-1]
    found += values[:, :-2, 1:-1]
    found += values[:, 2:, 1:-1]
    found += values[:, 1:-1, :-2]
    found += values[:, 1:-1, 2:]
    return found


def _centre(images: np.ndarray) -> np.ndarray:
    starts = [max(0, (size - _LARGEST_SIDE) // 2) for size in images.shape[1:3]]
    return images[:, starts[0] : starts[0] + _LARGEST_SIDE, starts[1] : starts[1] + _LARGEST_SIDE]
