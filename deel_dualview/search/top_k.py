"""Streaming top-k of influence values, exact and with ties broken by the lower index."""

import enum
import importlib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview._summaries import are_equally_strong
from deel_dualview.data import named_labels, to_array, unpack

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 64
_COLUMNS_PER_BLOCK = 65536
_MOST_LINES, _MOST_PAIRS = 5, 6


class ORDER(enum.Enum):
    """Which training examples come first: the greatest influence values, or the smallest."""

    ASCENDING = 1
    DESCENDING = 2

    @property
    def opposite(self) -> "ORDER":
        """The other order."""
        return ORDER.ASCENDING if self is ORDER.DESCENDING else ORDER.DESCENDING


def to_order(order: ORDER | str) -> ORDER:
    """Return an order given as such or by its name, in small or capital letters.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(order, str) and order.upper() in ORDER.__members__:
        return ORDER[order.upper()]
    if not isinstance(order, ORDER):
        raise TypeError(
            "`order` must be ORDER.DESCENDING (proponents first) or ORDER.ASCENDING (opponents first), or "
            f"'descending' or 'ascending'. Received: order={order!r}."
        )
    return order


class TopK(NamedTuple):
    """For each of m evaluated examples, the k training examples of greatest (or smallest) influence.

    Attributes:
        samples: the element of the evaluated dataset, as it came.
        influence_values: shape (m, k), the first the most extreme.
        training_samples: elements of the training set, in their structure, each tensor (m, k, ...).
        training_indices: their positions in the training set, shape (m, k), int64; of a model with an output at each
            step or pixel (m, k, 1 + axes): the example, then its step or row and column.
    """

    samples: Any
    influence_values: Any
    training_samples: Any
    training_indices: Any

    def __repr__(self) -> str:
        if not isinstance(self.training_indices, np.ndarray) and not hasattr(self.training_indices, "numpy"):
            return f"TopK of {self.influence_values!r}"
        values, indices = to_array(self.influence_values), to_array(self.training_indices)
        title = f"TopK: {len(values)} evaluated examples, {values.shape[1]} training examples of each"
        return "\n".join([f"{title} (index: influence value)", *_to_lines(values, indices)])

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each pair of an evaluated and a training example; pandas is imported here.

        Columns: `query` (position in this batch), `rank` (from 1), `training_index`, `influence_value`, and where the
        training set has them `training_label` (of several outputs `training_label_NAME`) and `training_id`.
        """
        import pandas as pd

        values, indices = to_array(self.influence_values), to_array(self.training_indices)
        num_queries, k = values.shape
        columns: dict[str, Any] = {
            "query": np.repeat(np.arange(num_queries), k),
            "rank": np.tile(np.arange(1, k + 1), num_queries),
            "training_index": indices.reshape(num_queries * k, -1)[:, 0],
            "influence_value": values.ravel(),
        }
        if indices.ndim > 2:
            places = indices[..., 1:].reshape(num_queries * k, -1)
            columns["training_position"] = places[:, 0] if places.shape[1] == 1 else list(map(tuple, places))
        batch = unpack(self.training_samples)
        parts = {f"training_{name}": part for name, part in named_labels(batch.labels).items()}
        for name, part in (parts | {"training_id": batch.ids}).items():
            if part is not None:
                rows = to_array(part).reshape(num_queries * k, *part.shape[2:])
                if name != "training_id" and indices.ndim > 2 and rows.ndim > places.shape[1]:
                    rows = rows[(np.arange(len(rows)), *places.T)]
                columns[name] = rows.ravel() if rows.size == len(rows) else list(rows.reshape(len(rows), -1))
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        return importlib.import_module("deel_dualview.report.notebook").top_k_to_html(self)


Best = tuple[np.ndarray, np.ndarray]
"""Values (m, k) and training indices (m, k) int64, the most extreme value first, ties by the lower index."""


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
        if not len(indices):
            continue
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
        values: shape (m, b), floating.
        indices: training index of each column, shape (b,), in any order, each once.
        k: number of columns to keep.
        order: which end comes first.

    Raises:
        ValueError: a value is not finite (the message says for which training examples).
    """
    values, indices = to_array(values), np.asarray(indices, np.int64)
    _check_finite(values, indices)
    if np.any(np.diff(indices) < 0):
        ranks = np.argsort(indices)
        values, indices = values[:, ranks], indices[ranks]
    k = min(k, len(indices))
    keys = values if order is ORDER.DESCENDING else -values
    columns = _candidate_columns(keys, k)
    candidates = np.take_along_axis(keys, np.minimum(columns, len(indices) - 1), axis=1)
    candidates[columns >= len(indices)] = -np.inf
    chosen = np.take_along_axis(columns, _first_ranks(candidates, k), axis=1)
    return np.take_along_axis(values, chosen, axis=1), indices[chosen]


def merge_top_k(best: Best, others: Best, k: int, order: ORDER = ORDER.DESCENDING) -> Best:
    """Return the k (or all, if fewer) most extreme of two results over different training examples."""
    values, indices = (np.concatenate(pair, axis=1) for pair in zip(best, others, strict=True))
    keys = -values if order is ORDER.DESCENDING else values
    ranks = np.lexsort((indices, keys), axis=1)[:, :k]
    return np.take_along_axis(values, ranks, axis=1), np.take_along_axis(indices, ranks, axis=1)


def inner_product_blocks(
    queries: Any, vectors: Any, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray | tf.Tensor]]:
    """Yield (indices (b,), queries @ vectors.T (m, b)) in blocks of bounded width.

    Args:
        queries: shape (m, d).
        vectors: shape (s, d), same dtype; where they live decides where the products are computed.
        indices: training index of each vector, shape (s,).
    """
    for start in range(0, len(indices), _COLUMNS_PER_BLOCK):
        block = slice(start, start + _COLUMNS_PER_BLOCK)
        if isinstance(vectors, np.ndarray):
            # On a CPU, NumPy's product takes half of TensorFlow's time and none of its call's overhead.
            yield indices[block], to_array(queries) @ vectors[block].T
        else:
            yield indices[block], tf.matmul(queries, vectors[block], transpose_b=True)


def _to_lines(values: np.ndarray, indices: np.ndarray) -> list[str]:
    """Return one line for each of the first evaluated examples."""
    lines = []
    for row in range(min(len(values), _MOST_LINES)):
        names = map(index_as_text, indices[row, :_MOST_PAIRS].tolist())
        pairs = zip(names, values[row, :_MOST_PAIRS], strict=True)
        rest = [] if values.shape[1] <= _MOST_PAIRS else ["..."]
        note = "  (equally strong)" if are_equally_strong(values[row]) else ""
        lines.append(
            f"  {row}  {', '.join([*(f'{index}: {value:.4g}' for index, value in pairs), *rest])}{note}"
        )
    return lines if len(values) <= _MOST_LINES else [*lines, "  ..."]


def index_as_text(index: int | list[int]) -> str:
    """Return an index as text, of an example and a position as in "17@3" or "17@3,5"."""
    return str(index) if isinstance(index, int) else f"{index[0]}@{','.join(map(str, index[1:]))}"


def _candidate_columns(keys: np.ndarray, k: int) -> np.ndarray:
    """Return columns, increasing in each row, among which are the k greatest keys and earliest of equals.

    The k chunks of greatest maximum, the earliest of equals, hold them: k maxima come before a key elsewhere.
    Finding them takes one reading of the keys, far less than a partition of every row, however many are equal.
    The last chunk may be short: its columns may then lie beyond the last one.
    """
    num_columns = keys.shape[1]
    width = max(1, min(_CHUNK, math.isqrt(num_columns // k)))
    maxima = np.maximum.reduceat(keys, np.arange(0, num_columns, width), axis=1)
    places = np.sort(_first_ranks(maxima, k), axis=1)
    return (places[:, :, np.newaxis] * width + np.arange(width)).reshape(len(keys), -1)


def _first_ranks(keys: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k greatest keys of each row, the greatest first, the earliest of equals."""
    return np.argsort(-keys, axis=1, kind="stable")[:, :k]


def _check_finite(values: np.ndarray, indices: np.ndarray) -> None:
    if np.isfinite(values.sum(dtype=np.float64)):
        return
    wrong = indices[~np.isfinite(values).all(axis=0)]
    require(
        len(wrong) == 0,
        "Influence values must be finite: check the features of these training examples and of the evaluated "
        "batch for NaN, infinity or huge numbers.",
        {"training_indices": wrong.tolist()},
    )
