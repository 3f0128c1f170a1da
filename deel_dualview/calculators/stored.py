"""Calculators whose influence is an inner product of a query with a vector stored by one pass over the training set."""

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented, RepresentedExamples, training_batch
from deel_dualview.gradients import check_finite
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.search import ORDER, Best
from deel_dualview.search.bounded import Exhaustive, Search
from deel_dualview.search.faiss_index import FaissIndex, Indexed
from deel_dualview.search.shared import Shared
from deel_dualview.stores import StoredVectors, stored_features
from deel_dualview.stores.shared import shared_store

_KEPT_BYTES = 512 * 2**20


class StoredInfluenceCalculator(BaseInfluenceCalculator):
    """Base of calculators with one vector a training example and one query an evaluated one.

    The network runs once over the training set, at the end of the constructor. The store then holds the penultimate
    features and labels where vectors follow from them by algebra (`_keeps_features`; calculators that share a store
    share the pass), else the vectors. Queries are computed batch by batch, after one call of the model.
    Anything costly that is linear (an inverse Hessian) belongs to the query, since there are far fewer.

    Subclasses give `_vectors`, `_queries` and, where not features are kept, `_settings`; they end their constructor by
    `self._stored()`.

    Attributes:
        search: how the first of many influence values are found.
    """

    search: Search = Exhaustive()
    _takes_positions = True
    # Whether the features are followed by a constant 1, which stands for a bias.
    _has_constant_feature = False

    @abstractmethod
    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        """Return the vectors of the training examples at positions `rows` (b,), each block (b, ...)."""

    @abstractmethod
    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        """Return the queries of a batch of examples explained for `classes` (m,), each block (m, ...)."""

    def _settings(self) -> dict[str, str]:
        """Return everything besides model and examples that stored vectors depend on; it keys the store."""
        return {}

    @property
    def _keeps_features(self) -> bool:
        """Whether features are stored, not vectors."""
        return True

    @property
    def follows_from_features(self) -> bool:
        return self._keeps_features

    @property
    def _queries_at_once(self) -> int | None:
        """How many queries are in work at a time; None for whole batches."""
        return None

    def _own_queries(self, vectors: Blocks) -> Blocks | None:
        """Return the queries of training examples explained for their labels, where they follow from their vectors."""
        return None

    @property
    def _weights_of_own_queries(self) -> np.ndarray | None:
        """What `_own_queries` of all vectors are too large by, (n,): the weights in the vectors; None for nothing."""
        return self.train_weights

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

    @cached_property
    def train_weights(self) -> np.ndarray | None:
        """Weights of the training examples in their objective, those of classes included, (n,); None if all are 1.

        Raises:
            ValueError: all are 0.
        """
        if not self.is_weighted:
            return None
        if self._keeps_features:
            own = None if self._sample_weight_spec is None else self._stored().array("sample_weight")
            weights = self.model.example_weights(self.train_labels, own)
        else:
            weights = self._stored().array("weights")
        require(
            weights is None or bool(weights.any()),
            "Some training examples must have a weight above 0.",
            {"weights": "all 0"},
        )
        return weights

    @property
    def is_weighted(self) -> bool:
        """Whether training examples have weights, of their own or of their classes."""
        return self._sample_weight_spec is not None or bool(self.model.class_weights)

    @property
    def _sample_weight_spec(self) -> tf.TensorSpec | None:
        return data.unpack(self.train_set.element_spec).sample_weight

    def _check_queries(self, dataset: tf.data.Dataset | RepresentedExamples) -> None:
        super()._check_queries(dataset)
        # Of no example: whether the model has what is to be explained shows before it is called.
        none = Represented(self.model, np.zeros((0, self.model.num_outputs)), features=tf.zeros((0, 1)))
        none.logits = tf.zeros((0, self.model.num_outputs))
        self._explained_classes(none)

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors, lazily, as `Blocks`: a matrix or an OuterProduct for each layer."""
        self._check_same_train_set(train_set)
        return self._lazy_dataset(lambda: (vectors for _, vectors in self._blocks()), self._spec)

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the self-influence of every training example, lazily, elements of shape (b,), float32.

        The model is called only where gradients in other layers than the last are needed again.
        """
        train_set = self._check_same_train_set(train_set)
        return self._lazy_dataset(
            partial(self._self_influences, train_set), tf.TensorSpec([None], tf.float32)
        )

    def _self_influences(self, train_set: tf.data.Dataset) -> Iterator[tf.Tensor]:
        if self._keeps_features:
            for rows, represented in self._features():
                yield tf.concat([*self._influence_on_themselves(rows, represented)], axis=0)
        elif self._own_queries(data.slice_examples(next(self._blocks())[1], 0, 1)) is not None:
            for rows, vectors in self._blocks():
                yield tf.concat([*self._influence_by_vectors(rows, vectors)], axis=0)
        else:
            stop = 0
            for batch in self._train_batches(train_set):
                represented = training_batch(self.model, batch)
                start, stop = stop, stop + len(represented)
                rows = np.arange(start, stop)
                yield tf.concat([*self._influence_on_themselves(rows, represented)], axis=0)

    def _influence_on_themselves(self, rows: np.ndarray, represented: Represented) -> Iterator[tf.Tensor]:
        start = 0
        for part in self._parts(represented):
            vectors = self._vectors(rows[start : start + len(part)], part)
            queries = self._follow_from_vectors(vectors)
            yield self._row_scores(self._queries(part, part.targets) if queries is None else queries, vectors)
            start += len(part)

    def _follow_from_vectors(self, vectors: Blocks) -> Blocks | None:
        """Return the queries of training examples by their vectors, None where vectors have weights."""
        return None if self.is_weighted else self._own_queries(vectors)

    def _influence_by_vectors(self, rows: np.ndarray, vectors: Blocks) -> Iterator[tf.Tensor]:
        weights, step = self._weights_of_own_queries, self._queries_at_once or len(rows)
        for start in range(0, len(rows), step):
            part = data.slice_examples(vectors, start, start + step)
            scores = self._row_scores(cast(Blocks, self._own_queries(part)), part)
            if weights is not None:
                scores = tf.math.divide_no_nan(scores, weights[rows[start : start + step]])
            yield scores

    def _values(self, represented: Represented) -> np.ndarray:
        parts = []
        for part in self._parts(represented):
            queries = self._queries(part, self._explained_classes(part))
            scores = [self._scores(queries, vectors) for _, vectors in self._blocks()]
            parts.append(np.concatenate(scores, axis=1))
        return np.concatenate(parts)

    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        found, search, workers = [], self.search, self.model.workers
        if workers is not None and isinstance(search, Exhaustive):
            search = Shared(self.num_train, workers)
        # Few queries at once are bounded more tightly, too.
        for part in self._parts(represented):
            queries = self._queries(part, self._explained_classes(part))
            found.append(search.top_k(partial(self._scored, queries), queries, k, order))
        values, indices = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(indices)

    def _parts(self, represented: Represented) -> list[Represented]:
        step = self._queries_at_once
        return [represented] if step is None else represented.parts(step)

    def _scored(
        self, queries: Blocks, is_wanted: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        for indices, vectors in self._blocks(is_wanted):
            yield indices, self._scores(queries, vectors)

    def _blocks(self, is_wanted: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Blocks]]:
        """Yield (indices (b,), vectors) over the training set, from the store.

        Args:
            is_wanted: which examples, shape (n,), bool; all by default.
        """
        if self._keeps_features:
            for indices, represented in self._features(is_wanted):
                yield indices, self._vectors(indices, represented)
            return
        for indices, stored in self._stored_rows(_names(self._spec), is_wanted):
            yield indices, tf.nest.pack_sequence_as(self._spec, [tf.constant(part) for part in stored])

    def _features(self, is_wanted: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Represented]]:
        """Yield (indices (b,), features and labels) over the training set, from the store."""
        weights = [] if self._sample_weight_spec is None else ["sample_weight"]
        for indices, parts in self._stored_rows(["features", "labels", *weights], is_wanted):
            features, labels, *own = parts
            yield (
                indices,
                Represented(
                    self.model,
                    labels,
                    features=tf.constant(features),
                    sample_weight=own[0] if own else None,
                ),
            )

    def _stored_rows(
        self, names: list[str], is_wanted: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        stop = 0
        for stored in self._stored():
            parts = [stored[name] for name in names]
            start, stop = stop, stop + len(parts[0])
            indices = np.arange(start, stop)
            if is_wanted is not None:
                indices = indices[is_wanted[start:stop]]
                parts = [part[indices - start] for part in parts]
            if len(indices):
                yield indices, parts

    def _outer_products(
        self, rows: np.ndarray, represented: Represented, compute: Callable[[Represented], Blocks]
    ) -> Blocks:
        """Return vectors that are outer products with the features, their left factors from those kept.

        Args:
            rows: positions of the training examples.
            represented: by their features.
            compute: gives such vectors, whose right factors may be multiples of the features.
        """
        features = self._with_constant(represented.features)
        left = self._kept_rows.get(rows)
        if left is None:
            parts = [compute(part)[0] for part in represented.parts(self._queries_at_once or len(rows))]
            vectors = tf.nest.map_structure(lambda *part: tf.concat(part, axis=0), *parts)
            left = _left_factor(vectors, features).numpy()
            self._kept_rows.keep(rows, left)
        return (OuterProduct(tf.constant(left), features),)

    def _prepare_vectors(self) -> None:
        """Compute the vectors of all training examples from their features once, so that later passes find them kept.

        Raises:
            ValueError: some are not finite (the message says of which examples).
        """
        if self._keeps_features:
            for rows, represented in self._features():
                with data.naming_positions(int(rows[0]), "train_set"):
                    check_finite(self._vectors(rows, represented), "training examples")

    @cached_property
    def _kept_rows(self) -> "KeptRows":
        return KeptRows(self.num_train, self.store.memory_budget)

    def _with_constant(self, features: tf.Tensor) -> tf.Tensor:
        if not self._has_constant_feature:
            return features
        return tf.concat([features, tf.ones((tf.shape(features)[0], 1))], axis=1)

    def _use_index(self, index: FaissIndex | None) -> None:
        if index is not None:
            self.search = Indexed(index, lambda: cast(Iterable[Blocks], self.compute_influence_vector()))

    def _stored(self) -> StoredVectors:
        return self._training

    @cached_property
    def _training(self) -> StoredVectors:
        if self._keeps_features:
            return stored_features(self.store, self.model, self.train_set)
        self.model.refuse_positions(f"{type(self).__name__} with these settings")
        key = {
            "contents": type(self).__name__,
            "model": self.model.fingerprint,
            "examples": data.describe_elements(self.train_set),
            **self._settings(),
        }
        return shared_store(self.store, self.model.workers).open(key, self.train_set, self._named_vectors)

    def _named_vectors(self, element: Any) -> dict[str, np.ndarray]:
        represented = training_batch(self.model, data.unpack(element))
        parts = tf.nest.flatten(self._vectors(np.arange(len(represented)), represented))
        found = {name: part.numpy() for name, part in zip(_names(self._spec), parts, strict=True)}
        return found if represented.weights is None else found | {"weights": represented.weights}

    def _vectors_of(self, element: Any) -> Blocks:
        represented = training_batch(self.model, data.unpack(element))
        return self._vectors(np.arange(len(represented)), represented)

    @cached_property
    def _spec(self) -> Any:
        """Structure of the vectors, from those of the first examples."""
        if self._keeps_features:
            return blocks.spec_of(next(self._blocks())[1])
        first = data.first_batch(self.train_set, "train_set")
        return blocks.spec_of(self._vectors_of(data.slice_examples(first, 0, 1)))


class KeptRows:
    """A short row a training example, such as the left factor of its vector, kept if all take at most 512 MiB.

    Args:
        num_train: number of training examples n.
        memory_budget: of which they take at most a quarter.
    """

    def __init__(self, num_train: int, memory_budget: int | None = None) -> None:
        self._num_train = num_train
        self._room = _KEPT_BYTES if memory_budget is None else min(_KEPT_BYTES, memory_budget // 4)
        self._lock = threading.Lock()
        self._values: np.ndarray | None = None
        self._is_kept = np.zeros(num_train, bool)

    def keep(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Keep the values (b, c) of the examples at `rows`, unless those of all would take more."""
        if values.shape[1] * self._num_train * 4 > self._room:
            return
        with self._lock:
            if self._values is None:
                self._values = np.empty((self._num_train, values.shape[1]), np.float32)
            self._values[rows] = values
            self._is_kept[rows] = True

    def get(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the values (b, c) of the examples at `rows`, None if one is not kept."""
        return self._values[rows] if self._values is not None and self._is_kept[rows].all() else None


def _left_factor(vectors: OuterProduct, features: tf.Tensor) -> tf.Tensor:
    """Return left factors for which the right ones, multiples of the features, are the features themselves."""
    largest = tf.reduce_max(tf.abs(features), axis=1, keepdims=True)
    ratio = tf.reduce_max(tf.abs(vectors.right), axis=1, keepdims=True)
    return vectors.left * (ratio / tf.where(largest > 0, largest, tf.ones_like(largest)))


def _names(spec: Any) -> list[str]:
    return [f"block_{index}" for index in range(len(tf.nest.flatten(spec)))]
