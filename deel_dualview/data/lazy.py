"""Datasets computed by a Python generator when they are iterated over, with errors that stay readable."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import tensorflow as tf


class LazyDataset(tf.data.Dataset):
    """A dataset whose elements a Python generator computes, again at every iteration, one by one.

    Iterating over it in Python runs the generator in the caller's thread, so that its errors arrive as they
    were raised and Ctrl-C stops it. Datasets made from it (`take`, `map`, `prefetch`...) go through
    `tf.data.Dataset.from_generator`, where TensorFlow wraps an error: the message is then on its first line.
    Keras' `fit` and `predict` compile the iteration, and need such a derived dataset.
    """

    def __init__(self, make_generator: Callable[[], Iterator[Any]], output_signature: Any, cardinality: int):
        self._make_generator, self._signature, self._cardinality = (
            make_generator,
            output_signature,
            cardinality,
        )
        # None for the variant: `_variant_tensor` below makes it when TensorFlow reads it.
        super().__init__(None)

    @property
    def element_spec(self) -> Any:
        """The structure of an element, as `tf.TensorSpec`s."""
        return self._signature

    def cardinality(self) -> tf.Tensor:
        """Return the number of elements as given, without which `list` would have the variant made."""
        return tf.constant(self._cardinality, tf.int64)

    def _inputs(self) -> list[tf.data.Dataset]:
        return []

    @cached_property
    def _variant_tensor(self) -> tf.Tensor:
        # Only for what derives from this dataset: traces of 40 ms, which an iteration in Python does not need. Outside
        # of any function that is being traced, since other graphs may read it later.
        with tf.init_scope():
            source = tf.data.Dataset.from_generator(self._make_generator, output_signature=self._signature)
            if self._cardinality >= 0:
                source = source.apply(tf.data.experimental.assert_cardinality(self._cardinality))
            self._source = source
            return tf.data.experimental.to_variant(source)

    def __iter__(self) -> Iterator[Any]:
        if not tf.executing_eagerly():
            return super().__iter__()
        return (self._to_tensors(element) for element in self._make_generator())

    def _to_tensors(self, element: Any) -> Any:
        def convert(spec: tf.TensorSpec, value: Any) -> tf.Tensor:
            return tf.convert_to_tensor(value, spec.dtype)

        return tf.nest.map_structure(convert, self.element_spec, element)


def lazy_dataset(
    make_generator: Callable[[], Iterator[Any]],
    output_signature: Any,
    *,
    cardinality: int = tf.data.UNKNOWN_CARDINALITY,
) -> LazyDataset:
    """Return a dataset that calls `make_generator` at each iteration; any number may be under way simultaneously.

    Args:
        make_generator: returns a new generator of elements; every element has the structure of the signature.
        output_signature: nest (NamedTuples too) of `tf.TensorSpec`.
        cardinality: number of elements, if known.
    """
    return LazyDataset(make_generator, output_signature, cardinality)


_NEVER_STOPPING = {"_FilterDataset", "_FlatMapDataset", "_InterleaveDataset", "_ParallelInterleaveDataset"}
"""Classes of TensorFlow whose number of elements is unknown, and infinite where that of their input is."""
_ONE_TO_ONE = {"_MapDataset", "_ParallelMapDataset", "_BatchDataset", "_PrefetchDataset", "_ShuffleDataset"}


def never_ends(dataset: tf.data.Dataset) -> bool:
    """Return whether a dataset is known to be infinite, as after `repeat()`, or `repeat().filter(...)`."""
    cardinality = int(dataset.cardinality())
    if cardinality != tf.data.UNKNOWN_CARDINALITY:
        return cardinality == tf.data.INFINITE_CARDINALITY
    # TensorFlow has no public way from a dataset to its inputs; other classes may well stop (`take_while`).
    is_transparent = type(dataset).__name__ in _NEVER_STOPPING | _ONE_TO_ONE
    return is_transparent and any(never_ends(source) for source in dataset._inputs())
