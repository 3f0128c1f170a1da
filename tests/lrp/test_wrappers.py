"""Layers that apply another layer, layers that Keras does not export, and layers of half precision."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.applications.convnext import ConvNeXt, LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from deel_dualview import lrp

ANY = keras.initializers.RandomUniform(0.5, 1.5, seed=0)


def over_time(layer, shape):
    return keras.Sequential([keras.Input(shape), layers.TimeDistributed(layer)])


INSIDE = {
    "dense": lambda: layers.Dense(3, activation="relu", bias_initializer="random_normal"),
    "convolution": lambda: layers.Conv1D(3, 2, activation="relu", bias_initializer="random_normal"),
    "layer normalisation": lambda: layers.LayerNormalization(beta_initializer="random_normal"),
    "model": lambda: keras.Sequential(
        [layers.Conv1D(3, 2), layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling1D()]
    ),
    "over time again": lambda: layers.TimeDistributed(layers.Dense(3)),
}


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        *((kind, "epsilon-gamma") for kind in INSIDE),
        ("dense", "epsilon-plus-flat"),
        ("model", "epsilon-plus-flat"),
    ],
)
def test_a_layer_over_time_does_what_it_does_at_each_time(kind, rule, rng, keras_seed, eagerly):
    layer = INSIDE[kind]()
    model = over_time(layer, (5, 4, 2))
    inputs = rng.normal(size=(2, 5, 4, 2)).astype(np.float32)
    # Three explanations of every example, in a row.
    relevance = rng.normal(size=(6, *model.output_shape[1:])).astype(np.float32)
    found = np.asarray(lrp.LRP(model, rule)(inputs, relevance))
    eagerly(True)
    alone = lrp.LRP(keras.Sequential([keras.Input((4, 2)), layer]), rule)
    expected = np.stack([alone(inputs[:, time], relevance[:, time]) for time in range(5)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_the_first_layer_over_time_has_the_rule_of_the_first(rng, keras_seed):
    def dense():
        return layers.Dense(4, use_bias=False)

    flat = keras.Sequential([keras.Input((3, 2)), dense(), dense()])
    wrapped = keras.Sequential(
        [keras.Input((3, 2)), layers.TimeDistributed(dense()), layers.TimeDistributed(dense())]
    )
    wrapped.set_weights(flat.get_weights())
    inputs = rng.normal(size=(2, 3, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 4)).astype(np.float32)
    found = [np.asarray(lrp.LRP(model, "epsilon-plus-flat")(inputs, relevance)) for model in (wrapped, flat)]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_masks_reach_the_layer_inside(rng, keras_seed):
    inputs = keras.Input((3, 4), dtype="int32")
    words = layers.Embedding(9, 5, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.TimeDistributed(layers.GlobalAveragePooling1D())(words))
    tokens = np.array([[[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0]]])
    outputs = np.asarray(model(tokens))
    found = np.asarray(lrp.LRP(model, "epsilon")(tokens, outputs))
    assert not found[tokens == 0].any()
    np.testing.assert_allclose(found.sum(axis=2), outputs.sum(axis=2), rtol=1e-3)


def test_a_layer_without_a_rule_inside_is_named(keras_seed):
    model = over_time(layers.RNN([layers.LSTMCell(2), layers.LSTMCell(2)], name="memory"), (3, 4, 2))
    with pytest.raises(ValueError, match="no rule for layer 'memory'"):
        lrp.LRP(model)


def test_spectral_normalisation_is_the_layer_inside(rng, keras_seed):
    layer = layers.Conv2D(3, 2, activation="relu")
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.SpectralNormalization(layer)])
    inputs = rng.normal(size=(2, 4, 4, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    expected = lrp.LRP(keras.Sequential([keras.Input((4, 4, 2)), layer]), "epsilon-gamma")(inputs, relevance)
    np.testing.assert_allclose(lrp.LRP(model, "epsilon-gamma")(inputs, relevance), expected, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: LayerScale(0.3, 2), lambda: StochasticDepth(0.5)])
def test_scales_and_dropped_paths_leave_relevance_in_its_place(make, rng):
    model = keras.Sequential([keras.Input((3, 2)), make()])
    inputs = rng.normal(size=(2, 3, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(lrp.LRP(model)(inputs, relevance), relevance, rtol=1e-4)


def without_shifts(model):
    for layer in model.layers:
        for name in ("bias", "beta"):
            if getattr(layer, name, None) is not None:
                getattr(layer, name).assign(0 * getattr(layer, name))
    return model


def test_a_small_convnext_conserves(rng, keras_seed):
    model = ConvNeXt(
        depths=[1, 0, 0, 0], projection_dims=[4, 6, 6, 8], weights=None, include_top=False, pooling="avg",
        input_shape=(32, 32, 3), include_preprocessing=False,
    )  # fmt: skip
    images = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    explained = lrp.LRP(without_shifts(model), "epsilon-gamma")
    # The last normalisation makes the sum of all features zero: two of them are explained.
    relevance = np.asarray(model(images)) * (np.arange(8) < 2)
    found = np.asarray(explained(images, relevance))
    scale = np.abs(relevance).sum(axis=1)
    np.testing.assert_allclose(found.sum((1, 2, 3)) / scale, relevance.sum(axis=1) / scale, atol=1e-3)


def test_a_scaled_branch_and_what_it_is_added_to_share_by_contribution(rng):
    """As in InceptionResNetV2."""
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, CustomScaleLayer(0.2)(inputs))
    values = [rng.uniform(1, 2, (2, 4)).astype(np.float32) for _ in range(2)]
    found = lrp.LRP(model, "epsilon")(values, model(values))
    np.testing.assert_allclose(found[0], values[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], 0.2 * values[1], rtol=1e-4)


class PositionEmbedding(layers.Layer):
    """As in KerasHub: returns the positions alone, whatever the inputs."""

    def build(self, shape):
        self.positions = self.add_weight(shape=shape[1:], initializer="random_normal")

    def call(self, inputs):
        return keras.ops.broadcast_to(self.positions, keras.ops.shape(inputs))


class TokenAndPositionEmbedding(layers.Layer):
    """As in KerasHub and in the examples of Keras."""

    def build(self, shape):
        self.tokens = layers.Embedding(9, 4)
        self.tokens.build(shape)
        self.positions = self.add_weight(shape=(shape[1], 4), initializer="random_normal")

    def call(self, inputs):
        return self.tokens(inputs) + self.positions

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, 4))


def test_added_positions_take_their_share_and_inputs_keep_the_rest(rng, keras_seed):
    inputs = keras.Input((3, 4))
    positions = PositionEmbedding()
    model = keras.Model(inputs, layers.Add()([inputs, positions(inputs)]))
    values = rng.normal(size=(2, 3, 4)).astype(np.float32)
    relevance = np.asarray(model(values))
    found = np.asarray(lrp.LRP(model, "epsilon")(values, relevance))
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-5)


class AddedPositions(PositionEmbedding):
    """A layer of the user's that adds the positions itself."""

    def call(self, inputs):
        return inputs + super().call(inputs)


def test_a_position_embedding_that_adds_gives_its_inputs_their_share(rng, keras_seed):
    model = keras.Sequential([keras.Input((3, 4)), AddedPositions()])
    values = rng.normal(size=(2, 3, 4)).astype(np.float32)
    found = np.asarray(lrp.LRP(model, "epsilon")(values, model(values)))
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-5)


def test_a_token_with_its_position_receives_all_features(rng, keras_seed):
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, TokenAndPositionEmbedding()(inputs))
    relevance = rng.normal(size=(2, 3, 4)).astype(np.float32)
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    found = lrp.LRP(model, "epsilon")(tokens, relevance)
    np.testing.assert_allclose(found, relevance.sum(axis=2), rtol=1e-5)


HALF = {
    "max pooling": lambda: [layers.MaxPooling2D(2)],
    "average pooling": lambda: [layers.AveragePooling2D(2)],
    "group normalisation": lambda: [layers.GroupNormalization(2)],
    "batch normalisation alone": lambda: [layers.ReLU(), layers.BatchNormalization()],
    "attention": lambda: [layers.Reshape((16, 4)), layers.Attention()],
}


def network_of(layer_list):
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 1, bias_initializer="random_normal")(inputs)
    for layer in layer_list:
        x = layer([x, x]) if isinstance(layer, layers.Attention) else layer(x)
    return keras.Model(inputs, layers.Flatten(dtype="float32")(x))


@pytest.mark.parametrize(
    ("kind", "policy"), [*((kind, "mixed_float16") for kind in HALF), ("max pooling", "mixed_bfloat16")]
)
def test_a_network_of_half_precision_is_explained_as_that_of_single(kind, policy, rng, keras_seed, eagerly):
    single = network_of(HALF[kind]())
    keras.mixed_precision.set_global_policy(policy)
    try:
        half = network_of(HALF[kind]())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    half.set_weights(single.get_weights())
    images = rng.normal(size=(2, 4, 4, 2)).astype(np.float32)
    # So small that half precision would make zeros of it.
    relevance = (1e-9 * rng.normal(size=(2, single.output_shape[1]))).astype(np.float32)
    found = np.asarray(lrp.LRP(half, "epsilon-gamma")(images, relevance))
    eagerly(True)
    expected = np.asarray(lrp.LRP(single, "epsilon-gamma")(images, relevance))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


class Halves(layers.Layer):
    def call(self, inputs):
        return keras.ops.max(inputs, axis=-1)


def test_a_layer_of_the_users_own_may_be_of_half_precision(rng):
    model = keras.Sequential([keras.Input((3, 2)), Halves(dtype="mixed_float16")])
    inputs = rng.normal(size=(2, 3, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3)).astype(np.float32)
    found = lrp.LRP(model, lrp.EPSILON.with_rules({Halves: lrp.Route()}))(inputs, relevance)
    np.testing.assert_allclose(np.sum(found, axis=2), relevance, rtol=1e-2)


def test_a_hard_sigmoid_written_out_is_a_gate(rng):
    """As MobileNetV3 writes it, at 1 x 1 pixels, where nothing is broadcast."""
    signal, control = keras.Input((4,)), keras.Input((4,))
    gate = layers.ReLU(6.0)(control + 3.0) * (1.0 / 6.0)
    model = keras.Model([signal, control], layers.Multiply()([signal, gate]))
    values = [rng.normal(size=(2, 4)).astype(np.float32) for _ in range(2)]
    relevance = rng.normal(size=(2, 4)).astype(np.float32)
    found = lrp.LRP(model, "epsilon")(values, relevance)
    np.testing.assert_allclose(found[0], relevance, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)
