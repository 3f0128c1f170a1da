"""The baseline that every method has to beat: random influence."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_seed
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.represented import Represented
from deel_dualview.models import InfluenceModel
from deel_dualview.search import ORDER, Best, block_top_k
from deel_dualview.stores import Store, StoredVectors
from deel_dualview.typing import Target


class RandomInfluence(BaseInfluenceCalculator):
    """Independent standard normal numbers, a row of its own for every evaluated example's contents.

    The same example gets the same numbers each time, in any batch.

    Args:
        model: not used but for the checks of all calculators.
        train_set: the training set, batched.
        seed: of the numbers.
        target: without an effect.
        store: where the order of the training examples is kept.
    """

    def __init__(
        self,
        model: InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        seed: int = 0,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        super().__init__(model, train_set, target=target, store=store)
        seed = check_seed("seed", seed)
        self.seed = seed
        self._stored()

    @property
    def num_train(self) -> int:
        return len(self._stored())

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Refuse: random numbers are no inner products.

        Raises:
            ValueError: always.
        """
        raise ValueError("Random influence has no influence vectors.")

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        self._check_same_train_set(train_set)
        values = np.random.default_rng([self.seed, 1]).standard_normal(self.num_train, np.float32)
        return tf.data.Dataset.from_tensor_slices(values).batch(1024)

    def _represent(self, batch: data.Batch) -> Represented:
        # Without a check of the features: the model is never called.
        return Represented(self.model, batch.labels, inputs=batch.inputs)

    def _values(self, represented: Represented) -> np.ndarray:
        hashes = data.hash_examples(data.Batch(represented.inputs, represented.labels, None))
        rows = [
            np.random.default_rng([self.seed, 0, int(one)]).standard_normal(self.num_train, np.float32)
            for one in hashes
        ]
        return np.stack(rows)

    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        return block_top_k(self._values(represented), np.arange(self.num_train), k, order)

    def _stored(self) -> StoredVectors:
        return self._examples_alone
