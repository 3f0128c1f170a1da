"""Which output of an evaluated example is explained."""

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.calculators.represented import Represented
from deel_dualview.models import InfluenceModel
from deel_dualview.models.objectives import IndependentSigmoids
from deel_dualview.models.train_sets import is_split
from deel_dualview.typing import Target


def check_target(target: Target, model: InfluenceModel) -> None:
    """Raise an error if a target names no output; any number is taken for one of a model that is not built yet.

    Raises:
        ValueError: it is neither a word nor an output.
    """
    last = model.num_outputs - 1 if is_split(model) else None
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        is_known = target >= 0 and (last is None or target <= last)
    else:
        is_known = isinstance(target, str) and target in ("prediction", "label")
    require(
        is_known,
        f"`target` must be 'prediction', 'label' or an output{'' if last is None else f' 0..{last}'}.",
        {"target": target},
    )


def explained_targets(target: Target, represented: Represented) -> np.ndarray:
    """Return what is explained of every evaluated example: an output, shape (m,), int64, or its label.

    The label of a classifier is an output; that of another objective is in its form, shape (m, c), float32.
    """
    if target == "prediction":
        return represented.model.objective.predicted(represented.logits)
    if target == "label":
        return represented.targets
    return np.full(len(represented), target, np.int64)


def num_outputs(model: InfluenceModel) -> int:
    """Return the number of the last layer's own outputs: one in a binary model with one output, else c."""
    return 1 if has_one_logit(model) else model.num_outputs


def has_one_logit(model: InfluenceModel) -> bool:
    """Return whether the last layer gives one output z for two classes, whose logits are (-z / 2, z / 2)."""
    return model.split.head is not None and model.is_binary


def output_gradients(model: InfluenceModel, targets: np.ndarray) -> tf.Tensor:
    """Return the derivatives of the explained outputs by the last layer's outputs, shape (m, outputs).

    Args:
        model: the model.
        targets: outputs, shape (m,); or the labels of another objective than the softmax, shape (m, c), for which the
            sum of the outputs is explained, of independent labels that do not hold with a negative sign.
    """
    if has_one_logit(model):
        return tf.constant((2.0 * targets[:, np.newaxis] - 1.0) / 2.0, tf.float32)
    if targets.ndim == 1:
        return tf.one_hot(targets, model.num_outputs)
    if isinstance(model.objective, IndependentSigmoids):
        return tf.constant(2.0 * targets - 1.0, tf.float32)
    return tf.ones((len(targets), model.num_outputs))
