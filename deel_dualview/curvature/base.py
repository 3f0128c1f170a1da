"""What every curvature of a mean loss promises."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import numpy as np
import tensorflow as tf

from deel_dualview.linalg.operators import LinearOperator

CurvatureKind = Literal["hessian", "gauss-newton"]
"""The `"hessian"`, or the `"gauss-newton"` matrix J' (diag(p) - p p') J, which has no negative eigenvalue."""


class Curvature(LinearOperator):
    """Second derivatives of the mean cross-entropy over n examples, in some of a model's weights.

    The order of the p parameters is that of the per-example gradients multiplied out.
    """

    @property
    @abstractmethod
    def num_examples(self) -> int:
        """Number of examples n that the mean is over."""

    @abstractmethod
    def sampled(self, batch_size: int, seed: int) -> Iterator[LinearOperator]:
        """Yield, without end, the curvatures of random batches; the same ones for the same seed."""

    @property
    def basis(self) -> tf.Tensor | None:
        """Orthonormal columns (d, n), float64, such that this is (I (x) basis) M (I (x) basis)' M small; or None."""
        return None

    def in_span(self) -> np.ndarray:
        """Return M, float64: the matrix itself without a basis."""
        return self.to_array()

    def to_array(self) -> np.ndarray:
        """Return the matrix as an array that must not be written to, shape (p, p), float64."""
        return np.asarray(self.to_dense(), np.float64)
