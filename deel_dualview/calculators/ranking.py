"""Training examples in the order of their influence, and the evaluated examples for which there is none."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from deel_dualview import data
from deel_dualview._checks import describe
from deel_dualview._summaries import Summarised
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.unchanged import UnchangedModels
from deel_dualview.search import ORDER, Best


class RankingCalculator(Summarised, UnchangedModels, ABC):
    """Base of calculators that put training examples in an order."""

    _has_warned_of_zeros = False

    @abstractmethod
    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        """Return the k first values (m, k) and their training indices (m, k) of one batch of queries."""

    def summary(self) -> dict[str, str]:
        """Return the settings and, where it is known already, the number of training examples."""
        kept = vars(self).get("_training")
        return super().summary() | ({} if kept is None else {"training examples": f"{len(kept):,}"})

    def _ranked(
        self, elements: Iterable[tuple[Any, Represented]], k: int, order: ORDER
    ) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yield each batch of queries with its k first values (m, k) and their training indices (m, k)."""
        start = 0
        for element, represented in elements:
            with data.naming_positions(start, "dataset_to_evaluate"):
                values, indices = self._top_k(represented, k, order)
            is_zero = ~values.any(axis=1)
            if is_zero.any() and not self._has_warned_of_zeros:
                is_zero &= ~self._top_k(represented, 1, order.opposite)[0].any(axis=1)
                self._has_warned_of_zeros = _warn_of_zeros(start + np.flatnonzero(is_zero))
            start += len(values)
            yield element, values, indices


def _warn_of_zeros(positions: np.ndarray) -> bool:
    """Warn of evaluated examples, by their positions, of which every influence value is 0.

    Returns:
        Whether there are any.
    """
    if not len(positions):
        return False
    needed = (
        "Every influence value of some evaluated examples is exactly 0: their training examples have no order, and "
        "those returned are the first of the training set. Their features or gradients, or those of all training "
        "examples, are zero. (Gradients of the loss are zero in float32 where the model is very certain: GradCos takes "
        "their direction alone. This warning comes once.)"
    )
    received = {"positions of evaluated examples": positions.tolist()}
    warnings.warn(describe(needed, received), UserWarning, stacklevel=4)
    return True
