"""Whether the relevance of a pair names the pixels that carry its influence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import scipy.integrate
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.contributions import Pairs
from deel_dualview.metrics.base import MeanMetric
from deel_dualview.metrics.flags import checked_flags
from deel_dualview.relevance.pair_influence import PairInfluence

if TYPE_CHECKING:
    from deel_dualview.relevance import PairRelevance

Side = Literal["train", "test"]
"""Of which examples of a pair the relevance is taken."""

_ROWS_AT_ONCE = 512


class PixelFlipping(MeanMetric):
    """Area under the curve of a pair's influence while its most relevant test pixels are covered first.

    The influence is divided by that of the whole image, so that a curve begins at 1; the area is over the share of
    pixels covered, from 0 to `largest_share`, divided by it. Small is good: what was called relevant was. The score
    of a test example is the mean over its pairs. The explained class and the training example stay what they are.

    Args:
        calculator: whose influence the relevance is of.
        cover: what pixels are replaced by: a value, or a function from images (b, ...) to what covers them.
        num_steps: into how many steps the pixels are divided.
        largest_share: share of the pixels that is covered in the end.
        confidence_level: of the bootstrap interval, over test examples.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Bach et al. (2015), section 4.1; Samek et al. (2017), Evaluating the visualization of what a deep neural
        network has learned.
    """

    def __init__(
        self,
        calculator: BaseInfluenceCalculator,
        *,
        cover: float | Callable[[np.ndarray], np.ndarray] = 0.0,
        num_steps: int = 20,
        largest_share: float = 1.0,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.calculator = calculator
        self.cover = cover
        require(
            0 < largest_share <= 1,
            "`largest_share` must be above 0, and 1 at most.",
            {"largest_share": largest_share},
        )
        self.shares = np.linspace(0.0, largest_share, check_count("num_steps", num_steps) + 1)

    def reset_state(self) -> None:
        """Forget all examples."""
        super().reset_state()
        self._curves: list[np.ndarray] = []

    @property
    def curve(self) -> np.ndarray:
        """Mean influence after each of `shares` of the pixels is covered, 1 at first, shape (num_steps + 1,)."""
        require(bool(self._curves), "PixelFlipping has seen no example: call `update_state`.", {})
        return np.concatenate(self._curves).mean(axis=0)

    def update_state(self, pair: PairRelevance, relevance: Any = None) -> None:
        """Take the pairs of a batch of test examples.

        Args:
            pair: as from `DualRelevance.explain`, of models with one input tensor.
            relevance: by which test pixels are ranked instead of by `pair.test_relevance`, shape (m, k, ...):
                another library's, or a random one.

        Raises:
            ValueError: a model of several inputs, an influence that is zero, or `relevance` of another shape.
        """
        _check_single(pair.test_relevance)
        ranked = np.asarray(pair.test_relevance if relevance is None else relevance, np.float64)
        require(
            ranked.shape == tuple(np.shape(pair.test_relevance)),
            "`relevance` must have the shape of the pairs' test relevance, (m, k, ...).",
            {"relevance": ranked.shape, "test_relevance": tuple(np.shape(pair.test_relevance))},
        )
        require(
            bool(np.isfinite(ranked).all()),
            "Relevance must be finite.",
            {"not finite": int((~np.isfinite(ranked)).sum())},
        )
        images, influence = _repeated_images(pair), self._influence(pair)
        values = np.asarray(pair.top.influence_values, np.float64).reshape(-1)
        require(bool((values != 0).all()), "Pairs without influence have no curve.", {"values": values})
        m, k = ranked.shape[:2]
        orders = _ranks(ranked.reshape(m * k, *ranked.shape[2:]) * _as(np.sign(values), ranked.ndim - 1))
        covers = self.cover(images) if callable(self.cover) else np.full_like(images, self.cover)
        require(bool(np.isfinite(covers).all()), "What covers a pixel must be finite.", {"cover": self.cover})
        curves = np.empty((m * k, len(self.shares)))
        for column, share in enumerate(self.shares):
            is_covered = orders < round(share * orders[0].size)
            if images.ndim > 2:
                is_covered = is_covered[..., np.newaxis]
            curves[:, column] = influence(np.where(is_covered, covers, images)) / values
        curves = curves.reshape(m, k, -1).mean(axis=1)
        self._curves.append(curves)
        self._append(scipy.integrate.trapezoid(curves, self.shares, axis=1) / self.shares[-1])

    def _influence(self, pair: PairRelevance) -> Callable[[np.ndarray], np.ndarray]:
        """Return the pairs' influence as a function of the test images, (m k, ...) to (m k,)."""
        model, top = self.calculator.model, pair.top
        k = np.shape(top.training_indices)[1]
        test, train = data.unpack(top.samples), data.unpack(top.training_samples)
        pairs = Pairs(
            tf.repeat(model.features(test.inputs), k, axis=0),
            np.repeat(np.asarray(pair.classes), k),
            model.features(_merged(train.inputs)),
            model.to_classes(_merged(train.labels)),
            np.asarray(top.training_indices).reshape(-1),
        )
        influence = PairInfluence(self.calculator, pairs, "features")

        def values(images: np.ndarray) -> np.ndarray:
            parts = []
            for start in range(0, len(images), _ROWS_AT_ONCE):
                rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(images)))
                parts.append(influence.whole(model.features(tf.constant(images[rows])), rows))
            return np.concatenate(parts)

        return values


class ConservationError(MeanMetric):
    """Share of a pair's influence that its heatmaps do not show: |value - bias share - sum| / |value|.

    The score of a test example is the mean over its pairs and both sides.
    """

    def update_state(self, pair: PairRelevance) -> None:
        """Take the pairs of a batch of test examples.

        Args:
            pair: as from `DualRelevance.explain`.

        Raises:
            ValueError: an influence is zero.
        """
        values = np.asarray(pair.top.influence_values, np.float64)
        require(
            bool((values != 0).all()), "Pairs without influence have no relative error.", {"values": values}
        )
        sides = [
            np.abs(values - np.asarray(pair.bias_share) - _sums(relevance, values.shape)) / np.abs(values)
            for relevance in (pair.train_relevance, pair.test_relevance)
        ]
        self._append(np.mean(sides, axis=(0, 2)))


class ShareInMask(MeanMetric):
    """Share of the positive relevance of pairs that lies where it is known to belong.

    A random map scores the mask's share of the area. The score of a test example is the mean over its chosen pairs;
    an example without any does not count.

    Args:
        mask: where it belongs, boolean, shape (height, width), for instance `Marks.mask`.
        side: `"train"` or `"test"`: in which images.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        mask: Any,
        side: Side = "test",
        *,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.mask = np.asarray(mask, bool)
        require(
            self.mask.ndim == 2, "`mask` must be an image's, (height, width).", {"shape": self.mask.shape}
        )
        require(side in get_args(Side), f"`side` must be one of {get_args(Side)}.", {"side": side})
        self.side = side

    def update_state(self, pair: PairRelevance, is_chosen: Any = None) -> None:
        """Take the pairs of a batch of test examples.

        Args:
            pair: as from `DualRelevance.explain`, of images.
            is_chosen: which pairs count, shape (m, k); all by default.

        Raises:
            ValueError: a model of several inputs, images that are not of the mask's size, or `is_chosen` of another
                shape than the pairs.
        """
        _check_single(pair.test_relevance)
        relevance = np.asarray(pair.train_relevance if self.side == "train" else pair.test_relevance)
        require(
            relevance.ndim == 5 and relevance.shape[2:4] == self.mask.shape,
            "The mask must be of the size of the images.",
            {"mask": self.mask.shape, "relevance": relevance.shape},
        )
        positive = np.maximum(relevance.sum(axis=-1, dtype=np.float64), 0)
        total = positive.sum(axis=(2, 3))
        counts = total > 0
        if is_chosen is not None:
            chosen = checked_flags("is_chosen", is_chosen)
            require(
                chosen.shape == total.shape,
                "`is_chosen` must say of every pair whether it counts, shape (m, k).",
                {"is_chosen": chosen.shape, "pairs": total.shape},
            )
            counts &= chosen
        shares = np.divide(
            positive[:, :, self.mask].sum(axis=2), total, out=np.zeros_like(total), where=counts
        )
        is_used = counts.any(axis=1)
        self._append(shares[is_used].sum(axis=1) / counts[is_used].sum(axis=1))


def _check_single(relevance: Any) -> None:
    num_inputs = len(tf.nest.flatten(relevance)) if isinstance(relevance, (tuple, list, dict)) else 1
    require(num_inputs == 1, "Pixels are those of a model with one input tensor.", {"inputs": num_inputs})


def _repeated_images(pair: PairRelevance) -> np.ndarray:
    """Return the test image of every pair, shape (m k, ...), float32."""
    tensors = tf.nest.flatten(data.unpack(pair.top.samples).inputs)
    return np.repeat(np.asarray(tensors[0], np.float32), np.shape(pair.top.training_indices)[1], axis=0)


def _ranks(relevance: np.ndarray) -> np.ndarray:
    """Return the rank of every pixel, 0 for the most relevant, ties by position; channels are summed."""
    pixels = relevance.sum(axis=-1) if relevance.ndim > 2 else relevance
    flat = pixels.reshape(len(pixels), -1)
    return np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(pixels.shape)


def _as(factors: np.ndarray, ndim: int) -> np.ndarray:
    return factors.reshape(-1, *[1] * (ndim - 1))


def _merged(tensors: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tf.reshape(tensor, (-1, *tensor.shape[2:])), tensors)


def _sums(relevance: Any, shape: tuple[int, ...]) -> np.ndarray:
    parts = (np.asarray(part, np.float64).reshape(*shape, -1) for part in tf.nest.flatten(relevance))
    return sum((part.sum(axis=2) for part in parts), np.zeros(shape))
