"""Fetching training examples by index from a dataset that can only be read in order."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from cachetools import LRUCache

from deel_dualview._checks import describe, require
from deel_dualview.data import (
    ChangedError,
    array_bytes,
    changed_message,
    check_bounded,
    check_finite,
    enumerate_examples,
    hash_examples,
    to_array,
    unpack,
)

CACHE_BYTES = 256 * 2**20
_LARGEST_WINDOW = 16
_OBJECT_BYTES = 100


class TooFewExamplesError(ValueError):
    """More examples were requested than a dataset has."""


Example = tuple[np.ndarray, ...]
"""The flattened tensors of one example, without a batch dimension."""


class ExampleCache(LRUCache[int, Example]):
    """Examples by index, up to a number of bytes: those not used for longest make room."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=num_bytes)

    def put(self, index: int, example: Example) -> None:
        """Keep an example, unless it is larger than the whole cache."""
        if num_bytes(example) <= self.maxsize:
            self[index] = example


def draw_examples(
    dataset: tf.data.Dataset, num_examples: int, *, seed: int, batch_size: int
) -> tf.data.Dataset:
    """Return a random subset of a batched dataset, held in memory, in the dataset's order.

    The subset does not depend on how the dataset is batched. Sequences of several lengths keep theirs, and the
    dataset's batches: a model without a mask gives others for longer padding.

    Args:
        dataset: batched.
        num_examples: size of the subset, drawn without replacement.
        seed: of the draw.
        batch_size: of the batches returned.

    Raises:
        TooFewExamplesError: more examples than there are.
    """
    check_bounded(dataset, "dataset")
    sizes = [len(indices) for indices, _ in enumerate_examples(dataset)]
    if num_examples > sum(sizes):
        raise TooFewExamplesError(
            describe(
                "Only as many examples can be drawn as there are.",
                {"num_examples": num_examples, "there are": sum(sizes)},
            )
        )
    drawn = drawn_positions(sum(sizes), num_examples, seed)
    parts = []
    for indices, element in enumerate_examples(dataset):
        check_finite(unpack(element).inputs, int(indices[0]), "dataset")
        rows = np.flatnonzero(np.isin(indices, drawn, assume_unique=True))
        if len(rows):
            parts.append(tf.nest.map_structure(lambda tensor, rows=rows: to_array(tensor)[rows], element))
    if any(
        len({row.shape[1:] for row in rows}) > 1 for rows in zip(*map(tf.nest.flatten, parts), strict=True)
    ):
        return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=dataset.element_spec)
    arrays = tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)


def drawn_positions(num_examples: int, num_drawn: int, seed: int) -> np.ndarray:
    """Return the positions that `draw_examples` draws with a seed, ascending, shape (num_drawn,), int64."""
    return np.sort(np.random.default_rng(seed).choice(num_examples, num_drawn, replace=False))


def gather_examples(
    train_set: tf.data.Dataset,
    hashes: np.ndarray,
    index_batches: Iterable[tuple[Any, ...]],
    *,
    cache_bytes: int = CACHE_BYTES,
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each item of `index_batches` with the training examples that its last component points at.

    A pass over the training set serves a window of 1, then 2, 4, 8, 16, 16... items, so that the first result
    comes soon and later ones share passes. Windows are cut short, and examples kept from one to the next, so
    that each takes at most `cache_bytes` (a single item may take more: its result does). A training set that
    fits into half of that as a whole is kept as a whole from the second pass on.

    Args:
        train_set: batched; must yield the examples of which `hashes` were computed.
        hashes: of all its examples, shape (n,), from `hash_examples`.
        index_batches: tuples whose last component is training indices (m, k); each read when its result is taken.
        cache_bytes: see above.

    Yields:
        (item, elements): in the structure of the training set's elements, each tensor (m, k, ...). Sequences of
        several lengths (of `padded_batch`) are filled up with zeros, or empty texts, to the longest.

    Raises:
        ValueError: the training set changed its order or contents, its examples differ in more than length, or an index
            is out of range.
    """
    reader = _Reader(train_set, hashes, ExampleCache(cache_bytes))
    for window in _windows(index_batches, reader):
        examples = reader.fetch(np.unique(np.concatenate([_flat_indices(item) for item in window])))
        for item in window:
            yield item, _stack(examples, to_array(item[-1]), train_set.element_spec)


def gathered_spec(element_spec: Any) -> Any:
    """Return the specs of gathered elements (m, k, ...), given the training set's element_spec (b, ...)."""

    def gathered(spec: tf.TensorSpec) -> tf.TensorSpec:
        shape = None if spec.shape.rank is None else (None, None, *spec.shape[1:])
        return tf.TensorSpec(shape, spec.dtype)

    return tf.nest.map_structure(gathered, element_spec)


def num_bytes(nest: Any) -> int:
    """Return about how much memory the arrays or tensors of a nest take."""
    return sum(_array_bytes(leaf) for leaf in tf.nest.flatten(nest))


class _Reader:
    """Reads examples by passes over the training set, keeping the last used ones."""

    def __init__(self, train_set: tf.data.Dataset, hashes: np.ndarray, cache: ExampleCache):
        self._train_set = train_set
        self._hashes = hashes
        self._cache = cache
        self._largest_example = 0
        self._everything: list[np.ndarray] | None = None
        self._is_uniform = True

    def fits(self, window: list[tuple[Any, ...]]) -> bool:
        """Return whether a window's items and the examples they need stay within the cache's size."""
        num_examples = len(np.unique(np.concatenate([_flat_indices(item) for item in window])))
        return num_bytes(window) + num_examples * self._largest_example <= self._cache.maxsize

    def fetch(self, wanted: np.ndarray) -> dict[int, Example]:
        """Return examples by index, in at most one pass, which ends at the last one missing.

        Args:
            wanted: increasing indices.
        """
        num_train = len(self._hashes)
        require(
            len(wanted) == 0 or (wanted[0] >= 0 and wanted[-1] < num_train),
            "Training indices must be those of the training set's examples.",
            {"indices": wanted, "num_examples": num_train},
        )
        if self._everything is not None:
            return {int(index): tuple(array[index, ...] for array in self._everything) for index in wanted}
        kept = {int(index): self._cache.get(int(index)) for index in wanted}
        examples = {index: example for index, example in kept.items() if example is not None}
        missing = np.array([index for index in wanted if int(index) not in examples], np.int64)
        fits = 0 < 2 * num_train * self._largest_example <= self._cache.maxsize
        if len(missing) and self._is_uniform and fits:
            self._everything = self._read_all()
            if self._everything is not None:
                return self.fetch(wanted)
        for index, example in self._read(missing):
            examples[index] = example
            self._largest_example = max(self._largest_example, num_bytes(example))
        for index, example in examples.items():
            self._cache.put(index, example)
        return examples

    def _read(self, wanted: np.ndarray) -> Iterator[tuple[int, Example]]:
        num_read = 0
        passes = enumerate_examples(self._train_set) if len(wanted) else iter(())
        for indices, element in passes:
            last = indices[-1] if len(indices) else -1
            here = wanted[num_read : np.searchsorted(wanted, last, side="right")]
            if len(here):
                yield from self._rows(element, here, here - indices[0])
                num_read += len(here)
            if num_read == len(wanted):
                return
        if num_read < len(wanted):
            self._refuse("fewer examples", int(wanted[num_read]))

    def _read_all(self) -> list[np.ndarray] | None:
        """Return all examples, tensor by tensor; None if their shapes differ."""
        parts: list[list[np.ndarray]] = []
        num_read = 0
        for indices, element in enumerate_examples(self._train_set):
            differing = hash_examples(element) != self._hashes[indices]
            if differing.any():
                self._refuse("another example", int(indices[np.argmax(differing)]))
            parts.append([to_array(tensor) for tensor in tf.nest.flatten(element)])
            num_read += len(indices)
        if num_read < len(self._hashes):
            self._refuse("fewer examples", num_read)
        if any(len({array.shape[1:] for array in arrays}) > 1 for arrays in zip(*parts, strict=True)):
            self._is_uniform = False
            return None
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _rows(
        self, element: Any, indices: np.ndarray, positions: np.ndarray
    ) -> Iterator[tuple[int, Example]]:
        rows = tf.nest.map_structure(lambda tensor: tf.gather(tensor, positions), element)
        differing = hash_examples(rows) != self._hashes[indices]
        if differing.any():
            self._refuse("another example", int(indices[np.argmax(differing)]))
        arrays = [to_array(tensor) for tensor in tf.nest.flatten(rows)]
        for row, index in enumerate(indices):
            # Copies: a view would keep the rows of the whole batch alive.
            yield int(index), tuple(np.array(array[row], array.dtype) for array in arrays)

    def _refuse(self, found: str, index: int) -> None:
        raise ChangedError(describe(changed_message("train_set", found), {"index": index}))


def _windows(index_batches: Iterable[tuple[Any, ...]], reader: _Reader) -> Iterator[list[tuple[Any, ...]]]:
    limit = 1
    window: list[tuple[Any, ...]] = []
    for item in index_batches:
        if window and not reader.fits([*window, item]):
            yield window
            window = []
        window.append(item)
        if len(window) == limit:
            yield window
            window, limit = [], min(2 * limit, _LARGEST_WINDOW)
    if window:
        yield window


def _stack(examples: dict[int, Example], indices: np.ndarray, element_spec: Any) -> Any:
    """Return the examples at indices (m, k) as tensors (m, k, ...) in the structure of an element."""
    specs = tf.nest.flatten(element_spec)
    rows = [examples[int(index)] for index in indices.reshape(-1)]
    stacked = []
    for place, spec in enumerate(specs):
        parts = _of_one_length([row[place] for row in rows])
        array = np.stack(parts) if rows else np.empty(0, spec.dtype.as_numpy_dtype)
        stacked.append(tf.convert_to_tensor(array.reshape(indices.shape + array.shape[1:]), spec.dtype))
    return tf.nest.pack_sequence_as(element_spec, stacked)


def _of_one_length(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return arrays that differ in their first axis alone, filled up to the longest as `padded_batch` does.

    Raises:
        ValueError: they differ in another axis.
    """
    shapes = {part.shape for part in parts}
    if len(shapes) <= 1:
        return parts
    require(
        () not in shapes and len({shape[1:] for shape in shapes}) == 1,
        "Training examples shown together must have one shape, but for the length of sequences: pad or resize them to "
        "a fixed one.",
        {"shapes": shapes},
    )
    longest = max(len(part) for part in parts)
    fill = b"" if parts[0].dtype.kind in "OSU" else 0
    widths = [(0, 0)] * (parts[0].ndim - 1)
    return [
        np.pad(part, [(0, longest - len(part)), *widths], constant_values=np.array(fill, part.dtype))
        for part in parts
    ]


def _flat_indices(item: tuple[Any, ...]) -> np.ndarray:
    return to_array(item[-1]).reshape(-1).astype(np.int64)


def _array_bytes(leaf: Any) -> int:
    return array_bytes(leaf if isinstance(leaf, np.ndarray) else to_array(leaf)) + _OBJECT_BYTES
