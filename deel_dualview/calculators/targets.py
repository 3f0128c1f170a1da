"""Which class of an evaluated example is explained."""

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import is_split
from deel_dualview.typing import Target


def check_target(target: Target, model: InfluenceModel) -> None:
    """Refuse what names no class; of a model that is not built yet, a number is taken for a class.

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


def explained_classes(
    target: Target, model: InfluenceModel, batch: data.Batch, logits: tf.Tensor
) -> np.ndarray:
    """Return the class to explain of every evaluated example, shape (m,), int64."""
    if target == "prediction":
        return tf.argmax(logits, axis=1).numpy()
    if target == "label":
        return model.to_classes(batch.labels)
    return np.full(logits.shape[0], target, np.int64)
