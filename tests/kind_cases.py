"""Small models of every objective and of every kind of data, with a layer that counts the examples that pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from cost_cases import Counting
from keras import layers, losses
from sklearn.ensemble import GradientBoostingClassifier

from deel_dualview import CustomLoss, InfluenceModel, TreeEnsembleModel, to_dataset

NUM_TRAIN, NUM_TEST, CLASSES = 18, 5, 3
SAME = (2, 5)
"""Two training examples that are equal, labels and weights included: all their influence values are tied."""
POSITION = 1
_WORDS = ["good", "bad", "plain", "film", "plot"]


class Kind(NamedTuple):
    """A model and its data.

    Attributes:
        model: with a counter before its last layer.
        features: the part of the network before the counter.
        arrays: inputs and labels of the training and then the test examples.
        loss: Keras' own, of labels and of the outputs of the last layer, for every example.
        again: makes the model that has not been called yet.
        sample_weight: of the training examples.
        target: that is explained.
        padded: whether batches are filled up to their longest example only.
        pairs: example and step of every training row, of a model with an output at each step.
    """

    model: InfluenceModel
    counter: Counting | None
    features: Callable[[Any], Any]
    arrays: tuple[Any, Any]
    loss: Callable[[Any, Any], Any]
    again: Callable[[], InfluenceModel]
    sample_weight: np.ndarray | None = None
    target: str | int = "prediction"
    padded: bool = False
    pairs: np.ndarray | None = None

    @property
    def rows_of_examples(self) -> np.ndarray:
        """The row of each training example, at the explained step if there are several."""
        return np.arange(NUM_TRAIN) if self.pairs is None else np.flatnonzero(self.pairs[:, 1] == POSITION)

    def part(self, rows: slice) -> tuple[Any, Any]:
        """Return inputs and labels of some of the examples."""
        return tf.nest.map_structure(lambda array: array[rows], self.arrays)

    def train(self, batch_size: int = 10) -> tf.data.Dataset:
        parts = self.part(slice(NUM_TRAIN))
        return self._batched(
            parts if self.sample_weight is None else (*parts, self.sample_weight), batch_size
        )

    def test(self, batch_size: int = 3, *, is_labelled: bool = False) -> tf.data.Dataset:
        parts = self.part(slice(NUM_TRAIN, None))
        return self._batched(parts if is_labelled else parts[:1], batch_size)

    def _batched(self, parts: tuple[Any, ...], batch_size: int) -> tf.data.Dataset:
        examples = tf.data.Dataset.from_tensor_slices(parts)
        if not self.padded:
            return examples.batch(batch_size)
        return examples.map(lambda x, *rest: (x[: tf.math.count_nonzero(x)], *rest)).padded_batch(batch_size)


def with_head(inputs: Any, hidden: Any, units: int) -> tuple[keras.Model, Counting, keras.Model]:
    """Return a model with a counter and a last layer, the counter, and the model of its features."""
    counter = Counting()
    counter.supports_masking = True
    outputs = layers.Dense(units, name="head")(counter(hidden))
    return keras.Model(inputs, outputs), counter, keras.Model(inputs, hidden)


def doubled(array: Any) -> Any:
    """Return an array in which the two examples of `SAME` are equal."""
    array[SAME[1]] = array[SAME[0]]
    return array


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(NUM_TRAIN + NUM_TEST, *shape))
    return doubled(values.astype(np.float32))


def classes(rows: np.ndarray) -> np.ndarray:
    """Return classes that depend on the last axis of rows of numbers."""
    projection = np.random.default_rng(2).normal(size=(rows.shape[-1], CLASSES))
    return (rows @ projection).argmax(axis=-1)


WEIGHTS = doubled(np.random.default_rng(3).choice([0.0, 1.0, 2.0], NUM_TRAIN).astype(np.float32))


def log_cosh(labels: Any, outputs: Any) -> Any:
    return tf.reduce_sum(tf.math.log(tf.cosh(outputs - labels)), axis=-1)


def cross_entropy(labels: Any, outputs: Any) -> Any:
    return losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True)


def binary(labels: Any, outputs: Any) -> Any:
    return losses.binary_crossentropy(tf.reshape(labels, outputs.shape), outputs, from_logits=True)


def _huber(labels: Any, outputs: Any) -> Any:
    return losses.huber(labels, outputs, delta=0.7)


def _of_rows(labels: np.ndarray, units: int, given: Any, loss: Callable[..., Any], **settings: Any) -> Kind:
    net, counter, features = with_head(inputs := keras.Input((4,)), layers.Dense(3, "tanh")(inputs), units)
    again = functools.partial(InfluenceModel, net, loss_function=given)
    return Kind(again(), counter, features, (numbers(4), labels), loss, again, **settings)


def _named() -> Kind:
    hidden = layers.Dense(3, "tanh")(inputs := keras.Input((4,)))
    counter = Counting()
    kind, price = layers.Dense(2, name="kind"), layers.Dense(1, name="price")
    net = keras.Model(inputs, {"kind": kind(hidden), "price": price(counter(hidden))})
    net.compile(loss={"kind": "mse", "price": losses.Huber(0.7)})
    labels = {"price": numbers(1, seed=1), "kind": numbers(2, seed=2)}
    features = keras.Model(inputs, hidden)
    again = functools.partial(InfluenceModel, net, output="price")
    return Kind(again(), counter, features, (numbers(4), labels), _huber, again)


def _positions() -> Kind:
    hidden = layers.Dense(3, "tanh")(layers.Masking()(inputs := keras.Input((4, 2))))
    net, counter, features = with_head(inputs, hidden, CLASSES)
    rows = numbers(4, 2)
    labels = classes(rows)
    rows[1, 2:], labels[3, 0] = 0.0, -1
    again = functools.partial(InfluenceModel, net, position=POSITION)
    is_kept = (labels >= 0) & rows.any(axis=-1)
    pairs = np.argwhere(is_kept[:NUM_TRAIN])
    return Kind(again(), counter, features, (rows, labels), cross_entropy, again, pairs=pairs)


OBJECTIVES: dict[str, Callable[[], Kind]] = {
    "binary, weighted": lambda: _of_rows(
        classes(numbers(4)) % 2, 1, losses.BinaryCrossentropy(from_logits=True), binary, sample_weight=WEIGHTS
    ),
    "sigmoids": lambda: _of_rows(
        (numbers(3, seed=1) > 0).astype(np.float32), 3, "binary_crossentropy", binary
    ),
    "squared error": lambda: _of_rows(numbers(1, seed=1), 1, "mse", losses.mean_squared_error),
    "squared errors, weighted": lambda: _of_rows(
        numbers(3, seed=1), 3, "mse", losses.mean_squared_error, sample_weight=WEIGHTS, target=1
    ),
    "named output, Huber": _named,
    "custom loss": lambda: _of_rows(numbers(2, seed=1), 2, CustomLoss(log_cosh), log_cosh, target=1),
    "positions": _positions,
}


def _of_data(inputs: Any, hidden: Any, rows: Any, labels: np.ndarray, **settings: Any) -> Kind:
    net, counter, features = with_head(inputs, hidden, CLASSES)
    again = functools.partial(InfluenceModel, net)
    return Kind(again(), counter, features, (rows, labels), cross_entropy, again, **settings)


def _tokens() -> np.ndarray:
    generator = np.random.default_rng(4)
    lengths = generator.integers(1, 7, (NUM_TRAIN + NUM_TEST, 1))
    return doubled(generator.integers(1, 8, (NUM_TRAIN + NUM_TEST, 6)) * (np.arange(6) < lengths))


def _texts() -> Kind:
    vectorize = layers.TextVectorization(vocabulary=_WORDS, output_sequence_length=6)
    embedded = layers.Embedding(7, 3, mask_zero=True)(vectorize(inputs := keras.Input((1,), dtype="string")))
    names = np.array(["", *_WORDS, "unheard", "of"])
    texts = np.array([" ".join(names[row]).strip() for row in _tokens()])
    return _of_data(inputs, layers.GlobalAveragePooling1D()(embedded), texts, _tokens()[:, 0] % CLASSES)


def _masked_tokens() -> Kind:
    embedded = layers.Embedding(8, 3, mask_zero=True)(inputs := keras.Input((6,), dtype="int32"))
    return _of_data(inputs, layers.GRU(3)(embedded), _tokens(), _tokens()[:, 0] % CLASSES)


def _attention() -> Kind:
    embedded = layers.Embedding(8, 4, mask_zero=True)(inputs := keras.Input((None,), dtype="int32"))
    attended = layers.MultiHeadAttention(2, 2)(embedded, embedded)
    hidden = layers.GlobalAveragePooling1D()(layers.Add()([attended, embedded]))
    return _of_data(inputs, hidden, _tokens(), _tokens()[:, 0] % CLASSES, padded=True)


def _columns() -> dict[str, np.ndarray]:
    jobs = np.random.default_rng(5).choice(["clerk", "nurse", "smith", "none"], NUM_TRAIN + NUM_TEST)
    return {"job": doubled(jobs), "age": numbers(seed=6), "not used": numbers(2, seed=7)}


def _grades(rows: dict[str, np.ndarray]) -> np.ndarray:
    return np.digitize(rows["age"], [-0.5, 0.5])


def _feature_space() -> Kind:
    of = keras.utils.FeatureSpace
    known = {"age": of.float_normalized(), "job": of.string_categorical(num_oov_indices=1)}
    space, rows = of(features=known, output_mode="concat"), _columns()
    space.adapt(tf.data.Dataset.from_tensor_slices({name: rows[name] for name in known}).batch(8))
    return _of_data(
        space.get_inputs(), layers.Dense(3, "tanh")(space.get_encoded_features()), rows, _grades(rows)
    )


class FrameKind(Kind):
    """Whose datasets are made of a DataFrame."""

    def _batched(self, parts: tuple[Any, ...], batch_size: int) -> tf.data.Dataset:
        return to_dataset((pd.DataFrame(parts[0]), *parts[1:]), self.model).rebatch(batch_size)


def _frame() -> Kind:
    inputs = {"age": keras.Input((1,), name="age"), "job": keras.Input((1,), name="job", dtype="string")}
    one_hot = layers.StringLookup(vocabulary=["clerk", "nurse"], output_mode="one_hot")(inputs["job"])
    hidden = layers.Dense(3, "tanh")(layers.Concatenate()([inputs["age"], one_hot]))
    rows = {name: part for name, part in _columns().items() if name in inputs}
    return FrameKind(*_of_data(inputs, hidden, rows, _grades(rows)))


def _trees() -> Kind:
    rows = numbers(4)
    labels = classes(rows)
    trees = GradientBoostingClassifier(n_estimators=2, max_depth=2, random_state=0)
    model = TreeEnsembleModel(trees.fit(rows[:NUM_TRAIN], labels[:NUM_TRAIN]))
    again = functools.partial(InfluenceModel, model)
    return Kind(again(), None, model.leaves, (rows, labels), cross_entropy, again)


DATA: dict[str, Callable[[], Kind]] = {
    "texts": _texts,
    "masked tokens": _masked_tokens,
    "attention over padded batches": _attention,
    "columns of a FeatureSpace": _feature_space,
    "DataFrame": _frame,
    "trees": _trees,
}


@functools.cache
def kind_of(name: str) -> Kind:
    """Return a kind by its name, made once."""
    keras.utils.set_random_seed(0)
    return (OBJECTIVES | DATA)[name]()
