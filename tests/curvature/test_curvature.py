"""Hessian and Gauss-Newton operators against naive twins in float64 and against finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel, PerExampleGradients
from deel_dualview.curvature import LastLayerCurvature, LayersCurvature
from deel_dualview.curvature.outputs import OutputGram
from deel_dualview.linalg import blocks


def make_model(num_outputs=3, use_bias=True):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation="tanh", name="hidden"),
            layers.Dense(num_outputs, use_bias=use_bias, name="head"),
        ]
    )


@pytest.fixture
def data(rng):
    return rng.normal(size=(23, 4)).astype(np.float32), rng.integers(0, 2, 23)


def batches(data, size=5):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def naive_last_layer(model, inputs):
    """The mean of (diag(p) - p p') (x) phi phi', example by example."""
    features = model.get_layer("hidden")(inputs).numpy().astype(np.float64)
    head = model.get_layer("head")
    if head.use_bias:
        features = np.hstack([features, np.ones((len(features), 1))])
    logits = model(inputs).numpy().astype(np.float64)
    total = 0
    for phi, z in zip(features, logits, strict=True):
        if len(z) == 1:
            p = 1 / (1 + np.exp(-z))
            curvature = (p * (1 - p))[:, np.newaxis]
        else:
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            curvature = np.diag(p) - np.outer(p, p)
        total = total + np.kron(curvature, np.outer(phi, phi))
    return total / len(features)


SHAPES = [(3, True), (3, False), (2, True), (1, True), (1, False)]


@pytest.mark.parametrize(("num_outputs", "use_bias"), SHAPES)
def test_the_closed_form_is_the_mean_of_kronecker_products(num_outputs, use_bias, data):
    model = make_model(num_outputs, use_bias)
    curvature = LastLayerCurvature(InfluenceModel(model), batches(data))
    np.testing.assert_allclose(curvature.to_dense(), naive_last_layer(model, data[0]), atol=1e-6)
    assert curvature.num_examples == 23


@pytest.mark.parametrize(("num_outputs", "use_bias"), SHAPES)
def test_products_without_the_matrix_agree_with_it(num_outputs, use_bias, data, rng):
    model = make_model(num_outputs, use_bias)
    curvature = LastLayerCurvature(InfluenceModel(model), batches(data))
    rows, matrix = rng.normal(size=(4, curvature.size)), naive_last_layer(model, data[0])
    np.testing.assert_allclose(curvature.matmul(tf.constant(rows, tf.float32)), rows @ matrix, atol=1e-5)
    np.testing.assert_allclose(curvature.trace(), np.trace(matrix), rtol=1e-5)


def test_large_batches_are_summed_in_pieces(data, rng, monkeypatch):
    monkeypatch.setattr("deel_dualview.curvature.outputs._ROWS_PER_PRODUCT", 7)
    model = make_model()
    curvature = LastLayerCurvature(InfluenceModel(model), batches(data, 3))
    np.testing.assert_allclose(curvature.to_dense(), naive_last_layer(model, data[0]), atol=1e-6)


def test_saturated_examples_neither_count_nor_harm(data):
    model = make_model()
    model.get_layer("head").kernel.assign(300 * model.get_layer("head").kernel)
    matrix = LastLayerCurvature(InfluenceModel(model), batches(data)).to_dense()
    np.testing.assert_allclose(matrix, naive_last_layer(model, data[0]), atol=1e-6)


def test_an_example_of_a_millionth_of_the_mean_trace_counts():
    gram = OutputGram(num_outputs=1, num_inputs=2)
    gram.add(tf.eye(2), tf.constant([[0.5], [1e-7]], tf.float64))
    np.testing.assert_allclose(np.diag(gram.mean()), [0.125, 0.5e-7], rtol=1e-5)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_differentiating_twice_gives_the_closed_form(kind, num_outputs, data, rng):
    model = make_model(num_outputs)
    curvature = LayersCurvature(InfluenceModel(model), batches(data), weights="last", kind=kind)
    rows = rng.normal(size=(3, curvature.size)).astype(np.float32)
    np.testing.assert_allclose(
        curvature.matmul(tf.constant(rows)), rows @ naive_last_layer(model, data[0]), atol=1e-5
    )


def test_a_matrix_made_of_products_is_symmetric_to_the_last_bit(data):
    matrix = LayersCurvature(InfluenceModel(make_model()), batches(data)).to_dense().numpy()
    np.testing.assert_array_equal(matrix, matrix.T)


def test_the_hessian_of_all_weights_is_the_change_of_the_mean_gradient(data, rng):
    model = make_model()
    split = InfluenceModel(model)
    curvature, gradients = LayersCurvature(split, batches(data)), PerExampleGradients(split, "all")
    direction = rng.normal(size=(1, curvature.size)).astype(np.float32)
    product = curvature.matmul(tf.constant(direction))[0]
    weights = [variable.numpy() for variable in model.trainable_variables]
    steps = [
        tensor[0].numpy()
        for group, part in zip(
            gradients.groups, tf.split(direction, [g.size for g in gradients.groups], axis=1), strict=True
        )
        for tensor in group.unflatten(part)
    ]
    means = []
    for sign in (1, -1):
        model.set_weights([w + sign * 1e-2 * s for w, s in zip(weights, steps, strict=True)])
        means.append(np.mean(blocks.to_dense(gradients(*data)), axis=0))
    model.set_weights(weights)
    np.testing.assert_allclose(product, (means[0] - means[1]) / 2e-2, atol=5e-3, err_msg="finite differences")


def test_the_gauss_newton_matrix_is_that_of_the_jacobian(data):
    model = make_model()
    split = InfluenceModel(model)
    matrix = LayersCurvature(split, batches(data), kind="gauss-newton").to_dense()
    jacobians = [
        blocks.to_dense(PerExampleGradients(split, "all", function="logit")(data[0], np.full(23, k))).numpy()
        for k in range(3)
    ]
    p = tf.nn.softmax(model(data[0])).numpy()
    expected = sum(
        ((k == j) * p[:, k] - p[:, k] * p[:, j])[:, np.newaxis].T * jacobians[k].T @ jacobians[j]
        for k in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(matrix, expected / 23, atol=1e-5)


def recurrent():
    return [layers.Embedding(9, 3), layers.LSTM(3), layers.Dense(2)]


def convolutional():
    return [
        layers.Reshape((4, 4, 1)),
        layers.Conv2D(2, 3),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(2),
    ]


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("make_layers", [recurrent, convolutional])
def test_any_layer_can_be_differentiated_twice(make_layers, kind, rng):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), *make_layers()])
    data = (rng.integers(0, 9, (4, 16)).astype(np.float32), np.array([0, 1, 1, 0]))
    curvature = LayersCurvature(InfluenceModel(model), batches(data, 3), weights="all", kind=kind)
    rows = tf.constant(rng.normal(size=(2, curvature.size)), tf.float32)
    products = curvature.matmul(rows).numpy()
    assert curvature.size == sum(np.prod(w.shape) for w in model.trainable_variables)
    np.testing.assert_allclose(
        products[0] @ rows[1].numpy(), products[1] @ rows[0].numpy(), rtol=1e-3, err_msg="symmetry in float32"
    )


@pytest.mark.parametrize("weights", ["last", "all"])
def test_samples_are_the_same_for_the_same_seed_and_near_the_mean(weights, data, rng):
    split = InfluenceModel(make_model())
    curvature = (
        LayersCurvature(split, batches(data))
        if weights == "all"
        else LastLayerCurvature(split, batches(data))
    )
    rows = tf.constant(rng.normal(size=(1, curvature.size)), tf.float32)

    def draw(seed):
        samples = curvature.sampled(10, seed)
        return np.stack([next(samples).matmul(rows)[0] for _ in range(60)])

    np.testing.assert_array_equal(draw(3)[:5], draw(3)[:5])
    assert not np.allclose(draw(3)[0], draw(4)[0])
    mean, exact = draw(3).mean(axis=0), curvature.matmul(rows)[0]
    assert np.linalg.norm(mean - exact) < 0.2 * np.linalg.norm(exact)


def test_examples_that_are_not_finite_are_named(data):
    split = InfluenceModel(make_model())
    split.prepare(data[0])
    data[0][[3, 17]] = np.nan
    with pytest.raises(ValueError, match=r"\[3, 17\]"):
        LastLayerCurvature(split, batches(data, 23)).to_dense()
