"""Passes over a dataset: one that computes what a store lacks, and those that only check examples."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview._checks import describe, require
from deel_dualview.data import (
    ChangedError,
    changed_message,
    compared_examples,
    slice_examples,
    to_array,
)
from deel_dualview.hashing import to_bytes
from deel_dualview.stores.base import HASHES, Block, ChangedDataError, Column, Compute
from deel_dualview.witness import is_read_twice

_SHARE_OF_TIME = 0.05
_LEAST_BATCHES = 2


def compute_blocks(
    dataset: tf.data.Dataset, compute: Compute, known_hashes: np.ndarray, bar: tqdm
) -> Iterator[Block]:
    """Yield what `compute` returns, and the hashes, for every example after those whose hashes are known.

    Args:
        dataset: batched.
        compute: never called with an example whose hash is known.
        known_hashes: of the first examples, which must be those; shape (number known,).
        bar: updated once a batch, and closed.

    Raises:
        ValueError: no example, or `compute` returned something that cannot be stored.
        ChangedDataError: the first examples are not those known.
    """
    first: Block = {}
    num_seen = 0
    for indices, hashes, element in _hashed_batches(dataset, bar):
        known = known_hashes[indices[0] : indices[-1] + 1]
        check_hashes(hashes[: len(known)], known, int(indices[0]))
        if len(known) < len(indices):
            block = _compute_block(compute, element, hashes, len(known), indices)
            first = first or {name: array[:0] for name, array in block.items()}
            _check_alike(block, first)
            yield block
        num_seen = int(indices[-1]) + 1
    if num_seen < len(known_hashes):
        check_length(num_seen, len(known_hashes))


def read_hashes(dataset: tf.data.Dataset, bar: tqdm) -> np.ndarray:
    """Return the hashes of all examples of a dataset, shape (n,)."""
    column = Column(0)
    for _, hashes, _ in _hashed_batches(dataset, bar):
        column.append(hashes)
    return column.array()


def check_examples(dataset: tf.data.Dataset, known_hashes: np.ndarray, bar: tqdm) -> None:
    """Compare all examples of a dataset with known hashes (n,), computing nothing else.

    Raises:
        ChangedDataError: there are fewer or more examples, or one differs.
    """
    num_seen = 0
    for indices, hashes, _ in _hashed_batches(dataset, bar):
        start = int(indices[0])
        known = known_hashes[start : start + len(hashes)]
        check_hashes(hashes[: len(known)], known, start)
        num_seen = start + len(hashes)
        if len(known) < len(hashes):
            break
    check_length(num_seen, len(known_hashes))


def read_again(dataset: tf.data.Dataset, seconds: float) -> None:
    """Compare a dataset with the pass that was just made, as far as a small part of its time allows.

    A training set that shuffles beyond its first batch is found so, where influence values are computed
    without another pass. Where all was read twice before, nothing is done.

    Args:
        dataset: the very object that was read.
        seconds: that the pass took, computations included.

    Raises:
        ChangedDataError: an example differs.
    """
    if is_read_twice(dataset):
        return
    end = time.perf_counter() + _SHARE_OF_TIME * seconds
    try:
        for number, _ in enumerate(compared_examples(dataset), start=1):
            if number >= _LEAST_BATCHES and time.perf_counter() > end:
                return
    except ChangedError as error:
        raise ChangedDataError(str(error)) from error


def check_hashes(hashes: np.ndarray, known: np.ndarray, start: int) -> None:
    """Refuse examples whose hashes are not those known, both of shape (b,), from example `start` on.

    Raises:
        ChangedDataError: an example differs.
    """
    check_length(start + len(hashes), start + len(known))
    if not np.array_equal(hashes, known):
        index = start + int(np.argmax(hashes != known))
        raise ChangedDataError(describe(changed_message("dataset", "another example"), {"index": index}))


def check_length(num_examples_now: int, num_examples_before: int) -> None:
    """Refuse a dataset whose number of examples changed (if it grew, the number now is a lower bound).

    Raises:
        ChangedDataError: the numbers differ.
    """
    if num_examples_now != num_examples_before:
        found = "more examples" if num_examples_now > num_examples_before else "fewer examples"
        received = {"num_examples before": num_examples_before, "num_examples now": num_examples_now}
        raise ChangedDataError(describe(changed_message("dataset", found), received))


def _hashed_batches(dataset: tf.data.Dataset, bar: tqdm) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield (indices (b,), hashes (b,), element) for every batch that is not empty."""
    require(
        int(dataset.cardinality()) != tf.data.INFINITE_CARDINALITY,
        "The dataset never ends: remove `.repeat()`, or stop it with `.take(num_batches)`.",
        {"dataset": dataset},
    )
    num_seen = 0
    with bar:
        try:
            for indices, hashes, element in compared_examples(dataset):
                num_seen += len(indices)
                if len(indices):
                    yield indices, hashes, element
                bar.update()
        except ChangedError as error:
            raise ChangedDataError(str(error)) from error
    require(num_seen > 0, "The dataset is empty: at least one example is needed.", {"num_examples": num_seen})


def _compute_block(
    compute: Compute, element: Any, hashes: np.ndarray, skip: int, indices: np.ndarray
) -> Block:
    """Return the arrays of an element's examples from position `skip` on, checked."""
    element = slice_examples(element, skip) if skip else element
    indices, hashes = indices[skip:], hashes[skip:]
    block = {name: _to_storable(name, array) for name, array in compute(element).items()}
    block[HASHES] = hashes
    require(
        all(array.shape[:1] == indices.shape for array in block.values()),
        "One row per example must be computed.",
        {"shapes": {name: array.shape for name, array in block.items()}},
    )
    for name, array in block.items():
        _check_finite(name, array, indices)
    return block


def _to_storable(name: str, values: Any) -> np.ndarray:
    """Return values as an array of numbers, or of bytes of one width."""
    is_free = name.isidentifier() and name != HASHES
    require(is_free, f"An array's name must be a word, not {HASHES!r}.", {"name": name})
    array = to_array(values)
    if array.dtype.kind in "OU":
        texts = [to_bytes(text) for text in array.reshape(-1).tolist()]
        array = np.array(texts, np.bytes_).reshape(array.shape)
    require(array.dtype.kind in "biufcS", f"`{name}` must be numbers or text.", {"dtype": array.dtype})
    return array


def _check_finite(name: str, array: np.ndarray, indices: np.ndarray) -> None:
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return
    wrong = indices[~np.isfinite(array).reshape(len(array), -1).all(axis=1)]
    raise ValueError(
        describe(
            f"The model computes NaN or infinite {name} for {len(wrong)} example(s) of a batch: mend or "
            "filter out those examples, or check the model's weights.",
            {"indices": wrong.tolist()},
        )
    )


def _check_alike(block: Block, first: Block) -> None:
    def describe_row(array: np.ndarray) -> tuple[Any, ...]:
        return ("text" if array.dtype.kind == "S" else array.dtype.name, *array.shape[1:])

    expected = {name: describe_row(array) for name, array in first.items()}
    found = {name: describe_row(array) for name, array in block.items()}
    require(
        found == expected,
        "Every batch must give arrays of the same names, shapes and dtypes.",
        {"first": expected, "later": found},
    )
