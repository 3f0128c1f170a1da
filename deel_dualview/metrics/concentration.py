"""Metrics of how few training examples explanations name, and how few carry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from deel_dualview._checks import check_count, require
from deel_dualview.metrics.base import (
    UNKNOWN_SIZE,
    MeanMetric,
    Metric,
    MetricResult,
    checked_positions,
    row_blocks,
    shape_of,
)
from deel_dualview.search import block_top_k


class TopKCardinality(Metric):
    """Distinct training examples in all top-k lists, over T k: small where every test gets the same answer.

    1 when no training example is named twice. A resample of test examples names training examples repeatedly and lowers
    the ratio, so the interval is the normal one of the bootstrap's standard error, around the value.

    Args:
        k: proponents of a test example.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Barshan et al. (2020), section 5.
    """

    def __init__(
        self, k: int = 5, *, confidence_level: float = 0.95, num_resamples: int = 200, seed: int = 0
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.k = check_count("k", k)

    def reset_state(self) -> None:
        """Forget all examples."""
        self._lists: list[np.ndarray] = []
        self._num_train: int | None = None

    def update_state(self, influence_values: Any) -> None:
        """Take a batch of test examples, shape (m, n).

        Raises:
            ValueError: k is more than n, n differs from that of earlier batches, or values are not finite.
        """
        num_train = _checked_width(influence_values, self._num_train)
        require(self.k <= num_train, "`k` must be at most n.", {"k": self.k, "n": num_train})
        self._num_train = num_train
        for _, block in row_blocks(influence_values):
            self._lists.append(block_top_k(block, np.arange(num_train), self.k)[1])

    def update_top_k(self, training_indices: Any) -> None:
        """Take a batch of test examples by their first proponents, as `top_k_indices` gives them.

        Args:
            training_indices: positions, the first k of them count, shape (m, at least k).

        Raises:
            ValueError: fewer than k positions a test example.
        """
        first = checked_positions(training_indices, self.k, UNKNOWN_SIZE)
        self._lists.append(first)

    def result(self) -> MetricResult:
        """Return the ratio.

        Raises:
            ValueError: no example was given.
        """
        require(bool(self._lists), "TopKCardinality has seen no example: call `update_state`.", {})
        lists = np.concatenate(self._lists)

        def ratio(rows: np.ndarray) -> float:
            return len(np.unique(lists[rows])) / lists[rows].size

        value = ratio(np.arange(len(lists)))
        return MetricResult(value, len(lists), self._normal_interval(value, ratio, len(lists)))

    def _normal_interval(
        self, value: float, ratio: Callable[[np.ndarray], float], num_examples: int
    ) -> tuple[float, float]:
        if not self.num_resamples or num_examples < 2:
            return float("nan"), float("nan")
        width = scipy.stats.norm.ppf(0.5 + self.confidence_level / 2)
        error = width * self._resampled(ratio, num_examples).standard_error
        return float(max(value - error, 0.0)), float(min(value + error, 1.0))


class Sparsity(MeanMetric):
    """Share of training examples with an influence other than zero: small is sparse.

    Attributes:
        mass: share of the absolute influence that `num_for_mass` counts examples for.
    """

    mass = 0.9

    def reset_state(self) -> None:
        """Forget all examples."""
        super().reset_state()
        self._num_train: int | None = None
        self._effective: list[np.ndarray] = []
        self._for_mass: list[np.ndarray] = []

    def update_state(self, influence_values: Any) -> None:
        """Take a batch of test examples, shape (m, n).

        Raises:
            ValueError: n differs from that of earlier batches, or values are not finite.
        """
        self._num_train = _checked_width(influence_values, self._num_train)
        for _, block in row_blocks(influence_values):
            sizes = np.abs(block)
            self._append(np.mean(sizes > 0, axis=1))
            total = sizes.sum(axis=1, keepdims=True)
            shares = np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0)
            logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
            self._effective.append(np.exp(-np.sum(shares * logarithms, axis=1)))
            reached = np.cumsum(-np.sort(-shares, axis=1), axis=1) < self.mass - 1e-12
            self._for_mass.append(np.where(total[:, 0] > 0, reached.sum(axis=1) + 1, 0))

    @property
    def effective_number(self) -> float:
        """Mean of exp(entropy of |tau|): training examples that share the influence, as if equally."""
        return self._mean(self._effective)

    @property
    def num_for_mass(self) -> float:
        """Mean number of training examples that carry 90 % of the absolute influence."""
        return self._mean(self._for_mass)

    def _mean(self, parts: list[np.ndarray]) -> float:
        require(len(self.scores) > 0, "Sparsity has seen no example: call `update_state`.", {})
        return float(np.concatenate(parts).mean())


def _checked_width(influence_values: Any, known: int | None) -> int:
    """Return n of a batch, that of earlier ones if there were any."""
    num_train = shape_of(influence_values)[1]
    require(
        known in (None, num_train),
        "All batches must be of one training set; `reset_state` begins anew.",
        {"n": num_train, "n so far": known},
    )
    return num_train
