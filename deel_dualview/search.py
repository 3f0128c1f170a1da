"""Streaming top-k of influence values, exact and with ties broken by the lower index."""

import enum
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview.gathering import gather_examples as gather_examples

_PREFERRED_CHUNK = 64
_COLUMNS_PER_BLOCK = 128 * _PREFERRED_CHUNK


class ORDER(enum.Enum):
    """Which training examples come first: the greatest influence values, or the smallest."""

    ASCENDING = 1
    DESCENDING = 2


class TopK(NamedTuple):
    """For each of m evaluated examples, the k training examples of greatest (or smallest) influence.

    Attributes:
        samples: the element of the evaluated dataset, as it came.
        influence_values: shape (m, k), the first the most extreme.
        training_samples: elements of the training set, in their structure, each tensor (m, k, ...).
        training_indices: their positions in the training set, shape (m, k), int64.
    """

    samples: Any
    influence_values: Any
    training_samples: Any
    training_indices: Any


Best = tuple[tf.Tensor, tf.Tensor]
"""Values (m, k) and training indices (m, k) int64, the most extreme value first, ties by the lower index."""

Columns = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def streaming_top_k(blocks: Iterable[tuple[Any, Any]], k: int, order: ORDER = ORDER.DESCENDING) -> Best:
    """Return the k most extreme of all columns of values, seen block by block in any order.

    Memory stays at m x (k + the widest block).

    Args:
        blocks: (training indices (b,) integers, values (m, b) floating), each index once.
        k: number of columns to keep, at most the number of columns in all.
        order: which end comes first.

    Raises:
        ValueError: k is less than 1 or more than the columns of all blocks, or a value is not finite.
    """
    k = check_count("k", k)
    best: Best | None = None
    num_seen = 0
    for indices, values in blocks:
        num_seen += len(indices)
        found = block_top_k(values, indices, k, order)
        best = found if best is None else merge_top_k(best, found, k, order)
    check_k(k, num_seen)
    if best is None:
        raise ValueError(describe("At least one block of values is needed.", {"k": k}))
    return best


def block_top_k(values: Any, indices: Any, k: int, order: ORDER = ORDER.DESCENDING) -> Best:
    """Return the k (or all, if fewer) most extreme columns of one block.

    Args:
        values: shape (m, b), floating; b with a divisor between 16 and 128 makes it several times faster.
        indices: training index of each column, shape (b,), in any order, each once.
        k: number of columns to keep.
        order: which end comes first.

    Raises:
        ValueError: a value is not finite (the message says for which training examples).
    """
    values = tf.convert_to_tensor(values)
    indices = np.asarray(indices, np.int64)
    if np.any(np.diff(indices) < 0):
        ranks = np.argsort(indices)
        values, indices = tf.gather(values, ranks, axis=1), indices[ranks]
    width = _chunk_width(len(indices))
    top_columns = _top_columns_function(values.dtype, order, width > 1)
    kept, columns, total = top_columns(values, min(k, len(indices)), width)
    if not np.isfinite(total):
        _refuse_non_finite(values, indices)
    return kept, tf.gather(tf.constant(indices), columns)


def merge_top_k(best: Best, others: Best, k: int, order: ORDER = ORDER.DESCENDING) -> Best:
    """Return the k (or all, if fewer) most extreme of two results over different training examples."""
    k = min(k, int(best[1].shape[1]) + int(others[1].shape[1]))
    return _merge(best, others, k, order is ORDER.DESCENDING)


def sparse_top_k(
    values: Any, candidate_indices: Any, *, num_examples: int, k: int, order: ORDER = ORDER.DESCENDING
) -> Best:
    """Return the k most extreme of n values of which all but the candidates' are zero.

    Args:
        values: of the candidates (the support vectors of a class, for instance), shape (m, s), floating.
        candidate_indices: their positions in the training set, shape (s,), each once.
        num_examples: n, the size of the training set.
        k: number of training examples to keep, at most n.
        order: which end comes first.

    Raises:
        ValueError: k is less than 1 or more than n, or a value is not finite.
    """
    k = check_k(k, num_examples)
    values = tf.convert_to_tensor(values)
    first_indices = np.arange(min(len(candidate_indices) + k, num_examples))
    zero_indices = np.setdiff1d(first_indices, candidate_indices)[:k]
    zeros = tf.zeros((tf.shape(values)[0], len(zero_indices)), values.dtype)
    blocks = [(candidate_indices, values), (zero_indices, zeros)]
    return streaming_top_k([block for block in blocks if len(block[0])], k, order)


def inner_product_blocks(
    queries: tf.Tensor, vectors: tf.Tensor, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """Yield (indices (b,), queries @ vectors.T (m, b)) in blocks of the widths that `block_top_k` likes.

    Args:
        queries: shape (m, d).
        vectors: shape (s, d), same dtype.
        indices: training index of each vector, shape (s,).
    """
    whole_chunks = len(indices) // _PREFERRED_CHUNK * _PREFERRED_CHUNK
    bounds = [*range(0, whole_chunks, _COLUMNS_PER_BLOCK), whole_chunks, len(indices)]
    for start, stop in itertools.pairwise(bounds):
        if start < stop:
            yield indices[start:stop], tf.matmul(queries, vectors[start:stop], transpose_b=True)


def _chunk_width(num_columns: int) -> int:
    """Return into how wide chunks columns are cut; 1 if they are few or cannot be cut evenly."""
    if num_columns < 4 * _PREFERRED_CHUNK:
        return 1
    widths = sorted(range(16, 129), key=lambda width: abs(width - _PREFERRED_CHUNK))
    return next((width for width in widths if num_columns % width == 0), 1)


@functools.cache
def _top_columns_function(dtype: tf.DType, order: ORDER, in_chunks: bool) -> Callable[..., Columns]:
    """Return the compiled function from (values (m, b), k, chunk width) to (values, columns (m, k), sum)."""
    signature = [tf.TensorSpec((None, None), dtype), tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int32)]
    sign = tf.constant(1 if order is ORDER.DESCENDING else -1, dtype)
    extreme = tf.reduce_max if order is ORDER.DESCENDING else tf.reduce_min

    def in_one(values: tf.Tensor, k: tf.Tensor, width: tf.Tensor) -> Columns:
        del width
        kept, columns = tf.math.top_k(values if order is ORDER.DESCENDING else -values, k)
        return sign * kept, columns, tf.reduce_sum(values)

    def by_chunks(values: tf.Tensor, k: tf.Tensor, width: tf.Tensor) -> Columns:
        # The k chunks of greatest maximum hold the k greatest values, ties by position included: a value
        # outside of them comes after k maxima. Reading a maximum per chunk is far cheaper than top_k.
        num_queries, num_columns = tf.unstack(tf.shape(values))
        chunks = tf.reshape(values, (num_queries, num_columns // width, width))
        _, places = tf.math.top_k(sign * extreme(chunks, axis=2), tf.minimum(k, num_columns // width))
        places = tf.sort(places, axis=1)
        candidates = tf.reshape(sign * tf.gather(chunks, places, batch_dims=1), (num_queries, -1))
        kept, found = tf.math.top_k(candidates, k)
        columns = tf.gather(places, found // width, batch_dims=1) * width + found % width
        return sign * kept, columns, tf.reduce_sum(values)

    return tf.function(by_chunks if in_chunks else in_one, input_signature=signature)


@tf.function(reduce_retracing=True)
def _merge(best: Best, others: Best, k: int, is_descending: bool) -> Best:
    values = tf.concat([best[0], others[0]], axis=1)
    indices = tf.concat([best[1], others[1]], axis=1)
    # top_k breaks ties by position: make the positions follow the indices.
    ranks = tf.argsort(indices, axis=1)
    values = tf.gather(values, ranks, batch_dims=1)
    indices = tf.gather(indices, ranks, batch_dims=1)
    sign = tf.constant(1 if is_descending else -1, values.dtype)
    kept, columns = tf.math.top_k(sign * values, k)
    return sign * kept, tf.gather(indices, columns, batch_dims=1)


def _refuse_non_finite(values: tf.Tensor, indices: np.ndarray) -> None:
    """Raise for the columns that hold NaN or infinity (none if the sum alone overflowed)."""
    wrong = indices[~tf.reduce_all(tf.math.is_finite(values), axis=0).numpy()]
    require(
        len(wrong) == 0,
        "Influence values must be finite: check the features of these training examples and of the evaluated "
        "batch for NaN, infinity or huge numbers.",
        {"training_indices": wrong.tolist()},
    )
