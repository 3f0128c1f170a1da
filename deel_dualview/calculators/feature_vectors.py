"""Calculators whose influence vectors are functions of the penultimate features and labels alone."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.contributions import FeatureContributions, Pairs, split_outer_products
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.search import ORDER, streaming_top_k
from deel_dualview.stores import StoredVectors


def key_of_features(model: InfluenceModel, train_set: tf.data.Dataset) -> dict[str, str]:
    """Return the key of a store of penultimate features: all that they depend on."""
    side = "input" if model.split.takes_input else "output"
    return {
        "contents": "penultimate features",
        "model": model.fingerprint,
        "feature_layer": f"{side} of {tracing.place_of(model.model, model.split.layer)}",
        "examples": data.describe_elements(train_set),
    }


class FeatureInfluenceCalculator(BaseInfluenceCalculator):
    """Base of calculators that need of a training example its penultimate features, label and position only.

    The features are computed by one pass over the training set and kept in the store under the same key as
    DualView's: calculators that share a `DiskStore` share the pass.

    Subclasses give `_vectors` and `_queries`, and call `self._stored()` in their constructor.

    Attributes:
        has_constant_feature: whether the features are followed by a constant 1, which stands for a bias.
    """

    has_constant_feature = False

    @abstractmethod
    def _vectors(self, rows: slice | np.ndarray, features: tf.Tensor, labels: np.ndarray) -> Blocks:
        """Return the vectors of the training examples at `rows`, each block (b, ...).

        Args:
            rows: their positions, in a row or not.
            features: their features, with the constant one if there is one, shape (b, d).
            labels: their classes, shape (b,).
        """

    @abstractmethod
    def _queries(self, features: tf.Tensor, classes: np.ndarray) -> Blocks:
        """Return the queries of features (m, d) explained for `classes` (m,), each block (m, ...)."""

    def _scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        """Return the influence of every vector on every query, shape (m, n)."""
        return blocks.inner_products(queries, vectors)

    def _row_scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        """Return the influence of each vector on the query of the same row, shape (n,)."""
        return blocks.row_products(queries, vectors)

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self._stored())

    @cached_property
    def train_labels(self) -> np.ndarray:
        """Class of every training example, shape (n,), int64."""
        return self._stored().array("labels")

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors, lazily, as `Blocks`: a matrix or an OuterProduct for each block."""
        self._check_same_train_set(train_set)
        spec = blocks.spec_of(next(self._blocks())[1])
        return self._lazy_dataset(lambda: (vectors for _, vectors, _ in self._blocks()), spec)

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the self-influence of every training example, lazily, elements of shape (b,), float32.

        No model is called; the elements are as long as the store's blocks, whatever the batches of
        `train_set`.
        """
        self._check_same_train_set(train_set)
        return self._lazy_dataset(
            lambda: (
                self._row_scores(self._queries(features, self.train_labels[rows]), vectors)
                for rows, vectors, features in self._blocks()
            ),
            tf.TensorSpec([None], tf.float32),
        )

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        self.check_feature_contributions()
        (queries,) = self._queries(self._with_constant(pairs.features), pairs.classes)
        (vectors,) = self._vectors(
            pairs.train_indices, self._with_constant(pairs.train_features), pairs.train_labels
        )
        return split_outer_products(queries, vectors, self.model.num_features)

    def _values(self, batch: data.Batch) -> np.ndarray:
        return np.concatenate([values for _, values in self._score_blocks(batch)], axis=1)

    def _top_k(self, batch: data.Batch, k: int, order: ORDER) -> tuple[np.ndarray, np.ndarray]:
        return streaming_top_k(self._score_blocks(batch), k, order)

    def _score_blocks(self, batch: data.Batch) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        features, logits = self._features_and_logits(batch)
        queries = self._queries(self._with_constant(features), self._explained_classes(batch, logits))
        for rows, vectors, _ in self._blocks():
            yield np.arange(rows.start, rows.stop), self._scores(queries, vectors)

    def _blocks(self) -> Iterator[tuple[slice, Blocks, tf.Tensor]]:
        """Yield (positions, vectors, features) over the whole training set, from the store."""
        for rows, features in self._feature_blocks():
            yield rows, self._vectors(rows, features, self.train_labels[rows]), features

    def _feature_blocks(self) -> Iterator[tuple[slice, tf.Tensor]]:
        start = 0
        for stored in self._stored():
            stop = start + len(stored["features"])
            yield slice(start, stop), self._with_constant(tf.constant(stored["features"]))
            start = stop

    def _with_constant(self, features: tf.Tensor) -> tf.Tensor:
        if not self.has_constant_feature:
            return features
        return tf.concat([features, tf.ones((tf.shape(features)[0], 1))], axis=1)

    @cached_property
    def _num_outputs(self) -> int:
        """Number of the last layer's own outputs: one in a binary model with one output, else c."""
        split = self.model.split
        return 1 if split.head is not None and split.num_outputs == 1 else self.model.num_classes

    def _logit_gradients(self, classes: np.ndarray) -> tf.Tensor:
        """Return the derivatives of the logits of `classes` (m,) by the outputs, shape (m, outputs)."""
        if self._num_outputs == 1:
            # The logits of a model with one output z are (-z / 2, z / 2).
            return tf.constant((2.0 * classes[:, np.newaxis] - 1.0) / 2.0, tf.float32)
        return tf.one_hot(classes, self._num_outputs)

    def _stored(self) -> StoredVectors:
        return self._training

    @cached_property
    def _training(self) -> StoredVectors:
        key = key_of_features(self.model, self.train_set)
        return self.store.open(key, self.train_set, self._compute_features)

    def _compute_features(self, element: Any) -> dict[str, np.ndarray]:
        batch = data.unpack(element)
        computed = {
            "features": self.model.features(batch.inputs).numpy(),
            "labels": self.model.to_classes(batch.labels),
        }
        return computed if batch.ids is None else computed | {"ids": np.asarray(batch.ids)}
