"""GradDot and GradCos: inner products and cosines of per-example gradients."""

from abc import abstractmethod
from typing import Literal, cast, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_choice
from deel_dualview.calculators.contributions import FeatureContributions, Pairs, split_outer_products
from deel_dualview.calculators.represented import Represented, weighted
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.gradients import (
    PerExampleGradients,
    Preconditioner,
    UnitGradients,
    Weights,
    check_finite,
    preconditioner_of,
)
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.projections import IdentityProjection, Projection
from deel_dualview.models import InfluenceModel
from deel_dualview.models.heads import LinearHead
from deel_dualview.search.faiss_index import FaissIndex, check_index
from deel_dualview.stores import Store
from deel_dualview.typing import Function, Target

Normalized = Literal["both", "train"]
"""Which gradients GradCos divides by their norm."""
Side = PerExampleGradients | UnitGradients


class GradientSimilarity(StoredInfluenceCalculator):
    """Base of inner products of gradients, as they are or at unit length.

    The parameters are those of `GradDot`.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        function: Function = "loss",
        projection: Projection | None = None,
        preconditioner: Preconditioner | None = None,
        target: Target = "prediction",
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        check_index(index)
        self.gradients = PerExampleGradients(model, weights, function=function, projection=projection)
        self._preconditioner = preconditioner_of(self.gradients, preconditioner)
        super().__init__(self.gradients.model, train_set, target=target, store=store)
        first = data.unpack(data.first_batch(train_set, "train_set"))
        self.gradients.prepare(first.inputs, self.model.training_targets(first.labels))
        self._of_vectors, self._of_queries = self._sides()
        self._has_constant_feature = self._keeps_features and self._head.has_bias
        self._prepare_vectors()
        self._stored()
        self._use_index(index)

    @property
    def _weights_of_own_queries(self) -> np.ndarray | None:
        return None if isinstance(self._of_queries, UnitGradients) else super()._weights_of_own_queries

    @abstractmethod
    def _sides(self) -> tuple[Side, Side]:
        """Return what gives the vectors of training examples and the queries of evaluated ones."""

    def check_feature_contributions(self) -> None:
        """Allow it for whole gradients in the last layer, which are outer products with the features."""
        if not self._keeps_features or self._preconditioner is not None:
            super().check_feature_contributions()

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        self.check_feature_contributions()
        (query,) = self._last_layer(self._of_queries, pairs.features, pairs.classes)
        own = self._last_layer(self._of_vectors, pairs.train_features, pairs.train_labels)
        weights = None if self.train_weights is None else self.train_weights[pairs.train_indices]
        (vector,) = weighted(own, self._of_vectors, weights)
        return split_outer_products(query, vector, self.model.num_features)

    def _last_layer(self, gradients: Side, features: tf.Tensor, classes: np.ndarray) -> Blocks:
        logits = tf.matmul(features, self._head.kernel) + self._head.bias
        return gradients.from_features(features, logits, classes)

    @property
    def _head(self) -> LinearHead:
        return cast(LinearHead, self.model.head)

    @property
    def _keeps_features(self) -> bool:
        return self.gradients.is_closed_last_layer and isinstance(
            self.gradients.projection, IdentityProjection
        )

    def _settings(self) -> dict[str, str]:
        found = self.gradients.describe()
        if self._preconditioner is not None:
            found["preconditioner"] = self._preconditioner.describe()
        return found

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        if self._keeps_features:
            return self._outer_products(rows, represented, self._gradients_of_labels)
        return self._gradients_of_labels(represented)

    def _gradients_of_labels(self, represented: Represented) -> Blocks:
        return represented.training_gradients(self._of_vectors)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        found = check_finite(represented.gradients(self._of_queries, classes), "examples")
        return found if self._preconditioner is None else self._preconditioner(found)

    def _own_queries(self, vectors: Blocks) -> Blocks | None:
        if self._of_queries is not self._of_vectors:
            return None
        return vectors if self._preconditioner is None else self._preconditioner(vectors)


class GradDot(GradientSimilarity):
    """Inner product of the gradients of an evaluated and a training example.

    The same function is differentiated on both sides: for the training example at its label y_i, for the
    evaluated one at the explained class c. With `function="loss"`, <grad L(x, c), grad L(x_i, y_i)>: positive
    where a small gradient step on the training example lowers the loss of the evaluated one. One unit is a
    decrease of the loss of one nat for each unit of learning rate. With `function="logit"`, <grad z_c(x),
    grad z_yi(x_i)>: by how much a step that raises the training example's own logit raises the explained one,
    for each unit of learning rate. With `preconditioner="adam"` the step is one of Adam, without its momentum.

    Holds d + c numbers of every training example for the last layer, its features and the other factor of its gradient;
    p in general, `projection.size` with a projection.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        weights: in which weights gradients are taken: `"last"`, `"all"` or names of layers.
        function: `"loss"`, `"logit"` or `"margin"`.
        projection: a random projection of the gradients, for many weights; none by default.
        preconditioner: `"adam"` for inner products <g, D g_i>, D = diag(1 / (sqrt(v_hat) + epsilon)) of the Adam that
            the model was compiled and trained with; none by default.
        target: which class of an evaluated example is explained.
        store: where features or gradients of the training examples are kept; in memory by default.
        index: for millions of training examples, see `FaissIndex`; every example is compared by default.

    Raises:
        ValueError: an unknown choice, a layer without trainable parameters, gradients that are not finite (the
            message names the examples), or a preconditioner of a model without an Adam that has trained it.

    Source: Charpiat et al. (2019), section 3; Pruthi et al. (2020) for random projections.
    """

    def _sides(self) -> tuple[Side, Side]:
        return self.gradients, self.gradients


class GradCos(GradientSimilarity):
    """Cosine of the gradients of an evaluated and a training example, in [-1, 1].

    With `normalize="train"` only the training example's gradient is divided by its norm, so that values of
    different training examples compare as in the cosine while the scale of the query stays. That with
    `function="logit"` is SIM, equation 3 of the DualView paper; with `weights="all"` and a projection it is
    the paper's SIM-rp. With `preconditioner="adam"` inner products and norms are those of the matrix D.

    The sign is that of `GradDot`. Norms are those of the projected gradients where there is a projection. A
    gradient that is zero has value 0 with everything; that of the loss of a confident prediction is not, however
    small it is: its direction stays right at any margin. Self-influence is 1, or the norm of the gradient for
    `normalize="train"`.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        normalize: `"both"` or `"train"`.
        weights: in which weights gradients are taken: `"last"`, `"all"` or names of layers.
        function: `"loss"`, `"logit"` or `"margin"`.
        projection: a random projection of the gradients, for many weights; none by default.
        preconditioner: `"adam"` for inner products <g, D g_i>, D = diag(1 / (sqrt(v_hat) + epsilon)) of the Adam that
            the model was compiled and trained with; none by default.
        target: which class of an evaluated example is explained.
        store: where features or gradients of the training examples are kept; in memory by default.
        index: for millions of training examples, see `FaissIndex`; every example is compared by default.

    Raises:
        ValueError: an unknown choice, a layer without trainable parameters, gradients that are not finite (the
            message names the examples), or a preconditioner of a model without an Adam that has trained it.

    Source: Charpiat et al. (2019), equation 6; DualView paper, equation 3.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        normalize: Normalized = "both",
        weights: Weights = "last",
        function: Function = "loss",
        projection: Projection | None = None,
        preconditioner: Preconditioner | None = None,
        target: Target = "prediction",
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        check_choice("normalize", normalize, get_args(Normalized))
        self.normalize = normalize
        super().__init__(
            model,
            train_set,
            weights=weights,
            function=function,
            projection=projection,
            preconditioner=preconditioner,
            target=target,
            store=store,
            index=index,
        )

    def _sides(self) -> tuple[Side, Side]:
        directions = UnitGradients(self.gradients, self._preconditioner)
        return directions, directions if self.normalize == "both" else self.gradients
