"""How far several methods agree, over queries that come batch by batch: all influence values are never kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from deel_dualview.search import Best, block_top_k


class Agreement:
    """Gathers rank correlations and common proponents of a methods over m queries.

    Of every query are kept: a x a correlations, and the k strongest proponents by each method.

    Args:
        k: how many proponents of a query are compared.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._correlations: list[np.ndarray] = []
        self._overlaps: list[np.ndarray] = []
        self._best: list[list[Best]] = []

    def update(self, values: Sequence[np.ndarray]) -> None:
        """Add a batch of queries: for each method, the influence of all training examples, shape (b, n)."""
        ranks = np.stack([_unit_ranks(method) for method in values])
        self._correlations.append(np.einsum("abn,cbn->bac", ranks, ranks, optimize=True))
        columns = np.arange(values[0].shape[1])
        best = [block_top_k(method, columns, self._k) for method in values]
        overlaps = _overlaps(np.stack([indices for _, indices in best]))
        # Where every value of a method is 0 there is no order, and the first indices mean nothing.
        is_ranked = np.stack([method.any(axis=1) for method in values], axis=1)
        both = is_ranked[:, :, np.newaxis] & is_ranked[:, np.newaxis]
        self._overlaps.append(np.where(both, overlaps, np.nan))
        self._best.append(best)

    def rank_correlations(self) -> np.ndarray:
        """Return Spearman's rank correlation of every two methods for every query, shape (m, a, a).

        Ties have their mean rank; NaN where a method gives all training examples the same value.
        """
        return np.concatenate(self._correlations)

    def overlaps(self) -> np.ndarray:
        """Return which share of the k strongest proponents two methods have in common, shape (m, a, a).

        NaN where every value of one of them is 0: such values have no order.
        """
        return np.concatenate(self._overlaps)

    def strongest(self) -> list[Best]:
        """Return, for each method, values (m, k) and training indices (m, k) of the strongest proponents."""
        return [
            (
                np.concatenate([values for values, _ in batches]),
                np.concatenate([indices for _, indices in batches]),
            )
            for batches in zip(*self._best, strict=True)
        ]


def mean_over_queries(matrices: np.ndarray) -> np.ndarray:
    """Return the mean (a, a) of matrices (m, a, a) over the queries that have a number; NaN if none has."""
    counts = np.isfinite(matrices).sum(axis=0)
    return np.divide(np.nansum(matrices, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return centred ranks at unit length, shape (b, n): their inner products are Spearman's correlations."""
    ranks = scipy.stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, norms, out=np.full_like(ranks, np.nan), where=norms > 0)


def _overlaps(indices: np.ndarray) -> np.ndarray:
    """Return the shares (b, a, a) of equal entries in rows of indices (a, b, k), each of which is a set."""
    first, second = indices[:, np.newaxis, :, :, np.newaxis], indices[np.newaxis, :, :, np.newaxis, :]
    return np.moveaxis((first == second).any(axis=-1).mean(axis=-1), 2, 0)
