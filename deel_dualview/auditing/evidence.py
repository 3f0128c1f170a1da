"""Everything that the findings of an audit are made from, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse
import scipy.stats

from deel_dualview.data.hashing import to_bytes
from deel_dualview.report.findings import ExampleReference, Severity
from deel_dualview.report.output_findings import OutputReference
from deel_dualview.report.output_words import OutputWords

LEAST_DIFFERENCE = 1.0
"""Numbers of duplicates conflict where they differ by more than one standard deviation of the labels."""
_GUESSING_CHANCE = 0.01
PROBABLE = 0.5
"""From this probability on a label is predicted to hold."""

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
        holds_all: whether the attributions are all that are not zero.
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
    holds_all: bool = field(default=True, kw_only=True)

    its_class: ClassVar[str] = "its class"

    @property
    def another_label(self) -> str:
        """What the labels of conflicting duplicates are called."""
        return "of another label"

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self.train_labels)

    @property
    def num_test(self) -> int:
        """Number of test examples m."""
        return len(self.predictions)

    def class_names(self, names: Sequence[str]) -> Sequence[str]:
        """Return names of the classes in `train_labels`."""
        return names

    @property
    def compared_labels(self) -> list[tuple[np.ndarray, float]]:
        """Labels of the training set (n,) by which duplicates conflict, and how far these must be apart."""
        return [(self.train_labels, 0.0)]

    def has_one_label(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return which training examples of two lists (p,) have the same label as their partner, shape (p,)."""
        differ = [np.abs(own[first] - own[second]) > limit for own, limit in self.compared_labels]
        return np.asarray(~np.any(differ, axis=0))

    def contents_with_labels(self, hashes: np.ndarray) -> np.ndarray:
        """Return numbers (n,) that are equal for training examples of equal content (by `hashes`) and label."""
        codes = np.unique(hashes, return_inverse=True)[1]
        return np.asarray(codes * self.num_classes + self.train_labels)

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


@dataclass(frozen=True)
class OutputEvidence(Evidence):
    """The same of a model with c numbers or independent labels; its `num_classes` is the number of outputs c.

    `predictions` are the explained outputs, and `train_labels` and `test_labels` groups of labels as classes: quarters
    of the first number, or combinations of labels. `confidences` mean nothing.

    Args:
        words: how labels are written.
        train_rows: labels of the training set, shape (n, c).
        test_rows: labels of the test set, shape (m, c), or None.
        train_outputs: numbers that the model predicts of the training set, or probabilities of labels, shape (n, c).
        test_outputs: the same of the test set, shape (m, c).
        units: by which errors of the outputs are compared: of numbers the robust deviation of the labels, shape (c,).
    """

    words: OutputWords
    train_rows: np.ndarray
    test_rows: np.ndarray | None
    train_outputs: np.ndarray
    test_outputs: np.ndarray
    units: np.ndarray

    def class_names(self, names: Sequence[str]) -> Sequence[str]:
        if self.has_numbers:
            return [
                f"the {place} quarter of {names[0]}" for place in ("lowest", "second", "third", "highest")
            ]
        rows = (
            self.train_rows if self.test_rows is None else np.concatenate([self.train_rows, self.test_rows])
        )
        return [self.words.labels(row) for row in np.unique(rows, axis=0).tolist()]

    its_class: ClassVar[str] = "its output"

    @property
    def another_label(self) -> str:
        return (
            "whose label is more than a standard deviation away" if self.has_numbers else "of another label"
        )

    @property
    def has_numbers(self) -> bool:
        """Whether labels are numbers, not independent labels."""
        return self.words.kind == "numbers"

    @property
    def compared_labels(self) -> list[tuple[np.ndarray, float]]:
        limit = LEAST_DIFFERENCE if self.has_numbers else 0.0
        return [(column, limit) for column in (self.train_rows / self.units).T]

    def contents_with_labels(self, hashes: np.ndarray) -> np.ndarray:
        codes = np.unique(hashes, return_inverse=True)[1]
        for labels, limit in self.compared_labels:
            order = np.lexsort((labels, codes))
            is_new = (np.diff(codes[order]) != 0) | (np.diff(labels[order]) > limit)
            codes[order] = np.concatenate([[0], np.cumsum(is_new)])
        return codes

    def errors(self, split: Literal["train", "test"]) -> np.ndarray | None:
        """Return the absolute error of every number in units, or whether each label is predicted wrong: (b, c)."""
        rows, outputs = (
            (self.train_rows, self.train_outputs) if split == "train" else (self.test_rows, self.test_outputs)
        )
        if rows is None:
            return None
        if self.has_numbers:
            return np.asarray(np.abs(outputs - rows) / self.units)
        return ((outputs > PROBABLE) != (rows > PROBABLE)).astype(np.float64)

    def reference(self, split: Literal["train", "test"], index: int) -> OutputReference:
        rows, ids = (self.train_rows, self.train_ids) if split == "train" else (self.test_rows, self.test_ids)
        return OutputReference(
            split=split,
            index=int(index),
            id=None if ids is None else plain_id(ids[index]),
            label=None,
            labels=None if rows is None else tuple(map(float, rows[index])),
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


def guesses(evidence: Evidence) -> bool:
    """Return whether a classifier predicts no more test labels than by chance (at 1 %)."""
    labels, num_test = evidence.test_labels, evidence.num_test
    if labels is None:
        return False
    shares = [
        np.bincount(own, minlength=evidence.num_classes) / num_test for own in (labels, evidence.predictions)
    ]
    by_chance = min(float(shares[0] @ shares[1]), 1.0)
    num_right = int((evidence.predictions == labels).sum())
    chance = scipy.stats.binomtest(num_right, num_test, by_chance, alternative="greater").pvalue
    return bool(by_chance < 1 and chance > _GUESSING_CHANCE)
