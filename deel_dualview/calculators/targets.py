"""Which class of an evaluated example is explained."""

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.calculators.represented import Represented
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import is_split
from deel_dualview.typing import Target


def check_target(target: Target, model: InfluenceModel) -> None:
    """Raise an error if a target names no class; any number is taken for a class of a model that is not built yet.

    Raises:
        ValueError: it is neither a word nor a class.
    """
    last = model.num_classes - 1 if is_split(model) else None
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        is_known = target >= 0 and (last is None or target <= last)
    else:
        is_known = isinstance(target, str) and target in ("prediction", "label")
    require(
        is_known,
        f"`target` must be 'prediction', 'label' or a class{'' if last is None else f' 0..{last}'}.",
        {"target": target},
    )


def explained_classes(target: Target, represented: Represented) -> np.ndarray:
    """Return the class to explain of every evaluated example, shape (m,), int64."""
    if target == "prediction":
        return tf.argmax(represented.logits, axis=1).numpy()
    if target == "label":
        return represented.classes
    return np.full(len(represented), target, np.int64)


def num_outputs(model: InfluenceModel) -> int:
    """Return the number of the last layer's own outputs: one in a binary model with one output, else c."""
    return 1 if model.split.head is not None and model.split.num_outputs == 1 else model.num_classes


def logit_gradients(model: InfluenceModel, classes: np.ndarray) -> tf.Tensor:
    """Return the derivatives of the logits of `classes` (m,) by the last layer's outputs, shape (m, outputs)."""
    if num_outputs(model) == 1:
        # The logits of a model with one output z are (-z / 2, z / 2).
        return tf.constant((2.0 * classes[:, np.newaxis] - 1.0) / 2.0, tf.float32)
    return tf.one_hot(classes, model.num_classes)
