"""Euclidean projection of rows onto a scaled simplex, by Newton steps carried to convergence."""

from __future__ import annotations

import tensorflow as tf


def project_onto_simplex(values: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
    """Project every row onto the simplex {x >= 0, sum(x) = size}.

    The projection is max(values - theta, 0) with one threshold theta a row. Newton's iteration on
    the convex, piecewise linear sum(max(values - theta, 0)) = size rises monotonically from any
    threshold below the root and ends after at most c steps, exactly, whatever the number of classes;
    no sort, no fixed number of steps. Equal values get equal projections.

    Args:
        values: points to project, shape (n, c), floating.
        size: sum of every projected row, a positive scalar.

    Returns:
        The projections, shape (n, c), with exact zeros outside their support.

    Source: Michelot (1986); Condat (2016), "Fast projection onto the simplex and the l1 ball".
    """
    threshold = simplex_threshold(values, size)
    return tf.nn.relu(values - threshold)


def simplex_threshold(values: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
    """Threshold theta of `project_onto_simplex` for every row, shape (n, 1)."""
    # A Python number must not pass through float32 on its way to float64.
    size = tf.cast(size, values.dtype) if tf.is_tensor(size) else tf.constant(size, values.dtype)
    num_classes = tf.cast(tf.shape(values)[1], values.dtype)
    highest = tf.reduce_max(values, axis=1, keepdims=True)
    mean = tf.reduce_mean(values, axis=1, keepdims=True)
    start = tf.maximum(highest - size, mean - size / num_classes)

    def advance(threshold: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        excess = values - threshold
        support = tf.cast(excess > 0, values.dtype)
        count = tf.reduce_sum(support, axis=1, keepdims=True)
        step = (tf.reduce_sum(excess * support, axis=1, keepdims=True) - size) / tf.maximum(count, 1)
        # Rounding may turn the last step of a finished row negative: a threshold never moves back.
        risen = tf.maximum(threshold + step, threshold)
        fewer = tf.reduce_any((values > threshold) & (values <= risen))
        return risen, fewer

    threshold, _ = tf.while_loop(
        lambda _, unfinished: unfinished,
        advance,
        (start, tf.constant(True)),
        shape_invariants=(tf.TensorShape([None, 1]), tf.TensorShape([])),
        maximum_iterations=tf.shape(values)[1] + 1,
    )
    return threshold
