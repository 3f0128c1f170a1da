"""Layers as EK-FAC sees them: gradients that are groups of matrices, each a sum of outer products."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.gradients import WeightGroup, grouped
from deel_dualview.gradients.capture import CapturedCall
from deel_dualview.gradients.grouped import GroupedFactors, grouped_factors, is_grouped_layer
from deel_dualview.gradients.rules import is_matrix_layer, is_normalization, layer_factors, layer_gradients
from deel_dualview.linalg.factors import OneHotFactors

Calls = Sequence[CapturedCall]


class Basis(NamedTuple):
    """Orthonormal columns in which a layer's curvature is taken as diagonal; None is the identity.

    Attributes:
        left: of output gradients, shape (g, c, c).
        right: of inputs, shape (g, d, d).
    """

    left: tf.Tensor | None
    right: tf.Tensor | None


class EkfacLayer(ABC):
    """A layer whose gradient of one example is g matrices (c, d).

    Statistics are sums over the examples of a batch, to be used while tracing.

    Attributes:
        group: the layer and its weights.
        shape: (g, c, d).
    """

    group: WeightGroup
    shape: tuple[int, int, int]

    @property
    def largest_factor(self) -> int:
        """Size of the largest matrix that is decomposed."""
        return max(self.shape[1:])

    @abstractmethod
    def left_covariance(self, calls: Calls) -> tf.Tensor | None:
        """Return sum_it left_it left_it', shape (g, c, c); None where the basis is the identity."""

    @abstractmethod
    def right_covariance(self, calls: Calls, roots: tf.Tensor) -> tf.Tensor | None:
        """Return sum_it w_i right_it right_it', shape (g, d, d); None where the basis is the identity.

        Args:
            calls: of a batch.
            roots: of the weights w of its examples, shape (b,).
        """

    @abstractmethod
    def second_moments(self, directions: Sequence[Calls], basis: Basis) -> tf.Tensor:
        """Return the sum of squares of all gradients in a basis, shape (g, c, d).

        Args:
            directions: calls, once for each direction of the logits that was differentiated.
            basis: of this layer.
        """

    def to_matrices(self, rows: tf.Tensor) -> tf.Tensor:
        """Return vectors (n, p_k), as per-example gradients come, as matrices (n, g, c, d)."""
        return tf.reshape(rows, (tf.shape(rows)[0], *self.shape))

    def to_rows(self, matrices: tf.Tensor) -> tf.Tensor:
        """Return matrices (n, g, c, d) as vectors (n, p_k)."""
        return tf.reshape(matrices, (tf.shape(matrices)[0], int(np.prod(self.shape))))


def ekfac_layer(group: WeightGroup) -> EkfacLayer | None:
    """Return a group of weights as EK-FAC sees it, None where that is not known."""
    layer = group.layer
    if type(layer) is keras.layers.Embedding and is_matrix_layer(layer):
        return LookupLayer(group)
    if is_matrix_layer(layer):
        return MatrixLayer(group)
    if is_grouped_layer(layer):
        return GroupedLayer(group)
    return DiagonalLayer(group) if is_normalization(layer) else None


class MatrixLayer(EkfacLayer):
    """One matrix for all weights: Dense, Conv1D, Conv2D, EinsumDense. Positions are pixels or time steps.

    Args:
        group: its weights.
    """

    def __init__(self, group: WeightGroup) -> None:
        self.group = group
        self.shape = (1, group.num_outputs, group.size // group.num_outputs)

    def left_covariance(self, calls: Calls) -> tf.Tensor:
        return _covariance(self._factors(calls).left)

    def right_covariance(self, calls: Calls, roots: tf.Tensor) -> tf.Tensor:
        return _covariance(self._factors(calls).right * roots[:, tf.newaxis, tf.newaxis, tf.newaxis])

    def second_moments(self, directions: Sequence[Calls], basis: Basis) -> tf.Tensor:
        return _second_moments([self._factors(calls) for calls in directions], basis)

    def _factors(self, calls: Calls) -> GroupedFactors:
        factors: Any = layer_factors(self.group.layer, calls)
        return GroupedFactors(factors.left[:, :, tf.newaxis], factors.right[:, :, tf.newaxis])


class GroupedLayer(MatrixLayer):
    """One matrix for each group of channels: depthwise and grouped convolutions.

    Args:
        group: its weights.
    """

    def __init__(self, group: WeightGroup) -> None:
        self.group = group
        self.shape = tuple(grouped.to_matrices(group.layer, tf.zeros((1, group.size))).shape[1:])

    def to_matrices(self, rows: tf.Tensor) -> tf.Tensor:
        return grouped.to_matrices(self.group.layer, rows)

    def to_rows(self, matrices: tf.Tensor) -> tf.Tensor:
        return grouped.to_rows(self.group.layer, matrices)

    def _factors(self, calls: Calls) -> GroupedFactors:
        return grouped_factors(self.group.layer, calls)


class LookupLayer(EkfacLayer):
    """An Embedding: its inputs are unit vectors, whose covariance is diagonal already, however many words.

    Args:
        group: its weights.
    """

    def __init__(self, group: WeightGroup) -> None:
        self.group = group
        self.shape = (1, group.num_outputs, group.size // group.num_outputs)

    @property
    def largest_factor(self) -> int:
        return self.shape[1]

    def left_covariance(self, calls: Calls) -> tf.Tensor:
        return _covariance(self._factors(calls).left[:, :, tf.newaxis])

    def right_covariance(self, calls: Calls, roots: tf.Tensor) -> None:
        return None

    def second_moments(self, directions: Sequence[Calls], basis: Basis) -> tf.Tensor:
        return tf.add_n([self._squares(calls, basis) for calls in directions])

    def _squares(self, calls: Calls, basis: Basis) -> tf.Tensor:
        left, indices, size = self._factors(calls)
        rotated = rotate(left[:, :, tf.newaxis], basis.left)[:, :, 0]
        is_same = tf.cast(indices[:, :, tf.newaxis] == indices[:, tf.newaxis], rotated.dtype)
        # A word's gradient is the sum over its places; the square is shared out among them.
        products = rotated * tf.matmul(is_same, rotated)
        flat = tf.reshape(products, (tf.shape(left)[0] * tf.shape(left)[1], self.shape[1]))
        sums = tf.math.unsorted_segment_sum(flat, tf.reshape(indices, (tf.shape(flat)[0],)), size)
        return tf.transpose(sums)[tf.newaxis]

    def _factors(self, calls: Calls) -> OneHotFactors:
        factors: Any = layer_factors(self.group.layer, calls)
        return factors


class DiagonalLayer(EkfacLayer):
    """A normalisation's scale and offset: each weight by itself, (1, 1) matrices.

    Args:
        group: its weights.
    """

    def __init__(self, group: WeightGroup) -> None:
        self.group = group
        self.shape = (group.size, 1, 1)

    def left_covariance(self, calls: Calls) -> None:
        return None

    def right_covariance(self, calls: Calls, roots: tf.Tensor) -> None:
        return None

    def second_moments(self, directions: Sequence[Calls], basis: Basis) -> tf.Tensor:
        gradients: list[Any] = [layer_gradients(self.group.layer, calls) for calls in directions]
        return tf.reshape(tf.add_n([tf.reduce_sum(rows**2, axis=0) for rows in gradients]), self.shape)


def rotate(tensor: tf.Tensor, basis: tf.Tensor | None) -> tf.Tensor:
    """Return vectors (n, t, g, e) in a basis (g, e, e)."""
    if basis is None:
        return tensor
    num_rows, num_positions, num_groups, width = tf.unstack(tf.shape(tensor))
    by_group = tf.reshape(tensor, (num_rows * num_positions, num_groups, width))
    rotated = tf.transpose(tf.matmul(tf.transpose(by_group, (1, 0, 2)), basis), (1, 0, 2))
    return tf.reshape(rotated, tf.shape(tensor))


def _covariance(vectors: tf.Tensor) -> tf.Tensor:
    """Return the sum of outer products of vectors (n, t, g, e) with themselves, shape (g, e, e)."""
    shape = tf.shape(vectors)
    flat = tf.reshape(vectors, (shape[0] * shape[1], vectors.shape[2], vectors.shape[3]))
    by_group = tf.transpose(flat, (1, 0, 2))
    return tf.matmul(by_group, by_group, transpose_a=True)


def _second_moments(directions: Sequence[GroupedFactors], basis: Basis) -> tf.Tensor:
    """Return the sum of squares of Q_left' (sum_t left_t right_t') Q_right, shape (g, c, d)."""
    right = directions[0].right
    num_positions, num_left, num_right = right.shape[1], directions[0].left.shape[3], right.shape[3]
    if num_positions == 1:
        # A square of a product is the product of squares: all directions go into one matrix product.
        left_squares = tf.add_n([rotate(left, basis.left)[:, 0] ** 2 for left, _ in directions])
        right_squares = rotate(right, basis.right)[:, 0] ** 2
        by_group = tf.transpose(left_squares, (1, 0, 2)), tf.transpose(right_squares, (1, 0, 2))
        return tf.matmul(*by_group, transpose_a=True)
    cost_of_factors = (num_positions or np.inf) * (num_left**2 + num_right**2)
    if cost_of_factors < num_left * num_right * (num_left + num_right):
        right = rotate(right, basis.right)
        matrices = [_multiplied(rotate(left, basis.left), right) for left, _ in directions]
    else:
        matrices = [in_basis(_multiplied(left, right), basis) for left, _ in directions]
    return tf.add_n([tf.reduce_sum(matrix**2, axis=0) for matrix in matrices])


def in_basis(matrices: tf.Tensor, basis: Basis) -> tf.Tensor:
    """Return Q_left' M Q_right for matrices M (n, g, c, d)."""
    # Not tf.matmul: with a right factor that is repeated over a batch, oneDNN crashes on processors with AMX.
    if basis.left is not None:
        matrices = tf.matmul(basis.left, matrices, transpose_a=True)
    return matrices if basis.right is None else tf.einsum("ngcd,gde->ngce", matrices, basis.right)


def out_of_basis(matrices: tf.Tensor, basis: Basis) -> tf.Tensor:
    """Return Q_left M Q_right', the inverse of `in_basis`."""
    if basis.left is not None:
        matrices = tf.matmul(basis.left, matrices)
    return matrices if basis.right is None else tf.einsum("ngcd,ged->ngce", matrices, basis.right)


def _multiplied(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return sum_t left_t right_t', shape (n, g, c, d)."""
    by_group = tf.transpose(left, (0, 2, 1, 3)), tf.transpose(right, (0, 2, 1, 3))
    return tf.matmul(*by_group, transpose_a=True)
