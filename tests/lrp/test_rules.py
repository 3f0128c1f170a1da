"""Every rule does on every layer with weights what its published formula says."""

from functools import partial

import keras
import lrp_twins
import numpy as np
import pytest
from keras import layers

from deel_dualview import lrp

RULES = {
    "epsilon": (lrp.Epsilon(0.05), partial(lrp_twins.epsilon, epsilon=0.05)),
    "z-plus": (lrp.ZPlus(), lrp_twins.z_plus),
    "alpha-beta": (lrp.AlphaBeta(2.0, 1.0), lrp_twins.alpha_beta),
    "gamma": (lrp.Gamma(0.25, 0.05), partial(lrp_twins.gamma, epsilon=0.05)),
    "flat": (lrp.Flat(), lrp_twins.flat),
    "w-square": (lrp.WSquare(), lrp_twins.w_square),
    "z-box": (lrp.ZBox(-3.0, 4.0), lrp_twins.z_box),
}
# Weights that are not too small keep the twin's test for a connection and the denominators away from rounding.
OPTIONS = {"bias_initializer": keras.initializers.RandomNormal(0.0, 0.3, seed=1)}
LAYERS = {
    "dense": ((5,), lambda: layers.Dense(4, **OPTIONS)),
    "dense on a sequence": ((3, 4), lambda: layers.Dense(2, **OPTIONS)),
    "einsum": ((3, 4), lambda: layers.EinsumDense("abc,cd->abd", (3, 2), bias_axes="d", **OPTIONS)),
    "convolution 1d, causal": (
        (6, 2),
        lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2, **OPTIONS),
    ),
    "convolution 2d": ((5, 4, 2), lambda: layers.Conv2D(3, (3, 2), strides=2, padding="same", **OPTIONS)),
    "convolution 2d, dilated": ((5, 5, 1), lambda: layers.Conv2D(2, 2, dilation_rate=2, **OPTIONS)),
    "convolution 2d, in groups": ((4, 4, 4), lambda: layers.Conv2D(4, 2, groups=2, **OPTIONS)),
    "convolution 3d": ((3, 3, 3, 1), lambda: layers.Conv3D(2, 2, **OPTIONS)),
    "depthwise 1d": ((6, 2), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, **OPTIONS)),
    "depthwise 2d": ((4, 4, 2), lambda: layers.DepthwiseConv2D(3, padding="same", **OPTIONS)),
    "transposed 1d": ((4, 2), lambda: layers.Conv1DTranspose(2, 3, strides=2, **OPTIONS)),
    "transposed 2d": ((3, 3, 2), lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same", **OPTIONS)),
    "transposed 3d": ((2, 2, 2, 1), lambda: layers.Conv3DTranspose(2, 2, **OPTIONS)),
}


def model_of(*made):
    shape, *parts = made
    return keras.Sequential([keras.Input(shape), *parts])


def propagate(model, layer, rule, inputs, relevance):
    return np.asarray(lrp.LRP(model, lrp.EPSILON.with_rules(by_name={layer.name: rule}))(inputs, relevance))


def twin(formula, layer, inputs, relevance):
    weights, bias = lrp_twins.matrix_of(layer, inputs.shape[1:])
    rows = [
        formula(row.reshape(-1).astype(np.float64), weights, bias, own.reshape(-1).astype(np.float64))
        for row, own in zip(inputs, relevance, strict=True)
    ]
    return np.stack(rows).reshape(inputs.shape)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_rule_follows_its_formula(kind, rule, rng, keras_seed, eagerly):
    # TensorFlow differentiates convolutions in groups in a trace only.
    eagerly(kind not in ("convolution 2d", "convolution 2d, in groups") and rule != "alpha-beta")
    shape, make = LAYERS[kind]
    layer = make()
    model = model_of(shape, layer)
    inputs = rng.uniform(-2, 2, (2, *shape)).astype(np.float32)
    relevance = rng.normal(size=(2, *model.output_shape[1:])).astype(np.float32)
    own, formula = RULES[rule]
    found = propagate(model, layer, own, inputs, relevance)
    expected = twin(formula, layer, inputs, relevance)
    # A rule with cancelling contributions enlarges relevance, and its rounding with it.
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("rule", ["z-plus", "alpha-beta", "gamma"])
def test_the_short_cut_for_inputs_that_are_not_negative_changes_nothing(rule, rng, keras_seed):
    layer = layers.Conv2D(3, 2, **OPTIONS)
    model = model_of((4, 4, 2), layers.ReLU(), layer)
    inputs = rng.normal(size=(2, 4, 4, 2)).astype(np.float32)
    relevance = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    own, formula = RULES[rule]
    found = propagate(model, layer, own, inputs, relevance)
    np.testing.assert_allclose(found, twin(formula, layer, np.maximum(inputs, 0), relevance), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_a_separable_convolution_is_a_depthwise_one_and_then_a_pointwise_one(
    rule, rank, rng, keras_seed, eagerly
):
    eagerly(rule != "alpha-beta")
    kinds = [getattr(layers, f"{kind}{rank}D") for kind in ("SeparableConv", "DepthwiseConv", "Conv")]
    separable = kinds[0](3, 2, strides=2, **OPTIONS)
    depthwise, pointwise = kinds[1](2, strides=2, use_bias=False), kinds[2](3, 1, **OPTIONS)
    shape, shape_between = (*[4] * rank, 2), (*[2] * rank, 2)
    model = model_of(shape, separable)
    depthwise.build((None, *shape))
    pointwise.build((None, *shape_between))
    depthwise.set_weights(separable.get_weights()[:1])
    pointwise.set_weights(separable.get_weights()[1:])
    inputs = rng.normal(size=(2, *shape)).astype(np.float32)
    relevance = rng.normal(size=(2, *[2] * rank, 3)).astype(np.float32)
    own, formula = RULES[rule]
    between = np.asarray(depthwise(inputs))
    expected = twin(formula, depthwise, inputs, twin(formula, pointwise, between, relevance))
    found = propagate(model, separable, own, inputs, relevance)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "softmax"])
def test_the_activation_inside_a_layer_is_passed_by(activation, rng, keras_seed):
    layer = layers.Dense(4, activation=activation, **OPTIONS)
    plain = layers.Dense(4)
    model, linear = model_of((5,), layer), model_of((5,), plain)
    plain.set_weights(layer.get_weights())
    inputs, relevance = rng.normal(size=(2, 5)).astype("float32"), rng.normal(size=(2, 4)).astype("float32")
    found = [lrp.LRP(own, "epsilon-plus")(inputs, relevance) for own in (model, linear)]
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.AlphaBeta(2.0, 2.0), "`alpha` must be `beta` \\+ 1"),
        (lambda: lrp.ZBox(1.0, 0.0), "`low` must be below `high`"),
        (lambda: lrp.Epsilon(-1.0), "must not be negative"),
        (lambda: lrp.Gamma(-1.0), "must not be negative"),
    ],
)
def test_settings_that_make_no_rule_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("sign", "passed"), [(1, 2.0), (-1, -1.0)])
def test_alpha_beta_adds_or_turns_relevance_where_contributions_have_one_sign(sign, passed):
    layer = layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(sign * 0.5))
    found = propagate(
        model_of((3,), layer),
        layer,
        lrp.AlphaBeta(2.0, 1.0),
        np.ones((1, 3), np.float32),
        np.ones((1, 1), np.float32),
    )
    np.testing.assert_allclose(found.sum(), passed, rtol=1e-5)
