"""Curvature of the mean loss in the last Dense layer, in closed form."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.curvature.base import Curvature
from deel_dualview.curvature.outputs import OutputGram, indicator_products, mean_products, traces
from deel_dualview.gradients import LastLayerGradients
from deel_dualview.linalg import spans
from deel_dualview.linalg.operators import LinearOperator
from deel_dualview.models import InfluenceModel
from deel_dualview.models.heads import AffineMap
from deel_dualview.models.objectives import HessianKind
from deel_dualview.stores import MemoryStore, Store, StoredVectors, stored_features
from deel_dualview.stores.features import LEAVES


class LastLayerCurvature(Curvature):
    """Hessian of the mean loss in the last layer: the mean of w_i B_i (x) phi_i phi_i', B_i that in the outputs.

    Of cross-entropy B_i = diag(p_i) - p_i p_i' (p_i (1 - p_i) of a binary classifier with one output), of squared error
    2 / c; w_i is the weight of the example (the sum is divided by n, not by the sum of weights). It is its own
    Gauss-Newton matrix, since the outputs are linear in these weights. It follows from the features, which are kept in
    a store (n d numbers; none in a `NoStore`) and shared with calculators that have the same one. The matrix is summed
    in float64 and takes O(p^2) numbers; products with rows alone never form it. Of features that are indicators of T
    leaves these take a sparse matrix, 8 T bytes an example.

    Args:
        model: with a linear head.
        examples: batched, elements `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`; labels are used only where
            the curvature depends on them (`Huber`, `CustomLoss`).
        store: where the features are kept; in memory by default.

    Raises:
        ValueError: a model without a linear head; no labels where they are needed.
    """

    def __init__(self, model: InfluenceModel, examples: tf.data.Dataset, store: Store | None = None) -> None:
        self.model = model
        self.examples = examples
        self._store = MemoryStore() if store is None else store
        if not model.is_prepared:
            model.prepare(data.unpack(data.first_batch(examples, "examples")).inputs)
        self._gradients = LastLayerGradients(model)
        head = self._gradients.head
        self._num_inputs = model.num_features + head.has_bias
        # Of the logits; those of the layer itself may be others, where a fixed step follows it.
        self._num_outputs = 1 if model.is_binary else model.num_outputs
        self._kind = model.objective.hessian_kind
        self._units, self._step = head.units, head.step

    @property
    def size(self) -> int:
        return self._units * self._num_inputs

    @property
    def num_examples(self) -> int:
        return len(self._stored)

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        pushed = _pushed(rows, self._step)
        if self._leaves is not None:
            return _pulled(indicator_products(*self._leaves, pushed, self._kind), self._step)
        total = tf.zeros_like(pushed, tf.float64)
        for features, factor in self._blocks():
            weight = len(features) / self.num_examples
            total += weight * tf.cast(mean_products(features, factor, pushed, self._kind), tf.float64)
        return _pulled(tf.cast(total, rows.dtype), self._step)

    def to_dense(self) -> tf.Tensor:
        """Return the matrix, shape (p, p), float64."""
        return tf.constant(self.to_array())

    def to_array(self) -> np.ndarray:
        return self._matrix

    def trace(self) -> float:
        if "_matrix" in vars(self) or self._step is not None:
            return float(np.trace(self.to_array()))
        if self._leaves is not None:
            rows, factor = self._leaves
            lengths = tf.constant(np.sqrt(rows.power(2).sum(axis=1)))[:, tf.newaxis]
            return float(tf.reduce_mean(traces(lengths, factor, self._kind)))
        return (
            sum(float(tf.reduce_sum(traces(*block, self._kind))) for block in self._blocks())
            / self.num_examples
        )

    def sampled(self, batch_size: int, seed: int) -> Iterator[LinearOperator]:
        stored, generator = self._stored, np.random.default_rng(seed)
        while True:
            rows = np.sort(generator.integers(0, len(stored), batch_size))
            targets, weights = (
                stored.rows(name, rows) if name in stored.names else None
                for name in ("labels", "sample_weight")
            )
            block = self._with_factor(stored.rows("features", rows), targets, weights)
            yield _BatchCurvature(*block, self._kind, self.size, self._step)

    @cached_property
    def _leaves(self) -> tuple[scipy.sparse.csr_array, tf.Tensor] | None:
        """Features that are indicators of leaves as in `_blocks`, but sparse, (n, d), and factors; None of others."""
        if LEAVES not in self._stored.names:
            return None
        # An indicator times the root of a weight is that root.
        parts = [(tf.reduce_max(rows, axis=1), factor) for rows, factor in self._blocks()]
        roots, factor = (tf.concat(group, axis=0) for group in zip(*parts, strict=True))
        places = self._stored.array(LEAVES)
        if self._gradients.head.has_bias:
            places = np.pad(places, [(0, 0), (0, 1)], constant_values=self._num_inputs - 1)
        num_ones = places.shape[1]
        starts = np.arange(len(places) + 1) * num_ones
        shape = (len(places), self._num_inputs)
        return scipy.sparse.csr_array(
            (np.repeat(roots.numpy(), num_ones), places.ravel(), starts), shape
        ), factor

    @cached_property
    def basis(self) -> tf.Tensor | None:
        """Of the features, where examples are far fewer than these."""
        if self._num_inputs < spans.LEAST_WIDE:
            # Known before the pass over the examples.
            return None
        return spans.basis_of((rows for rows, _ in self._blocks()), self.num_examples, self._num_inputs)

    def in_span(self) -> np.ndarray:
        return self.to_array() if self.basis is None else self._formed(self.basis)

    @cached_property
    def _matrix(self) -> np.ndarray:
        return self._formed(None)

    def _formed(self, basis: tf.Tensor | None) -> np.ndarray:
        num_inputs = self._num_inputs if basis is None else basis.shape[1]
        gram = OutputGram(self._num_outputs, num_inputs, self._kind)
        for features, factor in self._blocks():
            gram.add(spans.inside(features, basis), factor)
        # Symmetric, so that both of its sides are pulled back as rows are.
        half = _pulled(tf.constant(gram.mean()), self._step)
        return _pulled(tf.transpose(half), self._step).numpy()

    @cached_property
    def _stored(self) -> StoredVectors:
        stored = stored_features(self._store, self.model, self.examples)
        require(
            not self.model.objective.needs_targets or "labels" in stored.names,
            "The curvature of this loss depends on the labels: give elements (inputs, labels).",
            {"objective": self.model.objective},
        )
        return stored

    def _blocks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        start = 0
        for block in self._stored:
            features, factor = self._with_factor(
                block["features"], block.get("labels"), block.get("sample_weight")
            )
            _check_finite(factor, start)
            yield features, factor
            start += len(features)

    def _with_factor(
        self, features: np.ndarray, targets: np.ndarray | None, sample_weight: np.ndarray | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return [phi, 1 if there is a bias] (b, d), float32, times the root of w, and the factor of B, float64.

        Of a binary classifier with one output it is the one probability, shape (b, 1).
        """
        rows = tf.constant(features)
        outputs = tf.cast(self.model.logits_of_features(rows), tf.float64)
        factor = self.model.objective.hessian_factor(
            outputs, None if targets is None else tf.constant(targets)
        )
        if self._gradients.head.has_bias:
            rows = tf.concat([rows, tf.ones((len(rows), 1))], axis=1)
        weights = self.model.example_weights(targets, sample_weight)
        if weights is not None:
            rows *= np.sqrt(weights)[:, np.newaxis]
        return rows, factor[:, -self._num_outputs :]


class _BatchCurvature(LinearOperator):
    """Curvature of one batch: features (b, d) and factors of B, (b, c) or (b, c, c)."""

    def __init__(
        self,
        features: tf.Tensor,
        factor: tf.Tensor,
        kind: HessianKind,
        size: int,
        step: AffineMap | None,
    ) -> None:
        self._features, self._factor, self._kind = features, factor, kind
        self._size, self._step = size, step

    @property
    def size(self) -> int:
        return self._size

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        pushed = _pushed(rows, self._step)
        return _pulled(mean_products(self._features, self._factor, pushed, self._kind), self._step)


def _pushed(rows: tf.Tensor, step: AffineMap | None) -> tf.Tensor:
    """Return changes of the layer's weights (n, u * d) as changes of weights that give the logits, (n, c * d)."""
    return rows if step is None else _mixed(rows, step.matrix)


def _pulled(rows: tf.Tensor, step: AffineMap | None) -> tf.Tensor:
    """Return gradients in weights that give the logits (n, c * d) as gradients in the layer's weights, (n, u * d)."""
    return rows if step is None else _mixed(rows, step.matrix.T)


def _mixed(rows: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """Mix the outputs of rows (n, outputs * d) by a matrix (outputs, new outputs)."""
    width = rows.shape[1] // len(matrix)
    shaped = tf.reshape(rows, (-1, len(matrix), width))
    mixed = tf.einsum("nod,oc->ncd", shaped, tf.cast(matrix, rows.dtype))
    return tf.reshape(mixed, (-1, matrix.shape[1] * width))


def _check_finite(factor: tf.Tensor, start: int) -> None:
    is_finite = np.isfinite(factor).reshape(len(factor), -1).all(axis=1)
    require(
        bool(is_finite.all()),
        "The model computes NaN or infinite outputs for some training examples: fix or filter them out, or check "
        "the model's weights.",
        {"indices": (start + np.flatnonzero(~is_finite)).tolist()},
    )
