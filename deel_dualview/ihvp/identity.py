"""IdentityIHVP: no curvature at all."""

import keras
import tensorflow as tf

from deel_dualview.gradients import Weights
from deel_dualview.ihvp.base import InverseHessianVectorProduct
from deel_dualview.linalg.operators import DampedOperator, LinearOperator
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store


class IdentityIHVP(InverseHessianVectorProduct):
    """The inverse of the identity: influence functions become gradient products divided by n.

    Args:
        model: see `InverseHessianVectorProduct`.
        train_set: batched.
        weights: `"last"`, `"all"` or names of layers.
        store: where a last layer's features are kept.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        store: Store | None = None,
    ) -> None:
        super().__init__(model, train_set, weights=weights, damping=1.0, store=store)
        self.hessian = DampedOperator(_Zero(self.size), 1.0)

    def _solve(self, rows: tf.Tensor) -> LinearSolution:
        num_rows = tf.shape(rows)[0]
        return LinearSolution(rows, tf.ones(num_rows, tf.bool), 0, tf.zeros(num_rows, rows.dtype))


class _Zero(LinearOperator):
    """The zero matrix of size p."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(rows)
