"""Norms and directions of vectors in blocks, at sizes whose squares leave float32."""

import numpy as np
import pytest
import tensorflow as tf
from gradient_cases import Case

from deel_dualview import PerExampleGradients
from deel_dualview.curvature.ekfac import KroneckerCurvature
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import OuterProduct

SIZES = (1e-35, 1e-22, 1.0, 1e22, 1e35)


def made(size, rng):
    """One dense block and one of outer products whose factors are of very different sizes."""
    left = rng.normal(size=(4, 3)).astype(np.float32) * np.float32(size)
    dense = rng.normal(size=(4, 5)).astype(np.float32) * np.float32(size)
    return tf.constant(dense), OuterProduct(
        tf.constant(left), tf.constant(rng.normal(size=(4, 2)).astype(np.float32))
    )


def dense(vectors):
    """Multiply out in float64."""
    first, second = (np.asarray(part, np.float64) for part in vectors[1])
    outer = (first[:, :, None] * second[:, None]).reshape(len(first), -1)
    return np.hstack([np.asarray(vectors[0], np.float64), outer])


@pytest.mark.parametrize("size", SIZES)
def test_norms_are_those_of_float64(size, rng):
    vectors = made(size, rng)
    np.testing.assert_allclose(blocks.norms(vectors), np.linalg.norm(dense(vectors), axis=1), rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_directions_are_those_of_float64(size, rng):
    vectors = made(size, rng)
    expected = dense(vectors) / np.linalg.norm(dense(vectors), axis=1, keepdims=True)
    np.testing.assert_allclose(dense(blocks.unit(vectors)), expected, atol=1e-5)


def test_the_norm_of_an_outer_product_may_leave_float32(rng):
    tiny = OuterProduct(tf.fill((2, 3), 1e-30), tf.fill((2, 2), 1e-30))
    np.testing.assert_allclose(blocks.norms((tiny,)), 1e-60 * np.sqrt(6), rtol=1e-5)
    np.testing.assert_allclose(blocks.to_dense(blocks.unit((tiny,))), np.full((2, 6), 6**-0.5), rtol=1e-5)


def test_a_row_of_zeros_stays_and_has_a_finite_gradient():
    rows = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        (unit,) = blocks.unit((rows,))
    np.testing.assert_allclose(unit, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert np.isfinite(tape.gradient(unit, rows)).all()


def test_the_direction_is_differentiated_right():
    rows = tf.constant([[3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        first = blocks.unit((rows,))[0][0, 0]
    # d/dx of x / |x| is (1 - x x' / |x|^2) / |x|.
    np.testing.assert_allclose(tape.gradient(first, rows), [[16 / 125, -12 / 125]], rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_norms_in_a_kronecker_factored_curvature_are_those_of_float64(size, rng):
    from deel_dualview import EkfacIHVP, InfluenceModel

    case = Case("Dense")
    train = tf.data.Dataset.from_tensors((case.inputs, case.classes))
    curvature = EkfacIHVP(InfluenceModel(case.keras_model), train).approximation
    assert isinstance(curvature, KroneckerCurvature)
    left = rng.normal(size=(2, 3)).astype(np.float32) * np.float32(size)
    vectors = (OuterProduct(tf.constant(left), tf.constant(rng.normal(size=(2, 5)).astype(np.float32))),)
    ones = (OuterProduct(tf.constant(left / np.float32(size)), vectors[0].right),)
    for norms in (curvature.norms, curvature.inverse_norms):
        np.testing.assert_allclose(norms(vectors, 0.5) / np.float64(size), norms(ones, 0.5), rtol=1e-4)


@pytest.mark.parametrize("name", ["a subclass of Dense", "tied weights"])
def test_a_wrong_closed_form_is_noticed_however_certain_the_model_is(name):
    """The gradient of the loss is too small to tell routes apart; its direction is not."""
    case = Case(name)
    head = case.keras_model.layers[-1]
    head.set_weights([1e4 * weight for weight in head.get_weights()])
    classes = case.keras_model(case.inputs).numpy().argmax(axis=1)
    gradients = PerExampleGradients(case.model, "all")
    loss = gradients(case.inputs, classes)
    assert np.abs(blocks.to_dense(loss)).max() < 1e-6
    assert len(gradients.groups_in_closed_form) < len(gradients.groups)
