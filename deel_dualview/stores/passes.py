"""Passes over a dataset: one that computes the vectors that a store lacks, and others that only check examples."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview._checks import describe, require
from deel_dualview.data import (
    ChangedError,
    changed_message,
    check_bounded,
    compared_examples,
    hash_ids,
    naming_positions,
    slice_examples,
    to_array,
)
from deel_dualview.data.hashing import to_bytes
from deel_dualview.data.identity import is_read_twice
from deel_dualview.stores.base import CHECKED, HASHES, ID_HASHES, Block, Column, Compute

# So much reading costs little beside the network's pass, and finds any reshuffling.
_SHARE_READ_AGAIN = 0.05
_LEAST_BATCHES = 2
_KEEP_LENGTH = (
    "Every pass must yield the same examples: a filter, a generator or files have changed, or another part was "
    "taken."
)


def compute_blocks(dataset: tf.data.Dataset, compute: Compute, known: Block, bar: tqdm) -> Iterator[Block]:
    """Yield what `compute` returns, and the hashes, for every example after those whose hashes are known.

    Args:
        dataset: batched.
        compute: never called with an example whose hash is known.
        known: hashes of the contents, and of the ids if there are any, of the first examples, which must be
            those; each of shape (number known,). Empty if none is known.
        bar: updated once a batch, and closed.

    Raises:
        ValueError: no example, or `compute` returned something that cannot be stored.
        ChangedError: the first examples are not those known.
    """
    num_known, num_seen = len(known.get(HASHES, ())), 0

    def run_of(position: int) -> tuple[float, bool]:
        return (num_known, False) if position < num_known else (math.inf, True)

    for start, block in compute_runs(dataset, compute, run_of, bar):
        num_seen = start + len(block[HASHES])
        if start < num_known:
            check_same(block, _rows(known, start, num_seen), start)
        else:
            yield block
    if num_seen < num_known:
        check_length(num_seen, num_known)


def compute_runs(
    dataset: tf.data.Dataset, compute: Compute, run_of: Callable[[int], tuple[float, bool]], bar: tqdm
) -> Iterator[tuple[int, Block]]:
    """Yield (position, block) of consecutive examples: hashes, and where they are wanted what `compute` returns.

    Args:
        dataset: batched.
        compute: called with the wanted examples only.
        run_of: gives, of a position, where the run of examples ends that it lies in, and whether that is wanted. A
            block is part of one run and one batch.
        bar: updated once a batch, and closed.

    Raises:
        ValueError: no example, or `compute` returned something that cannot be stored.
    """
    first: Block = {}
    for indices, hashes, element in _hashed_batches(dataset, bar):
        start, stop = int(indices[0]), int(indices[-1]) + 1
        position = start
        while position < stop:
            end, is_wanted = run_of(position)
            rows = slice(position - start, int(min(end, stop)) - start)
            block = _rows(hashes, rows.start, rows.stop)
            if is_wanted:
                block = _compute_block(compute, element, block, rows, indices)
                first = first or _rows(block, 0, 0)
                _check_alike(block, first)
            yield position, block
            position = start + rows.stop


def read_hashes(dataset: tf.data.Dataset, bar: tqdm) -> Block:
    """Return the hashes of the contents, and of the ids if there are any, of all examples, each of shape (n,)."""
    columns: dict[str, Column] = {}
    for _, hashes, _ in _hashed_batches(dataset, bar):
        columns = columns or {name: Column(0) for name in hashes}
        for name, rows in hashes.items():
            columns[name].append(rows)
    return {name: column.array() for name, column in columns.items()}


def check_examples(dataset: tf.data.Dataset, known: Block, bar: tqdm) -> None:
    """Compare all examples of a dataset with known hashes, each of shape (n,), computing nothing else.

    Raises:
        ChangedError: there are fewer or more examples, or one differs, or its id does.
    """
    num_known, num_seen = len(known[HASHES]), 0
    for indices, hashes, _ in _hashed_batches(dataset, bar):
        start, num_seen = int(indices[0]), int(indices[-1]) + 1
        num_alike = min(num_known - start, len(indices))
        check_same(_rows(hashes, 0, num_alike), _rows(known, start, start + num_alike), start)
        if num_seen > num_known:
            break
    check_length(num_seen, num_known)


def read_again(dataset: tf.data.Dataset, num_examples: int) -> None:
    """Compare the first twentieth of a dataset, at least two batches, with the pass that was just made.

    A training set that shuffles beyond its first batch is found so, where influence values are computed
    without another pass. Where all was read twice before, nothing is done.

    Args:
        dataset: the very object that was read.
        num_examples: that it has.

    Raises:
        ChangedError: an example differs.
    """
    if is_read_twice(dataset):
        return
    for number, (indices, *_) in enumerate(compared_examples(dataset), start=1):
        if number >= _LEAST_BATCHES and indices[-1] + 1 >= _SHARE_READ_AGAIN * num_examples:
            return


def check_same(found: Block, known: Block, start: int) -> None:
    """Refuse examples whose hashes are not those known, all of shape (b,), from example `start` on.

    Raises:
        ChangedError: an example differs, or its id does, or one of the two has no ids.
    """
    check_length(start + len(found[HASHES]), start + len(known[HASHES]))
    for name, another in ((HASHES, "another example"), (ID_HASHES, "another id")):
        if name not in found and name not in known:
            continue
        if name not in found or name not in known:
            raise ChangedError(describe(changed_message("dataset", "ids in one pass alone"), {}))
        if not np.array_equal(found[name], known[name]):
            index = start + int(np.argmax(found[name] != known[name]))
            raise ChangedError(describe(changed_message("dataset", another), {"index": index}))


def check_length(num_examples_now: int, num_examples_before: int) -> None:
    """Refuse a dataset whose number of examples changed (if it grew, the number now is a lower bound).

    Raises:
        ChangedError: the numbers differ.
    """
    if num_examples_now != num_examples_before:
        found = "more examples" if num_examples_now > num_examples_before else "fewer examples"
        received = {"num_examples before": num_examples_before, "num_examples now": num_examples_now}
        raise ChangedError(describe(changed_message("dataset", found, _KEEP_LENGTH), received))


def _hashed_batches(dataset: tf.data.Dataset, bar: tqdm) -> Iterator[tuple[np.ndarray, Block, Any]]:
    """Yield (indices (b,), hashes by name, each (b,), element) for every batch."""
    check_bounded(dataset, "dataset")
    num_seen = 0
    with bar:
        for indices, hashes, element in compared_examples(dataset):
            num_seen += len(indices)
            id_hashes = hash_ids(element)
            yield (
                indices,
                {HASHES: hashes} | ({} if id_hashes is None else {ID_HASHES: id_hashes}),
                element,
            )
            bar.update()
    require(num_seen > 0, "The dataset is empty: at least one example is needed.", {"num_examples": num_seen})


def _rows(block: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in block.items()}


def _compute_block(compute: Compute, element: Any, hashes: Block, rows: slice, indices: np.ndarray) -> Block:
    """Return the arrays of some rows of an element, checked, with their hashes."""
    element = element if rows == slice(0, len(indices)) else slice_examples(element, rows.start, rows.stop)
    indices = indices[rows]
    with naming_positions(int(indices[0])):
        computed = compute(element)
    block = {name: _to_storable(name, array) for name, array in computed.items()}
    block |= hashes
    require(
        all(array.shape[:1] == indices.shape for array in block.values()),
        "One row per example must be computed.",
        {"shapes": {name: array.shape for name, array in block.items()}},
    )
    for name, array in block.items():
        _check_finite(name, array, indices)
    return block


def _to_storable(name: str, values: Any) -> np.ndarray:
    """Return values as an array of numbers, or of `bytes` objects."""
    is_free = name.isidentifier() and name not in CHECKED
    require(is_free, f"An array's name must be a word, and none of {CHECKED}.", {"name": name})
    array = to_array(values)
    if array.dtype.kind in "OUS":
        # Objects: in an array of one width a single long text costs its length n times, and b"a" equals b"a\0".
        texts = np.empty(array.size, object)
        texts[:] = [to_bytes(text) for text in array.reshape(-1).tolist()]
        return texts.reshape(array.shape)
    require(array.dtype.kind in "biufc", f"`{name}` must be numbers or text.", {"dtype": array.dtype})
    return array


def _check_finite(name: str, array: np.ndarray, indices: np.ndarray) -> None:
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return
    wrong = indices[~np.isfinite(array).reshape(len(array), -1).all(axis=1)]
    raise ValueError(
        describe(
            f"The model computes NaN or infinite {name} for {len(wrong)} example(s) of a batch: fix or "
            "filter out those examples, or check the model's weights.",
            {"indices": wrong.tolist()},
        )
    )


def _check_alike(block: Block, first: Block) -> None:
    def describe_row(array: np.ndarray) -> tuple[Any, ...]:
        return ("text" if array.dtype.kind == "O" else array.dtype.name, *array.shape[1:])

    expected = {name: describe_row(array) for name, array in first.items()}
    found = {name: describe_row(array) for name, array in block.items()}
    require(
        found == expected,
        "Every batch must give arrays of the same names, shapes and dtypes.",
        {"first": expected, "later": found},
    )
