"""Relevance as the page shows it: reduced to what a small picture can hold, then a picture, tokens or bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from deel_dualview._checks import require
from deel_dualview.report import pictures

LARGEST_MAP_SIDE = 64
"""Larger maps are summed over squares of pixels: a report draws them no larger than this."""

Kind = Literal["image", "signal", "tokens", "columns"]


@dataclass(frozen=True)
class PairShares:
    """What the two heatmaps of a pair do not show of its influence value, in its unit.

    On either side, the sum of the relevance, `bias_share` and the side's leak add up to the value. `bias_share` belongs
    to the constant feature of a last layer with a bias; the leaks are what biases and stabilisers of the layers took.
    The cancellation of a side is the sum of |relevance| over what it should add up to, without a unit; beside it that
    of gradients times inputs, None where it was not needed (little cancellation) or cannot be had.
    """

    bias_share: float
    train_leak: float
    test_leak: float
    train_cancellation: float | None = None
    test_cancellation: float | None = None
    train_gradient_cancellation: float | None = None
    test_gradient_cancellation: float | None = None

    def seen(self, value: float) -> tuple[float, float]:
        """Return what the training and the test heatmap add up to, as shares of the influence: above 1 is too much."""
        shown = value - self.bias_share
        return (shown - self.train_leak) / value, (shown - self.test_leak) / value


class PairMaps(NamedTuple):
    """Relevance of one pair, in the unit of its influence value; both in the shape of what is drawn.

    Attributes:
        train: of the training example: (h, w) of an image, (length,) of a signal or of tokens, (columns,).
        test: of the evaluated example in view of it.
        kind: how both are drawn.
        train_inputs: tokens, words or values of columns of the training example, each of which has a number; None of
            images and signals.
        test_inputs: those of the evaluated example.
        names: of columns that are inputs of their own.
    """

    train: np.ndarray
    test: np.ndarray
    kind: Kind
    train_inputs: Any = None
    test_inputs: Any = None
    names: tuple[str, ...] = ()


def kind_of(example: Any, *, has_tokens: bool) -> Kind:
    """Tell how the relevance of an example's inputs is drawn.

    Args:
        example: the inputs of one example, without a batch dimension.
        has_tokens: whether the model looks its inputs up in an Embedding.

    Raises:
        ValueError: it is not drawn: several inputs that are no columns, or neither image, text, row nor signal.
    """
    if not isinstance(example, np.ndarray):
        require(
            all(np.ndim(part) < 2 for part in _named(example).values()),
            "Of a model of several inputs, pair relevance is shown in an image, a text or columns; this one has none.",
            {},
        )
        return "columns"
    shape = example.shape
    if pictures.is_image(shape):
        return "image"
    if example.dtype.kind in "OSU" and example.size == 1:
        return "tokens"
    if len(shape) == 1:
        return "tokens" if has_tokens else _row_or_signal(shape[0])
    require(
        len(shape) == 2,
        "Pair relevance is shown for images, signals, rows of numbers and tokens; these inputs are none of them.",
        {"shape": shape},
    )
    return "signal"


def shown_input(example: Any, *, has_tokens: bool) -> Any:
    """Return the key or the place of the first image among several inputs, else of the first tokens; None of neither.

    Args:
        example: the inputs of one example.
        has_tokens: whether the model looks its inputs up in an Embedding.
    """
    arrays = {name: part for name, part in _named(example).items() if isinstance(part, np.ndarray)}
    images = [name for name, part in arrays.items() if pictures.is_image(part.shape)]
    tokens = [
        name
        for name, part in arrays.items()
        if part.ndim == 1 and part.size > 1 and part.dtype.kind in "iuOSU"
    ]
    return next(iter(images + tokens * has_tokens), None)


def _named(example: Any) -> dict[Any, Any]:
    """Return several inputs by key or place; none of a single one."""
    return (
        example
        if isinstance(example, dict)
        else dict(enumerate(example))
        if isinstance(example, tuple)
        else {}
    )


def reduce_map(relevance: np.ndarray, kind: Kind) -> np.ndarray:
    """Sum the relevance of one example over channels, and over squares of pixels where it is large.

    Args:
        relevance: in the shape of the example's inputs.
        kind: of the example.
    """
    values = np.asarray(relevance, np.float32)
    if kind == "image":
        return _pooled(values if values.ndim == 2 else values.sum(axis=2))
    if kind == "signal" and values.ndim == 2:
        values = values.sum(axis=1)
    return _pooled(values[np.newaxis])[0] if kind == "signal" else values


def _row_or_signal(size: int) -> Kind:
    return "columns" if size <= pictures.MAX_COLUMNS else "signal"


def _pooled(values: np.ndarray) -> np.ndarray:
    """Return sums over squares, so that no side is longer than `LARGEST_MAP_SIDE`; the total stays."""
    step = math.ceil(max(values.shape) / LARGEST_MAP_SIDE)
    if step == 1:
        return values
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], step), axis=0)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], step), axis=1)
