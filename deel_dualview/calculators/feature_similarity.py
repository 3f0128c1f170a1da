"""FeatureSimilarity: similarity of penultimate features, with the sign of equal labels."""

from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, require
from deel_dualview.calculators.contributions import FeatureContributions, Pairs, split_outer_products
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models import InfluenceModel
from deel_dualview.models.objectives import IndependentSigmoids
from deel_dualview.search.faiss_index import FaissIndex, check_index
from deel_dualview.stores import Store
from deel_dualview.typing import Target

Similarity = Literal["cosine", "dot", "euclidean"]
"""Cosine or inner product of two feature vectors, or 1 / (1 + their Euclidean distance)."""


class FeatureSimilarity(StoredInfluenceCalculator):
    """Similarity of penultimate features: the honest baseline, which knows nothing about the training.

    The influence of training example i on class j at x is `s(phi_i, phi(x))` where the label of i is j, and
    `-s(phi_i, phi(x))` where it is another: positive for similar examples of the explained class, negative
    for similar examples of other classes. Values have no unit. `"cosine"` is in [-1, 1] (0 for features that
    are all zero), `"dot"` in squares of the features' unit; `"euclidean"` is 1 / (1 + distance), in (0, 1],
    so that the nearest example comes first.

    Of independent labels the sign is that of label j of the training example; of a regression and a custom loss it is
    always positive, since numbers are neither equal nor different.

    Self-influence is `s(phi_i, phi_i)`: 1, or the squared norm for `"dot"`.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        similarity: `"cosine"`, `"dot"` or `"euclidean"`.
        target: which class of an evaluated example is explained: `"prediction"`, `"label"` or a class index.
        store: where the features are kept; in memory by default.
        index: for millions of training examples, see `FaissIndex`; every example is compared by default.

    Raises:
        ValueError: bad settings, labels or datasets, features that are not finite.

    Source: Hanawa et al. (2021), Evaluation of Similarity-based Explanations.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        similarity: Similarity = "cosine",
        target: Target = "prediction",
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        check_choice("similarity", similarity, get_args(Similarity))
        check_index(index)
        require(
            index is None or similarity != "euclidean",
            "An index is of inner products: take similarity='cosine' or 'dot', or no index.",
            {"similarity": similarity},
        )
        super().__init__(model, train_set, target=target, store=store)
        self.similarity = similarity
        self._stored()
        self._use_index(index)

    def check_feature_contributions(self) -> None:
        """Allow it for similarities that are inner products."""
        if self.similarity == "euclidean":
            super().check_feature_contributions()

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        self.check_feature_contributions()
        (queries,) = self._queries_of_features(pairs.features, pairs.classes)
        (vectors,) = self._vectors_of_features(pairs.train_features, pairs.train_labels)
        return split_outer_products(queries, vectors, self.model.num_features)

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        return self._vectors_of_features(represented.features, represented.targets)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        return self._queries_of_features(represented.features, classes)

    def _vectors_of_features(self, features: tf.Tensor, targets: np.ndarray) -> Blocks:
        model = self.model
        if model.is_classifier:
            signs = 2.0 * tf.one_hot(targets, model.num_outputs) - 1.0
        elif isinstance(model.objective, IndependentSigmoids):
            signs = tf.constant(2.0 * targets - 1.0, tf.float32)
        else:
            signs = tf.ones((len(targets), model.num_outputs))
        return (OuterProduct(signs, self._scaled(features)),)

    def _queries_of_features(self, features: tf.Tensor, targets: np.ndarray) -> Blocks:
        """Return the queries for outputs (m,), or for the mean over all outputs of labels (m, c)."""
        if targets.ndim == 1:
            weights = tf.one_hot(targets, self.model.num_outputs)
        else:
            weights = self._vectors_of_features(features, targets)[0].left / self.model.num_outputs
        return (OuterProduct(weights, self._scaled(features)),)

    def _scaled(self, features: tf.Tensor) -> tf.Tensor:
        return blocks.unit((features,))[0] if self.similarity == "cosine" else features

    def _scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        if self.similarity != "euclidean":
            return super()._scores(queries, vectors)
        return _signed_proximities(queries[0], vectors[0])

    def _row_scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        if self.similarity != "euclidean":
            return super()._row_scores(queries, vectors)
        signs = tf.reduce_sum(queries[0].left * vectors[0].left, axis=1)
        return signs / (1.0 + tf.norm(queries[0].right - vectors[0].right, axis=1))


@tf.function(reduce_retracing=True, autograph=False)
def _signed_proximities(queries: OuterProduct, vectors: OuterProduct) -> tf.Tensor:
    """Return sign / (1 + distance), shape (m, n)."""
    signs = tf.matmul(queries.left, vectors.left, transpose_b=True)
    # In float64: in float32 the squared norms would swallow the distance of near duplicates.
    first, second = tf.cast(queries.right, tf.float64), tf.cast(vectors.right, tf.float64)
    squares = tf.reduce_sum(first**2, axis=1)[:, tf.newaxis] + tf.reduce_sum(second**2, axis=1)
    squares -= 2.0 * tf.matmul(first, second, transpose_b=True)
    return signs / (1.0 + tf.cast(tf.sqrt(tf.maximum(squares, 0.0)), tf.float32))
