"""A decision seen as linear around a point of inputs or weights, and the step to its nearest boundary."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.gradients.capture import call_for_logits
from deel_dualview.models import InfluenceModel, links, recording
from deel_dualview.models.inputs import structure_of, used


class Linearised(NamedTuple):
    """The decision of m examples around a point, seen as linear.

    Attributes:
        margin: logit of the class predicted at the start minus the largest other, shape (m,).
        scale: largest absolute logit, shape (m,).
        steps: to the nearest boundary of the linearised decision, for each part of the point, (m, ...).
    """

    margin: tf.Tensor
    scale: tf.Tensor
    steps: list[tf.Tensor]


def leads(logits: tf.Tensor, ranked: tf.Tensor) -> list[tf.Tensor]:
    """Return by how much the first class leads each of the others, each (m,)."""
    own, *others = tf.unstack(tf.gather(logits, ranked, batch_dims=1), axis=1)
    return [own - other for other in others]


def dense_gradient(tape: tf.GradientTape, gap: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """Return the gradient of a gap; zeros where it does not depend on the source."""
    # Of an Embedding the gradient is a set of slices.
    return tf.convert_to_tensor(
        tape.gradient(gap, source, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    )


def linearisation(
    logits: tf.Tensor, ranked: tf.Tensor, gaps: list[tf.Tensor], gradients: list[list[tf.Tensor]]
) -> Linearised:
    """Choose for every example the class whose linearised boundary is nearest.

    Args:
        logits: shape (m, c).
        ranked: the class predicted at the start, then the candidates, shape (m, 1 + k).
        gaps: lead over each candidate, k times (m,).
        gradients: of each gap, by part of the point, k times [(m, ...)].
    """
    squares = tf.stack([squared_norms(parts) for parts in gradients], axis=1)
    lead = tf.stack(gaps, axis=1)
    # A candidate that nothing leads to (no gradient) is infinitely far.
    distances = tf.where(squares > 0, tf.abs(lead) / tf.sqrt(squares), np.inf)
    nearest = tf.argmin(distances, axis=1)
    chosen = tf.one_hot(nearest, len(gaps))
    lengths = tf.unstack(-tf.math.divide_no_nan(lead, squares) * chosen, axis=1)
    steps = [
        tf.add_n([scaled_rows(part, length) for part, length in zip(parts, lengths, strict=True)])
        for parts in zip(*gradients, strict=True)
    ]
    own = tf.gather(logits, ranked[:, 0], batch_dims=1)
    others = tf.where(tf.one_hot(ranked[:, 0], logits.shape[1]) > 0, -np.inf, logits)
    return Linearised(own - tf.reduce_max(others, axis=1), tf.reduce_max(tf.abs(logits), axis=1), steps)


def scaled_rows(rows: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiply every row (m, ...) by its factor (m,)."""
    shape = tf.concat([tf.shape(factors), tf.ones(len(rows.shape) - 1, tf.int32)], axis=0)
    return rows * tf.reshape(tf.cast(factors, rows.dtype), shape)


def squared_norms(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the squared norm of every row over all parts, each (m, ...), shape (m,)."""
    return tf.add_n([tf.reduce_sum(part**2, axis=list(range(1, len(part.shape)))) for part in parts])


def logits_of_real_inputs(model: InfluenceModel, inputs: tf.Tensor) -> tf.Tensor:
    """Return the class logits (b, c) of real numbers, even where a model declares integer inputs."""
    functional = getattr(model.model, "_functional", None) or model.model
    if not isinstance(functional, keras.Model) or not hasattr(functional, "_run_through_graph"):
        return call_for_logits(model, inputs)
    if tf.as_dtype(functional.inputs[0].dtype).is_floating:
        return call_for_logits(model, inputs)
    # A call would round the inputs to the declared type and stop gradients there; its graph does not.
    split = model.split
    with recording.recorded([split.layer]) as calls:
        flat = used(structure_of(model.model), inputs)
        outputs = functional._run_through_graph(flat, operation_fn=lambda operation: operation)
    if split.head is None:
        return links.as_logits(tf.cast(tf.nest.flatten(outputs)[0], tf.float32), model.link)
    kernel, bias = split.head.weights()
    logits = tf.matmul(split.features(calls[0]), kernel)
    return links.as_logits(logits if bias is None else logits + bias, "logits")
