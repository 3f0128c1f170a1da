"""ArnoldiInfluenceCalculator: influence functions on the eigenvectors of the curvature that matter most."""

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.gradients import check_finite
from deel_dualview.ihvp.arnoldi import ArnoldiIHVP
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.krylov import Spectrum
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store
from deel_dualview.typing import Target

_DISAGREEMENT = 1e-2


class ArnoldiInfluenceCalculator(StoredInfluenceCalculator):
    """Influence functions with a low-rank inverse Hessian: `(V g(x))' diag(1 / (eigenvalue + damping)) V g_i / n`.

    V holds the r eigenvectors of largest eigenvalues of the curvature of the mean loss, g are gradients of
    the loss in the chosen weights. One unit is one unit of loss, as in influence functions with any other
    inverse: the predicted increase of the query's cross-entropy for the explained class when training example
    i is removed, as far as the r directions tell. Positive: the example lowers that loss (a proponent).
    Self-influence is never negative.

    Holds r numbers a training example, whatever the size of the network (for the last layer its features, too), and
    the r p numbers of V.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the low-rank inverse, and with it the weights; by default `ArnoldiIHVP(model, train_set)`, of the
            last layer.
        target: which class' loss of an evaluated example is explained: `"prediction"`, `"label"` or a class
            index.
        store: where the projected gradients of the training examples are kept; in memory by default.

    Raises:
        TypeError: `ihvp` is not an ArnoldiIHVP.
        ValueError: `ihvp` belongs to another model, gradients that are not finite (of which examples), or a
            store with projections onto other eigenvectors.

    Source: Schioppa et al. (2022), equation 5.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        ihvp: ArnoldiIHVP | None = None,
        *,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        if not isinstance(ihvp, ArnoldiIHVP | None):
            raise TypeError(
                describe(
                    "`ihvp` must be an ArnoldiIHVP; other inverses belong into FirstOrderInfluenceCalculator.",
                    {"type": type(ihvp).__name__},
                )
            )
        if ihvp is not None and store is None and ihvp.shares_features(train_set):
            store = ihvp.store
        super().__init__(model, train_set, target=target, store=store)
        self.ihvp = ArnoldiIHVP(self.model, train_set, store=self.store) if ihvp is None else ihvp
        require(
            self.ihvp.model is self.model or self.ihvp.model.fingerprint == self.model.fingerprint,
            "`ihvp` must be built with the model that is explained.",
            {"ihvp": type(self.ihvp).__name__},
        )
        self._rely_on(self.ihvp.record)
        if self._keeps_features:
            self._prepare_vectors()
        else:
            self._check_first_vectors()

    @property
    def spectrum(self) -> Spectrum:
        """The eigenvalues, without damping, and eigenvectors of the curvature, with their residuals."""
        return self.ihvp.spectrum

    def _settings(self) -> dict[str, str]:
        return self.ihvp.gradients.describe() | self.ihvp.describe()

    @property
    def _keeps_features(self) -> bool:
        return self.ihvp.gradients.is_closed_last_layer

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        kept = self._kept_rows.get(rows) if self._keeps_features else None
        if kept is not None:
            return (tf.constant(kept),)
        projected = self.ihvp.project(represented.training_gradients(self.ihvp.gradients))
        if self._keeps_features:
            self._kept_rows.keep(rows, projected.numpy())
        return (projected,)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        gradients = check_finite(represented.gradients(self.ihvp.gradients, classes), "examples")
        return self._own_queries((self.ihvp.project(gradients),))

    def _own_queries(self, vectors: Blocks) -> Blocks:
        weights = self.ihvp.inverse_eigenvalues / self.num_train
        return (vectors[0] * tf.constant(weights, tf.float32),)

    def _check_first_vectors(self) -> None:
        """Refuse stored projections onto other eigenvectors: those of nearly equal eigenvalues may turn."""
        stored = next(self._blocks())[1][0]
        fresh = self._vectors_of(data.first_batch(self.train_set, "train_set"))[0]
        (queries,) = self._own_queries((fresh,))
        num_rows = min(len(stored), len(fresh))
        found = tf.matmul(queries, stored[:num_rows], transpose_b=True)
        expected = tf.matmul(queries, fresh[:num_rows], transpose_b=True)
        difference = float(tf.reduce_max(tf.abs(found - expected)))
        require(
            difference <= _DISAGREEMENT * float(tf.reduce_max(tf.abs(expected))),
            "The store holds projections onto other eigenvectors (the training set was batched otherwise, or "
            "computed on another machine): use another store, or batch the training set as before.",
            {"largest difference": difference},
        )
