"""Metrics of where training examples that are known to matter stand in the order of influence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from deel_dualview._checks import check_count, check_k, require
from deel_dualview.metrics.base import MeanMetric, checked_positions, row_blocks, shape_of
from deel_dualview.search import block_top_k


class MRR(MeanMetric):
    """Mean reciprocal rank: 1 / rank of the first training example that is known to matter, 1 at best.

    Ties break by the lower index. Random attributions score little more than the share of such examples.

    Source: Akyürek et al. (2022), Towards tracing knowledge in language models back to the training data.
    """

    def update_state(self, influence_values: Any, is_relevant: Any) -> None:
        """Score a batch of test examples.

        Args:
            influence_values: shape (m, n), dense, sparse or a tensor.
            is_relevant: which training examples are known to matter to each test example, boolean, shape (m, n), dense
                or sparse.

        Raises:
            ValueError: shapes do not fit, values are not finite, or a test example has no such training example.
        """
        for block, relevant in _blocks(influence_values, is_relevant):
            best = np.where(relevant, block, -np.inf).max(axis=1, keepdims=True)
            first = np.argmax(relevant & (block == best), axis=1)[:, np.newaxis]
            is_before = (block > best) | ((block == best) & (np.arange(block.shape[1]) < first))
            self._append(1 / (1 + is_before.sum(axis=1)))

    def update_top_k(self, training_indices: Any, is_relevant: Any) -> None:
        """Score a batch by the first proponents alone, as `top_k_indices` gives them; 0 where none of them is relevant.

        Args:
            training_indices: positions of the first proponents, shape (m, k).
            is_relevant: boolean, shape (m, n).

        Raises:
            ValueError: shapes do not fit, or a test example has no relevant training example.
        """
        num_proponents = np.shape(training_indices)[-1] if np.ndim(training_indices) else 1
        hits, _ = _hits(training_indices, is_relevant, num_proponents)
        self._append(np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0))


class RecallAtK(MeanMetric):
    """Share of the training examples that are known to matter which are among the k first proponents.

    Where more than k are known to matter, 1 cannot be reached.

    Args:
        k: number of proponents.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Source: Akyürek et al. (2022).
    """

    def __init__(
        self, k: int = 10, *, confidence_level: float = 0.95, num_resamples: int = 1000, seed: int = 0
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        self.k = check_count("k", k)

    def update_state(self, influence_values: Any, is_relevant: Any) -> None:
        """Score a batch of test examples.

        Args:
            influence_values: shape (m, n), dense, sparse or a tensor.
            is_relevant: which training examples are known to matter to each test example, boolean, shape (m, n), dense
                or sparse.

        Raises:
            ValueError: shapes do not fit, k is larger than n, values are not finite, or a test example has no such
                training example.
        """
        check_k(self.k, shape_of(influence_values)[1])
        for block, relevant in _blocks(influence_values, is_relevant):
            _, first = block_top_k(block, np.arange(block.shape[1]), self.k)
            self._append(np.take_along_axis(relevant, first, axis=1).sum(axis=1) / relevant.sum(axis=1))

    def update_top_k(self, training_indices: Any, is_relevant: Any) -> None:
        """Score a batch of test examples by their first proponents alone, as `top_k_indices` gives them.

        Args:
            training_indices: positions of the first proponents, the first k of them count, shape (m, at least k).
            is_relevant: boolean, shape (m, n).

        Raises:
            ValueError: shapes do not fit, or a test example has no relevant training example.
        """
        hits, num_relevant = _hits(training_indices, is_relevant, self.k)
        self._append(hits.sum(axis=1) / num_relevant)


def _blocks(influence_values: Any, is_relevant: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of values and, for the same rows, which training examples are relevant."""
    shape = shape_of(influence_values)
    require(
        shape_of(is_relevant) == shape,
        "`is_relevant` must have the shape of the influence values.",
        {"is_relevant": shape_of(is_relevant), "influence_values": shape},
    )
    for (_, block), flags in zip(row_blocks(influence_values), _flags(is_relevant), strict=True):
        yield block, flags


def _flags(is_relevant: Any) -> Iterator[np.ndarray]:
    for rows, block in row_blocks(is_relevant):
        require(
            bool(((block == 0) | (block == 1)).all()),
            "`is_relevant` must be boolean, one entry for each test and training example.",
            {"dtype": getattr(is_relevant, "dtype", type(is_relevant))},
        )
        empty = np.flatnonzero(~block.any(axis=1))
        require(
            len(empty) == 0,
            "Every test example needs a training example that is known to matter to it: leave the others out.",
            {"rows": (rows.start + empty).tolist()},
        )
        yield block > 0


def _hits(training_indices: Any, is_relevant: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the first k positions are relevant, shape (m, k), and how many examples are, shape (m,)."""
    num_test, num_train = shape_of(is_relevant)
    first = checked_positions(training_indices, k, num_train)
    require(
        len(first) == num_test,
        "`training_indices` and `is_relevant` must have one row for each test example.",
        {"training_indices": first.shape, "is_relevant": (num_test, num_train)},
    )
    hits, counts, start = [], [], 0
    for flags in _flags(is_relevant):
        hits.append(np.take_along_axis(flags, first[start : start + len(flags)], axis=1))
        counts.append(flags.sum(axis=1))
        start += len(flags)
    return np.concatenate(hits), np.concatenate(counts)
