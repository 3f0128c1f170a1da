"""What calculators and inverse Hessians need of a model and a training set before they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
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

    def selected(*element: Any) -> Any:
        batch = data.unpack(element)
        return tuple(
            part for part in batch._replace(labels=model.own_labels(batch.labels)) if part is not None
        )

    if not isinstance(dataset, tf.data.Dataset) or not tf.nest.is_nested(
        data.unpack(dataset.element_spec).labels
    ):
        return dataset
    return dataset.map(selected)


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
