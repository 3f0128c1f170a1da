"""Metrics that train the model again on a part of the training set: what the attributions say about it must hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deel_dualview._checks import check_count, describe, is_number, require
from deel_dualview.data import to_array
from deel_dualview.metrics.base import (
    MeanMetric,
    Metric,
    MetricResult,
    checked_classes,
    checked_vector,
    row_blocks,
    shape_of,
    to_reals,
)
from deel_dualview.search import block_top_k

Retrain = Callable[[np.ndarray], Any]
"""From positions of training examples (r,), increasing, to one number a test example, shape (m,), of a model
trained on these alone: its loss or its class, as the metric says."""

SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


class _RetrainingCurve(Metric):
    """Loss on the test set after training again on parts of the training set in the order of influence.

    The global value of a training example is sum_t |tau_ti| over the test examples given. The result is the
    mean of the losses over `shares`, weighted by 1 - share, so that the most influential examples count most.
    `result` retrains, once for each share; the interval resamples test examples, not training runs.

    Args:
        retrain: from positions of training examples to the loss of every test example, shape (m,); these may be
            others, or more, than those whose influence is given.
        shares: of the training set, between 0 and 1.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        retrain: Retrain,
        shares: Sequence[float] = SHARES,
        *,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        require(
            isinstance(shares, Sequence | np.ndarray)
            and len(shares) > 0
            and all(is_number(share) and 0 < share < 1 for share in shares),
            "`shares` must be numbers between 0 and 1.",
            {"shares": shares},
        )
        self.retrain, self.shares = _checked_retrain(retrain), tuple(shares)

    @abstractmethod
    def _kept(self, order: np.ndarray, count: int) -> np.ndarray:
        """Return which examples to train on, of all in falling order of influence."""

    def reset_state(self) -> None:
        """Forget all examples."""
        self._total: np.ndarray | None = None
        self._losses: np.ndarray | None = None

    def update_state(self, influence_values: Any) -> None:
        """Add a batch of test examples, shape (m, n), dense, sparse or a tensor.

        Raises:
            ValueError: values of another training set, or not finite.
        """
        if self._total is not None:
            checked_vector("the influence so far", self._total, shape_of(influence_values)[1])
        for _, block in row_blocks(influence_values):
            sizes = np.abs(block).sum(axis=0)
            self._total = sizes if self._total is None else self._total + sizes
        self._losses = None

    @property
    def losses(self) -> np.ndarray:
        """Loss of every test example for each share, shape (s, m); retrains at the first call.

        Raises:
            ValueError: no example was given, or `retrain` returned something else than finite losses.
        """
        if self._losses is None:
            require(
                self._total is not None,
                f"{type(self).__name__} has seen no example: call `update_state`.",
                {},
            )
            order = np.argsort(-np.asarray(self._total), kind="stable")
            require(len(order) > 1, "At least two training examples are needed.", {"n": len(order)})
            counts = [min(max(1, round(share * len(order))), len(order) - 1) for share in self.shares]
            losses = [self._losses_of(self._kept(order, count)) for count in counts]
            require(
                len({len(part) for part in losses}) == 1,
                "`retrain` must return the losses of the same test examples every time.",
                {"lengths": [len(part) for part in losses]},
            )
            self._losses = np.stack(losses)
        return self._losses

    def _losses_of(self, kept: np.ndarray) -> np.ndarray:
        losses = to_reals("Losses that `retrain` returns", self.retrain(np.sort(kept)))
        require(
            losses.ndim == 1 and len(losses) > 0 and bool(np.isfinite(losses).all()),
            "`retrain` must return one finite loss a test example.",
            {"shape": losses.shape, "num_not_finite": int((~np.isfinite(losses)).sum())},
        )
        return losses

    def at(self, share: float) -> float:
        """Return the mean loss for one of `shares`.

        Raises:
            ValueError: it is none of them.
        """
        require(share in self.shares, "`share` must be one of `shares`.", {"share": share})
        return float(self.losses[self.shares.index(share)].mean())

    def result(self) -> MetricResult:
        """Return the weighted mean of the losses.

        Raises:
            ValueError: no example was given, or `retrain` returned something else than finite losses.
        """
        weights = 1 - np.asarray(self.shares)
        of_example = weights @ self.losses / weights.sum()
        interval = self._interval(lambda rows: float(of_example[rows].mean()), len(of_example))
        return MetricResult(float(of_example.mean()), len(of_example), interval)


def _checked_retrain(retrain: Any) -> Retrain:
    if not callable(retrain):
        raise TypeError(
            describe("`retrain` must be a function of positions of training examples.", {"retrain": retrain})
        )
    return retrain


class CoreSet(_RetrainingCurve):
    """Test loss after training on the most influential training examples alone: low is good.

    Source: DualXDA, section 5 (core-set selection).
    """

    def _kept(self, order: np.ndarray, count: int) -> np.ndarray:
        return order[:count]


class Pruning(_RetrainingCurve):
    """Test loss after training without the most influential training examples: high is good.

    Source: DualXDA, section 5 (data pruning).
    """

    def _kept(self, order: np.ndarray, count: int) -> np.ndarray:
        return order[count:]


class Brittleness(MeanMetric):
    """Share of test predictions that flip after training without their k strongest proponents: high is good.

    Trains once for every test example. Only positive influence counts: fewer than k proponents leave fewer out.

    Args:
        retrain: from positions of training examples to the class of every test example, shape (m,), test
            examples in the order in which they are given here.
        k: proponents that are left out.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Ilyas et al. (2022), section 4.1; Park et al. (2023).
    """

    def __init__(
        self,
        retrain: Retrain,
        k: int,
        *,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.retrain, self.k = _checked_retrain(retrain), check_count("k", k)

    def update_state(self, influence_values: Any, predictions: Any) -> None:
        """Train again for each of a batch of test examples.

        Args:
            influence_values: shape (m, n).
            predictions: classes by the model trained on everything, shape (m,).

        Raises:
            ValueError: shapes do not fit, values are not finite, k leaves no training example, or `retrain`
                knows fewer test examples.
        """
        num_test, num_train = shape_of(influence_values)
        require(self.k < num_train, "`k` must leave training examples.", {"k": self.k, "n": num_train})
        before = checked_classes("predictions", predictions, num_test)
        for rows, block in row_blocks(influence_values):
            values, first = block_top_k(block, np.arange(num_train), self.k)
            flips = [
                self._flips(left_out[of > 0], num_train, position, prediction)
                for position, (of, left_out, prediction) in enumerate(
                    zip(values, first, before[rows], strict=True), start=len(self.scores)
                )
            ]
            self._append(np.asarray(flips))

    def _flips(self, left_out: np.ndarray, num_train: int, position: int, prediction: int) -> bool:
        if not len(left_out):
            return False
        after = to_array(self.retrain(np.setdiff1d(np.arange(num_train), left_out)))
        require(
            after.ndim == 1 and position < len(after),
            "`retrain` must return one class a test example.",
            {"shape": after.shape, "test example": position},
        )
        return bool(checked_classes("retrain(...)", after, len(after))[position] != prediction)
