"""Visits of blocked dual ascent: lambda of one row after the other improves, a chunk of rows in one compiled call.

row        maximise <lambda_i, z_i> - g_i / 2 ||change of lambda_i||^2  over the simplex of size K_i,   g_i = ||f_i||^2
its answer Project(lambda_i + z_i / g_i),   z = F W + 1[j != y]
block      scores and the Gram matrix G of its rows are formed once; inside, z follows by G
group      rows that move together: g_i becomes a bound over the classes that more than one of them may move

Arrays of a group are class-major, (c, rows): sums over classes run along vectors.

Source: Keerthi, Sundararajan, Chang, Hsieh and Lin (2008), a sequential dual method, for a row; the groups are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import tensorflow as tf

BLOCK = 64  # rows of a block; beyond, its Gram matrix costs more than the scores
# Newton steps of a projection, from the mean over the present support: it rarely grows by much in one visit.
_PROJECTION_STEPS = 2
# Numbers in the features and lambda of a call, most of its rows: a call has a price, and so has filling it up.
_NUMBERS, _MOST_ROWS = 2**20, 4096
NEVER = -1e30  # scores of classes that may not move
_MANY_CLASSES = 64  # from here, groups of rows hinder each other little
_GROUP = 8
# From here a row has so many entries that groups of them hinder each other: after as many visits of single rows the gap
# is a fourth to a sixth (1,000 and 2,000 classes). Single rows read all of a block's changes, so blocks are short.
_VERY_MANY_CLASSES, _SHORT_BLOCK = 512, 16
# Up to here, a projection by comparing all pairs of classes is exact, and half as many small operations.
_PAIRS = 20
_FEW_CLASSES = 32  # up to here, a second sweep over the block's rows costs less than another visit


class Visit(NamedTuple):
    """Result of a call.

    Attributes:
        multipliers: lambda, shape (rows, c).
        weights: W_a after the call, shape (c, d).
        gaps: sum_j lambda_ij (max_k z_ik - z_ij) as every row was met, shape (rows,).
    """

    multipliers: tf.Tensor
    weights: tf.Tensor
    gaps: tf.Tensor


def rows_of_call(num_classes: int, size: int) -> int:
    """Rows of one call, a power of two."""
    return max(min(1 << (_NUMBERS // (num_classes + size)).bit_length() - 1, _MOST_ROWS), 4 * BLOCK)


def padded_size(size: int) -> int:
    """`size` or up to an eighth more: sizes that share a compiled function."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def _project(now: tf.Tensor, step: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Project `now` + `step` (c, rows) onto the simplex of `size`; at once exact where the support stays."""
    moved, held = now + step, tf.cast(now > 0, tf.float32)
    threshold = tf.reduce_sum(step * held, 0, keepdims=True) / tf.reduce_sum(held, 0, keepdims=True)
    for i in range(_PROJECTION_STEPS):
        above = tf.cast(moved > threshold, tf.float32)
        excess = tf.reduce_sum(moved * above, 0, keepdims=True) - size
        new = excess / tf.maximum(tf.reduce_sum(above, 0, keepdims=True), 1.0)
        threshold = new if i == 0 else tf.maximum(threshold, new)
    inside = tf.nn.relu(moved - threshold)
    return inside * (size / tf.reduce_sum(inside, 0, keepdims=True))


def _project_by_pairs(values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Project one row, (c, 1), onto the simplex of `size`: the threshold is the largest that some support gives."""
    above = values >= tf.transpose(values)
    total, count = (
        tf.reduce_sum(tf.where(above, x, 0.0), 0, keepdims=True) for x in (values, tf.ones_like(values))
    )
    return tf.nn.relu(values - tf.reduce_max((total - size) / count))


class Form(NamedTuple):
    """Sizes of a call: rows of it, of a block and of a group, each a divisor of the last, and sweeps over a block."""

    num_rows: int
    block: int
    width: int
    sweeps: int


def form_of_call(num_classes: int, size: int) -> Form:
    """Return the sizes that are fastest on a CPU."""
    if num_classes >= _VERY_MANY_CLASSES:
        return Form(rows_of_call(num_classes, size), _SHORT_BLOCK, 1, 1)
    width = _GROUP if num_classes >= _MANY_CLASSES else 1
    return Form(rows_of_call(num_classes, size), BLOCK, width, 1 if num_classes >= _FEW_CLASSES else 2)


@cache
def visitor(num_classes: int, size: int, form: Form | None = None) -> Callable[..., Visit]:
    """Return the compiled function that visits up to `form.num_rows` rows.

    Args:
        num_classes: c, padding included.
        size: d, padding included.
        form: sizes of a call; `form_of_call` by default.
    """
    num_rows, block_size, width, sweeps = form or form_of_call(num_classes, size)
    num_groups, c, d = block_size // width, num_classes, size

    def move(
        now: tf.Tensor, z: tf.Tensor, norms: tf.Tensor, gram: tf.Tensor, K: tf.Tensor, reach: tf.Tensor
    ) -> tf.Tensor:
        """New lambda (c, width) of a group."""
        # Relative to the leading class: entries that matter are small, and small K are not lost in rounding.
        lag = z - tf.reduce_max(z, 0, keepdims=True)
        values = now + lag / norms
        may = (now > 0) | (lag == 0)
        if width == 1 and c <= _PAIRS:
            return _project_by_pairs(tf.where(may | (reach > 0), values, NEVER), K)
        may |= values > tf.reduce_max(values, 0, keepdims=True) - reach * K
        if width > 1:
            # Classes outside of `may` stand still, which is why the bound holds and the step ascends.
            shared = tf.cast(may & (tf.math.count_nonzero(may, 0, keepdims=True) > 1), tf.float32)
            load = shared * tf.matmul(shared, tf.abs(gram))
            norms = tf.maximum(tf.reduce_max(load, 0, keepdims=True), norms)
        return _project(now, tf.where(may, lag / norms, NEVER), K)

    def visit(
        rows: tf.Tensor,
        labels: tf.Tensor,
        sizes: tf.Tensor,
        multipliers: tf.Tensor,
        weights: tf.Tensor,
        offsets: tf.Tensor,
        number: tf.Tensor,
        reach: tf.Tensor,
    ) -> Visit:
        """Visit the first `number` rows.

        Args:
            rows: features, shape (r, d).
            labels: shape (r,) int32.
            sizes: K_i, shape (r,).
            multipliers: lambda, shape (r, c).
            weights: W_a, shape (c, d).
            offsets: 1 for a class, `NEVER` for what fills up c, shape (c,).
            number: rows that count.
            reach: 1, or 0 for lambda to move to the leading class only: first visits, at weights that mean little
                yet, then keep it sparse.
        """

        def block(
            b: tf.Tensor, W: tf.Tensor, out: tf.TensorArray, gaps: tf.TensorArray
        ) -> tuple[object, ...]:
            start = b * block_size
            F = tf.slice(rows, [start, 0], [block_size, d])
            F *= tf.cast(start + tf.range(block_size) < number, tf.float32)[:, None]
            y, K = tf.slice(labels, [start], [block_size]), tf.slice(sizes, [start], [block_size])[None]
            L = tf.slice(multipliers, [start, 0], [block_size, c])
            Z = tf.matmul(F, W, transpose_b=True) + tf.where(tf.range(c) == y[:, None], 0.0, offsets)
            G = tf.matmul(F, F, transpose_b=True)
            norms = tf.linalg.diag_part(G)[None]
            norms = tf.where(norms > 0, norms, 1.0)
            gap = tf.reduce_sum(L * (tf.reduce_max(Z, 1, keepdims=True) - Z), 1)

            def group(j: tf.Tensor, changes: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
                first = (j % num_groups) * width
                D = tf.reshape(changes.stack(), [block_size, c])
                z = tf.slice(Z, [first, 0], [width, c])
                z -= tf.matmul(tf.slice(G, [first, 0], [width, block_size]), D)
                old = tf.slice(L, [first, 0], [width, c])
                now = old + tf.slice(D, [first, 0], [width, c])
                own, gram = (
                    tf.slice(norms, [0, first], [1, width]),
                    tf.slice(G, [first, first], [width, width]),
                )
                K_group = tf.slice(K, [0, first], [1, width])
                new = move(tf.transpose(now), tf.transpose(z), own, gram, K_group, reach)
                return j + 1, changes.write(j % num_groups, tf.transpose(new) - old)

            nothing = tf.zeros((num_groups, width, c))
            changes = tf.TensorArray(tf.float32, num_groups, clear_after_read=False).unstack(nothing)
            _, changes = tf.while_loop(lambda j, _: j < sweeps * num_groups, group, (0, changes))
            D = tf.reshape(changes.stack(), [block_size, c])
            W -= tf.matmul(D, F, transpose_a=True)
            return b + 1, W, out.write(b, L + D), gaps.write(b, gap)

        num_blocks = num_rows // block_size
        out = tf.TensorArray(tf.float32, num_blocks).unstack(
            tf.reshape(multipliers, [num_blocks, block_size, c])
        )
        gaps = tf.TensorArray(tf.float32, num_blocks).unstack(tf.zeros((num_blocks, block_size)))
        loop = tf.while_loop(lambda b, *_: b * block_size < number, block, (0, weights, out, gaps))
        return Visit(
            tf.reshape(loop[2].stack(), [num_rows, c]), loop[1], tf.reshape(loop[3].stack(), [num_rows])
        )

    shapes = (num_rows, d), (num_rows,), (num_rows,), (num_rows, c), (c, d), (c,), (), ()
    dtypes = tf.float32, tf.int32, tf.float32, tf.float32, tf.float32, tf.float32, tf.int32, tf.float32
    signature = [tf.TensorSpec(*spec) for spec in zip(shapes, dtypes, strict=True)]
    return tf.function(visit, jit_compile=True, autograph=False).get_concrete_function(*signature)
