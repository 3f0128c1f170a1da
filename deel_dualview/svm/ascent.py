"""Blocked dual ascent on the rows that have a gap: ahead of Newton steps where classes or features are many.

gap of a row   v_i = sum_j lambda_ij (max_k z_ik - z_ij),   z = F W_a + 1[j != y];   P(W_a) - D = sum_i v_i
cycle          visits of the rows with v_i > 0 when last seen, in a fresh order each pass, then v anew at an exact W_a
levels         the same on small random subsets first, while most of the other rows have nothing to add

Lambda is sparse: a row stands on a vertex of its simplex, or has a few entries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview.svm.block_visits import BLOCK, NEVER, padded_size, rows_of_call, visitor
from deel_dualview.svm.canonical import coefficients_of
from deel_dualview.svm.checkpoints import CSR, Checkpoint
from deel_dualview.svm.passes import sparse_adjoint
from deel_dualview.svm.problem import Problem
from deel_dualview.svm.solution import WEIGHT_SHARE
from deel_dualview.svm.sparse_rows import SparseRows

# Rows of the first level, the growth of levels, most cycles of one and the relative gap that it has to reach.
_LEVEL, _GROWTH, _LEVEL_CYCLES, _LEVEL_GAP = 2048, 4, 2, 0.1
_LONGEST_CYCLE = 12  # passes
# Consecutive rows that are read together from the disk.
_RUN = 64
# Of all work, the part that gaps at an exact W_a should take; with a share of it, visits see their gaps often enough.
_CERTIFICATES = 0.25
# Numbers of the scores and features of a chunk of a look: they stay in cache.
_NUMBERS = 2**20
# Rows whose class leads by more are not looked at between full certificates.
_NEAR = 0.3
# Where more rows than this share of them are near, all are looked at: a slice is no copy.
_MOST = 0.3
# Flops that take as long as the small operations of a visit, and those of a row in a look.
_VISIT_OVERHEAD, _LOOK_OVERHEAD = 1.2e5, 1e4
# Newton steps from the ascent's point, on average, and tied differences up to which their systems are factorised.
_NEWTON_STEPS, _DIRECT = 25, 768
_ALIGNMENT = 64  # bytes
# Cycles over which the rate is measured, the least gain in log(gap) over them, and cycles without any after which
# float32 has nothing left to give; more where Newton steps cannot take over.
_CYCLES_OF_A_RATE, _LEAST_GAIN, _STALLED, _PATIENCE = 3, 1e-3, 10, 10
# Bytes that Newton steps take for each row of the working set and class.
_NEWTON_BYTES = 170.0
# Arrays of a checkpoint, besides lambda.
_STATE = "weights", "slack", "is_near"


class Gaps(NamedTuple):
    """What a look at rows finds at W_a; the objectives count rows that were not looked at as they were last seen.

    Attributes:
        gap: P(W_a) - D.
        primal: P(W_a).
        scale: what the gap is measured against, see `gap_scale`.
        rows: gap of every row, shape (n,); 0 of those not looked at.
    """

    gap: float
    primal: float
    scale: float
    rows: np.ndarray


class Ascent:
    """One solve: call `run` once.

    Args:
        problem: the training problem.
        tolerance: relative gap to reach.
        max_iterations: most passes.
        report: called after every pass with the passes so far, the best relative gap certified, the present one as
            rows were met and the number of rows visited.
        start: alpha, shape (n, c), of a feasible point; none for a start from nothing.
        checkpoint: where the state is kept between cycles, and found after an interruption.
        room: bytes that Newton steps may take after it.

    Attributes:
        num_iterations: passes so far.
    """

    def __init__(
        self,
        problem: Problem,
        tolerance: float,
        max_iterations: int,
        report: Callable[[int, float, float, int], None],
        start: scipy.sparse.csr_array | None = None,
        checkpoint: Checkpoint | None = None,
        room: float = np.inf,
    ) -> None:
        self._checkpoint, self._room = checkpoint, room
        n, c, d = problem.num_examples, problem.num_classes, problem.features.shape[1]
        self._problem, self._tolerance = problem, tolerance
        self._max_iterations, self._report = max_iterations, report
        self._shape = padded_size(c), padded_size(d)
        self._offsets = tf.constant(np.where(np.arange(self._shape[0]) < c, 1.0, NEVER), tf.float32)
        # What a call takes: written as arrays, read as tensors in the same memory.
        size, (padded_c, padded_d) = rows_of_call(*self._shape), self._shape
        shapes = (size, padded_d), (size,), (size,), (size, padded_c)
        self._arrays = [_aligned(*spec) for spec in zip(shapes, ("f4", "i4", "f4", "f4"), strict=True)]
        # Of rows that fill up a call lambda is on its simplex too.
        self._arrays[2][:], self._arrays[3][:, 0] = 1.0, 1.0
        self._tensors = [tf.experimental.dlpack.from_dlpack(array.__dlpack__()) for array in self._arrays]
        self._sizes = problem.penalties
        self._features, self._is_zero = problem.features, problem.features.is_zero
        # A row of zeros has no gap anywhere but on its label.
        vertex = np.where(self._is_zero, (problem.labels + 1) % c, problem.labels)
        entries = self._sizes.astype(np.float32), vertex, np.arange(n + 1)
        vertices = scipy.sparse.csr_array(entries, shape=(n, c))
        self._lambda = SparseRows(vertices)
        self._weights = np.zeros((c, d))
        if start is not None:
            self._lambda = SparseRows(_multipliers(start, problem.labels, self._sizes))
            self._follow(np.arange(n), vertices)
        # At the last look: slack of a row, and whether another class is near its leading one.
        self._slack, self._is_near = np.zeros(n), np.ones(n, bool)
        self._starts_cold = start is None
        self._random = np.random.default_rng(0)
        self._visits, self.num_iterations = 0, 0
        # P(W_a) and the smallest relative gap of all rows, once known.
        self._primal, self._best = 0.0, np.inf
        self._visit_work = 4.0 * d * c + 2.0 * BLOCK * d + _VISIT_OVERHEAD

    def run(self) -> scipy.sparse.csr_array:
        """Return alpha, shape (n, c) float64: within the tolerance in float32, or as far as the ascent should go."""
        n, (c, d) = len(self._sizes), self._weights.shape
        least = (1 / _CERTIFICATES - 1) * n * (4.0 * d * c + _LOOK_OVERHEAD) / self._visit_work
        everything = np.arange(n)
        saved = self._checkpoint.load() if self._checkpoint else None
        if saved is None:
            history: list[tuple[int, float]] = []
            if self._starts_cold:
                self._levels()
            seen, is_full = self._look(everything), True
        else:
            history, seen, is_full = self._restore(saved)
        while self.num_iterations < self._max_iterations:
            if seen.gap <= self._tolerance * seen.scale:
                if is_full:
                    break
                seen, is_full = self._look(everything), True
                continue
            gap = seen.gap / seen.scale if seen.scale else np.inf
            history.append((self._visits, min(gap, history[-1][1] if history else np.inf)))
            remaining = self._remaining_work(history)
            if remaining == np.inf or (remaining > self._newton_work() and self.leaves_room):
                history.pop()  # for whoever goes on from here decides again
                break
            self._cycle(seen.rows, self._tolerance * seen.scale, max(1.0, least))
            is_full = not is_full or bool(self._is_near.mean() > _MOST)
            seen = self._look(everything if is_full else np.flatnonzero(self._is_near))
            self._save(history, seen, is_full)
        self._save(history, seen, is_full, at_once=True)
        return self._coefficients()

    @property
    def leaves_room(self) -> bool:
        """Whether Newton steps on the rows that are near fit into the room, by what they took."""
        c, d = self._weights.shape
        return bool(np.count_nonzero(self._is_near) * (4.0 * d + _NEWTON_BYTES * c) <= self._room)

    def _save(
        self, history: list[tuple[int, float]], seen: Gaps, is_full: bool, *, at_once: bool = False
    ) -> None:
        if self._checkpoint:
            arrays = {name: getattr(self, f"_{name}") for name in _STATE}
            multipliers = self._lambda[np.arange(len(self._sizes))]
            arrays |= {f"lambda_{name}": getattr(multipliers, name) for name in CSR}
            counts = self._visits, self.num_iterations, self._primal, self._best, is_full
            arrays |= {"gaps": seen.rows, "seen": np.array(seen[:3]), "counts": np.array(counts, np.float64)}
            random = json.dumps(self._random.bit_generator.state)
            arrays |= {"history": np.array(history).reshape(-1, 2), "random": np.array(random)}
            self._checkpoint.save(arrays, at_once=at_once)

    def _restore(self, saved: dict[str, np.ndarray]) -> tuple[list[tuple[int, float]], Gaps, bool]:
        for name in _STATE:
            setattr(self, f"_{name}", saved[name])
        multipliers = tuple(saved[f"lambda_{name}"] for name in CSR)
        self._lambda = SparseRows(scipy.sparse.csr_array(multipliers, self._lambda.shape))
        self._random.bit_generator.state = json.loads(str(saved["random"]))
        visits, iterations, self._primal, self._best, is_full = saved["counts"].tolist()
        self._visits, self.num_iterations = int(visits), int(iterations)
        history = [(int(visits), gap) for visits, gap in saved["history"].tolist()]
        gap, primal, scale = saved["seen"].tolist()
        return history, Gaps(gap, primal, scale, saved["gaps"]), bool(is_full)

    def _levels(self) -> None:
        n, size = self._problem.num_examples, _LEVEL
        shuffled = self._random.permutation(n)
        while size < n and self.num_iterations < self._max_iterations:
            rows = np.sort(shuffled[:size])
            for _ in range(_LEVEL_CYCLES):
                seen = self._look(rows, alone=True)
                if seen.gap <= _LEVEL_GAP * seen.primal:
                    break
                self._cycle(seen.rows, _LEVEL_GAP * seen.primal, 3.0 * size)
            if np.count_nonzero(seen.rows) > size / 2:
                self._cycle(np.where(self._is_zero, 0.0, 1.0), np.inf, 1.0, reach=0.0)
                return
            size *= _GROWTH

    def _look(self, rows: np.ndarray, *, alone: bool = False) -> Gaps:
        """Gaps of some rows at W_a; `alone` as if there were no others."""
        weights, labels = self._weights.astype(np.float32), self._problem.labels
        everything = len(rows) == len(labels)
        chosen = self._lambda[rows]
        entry = np.repeat(np.arange(len(rows)), np.diff(chosen.indptr))
        gaps, size = np.zeros(len(labels)), max(_NUMBERS // sum(weights.shape), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            # Of a slice, no copy.
            features = self._features[start : start + size] if everything else self._features[part]
            z, own, place = weights @ features.T, labels[part], np.arange(len(part))
            z[own, place] -= 1.0  # which is z less 1: only differences count
            top = z.max(axis=0)
            held = slice(chosen.indptr[start], chosen.indptr[start + len(part)])
            column, i = chosen.indices[held], entry[held] - start
            gap = np.bincount(i, weights=(top[i] - z[column, i]) * chosen.data[held], minlength=len(part))
            gaps[part] = gap
            self._slack[part] = top - z[own, place]
            if everything:
                settled = (np.diff(chosen.indptr[start : start + len(part) + 1]) == 1) & (gap == 0)
                z[column[settled[i]], i[settled[i]]] = NEVER
                self._is_near[part] = ~settled | (top - z.max(axis=0) < _NEAR)
        squared = float(np.square(self._weights).sum())
        counted = rows if alone else slice(None)
        primal = 0.5 * squared + float(self._sizes[counted] @ self._slack[counted])
        if not alone:
            self._primal = primal
        if everything:
            self._best = min(self._best, float(gaps.sum()) / primal)
        return Gaps(float(gaps.sum()), primal, min(primal, WEIGHT_SHARE * squared), gaps)

    def _cycle(self, gaps: np.ndarray, goal: float, least: float, reach: float = 1.0) -> None:
        """Pass over rows with a gap until `goal` seems met or `least` rows are visited; then W_a anew."""
        everything, visited, last = np.flatnonzero(gaps > 0), 0, 0.0
        rows, before, weights = everything, self._lambda[everything], self._padded_weights()
        for _ in range(min(_LONGEST_CYCLE, self._max_iterations - self.num_iterations)):
            # Afresh in every pass: in a fixed order the passes gain a tenth as much.
            rows = rows[self._order(rows)]
            met, weights = self._visit(rows, weights, tf.constant(reach))
            total, visited = float(met.sum()), visited + len(rows)
            self._visits, self.num_iterations = self._visits + len(rows), self.num_iterations + 1
            estimate = total / self._primal if self._primal else np.inf
            self._report(self.num_iterations, self._best, min(self._best, estimate), len(rows))
            rows = rows[met > 0]
            is_met = total * total <= goal * max(total, last)  # that it shrinks as it did
            if is_met or visited >= least or len(rows) == 0:
                break
            last = total
        self._follow(everything, before)

    def _order(self, rows: np.ndarray) -> np.ndarray:
        """A fresh order of rows; of rows on the disk, neighbours are read together, a call's rows then shuffled."""
        shuffled = self._random.permutation(len(rows))
        if self._features.is_in_memory:
            return shuffled
        run = rows[shuffled] // _RUN
        place = self._random.permutation(run.max(initial=0) + 1)[run]
        by_run = shuffled[np.argsort(place, kind="stable")]
        calls = np.arange(len(rows)) // rows_of_call(*self._shape)
        return by_run[np.lexsort((self._random.random(len(rows)), calls))]

    def _visit(self, rows: np.ndarray, weights: tf.Tensor, reach: tf.Tensor) -> tuple[np.ndarray, tf.Tensor]:
        """Give rows, in this order, a new lambda: their gaps as met, and the weights after it."""
        visit, (features, targets, sizes, multipliers) = visitor(*self._shape), self._arrays
        gaps, size, width = np.empty(len(rows)), len(targets), self._features.shape[1]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            number, held = len(part), self._lambda[part]
            features[:number, :width] = self._features[part]
            multipliers[:number] = 0.0
            multipliers[np.repeat(np.arange(number), np.diff(held.indptr)), held.indices] = held.data
            targets[:number], sizes[:number] = self._problem.labels[part], self._sizes[part]
            found = visit(*self._tensors, weights, self._offsets, tf.constant(number), reach)
            weights = found.weights
            gaps[start : start + number] = found.gaps.numpy()[:number]
            self._lambda[part] = _positive(found.multipliers.numpy()[:number], held.shape)
        return gaps, weights

    def _padded_weights(self) -> tf.Tensor:
        (c, d), (padded_c, padded_d) = self._weights.shape, self._shape
        return tf.constant(np.pad(self._weights, ((0, padded_c - c), (0, padded_d - d))), tf.float32)

    def _follow(self, rows: np.ndarray, before: scipy.sparse.csr_array) -> None:
        """Give W_a what changed in some rows of lambda: products in float32, their sums in float64."""
        change = (before - self._lambda[rows]).tocsr()
        change.eliminate_zeros()
        moved = np.flatnonzero(np.diff(change.indptr))
        self._weights += sparse_adjoint(self._features, rows[moved], change[moved], np.float32)

    def _coefficients(self) -> scipy.sparse.csr_array:
        """alpha of lambda, its rows made to sum to K_i again in float64."""
        n, labels = self._problem.num_examples, self._problem.labels
        multipliers = self._lambda[np.arange(n)]
        row = np.repeat(np.arange(n), np.diff(multipliers.indptr))
        values = multipliers.data.astype(np.float64)
        values *= (self._sizes / np.bincount(row, weights=values, minlength=n))[row]
        return coefficients_of(row, multipliers.indices, values, labels, self._problem.num_classes)

    def _remaining_work(self, history: list[tuple[int, float]]) -> float:
        """Flops that the ascent still needs at the rate of its last cycles; `history` has visits and best gaps."""
        if len(history) <= _CYCLES_OF_A_RATE:
            return 0.0
        patience = _STALLED if self.leaves_room else _PATIENCE * _STALLED
        if len(history) > patience and history[-1 - patience][1] <= history[-1][1]:
            return np.inf
        (visits, gap), (now, best) = history[-1 - _CYCLES_OF_A_RATE], history[-1]
        rate = max(np.log(gap / best), _LEAST_GAIN) / max(now - visits, 1)
        return np.log(best / self._tolerance) / rate * self._visit_work / (1 - _CERTIFICATES)

    def _newton_work(self) -> float:
        """Flops of the Newton steps; there cannot stay more tied differences than d (c - 1)."""
        n, (c, d) = len(self._sizes), self._weights.shape
        tied = min(self._lambda.nnz - n, 0.5 * d * (c - 1))
        system = 4.0 * tied**3 if tied <= _DIRECT else 120.0 * min(tied, n) * d * c
        return _NEWTON_STEPS * (system + 8.0 * tied * d * c) + 24.0 * n * d * c


def _aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros where TensorFlow's kernels may read them in place."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % _ALIGNMENT :][:size].view(dtype).reshape(shape)


def _positive(values: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """What is positive of rows (b, padded c), CSR of `shape`."""
    flat = np.flatnonzero(values.ravel() > 0)
    row, column = np.divmod(flat, values.shape[1])
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(values)))])
    return scipy.sparse.csr_array((values.ravel()[flat], column, starts), shape=shape)


def _multipliers(
    alpha: scipy.sparse.csr_array, labels: np.ndarray, sizes: np.ndarray
) -> scipy.sparse.csr_array:
    """lambda of alpha, float32 CSR."""
    n = len(labels)
    row = np.repeat(np.arange(n), np.diff(alpha.indptr))
    wrong = alpha.indices != labels[row]
    row, column, values = row[wrong], alpha.indices[wrong], -alpha.data[wrong]
    own = np.maximum(sizes - np.bincount(row, weights=values, minlength=n), 0.0)
    owners = np.flatnonzero(own)
    entries = np.concatenate([values, own[owners]]).astype(np.float32)
    place = np.concatenate([row, owners]), np.concatenate([column, labels[owners]])
    return scipy.sparse.csr_array((entries, place), shape=alpha.shape)
