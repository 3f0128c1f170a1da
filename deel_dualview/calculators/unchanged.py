"""Detection of models whose weights have changed since a calculator was built."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from deel_dualview import data
from deel_dualview.models.identity import WeightsRecord


class UnchangedModels:
    """Base of calculators that keep results computed from weights, and raise an error once the weights are others."""

    _records: tuple[WeightsRecord, ...] = ()

    def check_unchanged(self) -> None:
        """Raise an error if the weights of a model have changed since the calculator was built.

        Every method that computes checks it once: when it is called, or when its dataset is iterated over.

        Raises:
            ValueError: they have; the message names them.
        """
        for record in self._records:
            record.check("calculator")

    def _rely_on(self, *records: WeightsRecord) -> None:
        """Have the weights of these records checked, too; those that have changed already raise an error now."""
        for record in records:
            record.check("calculator")
        self._records = (*self._records, *records)

    def _lazy_dataset(self, make_generator: Callable[[], Iterator[Any]], signature: Any) -> tf.data.Dataset:
        """Return `data.lazy_dataset`, which checks all weights when an iteration begins, and a few at every element."""

        def checked() -> Iterator[Any]:
            self.check_unchanged()
            for element in make_generator():
                # After it was computed: the model may be trained while an iteration waits for its next batch.
                for record in self._records:
                    record.glance("calculator")
                yield element

        return data.lazy_dataset(checked, signature)
