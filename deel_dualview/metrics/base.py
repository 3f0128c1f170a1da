"""What all metrics share: values of any kind read row by row, and a result with its interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.stats
import tensorflow as tf

from deel_dualview._checks import check_count, check_seed, is_number, require
from deel_dualview._summaries import Summarised
from deel_dualview.data import to_array

# Rows are made dense and float64 a block at a time.
_BLOCK_BYTES = 64 * 2**20
UNKNOWN_SIZE = int(np.iinfo(np.int64).max)
"""Number of training examples where it is not given to a metric."""
_LARGEST_CLASS = 2.0**53  # beyond, floats are no longer all whole numbers


class MetricResult(NamedTuple):
    """Result of a metric.

    Attributes:
        value: the metric.
        num_examples: over how many examples: test examples, or training examples where these are ranked.
        interval: bootstrap interval of the value at the metric's confidence level, over these examples.
    """

    value: float
    num_examples: int
    interval: tuple[float, float]


class Metric(Summarised, ABC):
    """A figure of merit of training-data attributions, fed batch by batch.

    Influence values are matrices (m, n), one row a test example, positive for proponents: NumPy arrays,
    tensors or `scipy.sparse`, from this library or any other.

    Args:
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out (nan).
        seed: of the bootstrap.
    """

    def __init__(self, *, confidence_level: float = 0.95, num_resamples: int = 1000, seed: int = 0):
        require(
            is_number(confidence_level) and 0 < confidence_level < 1,
            "`confidence_level` must lie between 0 and 1.",
            {"confidence_level": confidence_level},
        )
        self.confidence_level = confidence_level
        self.num_resamples = check_count("num_resamples", num_resamples) if num_resamples else 0
        self.seed = check_seed("seed", seed)
        self.reset_state()

    @abstractmethod
    def reset_state(self) -> None:
        """Forget all examples."""

    @abstractmethod
    def result(self) -> MetricResult:
        """Return the metric over all examples since the last reset.

        Raises:
            ValueError: there is none.
        """

    def _interval(self, statistic: Callable[[np.ndarray], float], num_examples: int) -> tuple[float, float]:
        """Return the percentile interval of `statistic(rows)`, a function of resampled row indices."""
        if not self.num_resamples or num_examples < 2:
            return float("nan"), float("nan")
        interval = self._resampled(statistic, num_examples).confidence_interval
        return float(interval.low), float(interval.high)

    def _resampled(self, statistic: Callable[[np.ndarray], float], num_examples: int) -> Any:
        """Return what `scipy.stats.bootstrap` finds of `statistic(rows)`."""
        return scipy.stats.bootstrap(
            (np.arange(num_examples),),
            statistic,
            n_resamples=self.num_resamples,
            vectorized=False,
            confidence_level=self.confidence_level,
            method="percentile",
            random_state=np.random.default_rng(self.seed),
        )


class MeanMetric(Metric):
    """A metric that is the mean of one score for each test example; subclasses say which."""

    def reset_state(self) -> None:
        """Forget all examples."""
        self._scores: list[np.ndarray] = []

    @property
    def scores(self) -> np.ndarray:
        """The score of every test example so far, in their order, shape (m,)."""
        return np.concatenate([np.empty(0), *self._scores])

    def result(self) -> MetricResult:
        """Return the mean score.

        Raises:
            ValueError: no example was given.
        """
        scores = self.scores
        require(len(scores) > 0, f"{type(self).__name__} has seen no example: call `update_state`.", {})
        interval = self._interval(lambda rows: float(scores[rows].mean()), len(scores))
        return MetricResult(float(scores.mean()), len(scores), interval)

    def _append(self, scores: np.ndarray) -> None:
        self._scores.append(np.asarray(scores, np.float64))


def row_blocks(influence_values: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, their values as float64) of a matrix (m, n) of any kind, a bounded block at a time.

    Raises:
        ValueError: the values are no matrix, no real numbers, or not finite (the message says which rows).
    """
    if isinstance(influence_values, tf.SparseTensor):
        positions, shape = influence_values.indices.numpy().T, tuple(influence_values.shape)
        influence_values = scipy.sparse.coo_array((influence_values.values.numpy(), tuple(positions)), shape)
    is_sparse = scipy.sparse.issparse(influence_values)
    check_unmasked("Influence values", influence_values)
    values: Any = influence_values.tocsr() if is_sparse else to_array(influence_values)
    require(
        values.ndim == 2 and values.shape[1] > 0,
        "Influence values must be a matrix (num_test, num_train).",
        {"shape": values.shape},
    )
    _check_real("Influence values", values)
    step = max(1, _BLOCK_BYTES // (8 * values.shape[1]))
    for start in range(0, values.shape[0], step):
        rows = slice(start, min(start + step, values.shape[0]))
        block = values[rows].toarray() if is_sparse else values[rows]
        block = np.asarray(block, np.float64)
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        require(len(bad) == 0, "Influence values must be finite.", {"rows": (start + bad).tolist()})
        yield rows, block


def to_reals(name: str, numbers: Any) -> np.ndarray:
    """Return real numbers of any kind as float64.

    Raises:
        ValueError: they are something else (names, complex numbers).
    """
    check_unmasked(name, numbers)
    array = to_array(numbers)
    _check_real(name, array)
    return np.asarray(array, np.float64)


def check_unmasked(name: str, numbers: Any) -> None:
    """Refuse masked entries, which NumPy would take for numbers.

    Raises:
        ValueError: an array with masked entries.
    """
    num_masked = int(np.ma.count_masked(numbers)) if isinstance(numbers, np.ma.MaskedArray) else 0
    require(num_masked == 0, f"{name} must have no masked entries: fill them.", {"num_masked": num_masked})


def _check_real(name: str, array: Any) -> None:
    require(is_real(array.dtype), f"{name} must be real numbers.", {"dtype": str(array.dtype)})


def is_real(dtype: np.dtype) -> bool:
    """Return whether numbers of this type are real, bfloat16 and int4 among them."""
    # Kinds of bfloat16, int4 and their like are "V" to NumPy, as those of records are.
    return dtype.kind in "biuf" or dtype.name.startswith(("bfloat", "float", "int", "uint"))


def checked_vector(name: str, vector: Any, size: int) -> np.ndarray:
    """Return one entry an example as an array of shape (size,).

    Raises:
        ValueError: the shape differs.
    """
    check_unmasked(f"`{name}`", vector)
    array = to_array(vector)
    require(
        array.shape == (size,),
        f"`{name}` must have one entry an example, shape ({size},).",
        {"shape": array.shape},
    )
    return array


def checked_classes(name: str, classes: Any, size: int) -> np.ndarray:
    """Return one class an example as integers, shape (size,).

    Raises:
        ValueError: the shape differs, or an entry is no whole number (text and NaN equal no class, and would be
            counted as misses).
    """
    array = checked_vector(name, classes, size)
    is_number = is_real(array.dtype)
    numbers = array.astype(np.float64) if is_number else np.full(size, np.nan)
    is_class = (numbers == np.round(numbers)) & (np.abs(numbers) < _LARGEST_CLASS)
    require(
        bool(is_class.all()),
        f"`{name}` must be classes as integers; np.unique(names, return_inverse=True)[1] makes them of names.",
        {"dtype": str(array.dtype), "values": array[~is_class]},
    )
    return array.astype(np.int64)


def checked_positions(training_indices: Any, k: int, num_train: int) -> np.ndarray:
    """Return the first k of the positions of each test example, shape (m, k).

    Raises:
        ValueError: fewer than k, positions outside of the training set, or one twice in a row.
    """
    indices = to_array(training_indices)
    require(
        indices.ndim == 2 and indices.shape[1] >= k and np.issubdtype(indices.dtype, np.integer),
        f"`training_indices` must be the positions of {k} or more proponents a test example, shape (m, {k}).",
        {"shape": indices.shape, "dtype": str(indices.dtype)},
    )
    first = indices[:, :k]
    smallest, largest = (int(first.min()), int(first.max())) if first.size else (0, 0)
    require(
        first.size == 0 or 0 <= smallest <= largest < num_train,
        "`training_indices` must be positions in the training set, "
        + ("0 or more." if num_train == UNKNOWN_SIZE else f"0..{num_train - 1}."),
        {"smallest": smallest, "largest": largest},
    )
    ordered = np.sort(first, axis=1)
    repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    require(
        len(repeated) == 0,
        "`training_indices` must name every proponent of a test example once.",
        {"rows": repeated.tolist()},
    )
    return first


def shape_of(influence_values: Any) -> tuple[int, int]:
    """Return (m, n) of a matrix of influence values of any kind.

    Raises:
        ValueError: it is no matrix.
    """
    shape = tuple(
        influence_values.shape if hasattr(influence_values, "shape") else np.shape(influence_values)
    )
    require(
        len(shape) == 2 and shape[1] != 0,
        "Influence values must be a matrix (num_test, num_train).",
        {"shape": shape},
    )
    return int(shape[0]), int(shape[1])
