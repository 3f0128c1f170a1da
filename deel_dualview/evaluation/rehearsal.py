"""Methods are made once on the untrained network and a few examples, so that a bad setting is told before long work."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview.callbacks import Checkpoints
from deel_dualview.evaluation.entrants import Entrant
from deel_dualview.evaluation.networks import RECIPES, Recipe
from deel_dualview.evaluation.subjects import ImageData, build
from deel_dualview.gathering import TooFewExamplesError
from deel_dualview.models import InfluenceModel

_NUM_EXAMPLES = 32


def rehearse(
    entrants: Iterable[Entrant], data: str, images: ImageData, recipe: Recipe | None, *, progress: bool = True
) -> None:
    """Make the calculators of methods with settings, on the network before it is trained.

    What only the training set can tell (a singular Hessian, more examples than there are) is left for it to tell.

    Args:
        entrants: methods; those by a name with settings are made.
        data: name of the dataset.
        images: the dataset.
        recipe: how the models are trained; None for that of the dataset.
        progress: whether work is shown by a bar.

    Raises:
        ValueError: a setting that the method or the network refuses: out of range, or an unknown layer.
    """
    chosen = [entrant for entrant in entrants if entrant.settings]
    if not chosen:
        return
    model = InfluenceModel(build(recipe or RECIPES[data], images, images.num_classes))
    examples = images.train_images[:_NUM_EXAMPLES], images.train_labels[:_NUM_EXAMPLES]
    train = tf.data.Dataset.from_tensor_slices(examples).batch(_NUM_EXAMPLES)
    bar = tqdm(chosen, leave=False, disable=None if progress else True)
    for entrant in bar:
        bar.set_description(f"trying the settings of {entrant.name}")
        checkpoints = Checkpoints([model], [1.0], [1]) if entrant.needs_checkpoints else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                entrant.maker(checkpoints)(model, train, store=None)
            except (np.linalg.LinAlgError, TooFewExamplesError):
                pass
            except (TypeError, ValueError) as error:
                raise ValueError(f"{entrant.name}: {error}") from error
