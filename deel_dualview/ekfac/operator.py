"""A curvature that is diagonal in a Kronecker-factored basis of each layer, as a linear operator."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from deel_dualview.ekfac.layers import Basis, EkfacLayer, in_basis, out_of_basis
from deel_dualview.linalg.operators import LinearOperator


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

    @property
    def size(self) -> int:
        return sum(layer.group.size for layer in self.layers)

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return self._multiply(rows)

    def solve(self, rows: tf.Tensor, damping: float) -> tf.Tensor:
        """Return rows (n, p) times the inverse of (this + damping * I)."""
        return self._divide(rows, tf.constant(damping, rows.dtype))

    def trace(self) -> float:
        return sum(float(tf.reduce_sum(tf.cast(values, tf.float64))) for values in self.eigenvalues)

    def _multiplied(self, rows: tf.Tensor) -> tf.Tensor:
        return self._mapped(rows, lambda matrices, eigenvalues: matrices * eigenvalues)

    def _divided(self, rows: tf.Tensor, damping: tf.Tensor) -> tf.Tensor:
        return self._mapped(rows, lambda matrices, eigenvalues: matrices / (eigenvalues + damping))

    def _mapped(self, rows: tf.Tensor, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Apply a function to coordinates of rows (n, p) in the bases, layer by layer."""
        parts = tf.split(rows, [layer.group.size for layer in self.layers], axis=1)
        found = []
        for layer, basis, values, part in zip(self.layers, self.bases, self.eigenvalues, parts, strict=True):
            cast = Basis(*(None if side is None else tf.cast(side, rows.dtype) for side in basis))
            coordinates = in_basis(layer.to_matrices(part), cast)
            found.append(
                layer.to_rows(out_of_basis(function(coordinates, tf.cast(values, rows.dtype)), cast))
            )
        return tf.concat(found, axis=1)
