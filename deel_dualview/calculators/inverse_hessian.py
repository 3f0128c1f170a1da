"""What calculators with an inverse Hessian share: it is applied to the queries, of which there are few."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.calculators.bounded import BoundedSearchCalculator
from deel_dualview.gradients import check_finite
from deel_dualview.ihvp import ExactIHVP, InverseHessianVectorProduct
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.models import InfluenceModel
from deel_dualview.search import ORDER, Best
from deel_dualview.stores import Store
from deel_dualview.typing import Target

_NUMBERS_AT_ONCE = 2**23
_LEAST_FIRST = 32
_PRODUCTS_AT_FIRST = 2**25


class InverseHessianCalculator(BoundedSearchCalculator):
    """Base of calculators whose queries are H^-1 times the gradient of the query's loss.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the inverse Hessian, and with it the weights that gradients are taken in; by default
            `ExactIHVP(model, train_set)`, of the last layer.
        target: which class' loss of an evaluated example is explained: `"prediction"`, `"label"` or a class
            index.
        store: where the vectors of the training examples are kept; in memory by default.

    Raises:
        TypeError: `ihvp` is not an inverse Hessian.
        ValueError: `ihvp` belongs to another model.

    Warns:
        UserWarning: `ihvp` was built on a training set of another size.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        ihvp: InverseHessianVectorProduct | None = None,
        *,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        if ihvp is not None:
            self._check_ihvp(ihvp)
        super().__init__(model, train_set, target=target, store=store)
        self.ihvp = ExactIHVP(self.model, train_set) if ihvp is None else ihvp
        require(
            self.ihvp.model is self.model or self.ihvp.model.fingerprint == self.model.fingerprint,
            "`ihvp` must be built with the model that is explained.",
            {"ihvp": type(self.ihvp).__name__},
        )
        self._rely_on(self.ihvp.record)
        self._prepare()
        self._stored()
        if self.ihvp.train_set is not train_set and self.ihvp.num_train != self.num_train:
            warnings.warn(
                f"The inverse Hessian is of {self.ihvp.num_train} other examples, not of the {self.num_train} of "
                "`train_set`: right where it was meant to be estimated on a part of them.",
                UserWarning,
                stacklevel=2,
            )

    def _check_ihvp(self, ihvp: InverseHessianVectorProduct) -> None:
        """Refuse an inverse Hessian that does not fit the calculator, before any data is read."""
        if not isinstance(ihvp, InverseHessianVectorProduct):
            needed = "`ihvp` must be an inverse Hessian, for instance ExactIHVP(model, train_set)."
            raise TypeError(describe(needed, {"type": type(ihvp).__name__}))

    def _prepare(self) -> None:
        """Check or compute what influence vectors need, before the pass over the training set."""

    def _values(self, batch: data.Batch) -> np.ndarray:
        return np.concatenate(
            [super(InverseHessianCalculator, self)._values(part) for part in self._parts(batch)]
        )

    def _top_k(self, batch: data.Batch, k: int, order: ORDER) -> Best:
        # Few queries at once are bounded more tightly, too.
        found = [super(InverseHessianCalculator, self)._top_k(part, k, order) for part in self._parts(batch)]
        values, indices = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(indices)

    def _self_influences(self, batch: data.Batch) -> tf.Tensor:
        parts = [super(InverseHessianCalculator, self)._self_influences(part) for part in self._parts(batch)]
        return tf.concat(parts, axis=0)

    @property
    def _num_first(self) -> int:
        return max(_LEAST_FIRST, min(super()._num_first, _PRODUCTS_AT_FIRST // self.ihvp.size))

    def _parts(self, batch: data.Batch) -> list[data.Batch]:
        """Return a batch in parts whose queries, dense, have 2**23 numbers at most (or are single)."""
        size, step = data.num_examples(batch.inputs), max(1, _NUMBERS_AT_ONCE // self.ihvp.size)
        if size <= step:
            return [batch]
        kept = {name: part for name, part in batch._asdict().items() if part is not None}
        parts = [data.slice_examples(kept, start, start + step) for start in range(0, size, step)]
        return [batch._replace(**part) for part in parts]

    def _training_gradients(self, batch: data.Batch) -> Blocks:
        """Return the gradients of the losses of a batch's labels."""
        return self.ihvp.gradients(batch.inputs, self.model.to_classes(batch.labels))

    def _query_gradients(self, batch: data.Batch, classes: np.ndarray) -> Blocks:
        """Return the gradients of the losses of `classes` (b,)."""
        return check_finite(self.ihvp.gradients(batch.inputs, classes), "examples")

    def _solved(self, gradients: Blocks, factor: float = 1.0) -> Blocks:
        """Return H^-1 times gradients times a number, as matrices of the same widths."""
        return blocks.from_dense(self.ihvp.solve(gradients).value * factor, gradients)
