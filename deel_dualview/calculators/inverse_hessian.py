"""Base of calculators with an inverse Hessian, which is applied to the queries, as there are few of them."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.gradients import check_finite
from deel_dualview.ihvp import ExactIHVP, InverseHessianVectorProduct
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.solvers import LinearSolution
from deel_dualview.models import InfluenceModel
from deel_dualview.search.bounded import NUM_FIRST, Bounded, Search
from deel_dualview.stores import Store
from deel_dualview.typing import Target

_NUMBERS_AT_ONCE = 2**23
_NUM_NORMS = 1024
_LEAST_FIRST = 32
_PRODUCTS_AT_FIRST = 2**25


class InverseHessianCalculator(StoredInfluenceCalculator):
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
            if store is None and ihvp.shares_features(train_set):
                store = ihvp.store
        super().__init__(model, train_set, target=target, store=store)
        self.ihvp = ExactIHVP(self.model, train_set, store=self.store) if ihvp is None else ihvp
        require(
            self.ihvp.model is self.model or self.ihvp.model.fingerprint == self.model.fingerprint,
            "`ihvp` must be built with the model that is explained.",
            {"ihvp": type(self.ihvp).__name__},
        )
        self._rely_on(self.ihvp.record)
        self._prepare()
        self._has_constant_feature = (
            self._keeps_features and self.ihvp.gradients.groups[0].layer.bias is not None
        )
        self.search = self._make_search()
        self._prepare_vectors()
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
            raise TypeError(
                describe(
                    "`ihvp` must be an inverse Hessian, for instance ExactIHVP(model, train_set).",
                    {"type": type(ihvp).__name__},
                )
            )

    def solve_queries(self, dataset_to_evaluate: tf.data.Dataset) -> Iterator[LinearSolution]:
        """Yield how well the inverse Hessian was applied to the gradients of evaluated examples, by `LinearSolution`.

        One solution for a batch of queries, or for each part of it where a batch of dense queries takes more than
        32 MiB. The inverse is applied again.
        """
        self._check_queries(dataset_to_evaluate)
        data.check_bounded(dataset_to_evaluate, "dataset_to_evaluate")
        self.check_unchanged()
        for represented in self._represented(dataset_to_evaluate):
            for part in self._parts(represented):
                yield self.ihvp.solve(self._query_gradients(part, self._explained_classes(part)))

    def _prepare(self) -> None:
        """Check or compute what influence vectors need, before the pass over the training set."""

    def _make_search(self) -> Search:
        num_first = min(NUM_FIRST, _PRODUCTS_AT_FIRST // self.ihvp.size)
        return Bounded(lambda: self._norms, self._query_norms, max(_LEAST_FIRST, num_first))

    @cached_property
    def _keeps_features(self) -> bool:
        # Once: the coordinates of EK-FAC are described by a hash of its whole basis.
        return self.ihvp.gradients.is_closed_last_layer and not self.ihvp.describe_coordinates()

    @property
    def _queries_at_once(self) -> int:
        """As many queries as have, dense, 2**23 numbers (or one)."""
        return max(1, _NUMBERS_AT_ONCE // self.ihvp.size)

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        if self._keeps_features:
            return self._outer_products(rows, represented, self._influence_vectors)
        return self._influence_vectors(represented)

    @abstractmethod
    def _influence_vectors(self, represented: Represented) -> Blocks:
        """Return the vectors of training examples."""

    def _vector_norms(self, vectors: Blocks) -> tf.Tensor:
        """Return a norm of every vector, shape (b,); its product with `_query_norms` bounds inner products."""
        return blocks.norms(vectors)

    def _query_norms(self, queries: Blocks) -> tf.Tensor:
        """Return the dual norm of every query, shape (m,)."""
        return blocks.norms(queries)

    @cached_property
    def _norms(self) -> np.ndarray:
        """Norms of all vectors, shape (n,)."""
        norms = []
        for indices, vectors in self._blocks():
            for start in range(0, len(indices), _NUM_NORMS):
                norms.append(self._vector_norms(data.slice_examples(vectors, start, start + _NUM_NORMS)))
        return np.concatenate(norms)

    def _training_gradients(self, represented: Represented) -> Blocks:
        """Return the gradients of the losses of the labels, times the weights of the examples."""
        return represented.training_gradients(self.ihvp.gradients)

    def _query_gradients(self, represented: Represented, classes: np.ndarray) -> Blocks:
        """Return the gradients of the losses of `classes` (b,)."""
        return check_finite(represented.gradients(self.ihvp.gradients, classes), "examples")

    def _solved(self, gradients: Blocks, factor: float = 1.0) -> Blocks:
        """Return H^-1 times gradients times a number, as matrices of the same widths."""
        return blocks.from_dense(self.ihvp.solve(gradients).value * factor, gradients)
