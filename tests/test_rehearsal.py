"""Settings of methods under evaluation, tried on the untrained network before anything is trained."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import InfluenceModel
from deel_dualview.calculators.method_specs import read_entrants
from deel_dualview.evaluation import RECIPES, ImageData, Recipe, load_images
from deel_dualview.evaluation.trained_models import build
from deel_dualview.evaluation.worker import rehearse

DIGITS = load_images("digits")


def rehearsed(methods):
    rehearse(read_entrants(methods), "digits", DIGITS, None)


@pytest.mark.parametrize(
    "name",
    [
        "dualview?K=0.1&kernel=linear",
        "first-order?ihvp.damping=RelativeDamping(0.01)",
        "arnoldi?ihvp.rank=50&ihvp.num_iterations=60",
        "trak?projection=GaussianProjection(64)",
        "tracin?weights=all&projection=FactoredProjection(16)",
        "sim?weights=['features', 'logits']",
        "random?seed=3",
    ],
)
def test_settings_that_the_method_takes_pass(name):
    rehearsed([name])


def test_what_few_examples_cannot_tell_is_left_to_the_training_set():
    """32 examples give a singular Hessian of 650 weights, as many more may not."""
    [entrant] = read_entrants(["first-order?ihvp.damping=0&ihvp.curvature=gauss-newton"])
    model = InfluenceModel(build(RECIPES["digits"], DIGITS, 10))
    few = tf.data.Dataset.from_tensor_slices((DIGITS.train_images[:32], DIGITS.train_labels[:32])).batch(32)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        entrant.maker(None)(model, few, store=None)
    rehearsed(["first-order?ihvp.damping=0&ihvp.curvature=gauss-newton"])


def test_more_examples_than_are_tried_are_left_to_the_training_set():
    rehearsed(["arnoldi?ihvp.num_curvature_examples=500"])


def test_what_a_method_makes_is_not_kept():
    """The matrix of a projection, which would go to every process, and be left out of the memory that is told."""
    entrants = read_entrants(["sim?projection=GaussianProjection(100)"])
    before = len(pickle.dumps(entrants))
    rehearse(entrants, "digits", DIGITS, None)
    assert len(pickle.dumps(entrants)) == before


def test_the_network_is_that_of_the_recipe():
    first, second = (read_entrants([f"graddot?weights=['{name}']"]) for name in ("convolution_1", "hidden"))
    images = ImageData(np.zeros((4, 8, 8, 1), np.float32), np.arange(4), None, None, 4)
    rehearse(first, "digits", images, None)
    rehearse(second, "digits", images, Recipe("paper-cnn", epochs=1))
    with pytest.raises(ValueError, match=r"must name layers.*convolution_1, convolution_2, convolution_3"):
        rehearse(read_entrants(["graddot?weights=['convolution_4']"]), "mnist", images, None)
    with pytest.raises(ValueError, match="must name layers"):
        rehearse(second, "digits", images, None)


def test_methods_without_settings_and_makers_are_not_made():
    def fails(*_, **__):
        raise ValueError("made")

    rehearsed({"own": fails, "random": "random", "dualview": "dualview"})
