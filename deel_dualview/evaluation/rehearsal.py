"""Methods are made once on the untrained network and a few examples, so that a bad setting is told before long work."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from deel_dualview.callbacks import Checkpoints
from deel_dualview.evaluation.entrants import Entrant
from deel_dualview.evaluation.networks import RECIPES, Recipe
from deel_dualview.evaluation.subjects import ImageData, build
from deel_dualview.models import InfluenceModel

_NUM_EXAMPLES = 32


def rehearse(entrants: Iterable[Entrant], data: str, images: ImageData, recipe: Recipe | None) -> None:
    """Make the calculators of methods with settings, on the network before it is trained.

    What only the training set can tell (a singular Hessian) is left for it to tell.

    Args:
        entrants: methods; those by a name with settings are made.
        data: name of the dataset.
        images: the dataset.
        recipe: how the models are trained; None for that of the dataset.

    Raises:
        ValueError: a setting that the method or the network refuses: out of range, or an unknown layer.
    """
    chosen = [entrant for entrant in entrants if entrant.settings]
    if not chosen:
        return
    model = InfluenceModel(build(recipe or RECIPES[data], images, images.num_classes))
    examples = images.train_images[:_NUM_EXAMPLES], images.train_labels[:_NUM_EXAMPLES]
    train = tf.data.Dataset.from_tensor_slices(examples).batch(_NUM_EXAMPLES)
    for entrant in chosen:
        checkpoints = Checkpoints([model], [1.0], [1]) if entrant.needs_checkpoints else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                entrant.maker(checkpoints)(model, train, store=None)
            except np.linalg.LinAlgError:
                pass
            except (TypeError, ValueError) as error:
                raise ValueError(f"{entrant.name}: {error}") from error
