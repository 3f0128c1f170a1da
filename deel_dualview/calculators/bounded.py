"""Top-k of inner products where the norms of vectors tell that most of them cannot be among the first."""

from functools import cached_property

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.calculators.vectors import VectorInfluenceCalculator
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.search import ORDER, Best, merge_top_k, streaming_top_k

_NUM_FIRST = 1024
_NUM_NORMS = 1024
# Of values in float32, against their bound.
_SLACK = 1e-4


class BoundedSearchCalculator(VectorInfluenceCalculator):
    """Base of calculators whose value is an inner product, at most the norm of the query times the vector's.

    The vectors of largest norm are scored first; of the others, only those whose bound reaches the k-th value
    found. The result is exact. Most examples of a well fitted model have tiny gradients and are never scored.
    """

    def _top_k(self, batch: data.Batch, k: int, order: ORDER) -> Best:
        queries = self._queries_of(batch)
        norms, num_first = self._norms, max(self._num_first, k)
        is_first = norms >= np.sort(norms)[-min(num_first, len(norms))]
        best = self._best_of(is_first, queries, k, order)
        is_needed = (
            norms >= _least_norm(self._query_norms(queries).numpy(), best[0][:, -1], order)
        ) & ~is_first
        if not is_needed.any():
            return best
        return merge_top_k(best, self._best_of(is_needed, queries, k, order), k, order)

    def _best_of(self, is_wanted: np.ndarray, queries: Blocks, k: int, order: ORDER) -> Best:
        """Return the first values of the chosen vectors, at most k."""
        scored = (
            (indices, self._scores(queries, vectors)) for indices, vectors in self._vector_blocks(is_wanted)
        )
        return streaming_top_k(scored, min(k, int(is_wanted.sum())), order)

    @property
    def _num_first(self) -> int:
        """How many vectors are scored before any bound is known."""
        return _NUM_FIRST

    def _vector_norms(self, vectors: Blocks) -> tf.Tensor:
        """Return a norm of every vector, shape (b,); its product with `_query_norms` bounds inner products."""
        return blocks.norms(vectors)

    def _query_norms(self, queries: Blocks) -> tf.Tensor:
        """Return the dual norm of every query, shape (m,)."""
        return blocks.norms(queries)

    @cached_property
    def _norms(self) -> np.ndarray:
        """Norms of all vectors, shape (n,)."""
        norms = []
        for indices, vectors in self._vector_blocks():
            for start in range(0, len(indices), _NUM_NORMS):
                norms.append(self._vector_norms(data.slice_examples(vectors, start, start + _NUM_NORMS)))
        return np.concatenate(norms)


def _least_norm(sizes: np.ndarray, last_values: np.ndarray, order: ORDER) -> float:
    """Return the norm below which no vector reaches the k-th value (m,) of any query, of norms `sizes` (m,)."""
    values = last_values if order is ORDER.DESCENDING else -last_values
    # A zero query has the value 0 with everything: all vectors tie.
    least = np.divide(values, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return (1 - _SLACK) * float(np.min(least, initial=np.inf))
