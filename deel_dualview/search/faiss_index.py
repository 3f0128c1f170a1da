"""FaissIndex: candidates for the first of millions of inner products, found by FAISS."""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from deel_dualview._checks import check_choice, check_count, check_seed, describe, require
from deel_dualview._summaries import Summarised
from deel_dualview.data import to_array
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.search.bounded import Scored, Search
from deel_dualview.search.top_k import ORDER, Best, streaming_top_k

IndexKind = Literal["flat", "inverted"]

_CLUSTERS_A_ROOT, _LEAST_OF_CLUSTER = 4, 39
"""FAISS advises 4 to 16 sqrt(n) clusters, and warns below 39 vectors a cluster: clusters are found from so many."""
_CLUSTERINGS = 4  # steps of k-means: 10, its default, find 1 to 4 % more and take twice as long
_PRODUCTS = (
    20  # queries from which FAISS multiplies matrices; 128,000 in 1.15, which is 15 times slower for 128
)
_PROBED_SHARE = 16
_LARGEST_SIZE = 16_384
_NUM_COMPARED, _LEAST_RECALL = 32, 0.9
_ROUNDING = 1e-5


class FaissIndex(Summarised):
    """An index of influence vectors, by which `top_k` looks at few of millions of them (extra `faiss`).

    The index names candidates; their influence values are computed as without it, so that every value is right, and
    ties break by the lower index. `"flat"` compares a query with every vector: nothing is missed, save one of several
    equal values. `"inverted"` groups the vectors into clusters and compares a query with those of the nearest ones:
    it may miss some. How many is measured on the first 32 queries (of DualView, of each class), against all vectors,
    and kept as `recall`; a warning says when it is below .9.

    The index takes 4 n p bytes, for vectors of p numbers, and an inverted one as many again while it is built; of
    DualView, 4 s d bytes for the s support vectors of a class that is explained.

    Args:
        kind: `"flat"` or `"inverted"`.
        num_clusters: of `"inverted"`; by default 4 sqrt(n), fewer of few vectors.
        num_probed: clusters that a query is compared with; a sixteenth of them by default.
        seed: of the clustering.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: bad settings.

    Source: Douze et al. (2024), The Faiss library.

    Example:
        calculator = DualView(model, train_set, index=FaissIndex())
        calculator.top_k(queries, k=5)
    """

    def __init__(
        self,
        kind: IndexKind = "inverted",
        *,
        num_clusters: int | None = None,
        num_probed: int | None = None,
        seed: int = 0,
    ) -> None:
        check_choice("kind", kind, get_args(IndexKind))
        self.kind = kind
        given = {"num_clusters": num_clusters, "num_probed": num_probed}
        for name, value in given.items():
            if value is not None:
                check_count(name, value)
        require(
            kind == "inverted" or num_clusters is num_probed is None,
            "Only an inverted index has clusters: leave their numbers out, or take kind='inverted'.",
            given,
        )
        self.num_clusters, self.num_probed = num_clusters, num_probed
        self.seed = check_seed("seed", seed)
        self._lock = threading.Lock()
        self._num_found = self._num_compared = 0
        _import_faiss()

    @property
    def recall(self) -> float | None:
        """Share of the first examples that were among the candidates, of the queries compared; None before a search."""
        return self._num_found / self._num_compared if self._num_compared else None

    def record(self, is_found: np.ndarray) -> None:
        """Count which of the first examples of some queries were found, shape (m, k).

        Warns:
            UserWarning: fewer than 90 % of those of these queries.
        """
        with self._lock:
            self._num_found += int(is_found.sum())
            self._num_compared += is_found.size
        if is_found.mean() < _LEAST_RECALL:
            needed = "The index misses examples among the first: take a larger `num_probed`, or kind='flat'."
            received = {"recall": round(float(is_found.mean()), 3), "k": is_found.shape[1]}
            warnings.warn(describe(needed, received), UserWarning, stacklevel=2)

    def build(self, vectors: Iterable[np.ndarray]) -> "BuiltIndex":
        """Return an index of vectors, in blocks (b, p) float32."""
        faiss = _import_faiss()
        built = None
        if self.kind == "inverted":
            waiting = deque(vectors)
            built = self._clusters(faiss, waiting)
            # A block goes as soon as the index has it: the vectors are never there twice.
            vectors = (waiting.popleft() for _ in range(len(waiting)))
        for rows in vectors:
            built = faiss.IndexFlatIP(rows.shape[1]) if built is None else built
            built.add(rows)
        return BuiltIndex(built)

    def _clusters(self, faiss: Any, vectors: Sequence[np.ndarray]) -> Any:
        """Return an index without vectors, its clusters found from a sample of these."""
        num_vectors, size = sum(map(len, vectors)), vectors[0].shape[1]
        most = max(num_vectors // _LEAST_OF_CLUSTER, 1)
        wanted = self.num_clusters or min(round(_CLUSTERS_A_ROOT * num_vectors**0.5), most)
        num_clusters = min(wanted, num_vectors)
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, num_clusters, faiss.METRIC_INNER_PRODUCT)
        built.cp.seed, built.cp.min_points_per_centroid, built.cp.niter = self.seed, 1, _CLUSTERINGS
        built.nprobe = min(self.num_probed or -(-num_clusters // _PROBED_SHARE), num_clusters)
        is_chosen = np.zeros(num_vectors, bool)
        number = min(_LEAST_OF_CLUSTER * num_clusters, num_vectors)
        is_chosen[np.random.default_rng(self.seed).choice(num_vectors, number, replace=False)] = True
        ends = np.cumsum([len(rows) for rows in vectors])[:-1]
        chosen = zip(vectors, np.split(is_chosen, ends), strict=True)
        built.train(np.concatenate([rows[here] for rows, here in chosen]))
        return built


def check_index(index: object) -> None:
    """Refuse what is no index, before any long work.

    Raises:
        TypeError: it is not a `FaissIndex`, nor None.
    """
    if not isinstance(index, FaissIndex | None):
        raise TypeError(describe("`index` must be a FaissIndex, as in FaissIndex('flat').", {"index": index}))


class BuiltIndex:
    """Vectors in an index of FAISS.

    Args:
        index: of FAISS, which ranks by inner product.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @property
    def num_vectors(self) -> int:
        """Number of vectors n."""
        return int(self._index.ntotal)

    def candidates(self, queries: np.ndarray, k: int, order: ORDER) -> np.ndarray:
        """Return the places of the k likeliest vectors of each query (m, p), of all queries together, increasing."""
        rows = np.ascontiguousarray(queries if order is ORDER.DESCENDING else -queries, np.float32)
        _, places = self._index.search(rows, min(k, self.num_vectors))
        found = np.unique(places)
        return found[found >= 0]  # -1 stands for none


class Indexed(Search):
    """Scores the candidates that an index names.

    Args:
        index: how they are found.
        vectors: gives the vectors in blocks, in their order; called by the first search.
    """

    def __init__(self, index: FaissIndex, vectors: Callable[[], Iterable[Blocks]]) -> None:
        self._index = index
        self._vectors = vectors
        self._lock = threading.Lock()
        self._built: BuiltIndex | None = None

    def top_k(self, scored: Scored, queries: Any, k: int, order: ORDER) -> Best:
        rows = to_array(blocks.to_dense(queries))
        with self._lock:
            is_first = self._built is None
            if self._built is None:
                self._built = self._index.build(_dense(self._vectors()))
        found = self._built.candidates(rows, k, order)
        if len(found) < k:
            return streaming_top_k(scored(None), k, order)
        is_wanted = np.zeros(self._built.num_vectors, bool)
        is_wanted[found] = True
        best = streaming_top_k(scored(is_wanted), k, order)
        if is_first and self._index.kind != "flat":
            first = ((places, scores[:_NUM_COMPARED]) for places, scores in scored(None))
            sign = 1 if order is ORDER.DESCENDING else -1
            least = sign * streaming_top_k(first, k, order)[0][:, -1:]
            # Of several equal values any is right, and equal ones may be rounded differently.
            self._index.record(sign * best[0][:_NUM_COMPARED] >= least - _ROUNDING * np.abs(least))
        return best


def _dense(vectors: Iterable[Blocks]) -> Iterator[np.ndarray]:
    """Yield vectors as rows (b, p).

    Raises:
        ValueError: p is too large.
    """
    for part in vectors:
        rows = to_array(blocks.to_dense(part))
        require(
            rows.shape[1] <= _LARGEST_SIZE,
            "An index holds every number of an influence vector: take gradients with a `projection`, or no index.",
            {"numbers of a vector": rows.shape[1], "most": _LARGEST_SIZE},
        )
        yield rows


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        needed = "FaissIndex needs FAISS: pip install 'deel-dualview[faiss]'."
        raise ImportError(needed) from error
    faiss.cvar.distance_compute_blas_threshold = min(faiss.cvar.distance_compute_blas_threshold, _PRODUCTS)
    return faiss
