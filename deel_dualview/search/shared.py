"""Search that the workers of a cluster share: each scores a part of the vectors, and all get the same result."""

import functools

import numpy as np

from deel_dualview.models.workers import Workers
from deel_dualview.search.bounded import Scored, Search
from deel_dualview.search.top_k import ORDER, Best, merge_top_k, streaming_top_k


class Shared(Search):
    """Scores the vectors of this worker, and merges the first of all workers.

    Args:
        num_vectors: number n of vectors.
        workers: of the cluster, which all search for the same queries.
    """

    def __init__(self, num_vectors: int, workers: Workers) -> None:
        self._num_vectors, self._workers = num_vectors, workers

    def top_k(self, scored: Scored, queries: object, k: int, order: ORDER) -> Best:
        return merged(part_top_k(scored, self._num_vectors, k, order, self._workers), order, self._workers)


def part_top_k(scored: Scored, num_vectors: int, k: int, order: ORDER, workers: Workers) -> Best:
    """Return the k first of this worker's share of the vectors, each (m, k).

    Where it has fewer, the rest is infinitely far behind.
    """
    bounds = [index * num_vectors // workers.number for index in (workers.index, workers.index + 1)]
    num_own = bounds[1] - bounds[0]
    is_wanted = np.zeros(num_vectors, bool)
    is_wanted[slice(*bounds)] = True
    if num_own == 0:
        # Any one, for the number of queries.
        is_wanted[:1] = True
    values, indices = streaming_top_k(scored(is_wanted), max(1, min(k, num_own)), order)
    missing = ((0, 0), (0, k - min(k, num_own)))
    last = -np.inf if order is ORDER.DESCENDING else np.inf
    return (
        np.pad(values[:, :num_own], missing, constant_values=last),
        np.pad(indices[:, :num_own], missing, constant_values=np.iinfo(np.int64).max),
    )


def merged(best: Best, order: ORDER, workers: Workers) -> Best:
    """Return the k first of those of all workers, each (m, k); ties break by the lower index."""
    pairs = zip(*(workers.gather(part) for part in best), strict=True)
    return functools.reduce(lambda one, other: merge_top_k(one, other, best[0].shape[1], order), pairs)
