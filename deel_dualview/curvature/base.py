"""What every curvature of a mean loss promises."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import numpy as np

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

    def to_array(self) -> np.ndarray:
        """Return the matrix as an array that must not be written to, shape (p, p), float64."""
        return np.asarray(self.to_dense(), np.float64)
