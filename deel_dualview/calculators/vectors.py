"""Calculators whose influence is an inner product of a stored vector with a query."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.search import ORDER, streaming_top_k
from deel_dualview.stores import StoredVectors


class VectorInfluenceCalculator(BaseInfluenceCalculator):
    """Base of calculators with one vector a training example and one query an evaluated one.

    The vectors are computed once, by a pass over the training set at the end of the constructor, and kept in the
    store; queries are computed batch by batch. Anything costly that is linear (an inverse Hessian) belongs to the
    query, since there are far fewer.

    Subclasses give `_influence_vectors`, `_queries` and `_settings`, and end their constructor by `self._stored()`.
    """

    @abstractmethod
    def _influence_vectors(self, batch: data.Batch) -> Blocks:
        """Return the vectors of a batch of training examples, each block (b, ...)."""

    @abstractmethod
    def _queries(self, batch: data.Batch, classes: np.ndarray) -> Blocks:
        """Return the queries of a batch of examples explained for `classes` (m,), each block (m, ...)."""

    @abstractmethod
    def _settings(self) -> dict[str, str]:
        """Return everything besides model and examples that the vectors depend on; it keys the store."""

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self._stored())

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors, lazily, as `Blocks`: a matrix or an OuterProduct for each layer."""
        self._check_same_train_set(train_set)
        return self._lazy_dataset(lambda: (vectors for _, vectors in self._vector_blocks()), self._spec)

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the self-influence of every training example, lazily, elements of shape (b,), float32."""
        train_set = self._check_same_train_set(train_set)
        return self._lazy_dataset(
            lambda: (self._self_influences(batch) for batch in self._train_batches(train_set)),
            tf.TensorSpec([None], tf.float32),
        )

    def _self_influences(self, batch: data.Batch) -> tf.Tensor:
        queries = self._queries(batch, self.model.to_classes(batch.labels))
        return blocks.row_products(queries, self._influence_vectors(batch))

    def _scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        """Return the influence of every vector on every query, shape (m, n)."""
        return blocks.inner_products(queries, vectors)

    def _values(self, batch: data.Batch) -> np.ndarray:
        return np.concatenate([values for _, values in self._score_blocks(batch)], axis=1)

    def _top_k(self, batch: data.Batch, k: int, order: ORDER) -> tuple[np.ndarray, np.ndarray]:
        return streaming_top_k(self._score_blocks(batch), k, order)

    def _queries_of(self, batch: data.Batch) -> Blocks:
        """Return the queries of a batch for the classes that `target` chooses."""
        _, logits = self._features_and_logits(batch)
        return self._queries(batch, self._explained_classes(batch, logits))

    def _score_blocks(self, batch: data.Batch) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        queries = self._queries_of(batch)
        for indices, vectors in self._vector_blocks():
            yield indices, self._scores(queries, vectors)

    def _vector_blocks(self, is_wanted: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Blocks]]:
        """Yield (indices (b,), vectors) over the whole training set, from the store.

        Args:
            is_wanted: which examples, shape (n,), bool; all by default.
        """
        stop = 0
        for stored in self._stored():
            parts = [stored[name] for name in _names(self._spec)]
            start, stop = stop, stop + len(parts[0])
            indices = np.arange(start, stop)
            if is_wanted is not None:
                indices = indices[is_wanted[start:stop]]
                parts = [part[indices - start] for part in parts]
            if len(indices):
                yield indices, tf.nest.pack_sequence_as(self._spec, [tf.constant(part) for part in parts])

    @cached_property
    def _spec(self) -> Any:
        """Structure of the vectors, learnt from the first batch."""
        return blocks.spec_of(
            self._influence_vectors(data.unpack(data.first_batch(self.train_set, "train_set")))
        )

    def _stored(self) -> StoredVectors:
        return self._training

    @cached_property
    def _training(self) -> StoredVectors:
        key = {
            "contents": type(self).__name__,
            "model": self.model.fingerprint,
            "examples": data.describe_elements(self.train_set),
            **self._settings(),
        }
        return self.store.open(key, self.train_set, self._named_vectors)

    def _named_vectors(self, element: Any) -> dict[str, np.ndarray]:
        parts = tf.nest.flatten(self._influence_vectors(data.unpack(element)))
        return {name: part.numpy() for name, part in zip(_names(self._spec), parts, strict=True)}


def _names(spec: Any) -> list[str]:
    return [f"block_{index}" for index in range(len(tf.nest.flatten(spec)))]
