"""Small pictures of arrays as `data:` addresses: images by Pillow, signals as SVG lines."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SMALLEST_IMAGE_SIDE = 6
LARGEST_PIXELATED_SIDE = 64
LARGEST_SIDE = 160
SIGNAL_WIDTH, SIGNAL_HEIGHT = 160, 48
MAX_SIGNAL_POINTS, MAX_CHANNELS = 160, 4
MAX_COLUMNS = 64


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether an array of this shape is an image: (h, w) or (h, w, 1 | 3 | 4), not too narrow."""
    if len(shape) == 3 and shape[2] not in (1, 3, 4):
        return False
    if len(shape) not in (2, 3):
        return False
    short, long = sorted(shape[:2])
    return short >= SMALLEST_IMAGE_SIDE and long <= 8 * short


def choose_range(low: float, high: float, dtype: np.dtype) -> tuple[float, float]:
    """Choose which values are black and white, from the extremes over all images that are shown.

    Bytes keep 0 to 255; floats keep a customary range ([0, 1], [-1, 1], [0, 255]) that they fill at least in
    part, otherwise their own extremes.
    """
    if dtype == np.uint8:
        return 0.0, 255.0
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    if low >= 0 and 128 < high <= 255:
        return 0.0, 255.0
    return low, high


def image_to_address(array: np.ndarray, low: float, high: float) -> str:
    """Encode an image (h, w[, 1 | 3 | 4]) as a `data:` address: PNG if small, else a reduced WebP.

    Values are mapped from [low, high] to black and white and clipped; what is not finite is black.
    """
    values = np.nan_to_num(np.asarray(array, np.float64), nan=low, posinf=high, neginf=low)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    pixels = np.round(255 * scaled).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if max(picture.size) <= LARGEST_PIXELATED_SIDE:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        picture.save(buffer, "WEBP", quality=80)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def signal_to_points(array: np.ndarray, low: float, high: float) -> tuple[str, ...]:
    """Turn a signal (length,) or (length, channels) into SVG `points`, one line per channel (the first few).

    Long signals are thinned to the extremes of equal stretches, so that a spike stays visible.
    """
    channels = np.asarray(array, np.float64).reshape(len(array), -1).T[:MAX_CHANNELS]
    return tuple(_line(channel, low, high) for channel in np.nan_to_num(channels))


def _line(values: np.ndarray, low: float, high: float) -> str:
    if len(values) > MAX_SIGNAL_POINTS:
        stretches = np.array_split(values, MAX_SIGNAL_POINTS // 2)
        values = np.array([extreme for part in stretches for extreme in (part.min(), part.max())])
    across = np.linspace(1, SIGNAL_WIDTH - 1, len(values))
    height = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    down = SIGNAL_HEIGHT - 2 - (SIGNAL_HEIGHT - 4) * height
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
