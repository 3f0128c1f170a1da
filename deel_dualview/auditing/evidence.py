"""Everything that the findings of an audit are made from, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from deel_dualview.data.hashing import to_bytes
from deel_dualview.report.findings import ExampleReference, Severity

_MOST_PADDED, _LARGE_ANYWAY = 10, 2**20
"""Texts of one width may take ten times their bytes, or a megabyte; zip takes most of the padding out again."""


@dataclass(frozen=True)
class SurrogateEvidence:
    """Arrays that only DualView has.

    Args:
        support_vectors: number of training examples that can influence each class, shape (c,).
        logits: of the surrogate, shape (m, c).
        logit_error_bounds: shape (m,).
    """

    support_vectors: np.ndarray
    logits: np.ndarray
    logit_error_bounds: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Arrays over the n training and m test examples; c classes.

    Args:
        num_classes: c.
        k: how many proponents and opponents are shown.
        broken_train: positions of training examples that are not to be shown or counted, see `find_not_finite`.
        broken_test: positions of such test examples.
        train_labels: given classes, shape (n,).
        train_ids: ids of the training set, shape (n,), or None.
        self_influence: shape (n,).
        test_labels: shape (m,), or None for an unlabelled test set.
        test_ids: shape (m,), or None.
        predictions: the model's classes, shape (m,).
        confidences: the model's probability of its prediction, shape (m,).
        attributions: values of training examples on the prediction, shape (m, n), sparse: all that are not
            zero with a surrogate, else the k strongest for and against each prediction.
        surrogate: what only DualView has, or None.
    """

    num_classes: int
    k: int
    broken_train: np.ndarray
    broken_test: np.ndarray
    train_labels: np.ndarray
    train_ids: np.ndarray | None
    self_influence: np.ndarray
    test_labels: np.ndarray | None
    test_ids: np.ndarray | None
    predictions: np.ndarray
    confidences: np.ndarray
    attributions: scipy.sparse.csr_array
    surrogate: SurrogateEvidence | None

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self.train_labels)

    @property
    def num_test(self) -> int:
        """Number of test examples m."""
        return len(self.predictions)

    def reference(self, split: Literal["train", "test"], index: int) -> ExampleReference:
        """Name an example by its split and position, with its id and label."""
        labels, ids = (
            (self.train_labels, self.train_ids) if split == "train" else (self.test_labels, self.test_ids)
        )
        return ExampleReference(
            split=split,
            index=int(index),
            id=None if ids is None else plain_id(ids[index]),
            label=None if labels is None else int(labels[index]),
        )


def plain_id(value: object) -> int | str:
    """Turn an id of a dataset (NumPy integer, bytes or text) into an int or a str."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, int) else str(value)


def id_arrays(name: str, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return ids as arrays for a file, by name: integers, or texts of one width.

    Where one width would multiply their size, or hide zeros at the end of an id, they are two arrays instead: the
    bytes of all on end, `NAME_bytes`, and the length of each, `NAME_lengths`.
    """
    if ids.dtype.kind in "iu":
        return {name: ids}
    texts = [to_bytes(text) for text in ids.tolist()]
    lengths = np.array([len(text) for text in texts], np.int64)
    is_wide = len(texts) * int(lengths.max()) > max(_MOST_PADDED * int(lengths.sum()), _LARGE_ANYWAY)
    if is_wide or any(text.endswith(b"\0") for text in texts):
        octets = np.array(bytearray(b"".join(texts)), np.uint8)
        return {f"{name}_bytes": octets, f"{name}_lengths": lengths}
    return {name: np.array(texts, np.bytes_)}


def severity_of(share: float, *, warn_from: float) -> Severity:
    """Judge a share of problems: none is good, a few are a notice, from `warn_from` on they are a warning."""
    if share == 0:
        return Severity.FINE
    return Severity.ACT if share >= warn_from else Severity.LOOK
