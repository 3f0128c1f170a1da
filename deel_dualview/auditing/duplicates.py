"""Examples that occur twice, or almost: exact ones by hash, near ones by a sketch and then by their inputs.

A sketch is a random projection of the example's centred inputs at unit length to a few numbers: the inner
product of two sketches estimates the correlation of the two inputs, very closely where that is near 1
(Johnson and Lindenstrauss, 1984). It is of the inputs because classifiers pull the features of different
examples of one class together, so that features alone would call half a class duplicates. Only arrays of two
dimensions or more (images, signals of several channels) are sketched: for a row of columns in different
units, or of token numbers, a correlation means nothing, and only exact duplicates count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

SKETCH_SIZE = 96
MIN_INPUT_SIZE = 32
"""Smaller arrays are compared for equality alone."""
NEAR = 0.95
"""Two inputs are almost identical only from this correlation on, and if they stand out, see STANDS_OUT."""
STANDS_OUT = 0.3
"""... that is, if their distance (1 - correlation) is below this share of that to the fifth nearest training
example, and of the usual distance of an example to its nearest one. Trousers of Fashion-MNIST correlate by
.99 with hundreds of others, true duplicates in CIFAR-10 by .96 with one: no bar on the correlation alone
tells them apart."""
NUM_USUAL = 500
"""So many examples tell the usual distance to the nearest."""
CANDIDATE = 0.94
"""Sketches are compared with a lower bar, since they are estimates; the inputs then decide."""
MAX_CANDIDATES, MAX_CONFIRMED = 500, 200
"""At most this many pairs are compared with their neighbours, and then by their inputs, nearest first."""
BLOCK_ROWS = 64
"""So many rows are compared with all n training examples at once; memory is never n x n."""


class Pairs(NamedTuple):
    """Pairs of positions: first (p,), second (p,), and the similarity of their sketches (p,)."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


class Sketcher:
    """Projects batches of inputs to sketches; the same seed for every batch and both splits."""

    def __init__(self, seed: int = 0):
        """Projections are drawn when the first batch tells their size."""
        self._seed = seed
        self._projections: dict[int, np.ndarray] = {}

    def sketch(self, inputs: Any) -> np.ndarray:
        """Return unit sketches, shape (b, SKETCH_SIZE) float32; zero where there is nothing to compare."""
        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(inputs)]
        rows = np.concatenate([flat_rows(leaf) for leaf in leaves], axis=1) if leaves else np.empty((0, 0))
        comparable = all(leaf.ndim > 2 and leaf.dtype.kind in "biuf" for leaf in leaves)
        if not comparable or rows.shape[1] < MIN_INPUT_SIZE:
            return np.zeros((len(leaves[0]), SKETCH_SIZE), np.float32)
        return _at_unit_length(_at_unit_length(rows) @ self._projection(rows.shape[1]), center=False)

    def _projection(self, size: int) -> np.ndarray:
        if size not in self._projections:
            generator = np.random.default_rng(self._seed)
            self._projections[size] = generator.standard_normal((size, SKETCH_SIZE), np.float32)
        return self._projections[size]


def flat_rows(leaf: np.ndarray) -> np.ndarray:
    """Flatten a batch of arrays to rows (b, size) of float32; what is not numeric has no columns."""
    if leaf.dtype.kind not in "biuf":
        return np.empty((len(leaf), 0), np.float32)
    return leaf.reshape(len(leaf), -1).astype(np.float32)


def correlation(first: Any, second: Any) -> float:
    """Return the correlation of the inputs of two examples; 0 where one of them is constant."""
    rows = [
        np.concatenate([flat_rows(np.asarray(leaf)[None]) for leaf in tf.nest.flatten(example)], axis=1)
        for example in (first, second)
    ]
    if rows[0].shape != rows[1].shape:
        return 0.0
    return float((_at_unit_length(rows[0]) * _at_unit_length(rows[1])).sum())


def identical_across(train_hashes: np.ndarray, test_hashes: np.ndarray) -> Pairs:
    """Pair every test example with the first training example of the same content, if there is one."""
    order = np.argsort(train_hashes, kind="stable")
    position = np.searchsorted(train_hashes[order], test_hashes)
    position = np.minimum(position, len(order) - 1)
    found = np.flatnonzero(train_hashes[order][position] == test_hashes)
    return Pairs(found, order[position[found]], np.ones(len(found)))


def identical_of_other_label(hashes: np.ndarray, labels: np.ndarray) -> tuple[Pairs, np.ndarray]:
    """Find training examples of equal content and unequal label.

    Returns:
        One pair for each such content (its first example, and the first of another label), and a mask (n,)
        of all examples whose content has several labels.
    """
    _, groups = np.unique(hashes, return_inverse=True)
    order = np.lexsort((np.arange(len(hashes)), labels, groups))
    same = np.diff(groups[order]) == 0
    changes = np.flatnonzero(same & (np.diff(labels[order]) != 0))
    _, first_change = np.unique(groups[order][changes], return_index=True)
    changes = changes[first_change]
    mask = np.isin(groups, groups[order][changes])
    starts = np.searchsorted(groups[order], groups[order][changes])
    return Pairs(order[starts], order[changes + 1], np.ones(len(changes))), mask


def near_across(train: np.ndarray, test: np.ndarray) -> Pairs:
    """Pair every test example with the training example of the most similar sketch, if that stands out.

    Args:
        train: unit sketches, shape (n, s).
        test: unit sketches, shape (m, s).
    """
    partners, similarity = _nearest(test, train)
    found = np.flatnonzero(similarity >= CANDIDATE)
    pairs = _most_similar(Pairs(found, partners[found], similarity[found]))
    if not len(found):
        return pairs
    usual = float(np.median(similarity[np.abs(test).sum(axis=1) > 0]))
    return _standing_out(pairs, [test[pairs.first]], train, usual=usual, fifth=5)


def near_of_other_label(sketches: np.ndarray, labels: np.ndarray, suspects: np.ndarray) -> Pairs:
    """Pair suspects with the training example of another label and most similar sketch, if that stands out.

    Looking from suspects alone is enough: two inputs that are almost the same have almost the same scores, so
    that one of two different labels has a negative margin.

    Args:
        sketches: of the training set, shape (n, s).
        labels: shape (n,).
        suspects: positions of the training examples to look from, such as those of highest label score.
    """
    partners, similarity = _nearest(sketches[suspects], sketches, labels[suspects], labels)
    found = np.flatnonzero(similarity >= CANDIDATE)
    ends = np.sort(np.stack([suspects[found], partners[found]]), axis=0)
    pairs = _most_similar(Pairs(ends[0], ends[1], similarity[found]))
    if not len(found):
        return pairs
    sample = np.linspace(0, len(sketches) - 1, min(len(sketches), NUM_USUAL)).astype(np.int64)
    usual = float(np.median(_kth_similarity(sketches[sample], sketches, 2)))
    sides = [sketches[pairs.first], sketches[pairs.second]]
    return _standing_out(pairs, sides, sketches, usual=usual, fifth=6)


def _nearest(
    rows: np.ndarray,
    train: np.ndarray,
    row_labels: np.ndarray | None = None,
    train_labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest training example (of another label, if given) of each row, and how near."""
    partners = np.zeros(len(rows), np.int64)
    best = np.full(len(rows), -np.inf, np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        values = rows[block] @ train.T
        if row_labels is not None and train_labels is not None:
            values[row_labels[block][:, np.newaxis] == train_labels] = -np.inf
        partners[block] = values.argmax(axis=1)
        best[block] = values.max(axis=1)
    return partners, best


def _most_similar(pairs: Pairs) -> Pairs:
    """Keep each pair once and at most MAX_CANDIDATES, by decreasing similarity, ties by position."""
    _, unique = np.unique(np.stack([pairs.first, pairs.second]), axis=1, return_index=True)
    order = unique[np.lexsort((pairs.second[unique], pairs.first[unique], -pairs.similarity[unique]))]
    return Pairs(*(part[order[:MAX_CANDIDATES]] for part in pairs))


def _standing_out(
    pairs: Pairs, sides: list[np.ndarray], train: np.ndarray, *, usual: float, fifth: int
) -> Pairs:
    """Keep pairs much nearer to each other than is usual, and than either side is to its fifth nearest."""
    if len(train) <= fifth:
        return pairs
    near = [
        np.full(len(pairs.first), usual, np.float32),
        *(_kth_similarity(side, train, fifth) for side in sides),
    ]
    keep = 1 - pairs.similarity <= STANDS_OUT * (1 - np.max(near, axis=0))
    return Pairs(*(part[keep] for part in pairs))


def _kth_similarity(rows: np.ndarray, train: np.ndarray, k: int) -> np.ndarray:
    """Return for each row (r, s) the k-th largest similarity with the training sketches, shape (r,)."""
    largest = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        values = rows[start : start + BLOCK_ROWS] @ train.T
        largest[start : start + BLOCK_ROWS] = np.partition(values, -k, axis=1)[:, -k]
    return largest


def _at_unit_length(rows: np.ndarray, *, center: bool = True) -> np.ndarray:
    """Scale rows to unit length, after taking their mean off; constant and non-finite rows become zero."""
    if center:
        rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 1e-6)
    return np.where(usable, rows / np.where(usable, norms, 1), 0).astype(np.float32)
