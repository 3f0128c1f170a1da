"""The two passes over examples that EK-FAC takes: covariances for the bases, then eigenvalues in them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview import data, tracing
from deel_dualview._checks import describe
from deel_dualview.ekfac.layers import Basis, Calls, EkfacLayer
from deel_dualview.ekfac.operator import KroneckerCurvature
from deel_dualview.gradients.capture import capture_each
from deel_dualview.models import InfluenceModel

_CHUNK = 128

Statistics = Sequence[tf.Tensor | None]


def estimate_curvature(
    model: InfluenceModel,
    layers: Sequence[EkfacLayer],
    examples: tf.data.Dataset,
    *,
    num_samples: int | None = None,
    seed: int = 0,
) -> KroneckerCurvature:
    """Estimate the Gauss-Newton matrix of the mean cross-entropy by EK-FAC, in two passes over the examples.

    Memory does not grow with n: at most 128 examples are in work at once, beside the factors of each layer.

    Args:
        model: prepared.
        layers: those of the weights, each with a closed form that agrees with differentiation.
        examples: batched, elements `(inputs, labels)` or `(inputs, labels, ids)`; labels are not used.
        num_samples: random directions of the logits for each example and pass; None for the exact expectation.
        seed: of the random directions; those of an example depend on its position alone.

    Raises:
        ValueError: gradients that are not finite (of which examples).

    Source: George et al. (2018), algorithm 1; Martens et al. (2012) for random signs.
    """

    def covariances(directions: Sequence[Sequence[Calls]]) -> list[tf.Tensor | None]:
        right = [layer.right_covariance(calls) for layer, calls in zip(layers, directions[0], strict=True)]
        left = [
            _sum([layer.left_covariance(calls[index]) for calls in directions])
            for index, layer in enumerate(layers)
        ]
        return [*left, *right]

    passes = _Passes(model, layers, examples, num_samples, seed)
    sums, _ = passes.total(covariances)
    vectors = [None if matrices is None else _eigenvectors(matrices) for matrices in sums]
    bases = [Basis(*pair) for pair in zip(vectors[: len(layers)], vectors[len(layers) :], strict=True)]

    def second_moments(directions: Sequence[Sequence[Calls]]) -> list[tf.Tensor | None]:
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
        self._seeds = iter(np.random.SeedSequence(seed).spawn(2))

    def total(
        self, statistics: Callable[[Sequence[Sequence[Calls]]], Statistics]
    ) -> tuple[list[np.ndarray | None], int]:
        """Return the sums of statistics over all examples, float64, and the number of examples.

        Args:
            statistics: from the calls of each layer, for each direction of the logits; used while tracing.
        """

        def compute(inputs: Any, signs: tf.Tensor) -> Statistics:
            keras_layers = [layer.group.layer for layer in self._layers]
            found = capture_each(
                self._model,
                keras_layers,
                inputs,
                lambda logits: [
                    tf.reduce_sum(logits * direction, axis=1) for direction in self._directions(logits, signs)
                ],
            )
            return statistics([[calls[layer] for layer in keras_layers] for calls in found])

        function = tf.function(compute, autograph=False, reduce_retracing=True)
        totals: list[np.ndarray | None] = []
        traced: set[str] = set()
        num_examples = 0
        for indices, inputs, signs in self._chunks():
            key = repr(specs := tf.nest.map_structure(tracing.relaxed_spec, (inputs, signs)))
            if key not in traced:
                with self._model._lock:
                    function.get_concrete_function(*specs)
                traced.add(key)
            parts = [None if part is None else part.numpy() for part in function(inputs, signs)]
            if not _is_finite(parts):
                _refuse(function, indices, (inputs, signs))
            totals = totals or [None if part is None else np.zeros(part.shape) for part in parts]
            for total, part in zip(totals, parts, strict=True):
                if total is not None:
                    total += part
            num_examples += len(indices)
        return totals, num_examples

    def _chunks(self) -> Iterator[tuple[np.ndarray, Any, tf.Tensor]]:
        """Yield (indices (b,), inputs, signs (b, samples, c)) of at most 128 examples."""
        random = np.random.default_rng(next(self._seeds))
        shape = (self._num_samples or 0, self._model.num_classes)
        for indices, _, element in data.compared_examples(self._examples):
            inputs = data.unpack(element).inputs
            for start in range(0, len(indices), _CHUNK):
                chunk = indices[start : start + _CHUNK]
                signs = np.where(random.random((len(chunk), *shape)) < 0.5, -1.0, 1.0)
                part = tf.nest.map_structure(
                    tf.convert_to_tensor, data.slice_examples(inputs, start, start + _CHUNK)
                )
                yield chunk, part, tf.constant(signs)

    def _directions(self, logits: tf.Tensor, signs: tf.Tensor) -> list[tf.Tensor]:
        """Return directions u (b, c) of the logits, of which E[sum u u'] = diag(p) - p p'.

        All columns of B = diag(sqrt p) - p sqrt(p)', with B B' = diag(p) - p p': the gradients of the loss for
        every class, times the root of its probability. Or products of B with random signs, which vary less
        than gradients for classes that are drawn.
        """
        # float64: where a probability is near 1, what is left of it is not.
        probabilities = tf.nn.softmax(tf.cast(tf.stop_gradient(logits), tf.float64))
        roots = tf.sqrt(probabilities)
        if self._num_samples is None:
            weights = [
                tf.one_hot([index], logits.shape[1], dtype=tf.float64) * roots
                for index in range(logits.shape[1])
            ]
        else:
            scale = 1 / np.sqrt(self._num_samples)
            weights = [roots * signs[:, index] * scale for index in range(self._num_samples)]
        return [
            tf.cast(weight - probabilities * tf.reduce_sum(weight, axis=1, keepdims=True), logits.dtype)
            for weight in weights
        ]


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
