"""Every layer without weights does what the rule says that stands for it, by slow twins."""

import keras
import lrp_twins
import numpy as np
import pytest
from keras import layers

from deel_dualview import lrp

EPSILON = 1e-6
ANY = keras.initializers.RandomUniform(0.5, 1.5, seed=0)


def model_of(shape, layer):
    return keras.Sequential([keras.Input(shape), layer])


def propagate(model, *inputs_and_relevance):
    return np.asarray(lrp.LRP(model, "epsilon")(*inputs_and_relevance))


LINEAR = {
    "average pooling 1d": ((6, 2), lambda: layers.AveragePooling1D(2)),
    "average pooling 2d, padded": ((5, 5, 2), lambda: layers.AveragePooling2D(3, 2, padding="same")),
    "average pooling 3d": ((4, 2, 2, 1), lambda: layers.AveragePooling3D((2, 1, 2))),
    "global average 1d": ((5, 3), layers.GlobalAveragePooling1D),
    "global average 2d": ((3, 4, 2), layers.GlobalAveragePooling2D),
    "global average 3d, axes kept": ((2, 3, 2, 2), lambda: layers.GlobalAveragePooling3D(keepdims=True)),
    "upsampling 1d": ((3, 2), lambda: layers.UpSampling1D(2)),
    "upsampling 2d, nearest": ((3, 2, 2), lambda: layers.UpSampling2D((2, 3))),
    "upsampling 2d, bilinear": ((3, 3, 1), lambda: layers.UpSampling2D(2, interpolation="bilinear")),
    "upsampling 3d": ((2, 1, 2, 1), lambda: layers.UpSampling3D(2)),
    "resizing": ((4, 4, 1), lambda: layers.Resizing(3, 5)),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_means_and_interpolations_share_by_contribution(kind, rng):
    shape, make = LINEAR[kind]
    layer = make()
    model = model_of(shape, layer)
    inputs = rng.uniform(0.2, 2, (2, *shape)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    weights, bias = lrp_twins.matrix_of(layer, shape)
    expected = [
        lrp_twins.epsilon(row.reshape(-1), weights, bias, own.reshape(-1), epsilon=EPSILON)
        for row, own in zip(inputs.astype(np.float64), relevance.astype(np.float64), strict=True)
    ]
    found = propagate(model, inputs, relevance)
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), atol=1e-5)


MOVING = {
    "flatten": ((2, 3, 2), layers.Flatten),
    "reshape": ((4, 3), lambda: layers.Reshape((2, 6))),
    "permute": ((2, 3, 4), lambda: layers.Permute((3, 1, 2))),
    "repeat": ((3,), lambda: layers.RepeatVector(2)),
    "padding 1d": ((3, 2), lambda: layers.ZeroPadding1D((1, 2))),
    "padding 2d": ((2, 3, 2), lambda: layers.ZeroPadding2D(1)),
    "padding 3d": ((2, 2, 2, 1), lambda: layers.ZeroPadding3D(1)),
    "cropping 1d": ((5, 2), lambda: layers.Cropping1D((1, 2))),
    "cropping 2d": ((4, 5, 2), lambda: layers.Cropping2D(1)),
    "cropping 3d": ((3, 3, 3, 1), lambda: layers.Cropping3D(1)),
}


@pytest.mark.parametrize("kind", MOVING)
def test_what_only_moves_takes_its_relevance_along(kind, rng):
    shape, make = MOVING[kind]
    layer = make()
    model = model_of(shape, layer)
    inputs = rng.normal(size=(2, *shape)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    # One layer call on the positions says where each output comes from; 0 is padding.
    places = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, *shape)
    sources = np.asarray(layer(places)).astype(int).reshape(-1)
    expected = np.zeros((2, int(np.prod(shape)) + 1))
    for row in range(2):
        np.add.at(expected[row], sources, relevance[row].reshape(-1))
    np.testing.assert_allclose(propagate(model, inputs, relevance).reshape(2, -1), expected[:, 1:], atol=1e-6)


MAXIMA = {
    "max pooling": (layers.MaxPooling2D, {"pool_size": (2, 3)}, (2, 3)),
    "global max pooling": (layers.GlobalMaxPooling2D, {"keepdims": True}, (4, 6)),
}


@pytest.mark.parametrize("kind", MAXIMA)
def test_the_winner_of_a_maximum_takes_all(kind, rng):
    make, settings, window = MAXIMA[kind]
    model = model_of((4, 6, 2), make(**settings))
    inputs = rng.normal(size=(2, 4, 6, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    expected = [
        lrp_twins.winner_takes_all(row, own, window) for row, own in zip(inputs, relevance, strict=True)
    ]
    np.testing.assert_allclose(propagate(model, inputs, relevance), expected, atol=1e-6)


@pytest.mark.parametrize(("rank", "shape"), [(1, (6, 2)), (3, (2, 4, 2, 1))])
def test_maxima_along_other_numbers_of_axes_conserve(rank, shape, rng):
    model = model_of(shape, getattr(layers, f"MaxPooling{rank}D")(2))
    inputs = rng.normal(size=(2, *shape)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    found = propagate(model, inputs, relevance)
    np.testing.assert_array_equal(found[found != 0].size, relevance.size)
    np.testing.assert_allclose(
        found.reshape(2, -1).sum(axis=1), relevance.reshape(2, -1).sum(axis=1), rtol=1e-5
    )


PASSING = {
    "relu": layers.ReLU,
    "leaky relu": layers.LeakyReLU,
    "parametric relu": layers.PReLU,
    "elu": layers.ELU,
    "softmax": layers.Softmax,
    "tanh": lambda: layers.Activation("tanh"),
    "swish": lambda: layers.Activation("swish"),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5),
    "noise": lambda: layers.GaussianNoise(1.0),
    "unit normalisation": layers.UnitNormalization,
    "batch normalisation alone": lambda: layers.BatchNormalization(
        gamma_initializer=ANY, moving_mean_initializer="random_normal"
    ),
    "rescaling": lambda: layers.Rescaling(2.0, -1.0),
    "identity": layers.Identity,
}


@pytest.mark.parametrize("kind", PASSING)
def test_activations_and_normalisations_leave_relevance_in_its_place(kind, rng, keras_seed):
    model = model_of((3, 3, 2), PASSING[kind]())
    inputs = rng.normal(size=(2, 3, 3, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(propagate(model, inputs, relevance), relevance, atol=1e-6)


OPERATIONS = {
    "relu": keras.ops.relu,
    "gelu": keras.ops.gelu,
    "silu": keras.ops.silu,
    "division": lambda x: x / 2.0,
    "reshape": lambda x: keras.ops.reshape(x, (-1, 3, 4)),
    "cut": lambda x: x[:, :, :2],
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_that_are_no_layers_have_rules_too(kind, rng):
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, OPERATIONS[kind](inputs))
    values = rng.normal(size=(2, 3, 4)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    found = propagate(model, values, relevance)
    np.testing.assert_allclose(found[:, :, : relevance.shape[2]], relevance, atol=1e-6)
    np.testing.assert_array_equal(found[:, :, relevance.shape[2] :], 0.0)


SUMS = {
    "sum": (layers.Add, (1.0, 1.0)),
    "difference": (layers.Subtract, (1.0, -1.0)),
    "mean": (layers.Average, (0.5, 0.5)),
}


@pytest.mark.parametrize("kind", SUMS)
def test_terms_of_a_sum_share_by_contribution(kind, rng):
    make, factors = SUMS[kind]
    inputs = [keras.Input((4,)), keras.Input((4,))]
    values = [rng.uniform(1, 2, (2, 4)).astype(np.float32), rng.uniform(3, 4, (2, 4)).astype(np.float32)]
    relevance = rng.normal(size=(2, 4)).astype(np.float32)
    found = lrp.LRP(keras.Model(inputs, make()(inputs)), "epsilon")(values, relevance)
    terms = [factor * value.astype(np.float64) for factor, value in zip(factors, values, strict=True)]
    for own, term in zip(found, terms, strict=True):
        np.testing.assert_allclose(own, term / sum(terms) * relevance, rtol=1e-4)


def test_parts_of_a_concatenation_take_what_is_theirs(rng):
    inputs = [keras.Input((3, 2)), keras.Input((3, 1))]
    model = keras.Model(inputs, layers.Concatenate()(inputs))
    values = [rng.normal(size=(2, 3, width)).astype(np.float32) for width in (2, 1)]
    relevance = rng.normal(size=(2, 3, 3)).astype(np.float32)
    first, second = lrp.LRP(model, "epsilon")(values, relevance)
    np.testing.assert_allclose(first, relevance[:, :, :2])
    np.testing.assert_allclose(second, relevance[:, :, 2:])


@pytest.mark.parametrize("is_first", [True, False])
def test_of_a_product_with_a_gate_the_signal_takes_all(is_first, rng, keras_seed):
    signal, control = keras.Input((4,)), keras.Input((4,))
    gate = layers.Activation("sigmoid")(control)
    product = layers.Multiply()([signal, gate] if is_first else [gate, signal])
    values = [rng.normal(size=(2, 4)).astype(np.float32) for _ in range(2)]
    relevance = rng.normal(size=(2, 4)).astype(np.float32)
    found = lrp.LRP(keras.Model([signal, control], product), "epsilon")(values, relevance)
    np.testing.assert_allclose(found[0], relevance, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)


def naive_attention(query, value, relevance, scores):
    """Values share by the epsilon rule, with the softmax of the scores as given."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    contributions = np.einsum("bqv,bvd->bqvd", weights, value)
    return (contributions / contributions.sum(axis=2, keepdims=True) * relevance[:, :, np.newaxis]).sum(
        axis=1
    )


@pytest.mark.parametrize("make", [layers.Attention, layers.AdditiveAttention])
def test_attention_of_one_head_shares_among_values(make, rng, keras_seed):
    inputs = [keras.Input((3, 4)), keras.Input((5, 4))]
    layer = make()
    model = keras.Model(inputs, layer(inputs))
    query = rng.normal(size=(2, 3, 4)).astype(np.float32)
    value = rng.uniform(0.5, 2, (2, 5, 4)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 4)).astype(np.float32)
    if make is layers.Attention:
        scores = np.einsum("bqd,bvd->bqv", query, value, dtype=np.float64)
    else:
        scale = np.asarray(layer.get_weights()[0]) if layer.get_weights() else np.ones(4)
        scores = np.einsum("d,bqvd->bqv", scale, np.tanh(query[:, :, None] + value[:, None]))
    found = lrp.LRP(model, "epsilon")([query, value], relevance)
    expected = naive_attention(query, value.astype(np.float64), relevance, scores)
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_allclose(found[1], expected, atol=1e-4)


def test_heads_that_share_keys_and_values_conserve(rng, keras_seed):
    inputs = keras.Input((4, 6))
    layer = layers.GroupQueryAttention(3, 4, 2, use_bias=False)
    model = keras.Model(inputs, layer(inputs, inputs))
    values = rng.normal(size=(2, 4, 6)).astype(np.float32)
    relevance = np.asarray(model(values))
    found = propagate(model, values, relevance)
    np.testing.assert_allclose(found.sum((1, 2)), relevance.sum((1, 2)), rtol=1e-3)


def test_nested_models_and_shared_layers_are_as_if_written_out(rng, keras_seed):
    shared = layers.Conv1D(3, 2, padding="same", activation="relu", bias_initializer="random_normal")
    inner = keras.Sequential([keras.Input((6, 3)), shared, layers.MaxPooling1D(2)])
    inputs = keras.Input((6, 3))
    nested = keras.Model(inputs, inner(shared(inputs)))
    copies = [layers.Conv1D(3, 2, padding="same", activation="relu") for _ in range(2)]
    flat = keras.Sequential([keras.Input((6, 3)), *copies, layers.MaxPooling1D(2)])
    for copy in copies:
        copy.set_weights(shared.get_weights())
    values = rng.normal(size=(2, 6, 3)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 3)).astype(np.float32)
    for rule in ("epsilon-plus", "epsilon-alpha2-beta1"):
        found = [np.asarray(lrp.LRP(model, rule)(values, relevance)) for model in (nested, flat)]
        np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize("rule", ["epsilon", "epsilon-plus", "epsilon-plus-flat"])
def test_a_normalisation_after_a_layer_is_folded_and_one_before_it_is_passed(rule, rng, keras_seed):
    def norm():
        return layers.BatchNormalization(
            gamma_initializer=ANY,
            beta_initializer="random_normal",
            moving_mean_initializer="random_normal",
            moving_variance_initializer=ANY,
        )

    before, after = norm(), norm()
    layer = layers.Conv2D(3, 2, bias_initializer="random_normal")
    parts = [before, layer, after, layers.ReLU(), layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 4, 2)), *parts])
    values = rng.normal(size=(2, 4, 4, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 27)).astype(np.float32)
    found = lrp.LRP(model, rule)(values, relevance)
    # The twin: the convolution with the affine map worked into its weights, on what `before` gives.
    scale = after.gamma.numpy() / np.sqrt(after.moving_variance.numpy() + after.epsilon)
    written_out = layers.Conv2D(3, 2)
    written_out.build((None, 4, 4, 2))
    shift = after.beta.numpy() + (layer.bias.numpy() - after.moving_mean.numpy()) * scale
    written_out.set_weights([layer.kernel.numpy() * scale, shift])
    twin = keras.Sequential([keras.Input((4, 4, 2)), written_out, layers.ReLU(), layers.Flatten()])
    expected = lrp.LRP(twin, rule)(np.asarray(before(values)), relevance)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(lrp.canonize(model)(values), model(values), atol=1e-4)


def test_a_layer_that_has_no_rule_is_named_with_what_to_do():
    model = keras.Sequential(
        [keras.Input((4, 3), batch_size=2), layers.LSTM(2, stateful=True, name="memory"), layers.Dense(2)]
    )
    with pytest.raises(
        ValueError, match=r"no rule for layer 'memory' of type LSTM.*with_rules\({LSTM: Pass\(\)}\)"
    ):
        lrp.LRP(model)
