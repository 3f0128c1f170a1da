"""Top-k of inner products where the norms of vectors tell that most of them cannot be among the first."""

from functools import cached_property

import numpy as np

from deel_dualview import data
from deel_dualview.calculators.vectors import VectorInfluenceCalculator
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.search import ORDER, Best, merge_top_k, streaming_top_k

_NUM_FIRST = 1024
# Of values in float32, against their bound.
_SLACK = 1e-4


class BoundedSearchCalculator(VectorInfluenceCalculator):
    """Base of calculators whose value is an inner product, at most the norm of the query times the vector's.

    The vectors of largest norm are scored first; of the others, only those whose bound reaches the k-th value
    found. The result is exact. Most examples of a well fitted model have tiny gradients and are never scored.
    """

    def _top_k(self, batch: data.Batch, k: int, order: ORDER) -> Best:
        queries = self._queries_of(batch)
        norms, num_first = self._norms, max(_NUM_FIRST, k)
        is_first = norms >= np.sort(norms)[-min(num_first, len(norms))]
        best = self._best_of(is_first, queries, k, order)
        is_needed = (norms >= _least_norm(queries, best[0][:, -1], order)) & ~is_first
        if not is_needed.any():
            return best
        return merge_top_k(best, self._best_of(is_needed, queries, k, order), k, order)

    def _best_of(self, is_wanted: np.ndarray, queries: Blocks, k: int, order: ORDER) -> Best:
        """Return the first values of the chosen vectors, at most k."""
        scored = (
            (indices, self._scores(queries, vectors)) for indices, vectors in self._vector_blocks(is_wanted)
        )
        return streaming_top_k(scored, min(k, int(is_wanted.sum())), order)

    @cached_property
    def _norms(self) -> np.ndarray:
        """Norms of all vectors, shape (n,)."""
        squares = [blocks.squared_norms(vectors) for _, vectors in self._vector_blocks()]
        return np.sqrt(np.concatenate(squares))


def _least_norm(queries: Blocks, last_values: np.ndarray, order: ORDER) -> float:
    """Return the norm below which no vector reaches the k-th value (m,) of any query."""
    values = last_values if order is ORDER.DESCENDING else -last_values
    sizes = np.sqrt(blocks.squared_norms(queries))
    # A zero query has the value 0 with everything: all vectors tie.
    least = np.divide(values, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return (1 - _SLACK) * float(np.min(least, initial=np.inf))
