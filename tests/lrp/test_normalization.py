"""Layer and group normalisation: a linear map with the deviation as given, by slow twins; small transformers."""

import keras
import lrp_twins
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import lrp

ANY = keras.initializers.RandomUniform(0.5, 1.5, seed=0)
SHIFT = keras.initializers.RandomNormal(seed=1)


def statistics_over(kind, shape):
    """Return, for every input, which inputs its mean and deviation are of, shape (inputs, inputs)."""
    places = np.indices(shape).reshape(len(shape), -1)
    keys = {
        "last axis": places[:-1],
        "two axes": places[:1],
        "two groups": np.array([places[-1] // (shape[-1] // 2)]),
        "two groups, channels first": np.array([places[0] // (shape[0] // 2)]),
        "all channels": np.zeros((1, places.shape[1])),
    }[kind]
    return (keys[:, :, None] == keys[:, None]).all(axis=0)


NORMALISATIONS = {
    "last axis": lambda **own: layers.LayerNormalization(**own),
    "two axes": lambda **own: layers.LayerNormalization(axis=(2, 3), **own),
    "two groups": lambda **own: layers.GroupNormalization(2, **own),
    "two groups, channels first": lambda **own: layers.GroupNormalization(2, axis=1, **own),
    "all channels": lambda **own: layers.GroupNormalization(1, **own),
}


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_a_normalisation_shares_as_a_linear_map_with_its_deviation_as_given(kind, rng):
    shape = (4, 3, 6)
    layer = NORMALISATIONS[kind](gamma_initializer=ANY, beta_initializer=SHIFT)
    model = keras.Sequential([keras.Input(shape), layer])
    inputs, relevance = (rng.normal(size=(2, *shape)).astype(np.float32) for _ in range(2))
    groups = statistics_over(kind, shape).astype(np.float64)
    groups /= groups.sum(axis=1)
    # The shift is what zeros become, and the scale what ones become of it.
    gamma, beta = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    axes = [axis for axis in range(3) if axis + 1 in np.atleast_1d(layer.axis) % 4]
    gamma, beta = (
        np.broadcast_to(
            own.reshape([shape[axis] if axis in axes else 1 for axis in range(3)]), shape
        ).reshape(-1)
        for own in (gamma, beta)
    )
    expected = []
    for row, own in zip(inputs.astype(np.float64), relevance, strict=True):
        row = row.reshape(-1)
        deviation = np.sqrt(groups @ (row - groups @ row) ** 2 + layer.epsilon)
        weights = (np.eye(row.size) - groups) * gamma / deviation
        np.testing.assert_allclose(
            row @ weights + beta, np.asarray(layer(row.reshape(1, *shape))).reshape(-1), atol=1e-4
        )
        expected.append(lrp_twins.epsilon(row, weights, beta, own.reshape(-1)))
    found = np.asarray(lrp.LRP(model, "epsilon")(inputs, relevance))
    expected = np.reshape(expected, found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_what_the_mean_takes_away_leaves_nothing_to_share(rng):
    model = keras.Sequential([keras.Input((5,)), layers.LayerNormalization(center=False, scale=False)])
    inputs = rng.normal(size=(2, 5)).astype(np.float32)
    # Explained is the sum of all outputs, which is zero whatever the inputs.
    found = lrp.LRP(model, "epsilon")(inputs, model(inputs))
    np.testing.assert_allclose(found, np.zeros((2, 5)), atol=1e-4)


def block(x, activation="gelu"):
    attended = layers.LayerNormalization()(x)
    x = layers.Add()([layers.MultiHeadAttention(2, 4)(attended, attended), x])
    hidden = layers.Dense(12, activation=activation)(layers.LayerNormalization()(x))
    return layers.Add()([layers.Dense(8)(hidden), x])


def vision_transformer():
    inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((4, 8))(layers.Conv2D(8, 4, 4)(inputs))
    x = block(block(x))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))


def with_any_weights(model, rng, *, has_shifts):
    for layer in model.layers:
        values = []
        for weight in layer.weights:
            own = 0.4 * rng.normal(size=weight.shape)
            is_shift = weight.path.endswith(("bias", "beta"))
            values.append(1 + own if weight.path.endswith("gamma") else own * (has_shifts or not is_shift))
        layer.set_weights(values)
    return model


@pytest.mark.parametrize("rule", ["epsilon", "epsilon-gamma"])
def test_a_transformer_without_shifts_conserves(rule, rng, keras_seed):
    model = with_any_weights(vision_transformer(), rng, has_shifts=False)
    images = rng.uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
    relevance = np.asarray(model(images)) * (np.arange(8) < 2)
    found = np.asarray(lrp.LRP(model, rule)(images, relevance))
    scale = np.abs(relevance).sum(axis=1)
    np.testing.assert_allclose(found.sum((1, 2, 3)) / scale, relevance.sum(axis=1) / scale, atol=2e-3)


def test_a_heatmap_of_a_transformer_is_no_larger_than_gradients_times_inputs(rng, keras_seed):
    model = with_any_weights(vision_transformer(), rng, has_shifts=True)
    images = tf.constant(rng.uniform(0, 1, (20, 8, 8, 1)).astype(np.float32))
    chosen = np.arange(8) < 2
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = model(images) * chosen
    of_gradients = np.abs(images * tape.gradient(outputs, images)).sum((1, 2, 3))
    left = {layers.LayerNormalization: lrp.Pass()}
    sizes = [
        np.abs(lrp.LRP(model, rule)(images, outputs)).sum((1, 2, 3))
        for rule in (lrp.EPSILON, lrp.EPSILON.with_rules(left))
    ]
    assert np.median(sizes[0] / of_gradients) < 1.5
    assert sizes[0].max() < 1.5 * of_gradients.max()
    # The same where normalisation leaves relevance in its place: this is a case in which that is far worse.
    assert sizes[1].max() > 10 * of_gradients.max()


def test_a_batch_normalisation_after_a_sum_shares_with_its_shift(rng):
    """As before the activation in residual networks, where it cannot be folded."""
    norm = layers.BatchNormalization(
        gamma_initializer=ANY, beta_initializer=SHIFT, moving_mean_initializer=SHIFT
    )
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, norm(layers.Add()(inputs)))
    values = [rng.normal(size=(2, 4)).astype(np.float32) for _ in range(2)]
    found = lrp.LRP(model, "epsilon")(values, model(values))
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    for own, value in zip(found, values, strict=True):
        np.testing.assert_allclose(own, scale * value, rtol=1e-3, atol=1e-5)
