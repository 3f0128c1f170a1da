"""Sums of outer products over positions, as their factors: gradients of layers that slide or look up."""

from typing import NamedTuple

import tensorflow as tf

from deel_dualview.linalg.blocks import OuterProduct


class Factors(NamedTuple):
    """One matrix `sum_t left_it right_it'` (c, d) a row, not multiplied out.

    The gradient of a Dense layer on sequences has this form (t runs over time steps) and that of a
    convolution (t runs over output pixels, right are patches of the input).

    Attributes:
        left: shape (n, t, c).
        right: shape (n, t, d).
    """

    left: tf.Tensor
    right: tf.Tensor

    @property
    def num_left(self) -> int:
        """Number of rows c of the matrices."""
        return int(self.left.shape[2])

    @property
    def num_right(self) -> int:
        """Number of columns d of the matrices."""
        return int(self.right.shape[2])

    def multiplied(self) -> tf.Tensor:
        """Return the matrices row by row, shape (n, c * d)."""
        product = tf.matmul(self.left, self.right, transpose_a=True)
        return tf.reshape(product, (tf.shape(product)[0], self.num_left * self.num_right))

    def right_times(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return `right @ matrix`, shape (n, t, k), for a matrix (d, k)."""
        return _rows_times(self.right, matrix)

    def left_times(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return `left @ matrix`, shape (n, t, k), for a matrix (c, k)."""
        return _rows_times(self.left, matrix)


class OneHotFactors(NamedTuple):
    """One matrix `sum_t left_it e(index_it)'` (c, size) a row: the gradient of an Embedding.

    Attributes:
        left: shape (n, t, c).
        indices: positions of the ones, shape (n, t), integers.
        size: length d of the unit vectors.
    """

    left: tf.Tensor
    indices: tf.Tensor
    size: int

    @property
    def num_left(self) -> int:
        """Number of rows c of the matrices."""
        return int(self.left.shape[2])

    @property
    def num_right(self) -> int:
        """Number of columns d of the matrices."""
        return self.size

    def multiplied(self) -> tf.Tensor:
        """Return the matrices row by row, shape (n, c * d)."""
        num_rows = tf.shape(self.left)[0]
        # Summed by segment, row i and index j in segment i * d + j: no one-hot tensor (n, t, d) is ever made.
        segments = tf.cast(tf.range(num_rows)[:, tf.newaxis] * self.size, self.indices.dtype) + self.indices
        sums = tf.math.unsorted_segment_sum(
            tf.reshape(self.left, (-1, self.num_left)), tf.reshape(segments, (-1,)), num_rows * self.size
        )
        by_row = tf.transpose(tf.reshape(sums, (num_rows, self.size, self.num_left)), (0, 2, 1))
        return tf.reshape(by_row, (num_rows, self.num_left * self.size))

    def right_times(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the rows of a matrix (d, k) at the indices, shape (n, t, k)."""
        return tf.gather(matrix, self.indices)

    def left_times(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return `left @ matrix`, shape (n, t, k), for a matrix (c, k)."""
        return _rows_times(self.left, matrix)


Factored = Factors | OneHotFactors

LayerGradients = tuple[tf.Tensor | OuterProduct | Factored, ...]
"""Gradients of n examples, one entry for each layer: a matrix (n, p_k) or any of the factored forms."""


def to_block(gradients: tf.Tensor | OuterProduct | Factored) -> tf.Tensor | OuterProduct:
    """Return gradients of one layer in a form that can be stored: a single outer product stays factored."""
    if isinstance(gradients, Factors) and gradients.left.shape[1] == 1:
        return OuterProduct(gradients.left[:, 0], gradients.right[:, 0])
    return gradients.multiplied() if isinstance(gradients, Factored) else gradients


def _rows_times(rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiply (n, t, a) by (a, k) as one matrix product."""
    shape = tf.shape(rows)
    product = tf.matmul(tf.reshape(rows, (shape[0] * shape[1], matrix.shape[0])), matrix)
    return tf.reshape(product, (shape[0], shape[1], matrix.shape[1]))
