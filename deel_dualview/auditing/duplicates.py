"""Examples that occur twice, or look alike: exact ones by hash, others by sketches of their inputs.

A sketch is a random projection of the example's centred inputs at unit length to a few numbers: the distance of
two sketches estimates that of the two inputs to some 7 %, however small it is (Johnson and Lindenstrauss, 1984). It
is of the inputs because classifiers pull the features of different examples of one class together, so that features
alone would call half a class duplicates. Images are averaged over squares and blurred by a pixel first, for a copy is
often shifted, scaled or compressed a little, and are compared mirrored, too. Only arrays of two dimensions or more
(images, signals of several channels) are sketched: for a row of columns in different units, or of token numbers, a
correlation means nothing, and only exact duplicates count.

How near is too near to be chance depends on the data: trousers of Fashion-MNIST correlate by .99 with hundreds of
others, copies in CIFAR-10 by .96 with one. So the distance of a pair is compared with that of each of the two to its
sixth neighbour. If examples lie evenly around a point in D dimensions, as many as 5 r^D of the five nearer ones are
expected within r times that distance; D is such that the second neighbours, which hardly any copy is, would be as near
as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors

SKETCH_SIZE = 96
MIN_INPUT_SIZE = 32
"""Smaller arrays are compared for equality alone."""
NUM_NEIGHBOURS, NUM_COMPARED = 6, 3
"""Distances are in relation to that to the sixth neighbour; the three nearest can be copies."""
FALSE_ALARMS = 0.05
"""So many pairs of examples that are no copies are expected in a whole set."""
_QUANTILE = 0.01
"""D follows from the second neighbours that are nearest: clusters make small distances likelier than D itself does."""
_LEAST_EXAMPLES = 30
_CELL, _NUM_CELLS = 500, 8
"""Neighbours are looked for in the eight nearest of cells of some 500 examples, so that up to 4,000 it is exact."""
_SIDE, _BLUR = 32, 1.0
"""Images are averaged to 32 to 63 pixels a side, and blurred by a Gaussian of this standard deviation."""


class Pairs(NamedTuple):
    """Pairs of positions: first (p,), second (p,), their similarity (p,), and whether one of them is mirrored (p,)."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray

    def where(self, keep: np.ndarray) -> Pairs:
        """Return some of them, by a mask or by places."""
        return Pairs(*(part[keep] for part in self))


class Neighbours(NamedTuple):
    """Distances (r, NUM_NEIGHBOURS) to the nearest training examples, and their positions, nearest first."""

    distances: np.ndarray
    indices: np.ndarray


class Sketches(NamedTuple):
    """Sketches (n, SKETCH_SIZE) of a set, and those of its images mirrored.

    Rows are zero where there is nothing to compare, and of no numbers where that holds of all.
    """

    plain: np.ndarray
    mirrored: np.ndarray


class Sketcher:
    """Projects batches of inputs to sketches; the same seed for every batch and both splits."""

    def __init__(self, seed: int = 0):
        """Projections are drawn when the first batch tells their size."""
        self._seed = seed
        self._projections: dict[int, np.ndarray] = {}

    def sketch(self, inputs: Any) -> Sketches:
        """Return unit sketches, each (b, SKETCH_SIZE) float32; (b, 0) where there is nothing to compare."""
        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(inputs)]
        nothing = np.zeros((len(leaves[0]), 0), np.float32)
        size = sum(leaf[0].size for leaf in leaves if leaf.ndim > 2)
        if not all(leaf.ndim > 2 and leaf.dtype.kind in "biuf" for leaf in leaves) or size < MIN_INPUT_SIZE:
            return Sketches(nothing, nothing)
        leaves = [_smoothed(leaf) if leaf.ndim == 4 else leaf.astype(np.float32) for leaf in leaves]
        plain = self._project(leaves)
        if not any(leaf.ndim == 4 for leaf in leaves):
            return Sketches(plain, nothing)
        return Sketches(
            plain, self._project([leaf[:, :, ::-1] if leaf.ndim == 4 else leaf for leaf in leaves])
        )

    def _project(self, leaves: list[np.ndarray]) -> np.ndarray:
        rows = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
        if rows.shape[1] not in self._projections:
            generator = np.random.default_rng(self._seed)
            self._projections[rows.shape[1]] = generator.standard_normal(
                (rows.shape[1], SKETCH_SIZE), np.float32
            )
        return _at_unit_length(_at_unit_length(rows) @ self._projections[rows.shape[1]], center=False)


def identical_across(train_hashes: np.ndarray, test_hashes: np.ndarray) -> Pairs:
    """Pair every test example with the first training example of the same content, if there is one."""
    order = np.argsort(train_hashes, kind="stable")
    position = np.searchsorted(train_hashes[order], test_hashes)
    position = np.minimum(position, len(order) - 1)
    found = np.flatnonzero(train_hashes[order][position] == test_hashes)
    return _identical(found, order[position[found]])


def identical_within(hashes: np.ndarray) -> Pairs:
    """Pair every training example with the first one of the same content, if that is another one."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    return _identical(first[inverse[later]], later)


def identical_of_other_label(
    hashes: np.ndarray, labels: np.ndarray, limit: float = 0.0
) -> tuple[Pairs, np.ndarray]:
    """Find training examples of equal content and unequal label.

    Args:
        hashes: of their contents, shape (n,).
        labels: shape (n,).
        limit: by how much more than this neighbouring labels of one content must differ.

    Returns:
        One pair for each such content (its first example, and the first of another label), and a mask (n,)
        of all examples whose content has several labels.
    """
    _, groups = np.unique(hashes, return_inverse=True)
    order = np.lexsort((np.arange(len(hashes)), labels, groups))
    same = np.diff(groups[order]) == 0
    changes = np.flatnonzero(same & (np.diff(labels[order]) > limit))
    _, first_change = np.unique(groups[order][changes], return_index=True)
    changes = changes[first_change]
    mask = np.isin(groups, groups[order][changes])
    starts = np.searchsorted(groups[order], groups[order][changes])
    return _identical(order[starts], order[changes + 1]), mask


def look_alikes(
    train: Sketches, train_hashes: np.ndarray, test: Sketches, test_hashes: np.ndarray
) -> tuple[Pairs, Pairs]:
    """Find pairs of different content that are nearer to each other than chance would make any in the set.

    Args:
        train: sketches of the n training examples.
        train_hashes: of their contents, shape (n,).
        test: sketches of the m test examples.
        test_hashes: shape (m,).

    Returns:
        Pairs of a test and a training example, then pairs of training examples, each once, most similar first.
    """
    is_seen = np.zeros(len(train_hashes), bool)
    is_seen[np.unique(train_hashes, return_index=True)[1]] = True
    own = np.flatnonzero(is_seen & train.plain.any(axis=1))
    new = np.flatnonzero(~np.isin(test_hashes, train_hashes) & test.plain.any(axis=1))
    none = _identical(np.empty(0, np.int64), np.empty(0, np.int64))
    if len(own) < _LEAST_EXAMPLES:
        return none, none
    rows = train.plain[own]
    within = find_neighbours(rows, rows, is_own=True)
    dimension = estimate_dimension(within)
    found = []
    for queries, chosen, is_own in ((test, new, False), (train, own, True)):
        parts = []
        for mirrored in (False, True):
            sketches = (queries.mirrored if mirrored else queries.plain)[chosen]
            if not sketches.any():
                continue
            near = find_neighbours(sketches, rows, is_own=is_own) if mirrored or not is_own else within
            places, neighbours, similarity = _too_near(near, within, dimension)
            ends = np.stack([chosen[places], own[neighbours]])
            ends = np.sort(ends, axis=0) if is_own else ends
            parts.append(Pairs(ends[0], ends[1], similarity, np.full(len(places), mirrored)))
        found.append(_once(Pairs(*map(np.concatenate, zip(*parts, strict=True)))) if parts else none)
    return found[0], found[1]


def estimate_dimension(within: Neighbours) -> float:
    """Return D, see above: the number of dimensions by which second neighbours are as near as they are."""
    ratios = within.distances[:, 1] / np.maximum(within.distances[:, -1], 1e-12)
    smallest = max(float(np.quantile(ratios, _QUANTILE)), 1e-6)
    # The second of NUM_NEIGHBOURS - 1 points in a ball, as a share of its volume.
    volume = scipy.stats.beta(2, NUM_NEIGHBOURS - 2).ppf(_QUANTILE)
    return float(np.log(volume) / min(np.log(smallest), -1e-6))


def find_neighbours(rows: np.ndarray, train: np.ndarray, *, is_own: bool) -> Neighbours:
    """Return the nearest training sketches of each row (r, s), of `is_own` without the row itself.

    Of more than 4,000 training examples, those far from a row are not looked at, see _CELL.
    """
    wanted = NUM_NEIGHBOURS + is_own
    centres = train[np.random.default_rng(0).permutation(len(train))[: max(len(train) // _CELL, 1)]]
    finder = NearestNeighbors(n_neighbors=min(_NUM_CELLS, len(centres)), algorithm="brute").fit(centres)
    cells, row_cells = (finder.kneighbors(part, 1, return_distance=False)[:, 0] for part in (train, rows))
    around = finder.kneighbors(centres, return_distance=False)
    distances = np.empty((len(rows), NUM_NEIGHBOURS))
    indices = np.empty((len(rows), NUM_NEIGHBOURS), np.int64)
    for cell in np.unique(row_cells):
        own = np.flatnonzero(row_cells == cell)
        others = np.flatnonzero(np.isin(cells, around[cell]))
        if len(others) < wanted:
            others = np.arange(len(train))
        nearest = NearestNeighbors(n_neighbors=wanted, algorithm="brute").fit(train[others])
        far, places = nearest.kneighbors(rows[own])
        found = others[places]
        if is_own:
            keep = found != own[:, np.newaxis]
            keep[keep.all(axis=1), -1] = False
            far, found = far[keep].reshape(len(own), -1), found[keep].reshape(len(own), -1)
        distances[own], indices[own] = far, found
    return Neighbours(distances, indices)


def _too_near(
    near: Neighbours, within: Neighbours, dimension: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and positions of pairs that are nearer than chance makes them on either side, and similarities."""
    distances, indices = near.distances[:, :NUM_COMPARED], near.indices[:, :NUM_COMPARED]
    usual = np.minimum(near.distances[:, -1:], within.distances[indices, -1])
    expected = (NUM_NEIGHBOURS - 1) * (distances / np.maximum(usual, 1e-12)) ** dimension
    rows, columns = np.nonzero(expected * len(distances) <= FALSE_ALARMS)
    return rows, indices[rows, columns], 1 - distances[rows, columns] ** 2 / 2


def _once(pairs: Pairs) -> Pairs:
    """Keep each pair once, most similar first, ties by position."""
    order = np.lexsort((pairs.mirrored, pairs.second, pairs.first, -pairs.similarity))
    ordered = pairs.where(order)
    _, places = np.unique(np.stack([ordered.first, ordered.second]), axis=1, return_index=True)
    return ordered.where(np.sort(places))


def _identical(first: np.ndarray, second: np.ndarray) -> Pairs:
    return Pairs(first, second, np.ones(len(first)), np.zeros(len(first), bool))


def _smoothed(images: np.ndarray) -> np.ndarray:
    """Average images (b, height, width, channels) over squares to about 32 pixels a side, and blur them."""
    images = images.astype(np.float32)
    step = max(min(images.shape[1:3]) // _SIDE, 1)
    if step > 1:
        height, width = (side // step for side in images.shape[1:3])
        cut = images[:, : height * step, : width * step]
        images = cut.reshape(len(cut), height, step, width, step, -1).mean(axis=(2, 4))
    return scipy.ndimage.gaussian_filter(images, (0, _BLUR, _BLUR, 0))


def _at_unit_length(rows: np.ndarray, *, center: bool = True) -> np.ndarray:
    """Scale rows to unit length, after taking their mean off; constant and non-finite rows become zero."""
    if center:
        rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 1e-6)
    return np.where(usable, rows / np.where(usable, norms, 1), 0).astype(np.float32)
