"""The rows of a sparse dual solution that can influence a class, ready for queries."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview.data import to_array
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.models.workers import Workers
from deel_dualview.search import ORDER, Best, inner_product_blocks, streaming_top_k
from deel_dualview.search.bounded import Search
from deel_dualview.search.faiss_index import FaissIndex, Indexed
from deel_dualview.search.shared import merged, part_top_k

_CACHED_BYTES = 512 * 2**20
_ROWS_AT_ONCE = 8192


class Candidates(NamedTuple):
    """Training examples that take part in the explanation of one class.

    Attributes:
        indices: their positions in the training set, ascending, shape (s,), int64.
        vectors: coefficient times kernel features, shape (s, d), a tensor where there is a GPU;
            zero rows for examples without influence.
    """

    indices: np.ndarray
    vectors: np.ndarray | tf.Tensor


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


class SupportVectors:
    """Coefficients (n, c), sparse, and the kernel features of the rows that have any, which are read where needed.

    Args:
        coefficients: alpha, shape (n, c).
        kernel_features: from positions of training examples, increasing, (r,), to their phi, (r, d), float32.
        index: by which those of a class are searched; None for all of them.
        memory_budget: of which at most a quarter goes to rows that are kept for later queries, 512 MiB if that is less.
        workers: who share the search without an index; None for this process alone.
    """

    def __init__(
        self,
        coefficients: scipy.sparse.csr_array,
        kernel_features: Callable[[np.ndarray], np.ndarray],
        index: FaissIndex | None = None,
        memory_budget: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._index, self._workers = index, workers if index is None else None
        self._searches: dict[tuple[int, int], Search] = {}
        self.rows = np.flatnonzero(np.diff(coefficients.indptr))
        self.coefficients = scipy.sparse.csc_array(coefficients)
        self._kernel_features = kernel_features
        self._size = kernel_features(self.rows[:1]).shape[1]
        room = _CACHED_BYTES if memory_budget is None else min(_CACHED_BYTES, memory_budget // 4)
        self._fits_in_cache = self.coefficients.nnz * self._size * 4 <= room
        self._cache: dict[tuple[int, int], Candidates] = {}

    def candidates(self, class_index: int, num_padding: int = 0) -> Iterator[Candidates]:
        """Yield the support vectors of a class, and the first `num_padding` examples that have no influence on it.

        With k examples of padding, the k largest (or smallest) influence values over all n training examples
        are among the candidates, zeros included, and ties still break by the lower index. They come in one block,
        which is kept, where those of all classes fit into 512 MiB.
        """
        key = (class_index, num_padding)
        if key in self._cache:
            yield self._cache[key]
            return
        rows, values = self._entries(class_index, num_padding)
        step = len(rows) if self._fits_in_cache else _ROWS_AT_ONCE
        for start in range(0, len(rows), max(step, 1)):
            part = slice(start, start + step)
            vectors = self._kernel_features(rows[part]) * values[part, np.newaxis]
            made = Candidates(rows[part], tf.constant(vectors) if _has_gpu() else vectors)
            if self._fits_in_cache:
                self._cache[key] = made
            yield made

    def top_k(self, kernel_features: np.ndarray, class_index: int, k: int, order: ORDER) -> Best:
        """Return the k first of all n training examples by their influence on a class at queries (m, d).

        Where workers share the search, of those of this one; `merged` returns the first of all.
        """

        def scored(is_wanted: np.ndarray | None) -> Iterator[tuple[np.ndarray, Any]]:
            start = 0
            for found in self.candidates(class_index, num_padding=k):
                stop = start + len(found.indices)
                rows = slice(None) if is_wanted is None else np.flatnonzero(is_wanted[start:stop])
                is_array = is_wanted is None or isinstance(found.vectors, np.ndarray)
                vectors = found.vectors[rows] if is_array else tf.gather(found.vectors, rows)
                yield from inner_product_blocks(kernel_features, vectors, found.indices[rows])
                start = stop

        if self._workers is not None:
            return part_top_k(scored, len(self._entries(class_index, k)[0]), k, order, self._workers)
        if self._index is None:
            return streaming_top_k(scored(None), k, order)
        search = self._searches.setdefault(
            (class_index, k), Indexed(self._index, self._vectors(class_index, k))
        )
        return search.top_k(scored, (tf.constant(kernel_features),), k, order)

    def merged(self, best: Best, order: ORDER) -> Best:
        """Return the first of all workers, from the results of `top_k` of this one for a batch."""
        return best if self._workers is None else merged(best, order, self._workers)

    def _vectors(self, class_index: int, k: int) -> Callable[[], Iterator[Blocks]]:
        return lambda: ((tf.constant(found.vectors),) for found in self.candidates(class_index, k))

    def _entries(self, class_index: int, num_padding: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the candidates of a class, increasing, int64, and their coefficients, float32."""
        column = slice(*self.coefficients.indptr[class_index : class_index + 2])
        rows, values = self.coefficients.indices[column].astype(np.int64), self.coefficients.data[column]
        first = np.arange(min(self.coefficients.shape[0], len(rows) + num_padding))
        padding = np.setdiff1d(first, rows)[:num_padding]
        order = np.argsort(np.concatenate([rows, padding]))
        values = np.concatenate([values, np.zeros(len(padding))]).astype(np.float32)
        return np.concatenate([rows, padding])[order], values[order]

    def values(self, kernel_features: np.ndarray, classes: np.ndarray) -> scipy.sparse.csr_array:
        """Return `alpha_ij <phi_i, phi(x)>` for queries x explained for classes j, zeros left out.

        Args:
            kernel_features: phi(x), shape (m, d), float32.
            classes: j of every query, shape (m,).

        Returns:
            Shape (m, n), float32.
        """
        order = np.argsort(classes, kind="stable")
        blocks = [
            self._values_of_class(kernel_features[classes == class_index], int(class_index))
            for class_index in np.unique(classes)
        ]
        if not blocks:
            return scipy.sparse.csr_array((0, self.coefficients.shape[0]), dtype=np.float32)
        return scipy.sparse.csr_array(scipy.sparse.vstack(blocks, format="csr")[np.argsort(order)])

    def sums(self, kernel_features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the sums of the rows of `values`, shape (m,), float64.

        Args:
            kernel_features: phi(x), shape (m, d), float32.
            classes: j of every query, shape (m,).
        """
        found = np.zeros(len(classes))
        for class_index in np.unique(classes):
            rows = np.flatnonzero(classes == class_index)
            for part in self.candidates(int(class_index)):
                values = kernel_features[rows] @ to_array(part.vectors).T
                found[rows] += values.sum(axis=1, dtype=np.float64)
        return found

    def _values_of_class(self, kernel_features: np.ndarray, class_index: int) -> scipy.sparse.csr_array:
        found = [
            (part.indices, kernel_features @ to_array(part.vectors).T)
            for part in self.candidates(class_index)
        ]
        if not found:
            return scipy.sparse.csr_array(
                (len(kernel_features), self.coefficients.shape[0]), dtype=np.float32
            )
        indices = np.concatenate([own for own, _ in found])
        values = np.concatenate([own for _, own in found], axis=1)
        pointers = np.arange(len(values) + 1) * len(indices)
        shape = (len(values), self.coefficients.shape[0])
        return scipy.sparse.csr_array((values.ravel(), np.tile(indices, len(values)), pointers), shape=shape)

    def self_influence(self, labels: np.ndarray) -> np.ndarray:
        """Return alpha[i, labels[i]] * ||phi_i||^2 of every training example, shape (n,), float32.

        Args:
            labels: a class, shape (n,), or a weight for each output, shape (n, c).
        """
        coefficients = scipy.sparse.csr_array(self.coefficients)
        if labels.ndim == 2:
            own = coefficients[self.rows].multiply(labels[self.rows]).sum(axis=1)
        else:
            own = coefficients[self.rows, labels[self.rows]]
        values = np.zeros(self.coefficients.shape[0], np.float32)
        own = np.asarray(own).ravel()
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            rows = self.rows[start : start + _ROWS_AT_ONCE]
            squared_norms = (self._kernel_features(rows).astype(np.float64) ** 2).sum(axis=1)
            values[rows] = own[start : start + _ROWS_AT_ONCE] * squared_norms
        return values
