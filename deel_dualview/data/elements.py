"""Elements of batched datasets: their parts, and one content hash per example."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.data.examples import RowsError
from deel_dualview.data.hashing import combine, hash_rows

_OBJECT_BYTES = 100
"""About what a Python object takes besides its contents."""


class Batch(NamedTuple):
    """The parts of a dataset's element (or, in the same places, of its element_spec).

    Attributes:
        inputs: what the model is called with: a tensor, or a nest (tuple, dict) of tensors, each (b, ...).
        labels: classes (b,), (b, 1) or one-hot (b, c); for several outputs a dict or tuple of such; None if the dataset
            has none.
        ids: names given by the user, strings or integers (b,); None if the dataset has none.
        sample_weight: weights of training examples in their objective, (b,) or (b, 1); None if the dataset has none.
    """

    inputs: Any
    labels: Any
    ids: Any
    sample_weight: Any = None


def unpack(element: Any) -> Batch:
    """Return the parts of an element, or of an element_spec: inputs; (inputs, labels); (inputs, labels, third).

    As in Keras a tuple of two is (inputs, labels): several unlabelled inputs are ((a, b),) or a dict. A third part of
    strings or integers is ids, one of floating-point numbers sample weights as in Keras, and a dict names them:
    `{"ids": ids, "sample_weight": weights}`, either or both.

    Raises:
        ValueError: a TFDS dictionary of features, labels that are no tensors, a third part that is neither, or a tuple
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
        "these; several inputs go in one tuple or dict, as in `((a, b), labels)`, ids and sample weights in a dict, as "
        "in `(inputs, labels, {'ids': ids, 'sample_weight': weights})`.",
        {"len(element)": len(element)},
    )
    inputs, labels, third = element + (None,) * (3 - len(element))
    named = third if isinstance(third, dict) else {_kind_of(third): third}
    require(
        set(named) <= {"ids", "sample_weight"},
        "A dict as third part of an element names its `ids`, its `sample_weight`, or both.",
        {"keys": sorted(named)},
    )
    batch = Batch(inputs, labels, named.get("ids"), named.get("sample_weight"))
    for name, part in list(batch._asdict().items())[1:]:
        _check_tensors(name, part, element)
    require(
        batch.ids is None or _is_text_or_integer(batch.ids),
        "Ids must be strings or integers.",
        {"dtype": getattr(batch.ids, "dtype", None)},
    )
    return batch


def pack(batch: Batch) -> Any:
    """Return the parts as an element: the inverse of `unpack`."""
    third = {name: part for name in ("ids", "sample_weight") if (part := getattr(batch, name)) is not None}
    if third:
        return batch.inputs, batch.labels, third["ids"] if list(third) == ["ids"] else third
    return batch.inputs if batch.labels is None else (batch.inputs, batch.labels)


def sample_weights(batch: Batch) -> np.ndarray | None:
    """Return the sample weights of a batch, shape (b,), float32; None if it has none.

    Raises:
        RowsError: weights that are NaN, infinite or negative.
        ValueError: weights that are not one number for each example.
    """
    if batch.sample_weight is None:
        return None
    weights = to_array(batch.sample_weight)
    num = num_examples(batch.inputs)
    require(
        weights.shape in ((num,), (num, 1)) and weights.dtype.kind in "biuf",
        "Sample weights must be one number for each example, shape (b,).",
        {"shape": weights.shape, "examples": num, "dtype": weights.dtype},
    )
    weights = weights.reshape(num).astype(np.float32)
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if wrong.size:
        raise RowsError(
            "Sample weights must be finite and not negative; 0 leaves an example out.",
            wrong,
            {"sample weights": weights[wrong[:3]].tolist()},
        )
    return weights


def named_labels(labels: Any) -> dict[str, Any]:
    """Return labels under the name `"label"`, those of several outputs each under `"label_NAME"`."""
    if not isinstance(labels, dict | tuple):
        return {"label": labels}
    named = labels if isinstance(labels, dict) else dict(enumerate(labels))
    return {f"label_{name}": part for name, part in named.items()}


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


def slice_examples(element: Any, start: int, stop: int | None = None) -> Any:
    """Return the examples from `start` to before `stop` of an element, in the same structure."""
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], element)


def hash_examples(element: Any) -> np.ndarray:
    """Return one hash per example of an element's inputs, labels and weights, the same whatever the batch size.

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
    return (
        hashes if batch.sample_weight is None else combine(hashes, hash_rows(to_array(batch.sample_weight)))
    )


def hash_ids(element: Any) -> np.ndarray | None:
    """Return one hash per id of an element, shape (b,), dtype uint64; None if it has no ids."""
    ids = unpack(element).ids
    return None if ids is None else hash_rows(to_array(ids))


def array_bytes(array: np.ndarray) -> int:
    """Return about how much memory an array takes, with the texts that it refers to."""
    if array.dtype.kind != "O":
        return array.nbytes
    return sum(len(text) + _OBJECT_BYTES for text in array.reshape(-1).tolist())


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


def _kind_of(third: Any) -> str:
    """Return what a third part that is no dict is."""
    is_weights = hasattr(third, "dtype") and tf.as_dtype(third.dtype).is_floating
    return "sample_weight" if is_weights else "ids"


def _is_text_or_integer(tensor: Any) -> bool:
    dtype = tf.as_dtype(tensor.dtype)
    return dtype == tf.string or dtype.is_integer


def _check_tensors(name: str, value: Any, element: tuple[Any, ...]) -> None:
    """Refuse what is no tensor, and nests but for labels, which a model of several outputs has by name."""
    leaves = tf.nest.flatten(value) if name == "labels" else [value]
    require(
        value is None or all(hasattr(leaf, "dtype") for leaf in leaves),
        f"The {name} of an element must be tensors: map the dataset to `(inputs, labels)`; several "
        "unlabelled inputs go in one tuple or dict, as in `((a, b),)`.",
        {"element": element},
    )
