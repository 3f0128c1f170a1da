"""How the first of many inner products are found: all scored, or only those whose bound reaches far enough."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview.search.top_k import ORDER, Best, merge_top_k, streaming_top_k

NUM_FIRST = 1024
# Rounding of values in float32, against their bound.
_SLACK = 1e-4

Scored = Callable[[np.ndarray | None], Iterator[tuple[np.ndarray, Any]]]
"""From the vectors that are wanted, (n,) bool or None for all, to (indices (b,), scores (m, b)), block by block."""


class Search(ABC):
    """A way to find the k first of the scores of n vectors; all ways find the same."""

    @abstractmethod
    def top_k(self, scored: Scored, queries: Any, k: int, order: ORDER) -> Best:
        """Return the k first scores of each of m queries and the indices of their vectors, each (m, k).

        Args:
            scored: scores of chosen vectors.
            queries: to be scored.
            k: at most n.
            order: which end comes first.
        """


class Exhaustive(Search):
    """Scores every vector."""

    def top_k(self, scored: Scored, queries: Any, k: int, order: ORDER) -> Best:
        return streaming_top_k(scored(None), k, order)


class Bounded(Search):
    """Scores the vectors of largest norm and, of the others, those whose bound reaches the k-th value found.

    A score is an inner product, at most the norm of the query times that of the vector. The result is exact. Most
    examples of a well fitted model have tiny gradients and are never scored.

    Args:
        vector_norms: gives a norm of every vector, shape (n,); called by the first search.
        query_norms: gives the dual norm of every query, shape (m,).
        num_first: how many vectors are scored before any bound is known.
    """

    def __init__(
        self,
        vector_norms: Callable[[], np.ndarray],
        query_norms: Callable[[Any], tf.Tensor],
        num_first: int = NUM_FIRST,
    ) -> None:
        self._vector_norms, self._query_norms = vector_norms, query_norms
        self._num_first = num_first

    def top_k(self, scored: Scored, queries: Any, k: int, order: ORDER) -> Best:
        norms, num_first = self._vector_norms(), max(self._num_first, k)
        is_first = norms >= np.sort(norms)[-min(num_first, len(norms))]
        best = _best_of(is_first, scored, k, order)
        least = _least_norm(self._query_norms(queries).numpy(), best[0][:, -1], order)
        is_needed = (norms >= least) & ~is_first
        if not is_needed.any():
            return best
        return merge_top_k(best, _best_of(is_needed, scored, k, order), k, order)


def _best_of(is_wanted: np.ndarray, scored: Scored, k: int, order: ORDER) -> Best:
    """Return the first values of the chosen vectors, at most k."""
    return streaming_top_k(scored(is_wanted), min(k, int(is_wanted.sum())), order)


def _least_norm(sizes: np.ndarray, last_values: np.ndarray, order: ORDER) -> float:
    """Return the norm below which no vector reaches the k-th value (m,) of any query, of norms `sizes` (m,)."""
    values = last_values if order is ORDER.DESCENDING else -last_values
    # A zero query has the value 0 with everything: all vectors tie.
    least = np.divide(values, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return (1 - _SLACK) * float(np.min(least, initial=np.inf))
