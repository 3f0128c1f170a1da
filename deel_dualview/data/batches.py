"""Batched datasets: checks that they can be used, and passes over them that check their examples."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, require
from deel_dualview.data import identity
from deel_dualview.data.elements import Batch, hash_examples, num_examples, unpack
from deel_dualview.data.examples import check_finite, naming_positions
from deel_dualview.data.lazy import never_ends

_PREFETCHED_BATCHES = 2
_Result = TypeVar("_Result")


def check_batched(dataset: tf.data.Dataset, name: str) -> None:
    """Refuse, by its element_spec alone, a dataset that is not one of batches of examples.

    A dataset without labels whose single examples look like batches cannot be distinguished from a batched one here.

    Args:
        dataset: the user's dataset.
        name: the argument it came by, for the message.

    Raises:
        TypeError: it is not a `tf.data.Dataset`.
        ValueError: it is not batched, is known to be empty, has ragged or sparse tensors, or its elements
            are not `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`.
    """
    if not isinstance(dataset, tf.data.Dataset):
        received = {"type": type(dataset).__name__}
        raise TypeError(
            describe(f"`{name}` must be a batched `tf.data.Dataset`; {_way_to(dataset)}.", received)
        )
    spec = dataset.element_spec
    leaves = tf.nest.flatten(tuple(unpack(spec)))
    leaves = [leaf for leaf in leaves if leaf is not None]
    for leaf in leaves:
        _check_dense(leaf, name)
    ranked = [leaf.shape for leaf in leaves if leaf.shape.rank is not None]
    sizes = {shape[0] for shape in ranked if shape.rank} - {None}
    require(
        all(shape.rank for shape in ranked) and len(sizes) <= 1,
        f"`{name}` must be batched: call `{name}.batch(256)`.",
        {"element_spec": spec},
    )
    require(
        int(dataset.cardinality()) != 0,
        f"`{name}` is empty: at least one example is needed.",
        {"cardinality": int(dataset.cardinality())},
    )


def check_bounded(dataset: tf.data.Dataset, name: str) -> None:
    """Refuse a dataset that is not batched or never ends, before a pass over all of it; see `check_batched`.

    Args:
        dataset: the user's dataset.
        name: the argument it came by, for the message.

    Raises:
        TypeError: it is not a `tf.data.Dataset`.
        ValueError: it is not batched, is known to be empty, or never ends.
    """
    check_batched(dataset, name)
    require(
        not never_ends(dataset),
        f"`{name}` never ends, and must end where every example of it is needed: remove `.repeat()`, or stop it with "
        "`.take(num_batches)`.",
        {"cardinality": "infinite"},
    )


def check_same_twice(dataset: tf.data.Dataset, name: str) -> Any:
    """Return the first batch, read twice; a dataset that shuffles or augments differently each time raises an error.

    A reshuffling that this does not see (a batch of equal examples, files interleaved in any order) is
    caught later, where further passes are compared with the first one.

    Args:
        dataset: batched dataset.
        name: the argument it came by, for the message.

    Raises:
        ValueError: it is empty, or its first batch differs between two readings.
    """
    first_batch(dataset, name)
    return first_batch(dataset, name)


def first_batch(dataset: tf.data.Dataset, name: str) -> Any:
    """Return the first batch that holds an example; it is compared with that of earlier passes.

    Args:
        dataset: batched dataset.
        name: the argument it came by, for the message.

    Raises:
        ValueError: it is empty, or its first batch was another one before.
    """
    element = next((element for element in dataset if num_examples(element)), None)
    if element is None:
        needed = f"`{name}` is empty: at least one example is needed."
        raise ValueError(describe(needed, {"num_examples": 0}))
    identity.compare(dataset, 0, hash_examples(element), name)
    return element


def enumerate_examples(dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (indices (b,) int64, element) for each batch that is not empty, reading ahead meanwhile."""
    start = 0
    for element in _reading_ahead(dataset):
        size = num_examples(element)
        if size:
            yield np.arange(start, start + size, dtype=np.int64), element
        start += size


def compared_examples(
    dataset: tf.data.Dataset, name: str = "dataset"
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield (indices (b,), hashes (b,), element) for each batch, compared with those of earlier passes.

    Passes over the very same dataset object are compared, as far as they went.

    Args:
        dataset: batched; the same examples in the same order at each iteration.
        name: the argument it came by, for the message.

    Raises:
        ChangedError: this pass yields other examples than an earlier one, more, or fewer.
        ValueError: an example has NaN or infinity in its inputs.
    """
    num_seen = 0
    for indices, element in enumerate_examples(dataset):
        check_finite(unpack(element).inputs, num_seen, name)
        hashes = hash_examples(element)
        identity.compare(dataset, num_seen, hashes, name)
        num_seen += len(indices)
        yield indices, hashes, element
    identity.finish(dataset, num_seen, name)


def map_batches(
    function: Callable[[Batch], _Result], dataset: tf.data.Dataset, name: str = "dataset_to_evaluate"
) -> Iterator[_Result]:
    """Yield the result of a function for each batch that is not empty, lazily; see `map_elements`."""
    return (result for _, result in map_elements(function, dataset, name))


def map_elements(
    function: Callable[[Batch], _Result], dataset: tf.data.Dataset, name: str = "dataset_to_evaluate"
) -> Iterator[tuple[Any, _Result]]:
    """Yield each element of a dataset that is not empty, with the result of a function for it, lazily.

    Args:
        function: of the parts of an element; its `RowsError`s are given by position in the dataset.
        dataset: batched, possibly endless.
        name: the argument it came by, for messages.

    Raises:
        ValueError: an example has NaN or infinity in its inputs.
    """
    start = 0
    for element in dataset:
        batch = unpack(element)
        size = num_examples(element)
        if not size:
            continue
        check_finite(batch.inputs, start, name)
        with naming_positions(start, name):
            result = function(batch)
        yield element, result
        start += size


def _way_to(other: Any) -> str:
    """Return how to turn other data that Keras takes into a `tf.data.Dataset`."""
    if isinstance(other, keras.utils.PyDataset):
        return (
            "a `PyDataset` becomes one by `tf.data.Dataset.from_generator(lambda: (py_dataset[i] for i in "
            "range(len(py_dataset))), output_signature=...)`, with a `tf.TensorSpec` for each part of a batch"
        )
    if isinstance(other, tf.distribute.DistributedDataset):
        return "give the one that was distributed, before `experimental_distribute_dataset`"
    return (
        "arrays become one by `tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(256)`, DataFrames and Series "
        "by `deel_dualview.to_dataset((inputs, labels), model)`"
    )


def _reading_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    # Setting up takes milliseconds, which a few batches do not give back.
    is_short = 0 <= int(dataset.cardinality()) <= _PREFETCHED_BATCHES
    return dataset if is_short else dataset.prefetch(_PREFETCHED_BATCHES)


def _check_dense(leaf: Any, name: str) -> None:
    require(
        isinstance(leaf, tf.TensorSpec),
        f"`{name}` must yield dense tensors: densify the others with `.map`, by `tf.RaggedTensor.to_tensor`, "
        "`tf.sparse.to_dense` or `padded_batch`.",
        {"component": leaf},
    )
