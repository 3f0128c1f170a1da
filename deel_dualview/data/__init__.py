"""Batched datasets: what their elements hold, passes over them, and whether they stayed the same."""

from deel_dualview.data.batches import (
    check_batched,
    check_bounded,
    check_same_twice,
    compared_examples,
    enumerate_examples,
    first_batch,
    map_batches,
    map_elements,
)
from deel_dualview.data.elements import (
    Batch,
    array_bytes,
    content_fingerprint,
    describe_elements,
    hash_examples,
    hash_ids,
    named_labels,
    num_examples,
    pack,
    sample_weights,
    slice_examples,
    to_array,
    unpack,
)
from deel_dualview.data.examples import check_finite, naming_positions
from deel_dualview.data.identity import ChangedError, changed_message
from deel_dualview.data.lazy import lazy_dataset

__all__ = [
    "Batch",
    "ChangedError",
    "array_bytes",
    "changed_message",
    "check_batched",
    "check_bounded",
    "check_finite",
    "check_same_twice",
    "compared_examples",
    "content_fingerprint",
    "describe_elements",
    "enumerate_examples",
    "first_batch",
    "hash_examples",
    "hash_ids",
    "lazy_dataset",
    "map_batches",
    "map_elements",
    "named_labels",
    "naming_positions",
    "num_examples",
    "pack",
    "sample_weights",
    "slice_examples",
    "to_array",
    "unpack",
]
