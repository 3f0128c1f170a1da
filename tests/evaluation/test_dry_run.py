"""Settings of methods under evaluation, tried on the untrained network before anything is trained."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import InfluenceModel
from deel_dualview.calculators.method_specs import resolve_all
from deel_dualview.evaluation import RECIPES, ImageData, Recipe, load_images
from deel_dualview.evaluation.trained_models import build
from deel_dualview.evaluation.worker import dry_run

DIGITS = load_images("digits")


def tried(methods):
    dry_run(resolve_all(methods), "digits", DIGITS, None)


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
    tried([name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dualview?K=large", "`K` must be a number"),
        ("dualview?K=True", "`K` must be a number"),
        ("dualview?bias=1", "`bias` must be True or False"),
        ("dualview?kernel=round", "`kernel` must be one of"),
        ("sim?projection=word", "`projection` must be"),
        ("first-order?ihvp.damping=no", "`damping` must be"),
        ("first-order-cg?ihvp.preconditioner=1", "`preconditioner` must be a LinearOperator"),
        ("random?seed=1.0", "`seed` must be"),
        ("graddot?weights=1", "`weights` must"),
        ("graddot?weights=[logits]", "`weights` must"),
    ],
)
def test_settings_of_another_kind_are_refused_by_the_method_itself(name, message):
    with pytest.raises(ValueError, match=message):
        tried([name])


def test_what_few_examples_cannot_tell_is_left_to_the_training_set():
    """32 examples give a singular Hessian of 650 weights, as many more may not."""
    [spec] = resolve_all(["first-order?ihvp.damping=0&ihvp.curvature=gauss-newton"])
    model = InfluenceModel(build(RECIPES["digits"], DIGITS, 10))
    few = tf.data.Dataset.from_tensor_slices((DIGITS.train_images[:32], DIGITS.train_labels[:32])).batch(32)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        spec.build(model, few, None)
    tried(["first-order?ihvp.damping=0&ihvp.curvature=gauss-newton"])


def test_more_examples_than_are_tried_are_left_to_the_training_set():
    tried(["arnoldi?ihvp.num_curvature_examples=500"])


def test_what_a_method_makes_is_not_kept():
    """The matrix of a projection, which would go to every process, and be left out of the memory that is told."""
    specs = resolve_all(["sim?projection=GaussianProjection(100)"])
    before = len(pickle.dumps(specs))
    dry_run(specs, "digits", DIGITS, None)
    assert len(pickle.dumps(specs)) == before


def test_the_network_is_that_of_the_recipe():
    first, second = (resolve_all([f"graddot?weights=['{name}']"]) for name in ("convolution_1", "hidden"))
    images = ImageData(np.zeros((4, 8, 8, 1), np.float32), np.arange(4), None, None, 4)
    dry_run(first, "digits", images, None)
    dry_run(second, "digits", images, Recipe("paper-cnn", epochs=1))
    with pytest.raises(ValueError, match=r"must name layers.*convolution_1, convolution_2, convolution_3"):
        dry_run(resolve_all(["graddot?weights=['convolution_4']"]), "mnist", images, None)
    with pytest.raises(ValueError, match="must name layers"):
        dry_run(second, "digits", images, None)


def test_methods_without_settings_and_makers_are_not_made():
    def fails(*_, **__):
        raise ValueError("made")

    tried({"own": fails, "random": "random", "dualview": "dualview"})
