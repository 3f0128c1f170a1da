"""The two passes over examples that EK-FAC takes: covariances for the bases, then eigenvalues in them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe
from deel_dualview.curvature.ekfac import KroneckerCurvature
from deel_dualview.curvature.ekfac_layers import Basis, Calls, EkfacLayer
from deel_dualview.gradients.capture import capture_each
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.objectives import Objective

_CHUNK, _DIRECTIONS = 128, 16

Statistics = Sequence[tf.Tensor | None]


def estimate_curvature(
    model: InfluenceModel,
    layers: Sequence[EkfacLayer],
    examples: tf.data.Dataset,
    *,
    num_samples: int | None = None,
    seed: int = 0,
) -> KroneckerCurvature:
    """Estimate the Gauss-Newton matrix of the mean loss by EK-FAC, in two passes over the examples.

    Memory does not grow with n: at most 128 examples, with 16 directions of their logits at a time, are in work at
    once, beside the factors of each layer and the signs of the random directions.

    Args:
        model: prepared.
        layers: those of the weights, each with a closed form that agrees with differentiation.
        examples: batched, elements `(inputs, labels)` or `(inputs, labels, ids)`; labels are used only where the
            curvature in the outputs depends on them (`Huber`, `CustomLoss`).
        num_samples: random directions of the logits for each example and pass; None for the exact expectation,
            which takes one direction an output.
        seed: of the random directions; those of an example depend on its position alone.

    Raises:
        ValueError: gradients that are not finite (of which examples).

    Source: George et al. (2018), algorithm 1; Martens et al. (2012) for random signs.
    """

    def covariances(directions: Sequence[Sequence[Calls]], roots: tf.Tensor) -> list[tf.Tensor | None]:
        # Once for each part of the directions: a factor, that changes no eigenvector.
        right = [
            layer.right_covariance(calls, roots) for layer, calls in zip(layers, directions[0], strict=True)
        ]
        left = [
            _sum([layer.left_covariance(calls[index]) for calls in directions])
            for index, layer in enumerate(layers)
        ]
        return [*left, *right]

    passes = _Passes(model, layers, examples, num_samples, seed)
    sums, _ = passes.total(covariances)
    vectors = [None if matrices is None else _eigenvectors(matrices) for matrices in sums]
    bases = [Basis(*pair) for pair in zip(vectors[: len(layers)], vectors[len(layers) :], strict=True)]

    def second_moments(directions: Sequence[Sequence[Calls]], roots: tf.Tensor) -> list[tf.Tensor | None]:
        # The directions have the weights.
        del roots
        return [
            layer.second_moments([calls[index] for calls in directions], bases[index])
            for index, layer in enumerate(layers)
        ]

    moments, num_examples = passes.total(second_moments)
    eigenvalues = [tf.constant(np.asarray(moment) / num_examples, tf.float32) for moment in moments]
    return KroneckerCurvature(layers, bases, eigenvalues, num_examples)


class _Passes:
    """Sums of statistics of captured calls over all examples."""

    def __init__(
        self,
        model: InfluenceModel,
        layers: Sequence[EkfacLayer],
        examples: tf.data.Dataset,
        num_samples: int | None,
        seed: int,
    ) -> None:
        self._model, self._layers, self._examples = model, layers, examples
        self._num_samples = num_samples
        self._num_directions = num_samples or model.num_outputs
        self._seeds = iter(np.random.SeedSequence(seed).spawn(2))

    def total(
        self, statistics: Callable[[Sequence[Sequence[Calls]], tf.Tensor], Statistics]
    ) -> tuple[list[np.ndarray | None], int]:
        """Return the sums of statistics over all examples, float64, and the number of examples.

        Args:
            statistics: from the calls of each layer, for each of some directions of the logits, and the roots of the
                weights of examples (b,); summed over all directions; used while tracing.
        """
        objective = self._model.objective

        def compute(inputs: Any, targets: tf.Tensor, roots: tf.Tensor, mixtures: tf.Tensor) -> Statistics:
            keras_layers = [layer.group.layer for layer in self._layers]
            found = capture_each(
                self._model,
                keras_layers,
                inputs,
                lambda outputs: [
                    tf.reduce_sum(outputs * direction, axis=1) * roots
                    for direction in _directions(objective, outputs, targets, mixtures)
                ],
            )
            return statistics([[calls[layer] for layer in keras_layers] for calls in found], roots)

        function = tf.function(compute, autograph=False)
        totals: list[np.ndarray | None] = []
        traced: dict[str, Callable[..., Statistics]] = {}
        num_examples = 0
        for indices, *arguments in self._chunks():
            key = repr(specs := tf.nest.map_structure(tracing.relaxed_spec, tuple(arguments)))
            if key not in traced:
                with self._model.lock:
                    traced[key] = function.get_concrete_function(*specs)
            parts = [None if part is None else part.numpy() for part in traced[key](*arguments)]
            if not _is_finite(parts):
                _refuse(traced[key], indices, tuple(arguments))
            totals = totals or [None if part is None else np.zeros(part.shape) for part in parts]
            for total, part in zip(totals, parts, strict=True):
                if total is not None:
                    total += part
            num_examples = int(indices[-1]) + 1
        return totals, num_examples

    def _chunks(self) -> Iterator[tuple[np.ndarray, Any, tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Yield (indices (b,), inputs, targets, roots of the weights (b,), mixtures (b, s, c)).

        Of at most 128 examples and 16 directions.
        """
        random = np.random.default_rng(next(self._seeds))
        needs_targets = self._model.objective.needs_targets or bool(self._model.class_weights)
        for indices, _, element in data.compared_examples(self._examples):
            batch = data.unpack(element)
            # No targets are an array without columns.
            targets = (
                self._model.to_targets(batch.labels)
                if needs_targets
                else np.zeros((len(indices), 0), np.float32)
            )
            with data.naming_positions(int(indices[0]), "train_set"):
                weights = self._model.example_weights(targets, data.sample_weights(batch))
            roots = np.ones(len(indices), np.float32) if weights is None else np.sqrt(weights)
            for start in range(0, len(indices), _CHUNK):
                chunk = indices[start : start + _CHUNK]
                part = tf.nest.map_structure(
                    tf.convert_to_tensor, data.slice_examples(batch.inputs, start, start + _CHUNK)
                )
                own = [tf.constant(array[start : start + _CHUNK]) for array in (targets, roots)]
                mixtures = self._mixtures(len(chunk), random)
                for first in range(0, self._num_directions, _DIRECTIONS):
                    yield chunk, part, *own, tf.constant(mixtures[:, first : first + _DIRECTIONS])

    def _mixtures(self, num_examples: int, random: np.random.Generator) -> np.ndarray:
        """Return v (b, s, c) with E[sum_s v v'] = I: every class by itself, or random signs of all of them."""
        shape = (num_examples, self._num_directions, self._model.num_outputs)
        if self._num_samples is None:
            return np.broadcast_to(np.eye(self._num_directions), shape)
        return np.where(random.random(shape) < 0.5, -1.0, 1.0) / np.sqrt(self._num_samples)


def _directions(
    objective: Objective, outputs: tf.Tensor, targets: tf.Tensor, mixtures: tf.Tensor
) -> list[tf.Tensor]:
    """Return directions u = R v (b, c) of the outputs, of which E[sum u u'] = R R' = B, the loss's Hessian in them.

    Of a softmax R = diag(sqrt p) - p sqrt(p)': its columns are the gradients of the loss for every class, times the
    root of its probability. Products with random signs vary less than gradients for classes that are drawn. A Hessian
    that is not positive semi-definite loses its negative part.
    """
    # float64: where a probability is near 1, what is left of it is not.
    factor = objective.hessian_factor(tf.cast(tf.stop_gradient(outputs), tf.float64), targets)
    signs = tf.unstack(mixtures, axis=1)
    if objective.hessian_kind == "softmax":
        weights = [tf.sqrt(factor) * sign for sign in signs]
        found = [weight - factor * tf.reduce_sum(weight, axis=1, keepdims=True) for weight in weights]
    elif objective.hessian_kind == "diagonal":
        found = [tf.sqrt(tf.maximum(factor, 0.0)) * sign for sign in signs]
    else:
        values, vectors = tf.linalg.eigh(factor)
        roots = vectors * tf.sqrt(tf.maximum(values, 0.0))[:, tf.newaxis]
        found = [tf.linalg.matvec(roots, sign) for sign in signs]
    return [tf.cast(direction, outputs.dtype) for direction in found]


def _is_finite(parts: Sequence[Any]) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        return all(part is None or np.isfinite(np.sum(part)) for part in parts)


def _refuse(function: Callable[..., Statistics], indices: np.ndarray, arguments: Any) -> NoReturn:
    """Raise an error that names the examples whose own statistics are not finite."""
    wrong = [
        int(index)
        for row, index in enumerate(indices)
        if not _is_finite(function(*data.slice_examples(arguments, row, row + 1)))
    ]
    raise ValueError(
        describe(
            "Gradients of the training set must be finite: mend or filter out these examples, or check the "
            "model's weights, for NaN, infinity or huge numbers.",
            {"indices": wrong or indices.tolist()},
        )
    )


def _sum(parts: Sequence[tf.Tensor | None]) -> tf.Tensor | None:
    found = [part for part in parts if part is not None]
    return tf.add_n(found) if found else None


def _eigenvectors(matrices: np.ndarray) -> tf.Tensor:
    """Return the eigenvectors (g, e, e), as columns, of symmetric matrices, float32."""
    # LAPACK's divide and conquer: several times as fast as TensorFlow's on a CPU.
    found = [scipy.linalg.eigh(matrix, driver="evd", overwrite_a=True)[1] for matrix in matrices]
    return tf.constant(np.stack(found), tf.float32)
