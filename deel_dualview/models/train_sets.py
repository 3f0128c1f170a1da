"""What calculators and inverse Hessians need of a model and a training set before they begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.models.influence_model import InfluenceModel


def to_influence_model(model: keras.Model | InfluenceModel) -> InfluenceModel:
    """Return an InfluenceModel: the one given, or one of a Keras model.

    Raises:
        TypeError: `model` is neither.
    """
    return model if isinstance(model, InfluenceModel) else InfluenceModel(model)


def with_own_labels(model: InfluenceModel, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset whose labels are those of the explained output alone; itself where they are one tensor.

    Raises:
        ValueError: there are none of this output.
    """

    @tf.autograph.experimental.do_not_convert
    def selected(*element: Any) -> Any:
        batch = data.unpack(element)
        return data.pack(batch._replace(labels=model.own_labels(batch.labels)))

    if not isinstance(dataset, tf.data.Dataset) or not tf.nest.is_nested(
        data.unpack(dataset.element_spec).labels
    ):
        return dataset
    return dataset.map(selected)


def with_sample_weight(dataset: tf.data.Dataset, sample_weight: Any) -> tf.data.Dataset:
    """Return a training set with the weights of its examples.

    Args:
        dataset: batches of n examples without weights.
        sample_weight: shape (n,).

    Raises:
        ValueError: weights of another shape, negative or not finite, or a dataset that has weights (here); another
            number of examples (when the dataset is read).
    """
    weights = np.asarray(sample_weight)
    require(
        weights.ndim == 1 and weights.dtype.kind in "biuf",
        "`sample_weight` must be one number for each training example, shape (n,).",
        {"shape": weights.shape, "dtype": weights.dtype},
    )
    spec = data.unpack(dataset.element_spec)
    require(
        spec.sample_weight is None,
        "Give sample weights in the training set's elements or as `sample_weight`, not both.",
        {"element_spec": dataset.element_spec},
    )
    with data.naming_positions(0, "sample_weight"):
        data.sample_weights(data.Batch(weights, None, None, weights))

    def weighted() -> Iterator[Any]:
        start = 0
        for element in dataset:
            batch = data.unpack(element)
            stop = start + data.num_examples(batch.inputs)
            check_number(stop <= len(weights), f"at least {stop:,}")
            yield data.pack(batch._replace(sample_weight=weights[start:stop]))
            start = stop
        check_number(start == len(weights), f"{start:,}")

    def check_number(is_right: bool, examples: str) -> None:
        require(
            is_right,
            "`sample_weight` must have one weight for each training example.",
            {"weights": len(weights), "training examples": examples},
        )

    signature = data.pack(spec._replace(sample_weight=tf.TensorSpec([None], tf.float32)))
    return data.lazy_dataset(weighted, signature, cardinality=int(dataset.cardinality()))


def is_split(model: InfluenceModel) -> bool:
    """Return whether a model's layers and classes are known before it is called."""
    try:
        return model.split is not None
    except ValueError:
        return False


def check_train_set(
    model: InfluenceModel,
    train_set: tf.data.Dataset,
    read: Callable[[tf.data.Dataset, str], Any] = data.check_same_twice,
) -> None:
    """Refuse a training set that is not batched, never ends, has no labels, changes, or does not fit the model.

    The model is prepared on the first batch.

    Args:
        model: the model.
        train_set: batches of inputs and labels.
        read: gives the first batch; `data.first_batch` where a whole pass follows, which is the second reading.

    Raises:
        TypeError: it is no dataset.
        ValueError: one of the above.
    """
    data.check_bounded(train_set, "train_set")
    spec = data.unpack(train_set.element_spec)
    require(
        spec.labels is not None,
        "The training set needs labels: elements (inputs, labels).",
        {"element_spec": train_set.element_spec},
    )
    model.check_inputs(spec.inputs, "train_set")
    first = data.unpack(read(train_set, "train_set"))
    data.check_finite(first.inputs, 0, "train_set")
    model.prepare(first.inputs)
    is_weighted = first.sample_weight is not None or bool(model.class_weights)
    require(
        not (is_weighted and model.num_axes),
        "Weights are of models with one output an example: leave them out of a model with an output at "
        "each of several positions.",
        {"class_weights": model.class_weights, "element_spec": train_set.element_spec},
    )
    with data.naming_positions(0, "train_set"):
        targets = model.training_targets(first.labels)
        weights = data.sample_weights(first)
        if is_weighted:
            model.example_weights(targets, weights)
