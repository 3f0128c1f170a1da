"""Outputs of evaluated examples by a model that is trained again without some training examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_positive, describe, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.last_layer import LastLayer
from deel_dualview.calculators.represented import Represented
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import MemoryStore
from deel_dualview.stores.features import stored_features
from deel_dualview.typing import Inputs

TrainFunction = Callable[[np.ndarray], "keras.Model | InfluenceModel"]
"""From the positions of the training examples that are kept, shape (r,), increasing, to a model trained on these."""

# Penalties that are tried, in units of the mean squared norm of the features.
_LEAST_PENALTY, _LARGEST_PENALTY = 1e-7, 1.0
_NUM_HALVINGS = 8


class Retraining(ABC):
    """Trains again without some training examples.

    Attributes:
        what: what is trained, in words.
        penalty: lambda of the last layer's `lambda ||W||^2`; None where the whole network is trained.
        num_trainings: how often it was trained so far.
    """

    what: str
    penalty: float | None = None

    def __init__(self, num_train: int) -> None:
        self.num_train, self.num_trainings = num_train, 0

    def outputs_without(self, removed: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the outputs to explain, such as class logits, of all evaluated examples, shape (m, c), float64.

        Args:
            removed: positions of training examples; none for a training on everything.
        """
        is_kept = np.ones(self.num_train, bool)
        is_kept[np.asarray(removed, np.int64)] = False
        self.num_trainings += 1
        return self._outputs(is_kept)

    @abstractmethod
    def _outputs(self, is_kept: np.ndarray) -> np.ndarray:
        """Return them by the examples that are kept, shape (n,), bool."""


class HeadRetraining(Retraining):
    """Trains the last layer again, to convergence, on the features of a model that stays as it is.

    The objective is `1/n sum_i w_i loss_i + lambda ||W||^2` over the kept examples, each with the weight that it has
    among all n: the removal that influence functions speak of. It is convex for every objective of Keras, so that the
    result depends on the examples alone. Each training begins at the optimum of all examples.

    Args:
        calculator: whose model, training set and, where it keeps them, features are used.
        evaluated: the evaluated examples, by their features.
        penalty: lambda; by default the one whose layer has the same mean loss over the training set as the model's
            own. That layer is the nearest of a family of optima, and still another one than the model's.

    Raises:
        ValueError: a model without a linear last layer, or with an output at each position.
    """

    what = "last layer"

    def __init__(
        self, calculator: BaseInfluenceCalculator, evaluated: Sequence[Represented], penalty: float | None
    ) -> None:
        model, store = calculator.model, MemoryStore()
        stored = stored_features(
            calculator.store if calculator.follows_from_features else store, model, calculator.train_set
        )
        super().__init__(len(stored))
        features, labels = stored.array("features"), stored.array("labels")
        own = stored.array("sample_weight") if "sample_weight" in stored.names else None
        self._weights = model.example_weights(labels, own)
        self._layer = LastLayer(model, features, labels)
        self._evaluated = np.concatenate([batch.features.numpy() for batch in evaluated])
        self._start: np.ndarray | None = None
        self.penalty = self._lambda = self._matched() if penalty is None else penalty
        self._start = self._optimum = self._fit(np.ones(len(features), bool), self._lambda)

    def _matched(self) -> float:
        """Return the penalty at which the mean loss of the optimum is that of the model's own last layer."""
        wanted = self._layer.mean_loss_of_model(self._weights)
        scale = self._layer.mean_squared_norm
        low, high = _LEAST_PENALTY, _LARGEST_PENALTY
        everything = np.ones(self.num_train, bool)
        for _ in range(_NUM_HALVINGS):
            middle = float(np.sqrt(low * high))
            self._start = self._fit(everything, middle * scale)
            loss = self._layer.mean_loss(self._start, self._weights)
            low, high = (low, middle) if loss > wanted else (middle, high)
        return float(np.sqrt(low * high)) * scale

    def _fit(self, is_kept: np.ndarray, penalty: float) -> np.ndarray:
        weights = is_kept.astype(np.float32)
        return self._layer.fit(
            weights if self._weights is None else weights * self._weights, penalty, self._start
        )

    def _outputs(self, is_kept: np.ndarray) -> np.ndarray:
        weights = self._optimum if is_kept.all() else self._fit(is_kept, self._lambda)
        return self._layer.outputs(self._evaluated, weights)


class NetworkRetraining(Retraining):
    """Has a function of the user train the whole network again.

    Args:
        calculator: whose objective is used.
        inputs: of the evaluated examples, batch by batch.
        train_fn: see `TrainFunction`.

    Raises:
        TypeError: `train_fn` is no function, or returns something else than a model.
        ValueError: it returns the model that is explained, or one with other outputs.
    """

    what = "network"

    def __init__(
        self, calculator: BaseInfluenceCalculator, inputs: Sequence[Inputs], train_fn: TrainFunction
    ) -> None:
        super().__init__(calculator.num_train)
        self._explained, self._inputs, self._train = calculator.model, inputs, train_fn

    def _outputs(self, is_kept: np.ndarray) -> np.ndarray:
        trained = self._train(np.flatnonzero(is_kept))
        own = trained.model if isinstance(trained, InfluenceModel) else trained
        if own is self._explained.model:
            raise ValueError(
                "`train_fn` must train a model of its own: it returned the one that is explained, whose weights must "
                "stay. Build another one, such as keras.models.clone_model(model)."
            )
        if isinstance(trained, keras.Model):
            trained = InfluenceModel(trained, loss_function=self._explained.objective)
        if not isinstance(trained, InfluenceModel):
            raise TypeError(
                describe(
                    "`train_fn` must return a trained Keras model, or an InfluenceModel.",
                    {"returned": trained},
                )
            )
        outputs = np.concatenate([trained.logits(inputs).numpy() for inputs in self._inputs])
        require(
            outputs.shape[1] == self._explained.num_outputs,
            "`train_fn` must return a model with the outputs of the one that is explained.",
            {"outputs": outputs.shape[1], "of the explained model": self._explained.num_outputs},
        )
        return outputs.astype(np.float64)


def check_retraining(
    calculator: Any, train_fn: TrainFunction | None, penalty: float | None, name: str
) -> None:
    """Refuse, before any work, a calculator or arguments by which nothing can be trained again.

    Args:
        calculator: of the influence values.
        train_fn: of the user, or None for the last layer alone.
        penalty: of the last layer, or None.
        name: of the function that needs it, for messages.

    Raises:
        TypeError: another calculator than an influence calculator, or a `train_fn` that is no function.
        ValueError: a model that has no linear last layer, an output at each position, or both arguments.
    """
    if not isinstance(calculator, BaseInfluenceCalculator):
        raise TypeError(
            describe(
                f"`{name}` needs a calculator, such as DualView(model, train_set).",
                {"calculator": calculator},
            )
        )
    if train_fn is not None and not callable(train_fn):
        raise TypeError(
            describe(
                "`train_fn` must be a function of positions of training examples.", {"train_fn": train_fn}
            )
        )
    require(
        train_fn is None or penalty is None,
        "`penalty` is of the last layer, which is trained again where there is no `train_fn`: leave one of them out.",
        {"penalty": penalty},
    )
    if penalty is not None:
        check_positive("penalty", penalty)
    model = calculator.model
    model.refuse_positions(f"`{name}`")
    require(
        train_fn is not None or model.head is not None,
        f"`{name}` trains a linear last layer again, on the features as they are, and this model has none: "
        "`deel_dualview.verify(..., train_fn=)` takes a function that trains the whole network.",
        {"feature_layer": model.feature_layer},
    )
    require(
        model.is_classifier or calculator.target != "label",
        "Of a model that is no classifier an output is explained: use target=INDEX.",
        {"target": calculator.target},
    )


def make_retraining(
    calculator: BaseInfluenceCalculator,
    queries: tf.data.Dataset,
    evaluated: Sequence[Represented],
    train_fn: TrainFunction | None,
    penalty: float | None,
) -> Retraining:
    """Return what trains the network by a function, or without one the last layer."""
    if train_fn is None:
        return HeadRetraining(calculator, evaluated, penalty)
    inputs = [data.unpack(element).inputs for element in queries if data.num_examples(element)]
    return NetworkRetraining(calculator, inputs, train_fn)


def examples_where(dataset: tf.data.Dataset, is_wanted: np.ndarray) -> tf.data.Dataset:
    """Return the examples at some positions, in the batches in which they came; those that are empty are left out.

    Args:
        dataset: batched, n examples.
        is_wanted: shape (n,), bool.
    """
    signature = dataset.element_spec
    signature = tf.nest.map_structure(
        lambda spec: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype), signature
    )

    def elements() -> Iterator[Any]:
        for indices, element in data.enumerate_examples(dataset):
            rows = np.flatnonzero(is_wanted[indices])
            if len(rows):
                yield tf.nest.map_structure(lambda part, rows=rows: tf.gather(part, rows), element)

    return data.lazy_dataset(elements, signature)
