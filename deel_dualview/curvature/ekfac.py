"""A curvature that is diagonal in a Kronecker-factored basis of each layer, as a linear operator."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from deel_dualview.curvature.ekfac_layers import Basis, EkfacLayer, in_basis, out_of_basis
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.linalg.operators import LinearOperator

PerLayer: TypeAlias = float | Sequence[float]
"""What is added to the eigenvalues: one number, or one for each layer."""


class KroneckerCurvature(LinearOperator):
    """Block diagonal over layers; for each, (Q_left (x) Q_right) diag(eigenvalues) (Q_left (x) Q_right)'.

    Never negative. The order of the p parameters is that of per-example gradients multiplied out.

    Args:
        layers: one for each group of weights.
        bases: of each layer.
        eigenvalues: of each layer, shape (g, c, d), float32, >= 0.
        num_examples: n that they are means over.
    """

    def __init__(
        self,
        layers: Sequence[EkfacLayer],
        bases: Sequence[Basis],
        eigenvalues: Sequence[tf.Tensor],
        num_examples: int,
    ) -> None:
        self.layers, self.bases, self.eigenvalues = tuple(layers), tuple(bases), tuple(eigenvalues)
        self.num_examples = num_examples
        self._multiply = tf.function(self._multiplied, autograph=False, reduce_retracing=True)
        self._divide = tf.function(self._divided, autograph=False, reduce_retracing=True)
        self._rotate = tf.function(self._all_rotated, autograph=False, reduce_retracing=True)
        self._norms = tf.function(self._norms_of, autograph=False, reduce_retracing=True)
        self._inverse_norms = tf.function(self._inverse_norms_of, autograph=False, reduce_retracing=True)
        self._divide_rotated = tf.function(self._rotated_divided, autograph=False, reduce_retracing=True)

    @property
    def size(self) -> int:
        return sum(layer.group.size for layer in self.layers)

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return self._multiply(rows)

    def solve(self, rows: tf.Tensor, damping: PerLayer) -> tf.Tensor:
        """Return rows (n, p) times the inverse of (this + damping), here and below one number or one a layer."""
        return self._divide(rows, self._per_layer(damping, rows.dtype))

    def diagonal(self, damping: PerLayer) -> tf.Tensor:
        """Return a number of each layer at the places of its weights, shape (p,), float32."""
        numbers = tf.unstack(self._per_layer(damping))
        return tf.concat(
            [tf.fill([layer.group.size], one) for layer, one in zip(self.layers, numbers, strict=True)], 0
        )

    def means(self) -> list[float]:
        """Return the mean eigenvalue of every layer."""
        return [float(tf.reduce_mean(tf.cast(values, tf.float64))) for values in self.eigenvalues]

    def rotated(self, gradients: Blocks) -> Blocks:
        """Return vectors in the bases, one block for each layer; outer products stay outer products."""
        return self._rotate(gradients)

    def solve_rotated(self, vectors: Blocks, damping: PerLayer) -> Blocks:
        """Return the inverse of (this + damping * I) times vectors in the bases, in the bases: (n, p_k) each."""
        return self._divide_rotated(vectors, self._per_layer(damping))

    def norms(self, matrices: Blocks, damping: PerLayer) -> tf.Tensor:
        """Return sqrt(q' (this + damping * I) q) of vectors in the bases, multiplied out, shape (n,), float64."""
        rows, sizes = blocks.split_sizes(matrices)
        return sizes * tf.cast(self._norms(rows, self._per_layer(damping)), tf.float64)

    def inverse_norms(self, vectors: Blocks, damping: PerLayer) -> tf.Tensor:
        """Return sqrt(v' (this + damping * I)^-1 v) of vectors in the bases, shape (n,), float64."""
        rows, sizes = blocks.split_sizes(vectors)
        return sizes * tf.cast(self._inverse_norms(rows, self._per_layer(damping)), tf.float64)

    def fingerprint(self) -> str:
        """Return a hash of the bases as text."""
        digest = hashlib.blake2b(digest_size=16)
        for side in (side for basis in self.bases for side in basis if side is not None):
            digest.update(np.ascontiguousarray(side).tobytes())
        return digest.hexdigest()

    def trace(self) -> float:
        return sum(float(tf.reduce_sum(tf.cast(values, tf.float64))) for values in self.eigenvalues)

    def _multiplied(self, rows: tf.Tensor) -> tf.Tensor:
        return self._mapped(rows, lambda matrices, eigenvalues: matrices * eigenvalues, self.eigenvalues)

    def _divided(self, rows: tf.Tensor, damping: tf.Tensor) -> tf.Tensor:
        return self._mapped(
            rows, lambda matrices, damped: matrices / damped, self._damped(damping, rows.dtype)
        )

    def _per_layer(self, damping: PerLayer, dtype: tf.DType = tf.float32) -> tf.Tensor:
        return tf.broadcast_to(tf.constant(damping, dtype), [len(self.layers)])

    def _damped(self, damping: tf.Tensor, dtype: tf.DType = tf.float32) -> list[tf.Tensor]:
        """Return the eigenvalues + damping of every layer, shape (g, c, d)."""
        added = tf.unstack(damping, len(self.layers))
        return [tf.cast(values, dtype) + one for values, one in zip(self.eigenvalues, added, strict=True)]

    def _all_rotated(self, gradients: Blocks) -> Blocks:
        found: list[tf.Tensor | OuterProduct] = []
        for layer, basis, block in zip(self.layers, self.bases, gradients, strict=True):
            if isinstance(block, OuterProduct):
                found.append(OuterProduct(_turned(block.left, basis.left), _turned(block.right, basis.right)))
            else:
                found.append(layer.to_rows(in_basis(layer.to_matrices(block), basis)))
        return tuple(found)

    def _rotated_divided(self, vectors: Blocks, damping: tf.Tensor) -> Blocks:
        pairs = zip(vectors, self._damped_rows(damping), strict=True)
        return tuple(blocks.to_dense((block,)) / row for block, row in pairs)

    def _norms_of(self, matrices: Blocks, damping: tf.Tensor) -> tf.Tensor:
        pairs = zip(matrices, self._damped_rows(damping), strict=True)
        squares = [tf.reduce_sum(blocks.to_dense((block,)) ** 2 * row, axis=1) for block, row in pairs]
        return tf.sqrt(tf.add_n(squares))

    def _inverse_norms_of(self, vectors: Blocks, damping: tf.Tensor) -> tf.Tensor:
        squares = []
        for block, row in zip(vectors, self._damped_rows(damping), strict=True):
            if isinstance(block, OuterProduct):
                # A square of a product is the product of squares: never multiplied out.
                inverse = tf.reshape(1 / row, (block.left.shape[1], block.right.shape[1]))
                squares.append(tf.reduce_sum(tf.matmul(block.left**2, inverse) * block.right**2, axis=1))
            else:
                squares.append(tf.reduce_sum(block**2 / row, axis=1))
        return tf.sqrt(tf.add_n(squares))

    def _damped_rows(self, damping: tf.Tensor) -> list[tf.Tensor]:
        """Return the eigenvalues + damping in the order of rows, shape (1, p_k)."""
        pairs = zip(self.layers, self._damped(damping), strict=True)
        return [layer.to_rows(values[tf.newaxis]) for layer, values in pairs]

    def _mapped(
        self,
        rows: tf.Tensor,
        function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        eigenvalues: Sequence[tf.Tensor],
    ) -> tf.Tensor:
        """Apply a function to coordinates of rows (n, p) in the bases and to values of theirs, layer by layer."""
        parts = tf.split(rows, [layer.group.size for layer in self.layers], axis=1)
        found = []
        for layer, basis, values, part in zip(self.layers, self.bases, eigenvalues, parts, strict=True):
            cast = Basis(*(None if side is None else tf.cast(side, rows.dtype) for side in basis))
            coordinates = in_basis(layer.to_matrices(part), cast)
            found.append(
                layer.to_rows(out_of_basis(function(coordinates, tf.cast(values, rows.dtype)), cast))
            )
        return tf.concat(found, axis=1)


def _turned(vectors: tf.Tensor, basis: tf.Tensor | None) -> tf.Tensor:
    """Return vectors (n, e) of a layer with one matrix in its basis (1, e, e)."""
    return vectors if basis is None else tf.matmul(vectors, basis[0])
