"""Batched datasets: the parts of an element, whether it can be trusted to stay the same, its hashes."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import witness
from deel_dualview._checks import describe, require
from deel_dualview.hashing import combine, hash_rows
from deel_dualview.lazy import lazy_dataset as lazy_dataset
from deel_dualview.witness import ChangedError as ChangedError
from deel_dualview.witness import changed_message as changed_message

_PREFETCHED_BATCHES = 2


class Batch(NamedTuple):
    """The parts of a dataset's element (or, in the same places, of its element_spec).

    Attributes:
        inputs: what the model is called with: a tensor, or a nest (tuple, dict) of tensors, each (b, ...).
        labels: classes (b,), (b, 1) or one-hot (b, c); None if the dataset has none.
        ids: names given by the user, strings or integers (b,); None if the dataset has none.
    """

    inputs: Any
    labels: Any
    ids: Any


def unpack(element: Any) -> Batch:
    """Return the parts of an element, or of an element_spec: inputs; (inputs, labels); (inputs, labels, ids).

    As in Keras a tuple of two is (inputs, labels): several unlabelled inputs are ((a, b),) or a dict.

    Raises:
        ValueError: a TFDS dictionary of features, a nest of labels, weights in the place of ids, or a tuple
            of another length.
    """
    if isinstance(element, Batch):
        return element
    if isinstance(element, dict):
        _refuse_tfds_features(element)
    if not isinstance(element, tuple):
        return Batch(element, None, None)
    require(
        1 <= len(element) <= 3,
        "Elements must be `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`: map the dataset to one of "
        "these; several inputs go in one tuple or dict, as in `((a, b), labels)`.",
        {"len(element)": len(element)},
    )
    inputs, labels, ids = element + (None,) * (3 - len(element))
    _check_single_tensor("labels", labels, element)
    _check_single_tensor("ids", ids, element)
    require(
        ids is None or ids.dtype == tf.string or ids.dtype.is_integer,
        "The third component of an element is its ids, strings or integers, where Keras has sample weights: "
        "drop the weights with `.map(lambda inputs, labels, weights: (inputs, labels))`.",
        {"dtype": getattr(ids, "dtype", None)},
    )
    return Batch(inputs, labels, ids)


def num_examples(element: Any) -> int:
    """Return the number of examples b in a batch.

    Raises:
        ValueError: its tensors hold different numbers of examples, or a tensor has no batch dimension.
    """
    shapes = [leaf.shape for leaf in tf.nest.flatten(element) if leaf is not None]
    sizes = {int(shape[0]) if len(shape) else -1 for shape in shapes}
    require(
        len(sizes) == 1 and -1 not in sizes,
        "Every tensor of an element must have the same number of examples as its first dimension: "
        "batch the dataset, for instance with `.batch(256)`.",
        {"shapes": [tuple(shape) for shape in shapes]},
    )
    return sizes.pop()


def check_batched(dataset: tf.data.Dataset, name: str) -> None:
    """Refuse, by its element_spec alone, a dataset that is not one of batches of examples.

    A dataset without labels whose single examples look like batches cannot be told from a batched one here.

    Args:
        dataset: the user's dataset.
        name: the argument it came by, for the message.

    Raises:
        TypeError: it is not a `tf.data.Dataset`.
        ValueError: it is not batched, is known to be empty, has ragged or sparse tensors, or its elements
            are not `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`.
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            describe(
                f"`{name}` must be a batched `tf.data.Dataset`; arrays become one by "
                "`tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(256)`.",
                {"type": type(dataset).__name__},
            )
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


def check_same_twice(dataset: tf.data.Dataset, name: str) -> Any:
    """Return the first batch, read twice; a dataset that shuffles or augments differently each time is refused.

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
    """Return the first batch; it is compared with what earlier passes over the same dataset yielded.

    Args:
        dataset: batched dataset.
        name: the argument it came by, for the message.

    Raises:
        ValueError: it is empty, or its first batch was another one before.
    """
    element = next(iter(dataset), None)
    if element is None:
        needed = f"`{name}` is empty: at least one example is needed."
        raise ValueError(describe(needed, {"batches": 0}))
    witness.compare(dataset, 0, hash_examples(element), name)
    return element


def enumerate_examples(dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (indices (b,) int64, element) for each batch, reading ahead while the caller computes."""
    start = 0
    for element in _reading_ahead(dataset):
        size = num_examples(element)
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
    """
    num_seen = 0
    for indices, element in enumerate_examples(dataset):
        hashes = hash_examples(element)
        witness.compare(dataset, num_seen, hashes, name)
        num_seen += len(indices)
        yield indices, hashes, element
    witness.finish(dataset, num_seen, name)


def _reading_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    # Setting up takes milliseconds, which a few batches do not give back.
    is_short = 0 <= int(dataset.cardinality()) <= _PREFETCHED_BATCHES
    return dataset if is_short else dataset.prefetch(_PREFETCHED_BATCHES)


def slice_examples(element: Any, start: int, stop: int | None = None) -> Any:
    """Return the examples from `start` to before `stop` of an element, in the same structure."""
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], element)


def hash_examples(element: Any) -> np.ndarray:
    """Return one hash per example of an element's inputs and labels, the same whatever the batch size.

    Ids are left out. See `hash_rows` for what a hash depends on.

    Args:
        element: `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`, of tensors or arrays (b, ...).

    Returns:
        Shape (b,), dtype uint64.
    """
    batch = unpack(element)
    hashes = np.zeros(num_examples((batch.inputs, batch.labels)), np.uint64)
    for leaf in tf.nest.flatten((batch.inputs, batch.labels)):
        hashes = combine(hashes, np.zeros_like(hashes) if leaf is None else hash_rows(to_array(leaf)))
    return hashes


def to_array(tensor: Any) -> np.ndarray:
    """Return a tensor, or anything like an array, as a NumPy array."""
    return tensor.numpy() if isinstance(tensor, tf.Tensor) else np.asarray(tensor)


def content_fingerprint(hashes: Iterable[np.ndarray]) -> str:
    """Return a hexadecimal fingerprint of examples in their order, however they are cut into batches.

    Args:
        hashes: from `hash_examples`, each of shape (b,).
    """
    digest = hashlib.blake2b(digest_size=16)
    for block in hashes:
        digest.update(np.asarray(block, np.dtype("<u8")).tobytes())
    return digest.hexdigest()


def describe_elements(dataset: tf.data.Dataset) -> str:
    """Return the structure, shapes and dtypes of single examples as text, whatever the batch size."""

    def describe_leaf(spec: tf.TensorSpec) -> str:
        shape = "?" if spec.shape.rank is None else list(spec.shape[1:])
        return f"{spec.dtype.name}{shape}"

    return str(tf.nest.map_structure(describe_leaf, dataset.element_spec))


def _refuse_tfds_features(element: dict[str, Any]) -> None:
    require(
        "label" not in element or not {"image", "text"} & set(element),
        "Elements must be `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`, but they are dictionaries "
        "of features as TensorFlow Datasets yields them: load with `tfds.load(..., as_supervised=True)`, or "
        "call `.map(lambda example: (example['image'], example['label']))`.",
        {"keys": sorted(element)},
    )


def _check_single_tensor(name: str, value: Any, element: tuple[Any, ...]) -> None:
    require(
        value is None or (not tf.nest.is_nested(value) and hasattr(value, "dtype")),
        f"The {name} of an element must be one tensor: map the dataset to `(inputs, labels)`; several "
        "unlabelled inputs go in one tuple or dict, as in `((a, b),)`.",
        {"element": element},
    )


def _check_dense(leaf: Any, name: str) -> None:
    require(
        isinstance(leaf, tf.TensorSpec),
        f"`{name}` must yield dense tensors: densify the others with `.map`, by `tf.RaggedTensor.to_tensor`, "
        "`tf.sparse.to_dense` or `padded_batch`.",
        {"component": leaf},
    )
