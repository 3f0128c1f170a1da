"""BaseInfluenceCalculator: influence is an inner product of a query with a training example's vector."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Self, TypeVar

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_instance, check_k, describe, require
from deel_dualview.calculators.contributions import FeatureContributions, Pairs
from deel_dualview.calculators.ranking import RankingCalculator
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.calculators.targets import check_target, explained_targets
from deel_dualview.data import identity
from deel_dualview.models import InfluenceModel
from deel_dualview.models.positions import Position
from deel_dualview.models.train_sets import check_train_set, is_split, to_influence_model
from deel_dualview.search import ORDER, TopK, to_order
from deel_dualview.search.gathering import gather_examples, gathered_spec
from deel_dualview.stores import MemoryStore, Store, StoredVectors
from deel_dualview.stores.shared import shared_store
from deel_dualview.typing import Target

_Result = TypeVar("_Result")


class BaseInfluenceCalculator(RankingCalculator):
    """Maps training examples to influence vectors and evaluated examples to queries in one space.

    Positive influence values mean that the training example supports the explained output (a proponent), negative
    ones that it speaks against it (an opponent). Each calculator documents what one unit means.

    An example *is* its position in `train_set`, which must yield the same examples in the same order at every pass;
    the first batch is compared at construction, and every training example that is returned is compared again.
    Results are `tf.data.Dataset`s that compute nothing until they are iterated.

    Args:
        model: the classifier to explain: a Keras model, or an InfluenceModel where its features have to be named.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        target: which class of an evaluated example is explained: `"prediction"`, `"label"` or a class index.
        store: where vectors of the training examples are kept; a `MemoryStore` by default.

    Raises:
        TypeError: `model` is not a Keras model, or `train_set` is not a dataset.
        ValueError: a dataset that is not batched, empty, without labels or with another order at a second pass.
    """

    # Whether training examples may be pairs of an example and a position.
    _takes_positions = False

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        self.model = to_influence_model(model)
        check_instance("store", store, Store, "DiskStore(directory) or MemoryStore()")
        check_target(target, self.model)
        self.train_set = train_set
        self.target = target
        self.store = MemoryStore() if store is None else store
        # Before any work where the model is known, else after its first call.
        if is_split(self.model):
            self._check_model()
        check_train_set(self.model, train_set)
        check_target(target, self.model)
        self._check_model()
        self._rely_on(self.model.record_weights())

    def _check_model(self) -> None:
        """Refuse a model that the method does not explain, whose layers are known.

        Raises:
            ValueError: it is one.
        """
        if not self._takes_positions:
            self.model.refuse_positions(type(self).__name__)

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Number of training examples n."""

    @abstractmethod
    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors of the training examples, lazily, one element a batch.

        Args:
            train_set: the training set itself, perhaps batched otherwise; the constructor's by default.
        """

    @abstractmethod
    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the self-influence of every training example, lazily, elements of shape (b,), float32.

        The explained class of a training example is its label.
        """

    @abstractmethod
    def _values(self, represented: Represented) -> np.ndarray:
        """Return the influence of every training example on every query of a batch, shape (m, n), float32."""

    @abstractmethod
    def _stored(self) -> StoredVectors:
        """Return the arrays that the pass over the training set has left, with the content hashes of its examples."""

    @cached_property
    def _examples_alone(self) -> StoredVectors:
        """What methods without vectors store: the labels of the training examples, and their content hashes."""

        def labels(element: Any) -> dict[str, np.ndarray]:
            return {"labels": self.model.to_targets(data.unpack(element).labels)}

        key = {"contents": "order of examples", "examples": data.describe_elements(self.train_set)}
        return shared_store(self.store, self.model.workers).open(key, self.train_set, labels)

    def check_feature_contributions(self) -> None:
        """Refuse to take influence values apart by features where they are no sum over them.

        Raises:
            ValueError: they are not.
        """
        needed = (
            "Only an influence that is a sum over the penultimate features can be traced to pixels: that of DualView, "
            "RepresenterPointL2, RepresenterPointLJE, FeatureSimilarity with 'cosine' or 'dot', or GradDot and GradCos "
            "with weights='last' and no projection."
        )
        raise ValueError(describe(needed, {"calculator": type(self).__name__}))

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        """Return the contribution of each penultimate feature to the influence of every pair.

        Raises:
            ValueError: the influence of this calculator is no sum over features.
        """
        self.check_feature_contributions()
        raise NotImplementedError

    def explained_features(self, batch: data.Batch) -> tuple[tf.Tensor, np.ndarray]:
        """Return the penultimate features (m, d) of evaluated examples and the class that is explained of each (m,)."""
        self.check_unchanged()
        represented = self._represent(batch)
        return represented.features, self._explained_classes(represented)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the store holds of all training examples."""
        return self._stored().num_bytes

    def _hashes(self) -> np.ndarray:
        """Return the content hashes of the training examples, shape (n,), uint64."""
        return self._stored().examples.array("hashes")

    def at(self, position: Position) -> Self:
        """Return this calculator, fitted as it is, for another position of evaluated examples.

        Args:
            position: of a model with an output at each position: a step, or (row, column).

        Raises:
            ValueError: the model has one output an example.
        """
        require(
            self.model.num_axes > 0,
            "Positions are of models with an output at each step or pixel; this one has one output an example.",
            {"position": position},
        )
        other = copy.copy(self)
        other.model = self.model.at(position)
        return other

    @property
    def train_pairs(self) -> np.ndarray | None:
        """Example and position of every training row, shape (n, 1 + axes), if positions have outputs, else None.

        n is then the number of these pairs, padding and positions without a label left out.
        """
        return self._stored().pairs

    def _placed(self, rows: np.ndarray) -> np.ndarray:
        """Return training indices (m, k) as results give them: with their positions (m, k, 1 + axes), if any."""
        pairs = self.train_pairs
        return rows if pairs is None else pairs[rows]

    @property
    def _index_spec(self) -> list[int | None]:
        return [] if self.model.num_axes == 0 else [1 + self.model.num_axes]

    def represent(self, dataset_to_evaluate: tf.data.Dataset) -> RepresentedExamples:
        """Call the model once on every evaluated example, for several questions about the same ones.

        The result stands for the dataset in `estimate_influence_values_in_batches`, `sparse_influence_values` and
        `top_k_indices`. It holds features and logits, m (d + c) numbers; where influence needs gradients in layers
        before the last it holds nothing, and the model is called again for each question.
        """
        self._check_queries(dataset_to_evaluate)
        data.check_bounded(dataset_to_evaluate, "dataset_to_evaluate")
        self.check_unchanged()
        return RepresentedExamples(
            lambda: data.map_batches(self._represent_alone, dataset_to_evaluate, "dataset_to_evaluate"),
            keep=self.follows_from_features,
        )

    def estimate_influence_values_in_batches(
        self,
        dataset_to_evaluate: tf.data.Dataset | RepresentedExamples,
        train_set: tf.data.Dataset | None = None,
    ) -> tf.data.Dataset:
        """Return all influence values, lazily, one element of shape (m, n) for each batch of queries.

        Column i belongs to the i-th example of the training set.
        """
        self._check_queries(dataset_to_evaluate)
        self._check_same_train_set(train_set)
        return self._lazy_dataset(
            lambda: self._mapped(self._values, dataset_to_evaluate),
            tf.TensorSpec([None, self.num_train], tf.float32),
        )

    def sparse_influence_values(
        self, dataset_to_evaluate: tf.data.Dataset | RepresentedExamples
    ) -> scipy.sparse.csr_array:
        """Return all influence values, shape (m, n), zeros left out; memory grows with the number of the others."""
        self._check_queries(dataset_to_evaluate)
        if isinstance(dataset_to_evaluate, tf.data.Dataset):
            data.check_bounded(dataset_to_evaluate, "dataset_to_evaluate")
        self.check_unchanged()
        parts = list(self._mapped(self._sparse_values, dataset_to_evaluate))
        return scipy.sparse.vstack(parts, format="csr")

    def _sparse_values(self, represented: Represented) -> scipy.sparse.csr_array:
        return scipy.sparse.csr_array(self._values(represented))

    def top_k_indices(
        self,
        dataset_to_evaluate: tf.data.Dataset | RepresentedExamples,
        k: int = 5,
        order: ORDER | str = ORDER.DESCENDING,
    ) -> tf.data.Dataset:
        """Return the k most influential training examples of every query by position, without gathering them.

        Returns:
            One element `(influence_values (m, k), training_indices (m, k))` for each batch of queries.
        """
        self._check_queries(dataset_to_evaluate)
        check_k(k, self.num_train)
        order = to_order(order)
        return self._lazy_dataset(
            lambda: (
                (values, self._placed(rows))
                for _, values, rows in self._ranked(self._elements(dataset_to_evaluate), k, order)
            ),
            (tf.TensorSpec([None, k], tf.float32), tf.TensorSpec([None, k, *self._index_spec], tf.int64)),
        )

    def top_k(
        self,
        dataset_to_evaluate: tf.data.Dataset,
        train_set: tf.data.Dataset | None = None,
        k: int = 5,
        order: ORDER | str = ORDER.DESCENDING,
    ) -> tf.data.Dataset:
        """Return the k most influential training examples of every query, lazily, one `TopK` a batch.

        Args:
            dataset_to_evaluate: batched queries, `inputs`, `(inputs, labels)` or `(inputs, labels, ids)`.
            train_set: the training set itself, perhaps batched otherwise; the constructor's by default.
            k: how many, 1 <= k <= n. Ties break by the lower index.
            order: `ORDER.DESCENDING` or `"descending"` for proponents, `"ascending"` for opponents.

        Returns:
            A dataset of `TopK`: the queries, influence_values (m, k), the training examples with their labels and
            ids (m, k, ...), and training_indices (m, k).

        Raises:
            ValueError: k out of range, queries that are not batched or have no labels where the target needs them.

        Warns:
            UserWarning: every influence value of an evaluated example is exactly 0, so that nothing is ranked.
        """
        self._check_queries(dataset_to_evaluate)
        check_k(k, self.num_train)
        order = to_order(order)
        train_set = self._check_same_train_set(train_set)

        def gathered() -> Iterator[TopK]:
            found = self._ranked(self._elements(dataset_to_evaluate), k, order)
            placed = ((*item[:2], self._placed(item[2])) for item in found)
            whole = ((*item, item[2] if self.train_pairs is None else item[2][..., 0]) for item in placed)
            for (samples, values, indices, _), examples in gather_examples(train_set, self._hashes(), whole):
                yield TopK(samples, values, examples, indices)

        signature = TopK(
            dataset_to_evaluate.element_spec,
            tf.TensorSpec([None, k], tf.float32),
            gathered_spec(train_set.element_spec),
            tf.TensorSpec([None, k, *self._index_spec], tf.int64),
        )
        return self._lazy_dataset(gathered, signature)

    def compute_top_k_from_training_dataset(
        self, train_set: tf.data.Dataset | None = None, k: int = 5, order: ORDER | str = ORDER.DESCENDING
    ) -> tf.data.Dataset:
        """Return `top_k` of the training examples themselves, one `TopK` for each training batch."""
        train_set = self._check_same_train_set(train_set)
        return self.top_k(train_set, train_set, k, order)

    def _represent(self, batch: data.Batch) -> Represented:
        labels = self.model.query_labels(batch.labels)
        return Represented(self.model, labels, inputs=batch.inputs).check_finite()

    def _represent_alone(self, batch: data.Batch) -> Represented:
        represented = self._represent(batch)
        return represented.without_inputs() if self.follows_from_features else represented

    @property
    def follows_from_features(self) -> bool:
        """Whether the influence on an example follows from its penultimate features alone."""
        return False

    def _represented(
        self, dataset: tf.data.Dataset | RepresentedExamples, name: str = "dataset_to_evaluate"
    ) -> Iterator[Represented]:
        """Yield every batch of evaluated examples, with the features and logits of one call of the model."""
        if isinstance(dataset, RepresentedExamples):
            return iter(dataset)
        return data.map_batches(self._represent, dataset, name)

    def _mapped(
        self,
        function: Callable[[Represented], _Result],
        dataset: tf.data.Dataset | RepresentedExamples,
        name: str = "dataset_to_evaluate",
    ) -> Iterator[_Result]:
        """Yield the result of a function for every batch of evaluated examples; its errors name their positions."""
        start = 0
        for represented in self._represented(dataset, name):
            with data.naming_positions(start, name):
                result = function(represented)
            start += len(represented)
            yield result

    def _elements(self, dataset: tf.data.Dataset | RepresentedExamples) -> Iterator[tuple[Any, Represented]]:
        """Yield (element, represented) for every batch of evaluated examples; the element is None of features alone."""
        if isinstance(dataset, RepresentedExamples):
            return ((None, represented) for represented in dataset)
        return data.map_elements(self._represent, dataset)

    def _explained_classes(self, represented: Represented) -> np.ndarray:
        """Return the class to explain of every query, shape (m,), int64."""
        return explained_targets(self.target, represented)

    def _check_queries(self, dataset: tf.data.Dataset | RepresentedExamples) -> None:
        if isinstance(dataset, RepresentedExamples):
            return
        data.check_batched(dataset, "dataset_to_evaluate")
        self.model.check_inputs(data.unpack(dataset.element_spec).inputs, "dataset_to_evaluate")
        require(
            self.target != "label" or data.unpack(dataset.element_spec).labels is not None,
            "target='label' explains the label of each query, but the queries have none; use target='prediction'.",
            {"element_spec": dataset.element_spec},
        )

    def _train_batches(self, train_set: tf.data.Dataset) -> Iterator[data.Batch]:
        """Yield the batches of another pass over the training set; one that differs from the first raises an error."""
        known, num_seen = self._hashes(), 0
        for _, element in data.enumerate_examples(train_set):
            hashes = data.hash_examples(element)
            identity.check(known, num_seen, hashes, "train_set")
            num_seen += len(hashes)
            yield data.unpack(element)
        identity.check_end(len(known), num_seen, "train_set")

    def _check_same_train_set(self, train_set: tf.data.Dataset | None) -> tf.data.Dataset:
        """Return the training set to read; one that begins otherwise than the constructor's raises an error."""
        if train_set is None or train_set is self.train_set:
            return self.train_set
        data.check_bounded(train_set, "train_set")
        hashes = data.hash_examples(data.first_batch(train_set, "train_set"))
        require(
            np.array_equal(hashes, self._hashes()[: len(hashes)]),
            "`train_set` must hold the examples that the calculator was built with, in the same order; build another "
            "calculator for another training set.",
            {"train_set": train_set},
        )
        return train_set
