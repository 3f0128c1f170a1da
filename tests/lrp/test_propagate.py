"""Relevance along whole networks: conservation, the ways through a graph, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import lrp
from deel_dualview.lrp.composites import COMPOSITES

SHAPE = (12, 12, 3)
EPSILON_TO_ZERO = lrp.EPSILON.with_rules(
    {keras.layers.Dense: lrp.Epsilon(1e-8), keras.layers.Conv2D: lrp.Epsilon(1e-8)}
)


def block(x, filters, strides=1, *, use_bias=False):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=use_bias)(x)
    return layers.ReLU()(x)


def vgg_like():
    x = inputs = keras.Input(SHAPE)
    for filters in (4, 6):
        x = layers.MaxPooling2D()(block(x, filters))
    x = layers.Dense(8, activation="relu", use_bias=False)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5, use_bias=False)(layers.Dropout(0.5)(x)))


def resnet_like():
    inputs = keras.Input(SHAPE)
    x = block(inputs, 16)
    for filters, strides in ((16, 1), (24, 2)):
        shortcut = x if strides == 1 else layers.Conv2D(filters, 1, strides, use_bias=False)(x)
        y = block(x, filters, strides)
        y = layers.BatchNormalization(center=False)(
            layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        )
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, layers.Dense(5, use_bias=False)(layers.GlobalAveragePooling2D()(x)))


def mobilenet_like():
    x = inputs = keras.Input(SHAPE)
    x = block(x, 16, 2)
    for filters in (16, 32):
        y = layers.Conv2D(24, 1, use_bias=False, activation="relu6")(x)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ZeroPadding2D(1)(y))
        y = layers.ReLU(6.0)(layers.Cropping2D(1)(y))
        y = layers.Conv2D(16, 1, use_bias=False)(y)
        x = layers.Add()([x, y]) if filters == x.shape[-1] else layers.Concatenate()([y, y])
    x = layers.UpSampling2D()(layers.SeparableConv2D(6, 3, use_bias=False, activation="relu")(x))
    outputs = layers.Dense(5, use_bias=False)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="with_bottlenecks")


NETWORKS = {"vgg": vgg_like, "resnet": resnet_like, "mobilenet": mobilenet_like}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def network(request):
    keras.utils.set_random_seed(0)
    return request.param()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(3, *SHAPE)).astype(np.float32)


def start(explainer, images):
    outputs = explainer.forward(images)
    return outputs * tf.one_hot(tf.argmax(outputs, axis=1), outputs.shape[1])


@pytest.mark.parametrize("rule", COMPOSITES)
def test_a_network_without_biases_conserves_relevance(network, images, rule):
    explainer = lrp.LRP(network, rule)
    relevance = start(explainer, images)
    found = np.asarray(explainer(images, relevance))
    assert np.isfinite(found).all()
    if "alpha2" in rule:
        # A neuron that receives nothing negative has nobody to take the negative share.
        return
    # By z-plus a neuron of a linear bottleneck, to which nothing speaks for, has nobody to pass relevance on to.
    rtol = 2e-2 if "bottleneck" in network.name and "plus" in rule else 1e-3
    np.testing.assert_allclose(found.sum((1, 2, 3)), np.sum(relevance, axis=1), rtol=rtol)


def test_epsilon_towards_zero_is_gradient_times_input(network, images):
    explainer = lrp.LRP(network, EPSILON_TO_ZERO)
    relevance = start(explainer, images)
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        explained = tf.reduce_sum(tf.reduce_max(network(inputs), axis=1))
    expected = np.asarray(inputs * tape.gradient(explained, inputs))
    found = np.asarray(explainer(images, relevance))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_several_explanations_of_an_example_share_its_forward_pass(network, images):
    explainer = lrp.LRP(network)
    outputs = tf.repeat(explainer.forward(images), 2, axis=0)
    relevance = outputs * tf.tile(tf.one_hot([0, 3], 5), (3, 1))
    found = np.asarray(explainer(images, relevance))
    expected = np.asarray(explainer(np.repeat(images, 2, axis=0), relevance))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_loss_of_each_layer_is_told(network, images):
    explainer = lrp.LRP(network, "epsilon-plus-flat")
    steps = explainer.by_step(images, start(explainer, images))
    names = [step.name for step in steps]
    assert len(names) == len(set(names))
    atol = (2e-2 if "bottleneck" in network.name else 1e-3) * np.max(steps[0].received)
    for step in steps:
        np.testing.assert_allclose(step.passed, step.received, atol=atol, err_msg=step.name)


def test_a_bias_takes_its_share_of_the_relevance(rng):
    layer = layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.set_weights([rng.uniform(1, 2, (3, 2)), np.array([0.5, 1.0])])
    inputs = np.array([[1.0, 2.0, 3.0]], np.float32)
    found = np.asarray(lrp.LRP(model, "epsilon").explain(inputs, [1]))
    np.testing.assert_allclose(found.sum(), np.asarray(model(inputs))[0, 1] - 1.0, rtol=1e-5)


def test_canonized_outputs_are_those_of_the_model(images, rng, keras_seed):
    def normalised(x):
        # Of the size of what a layer gives, so that a scale, shift or epsilon left out shows in the outputs.
        draw = keras.initializers.RandomUniform
        return layers.BatchNormalization(
            epsilon=0.3,
            beta_initializer=draw(-1.0, 1.0),
            gamma_initializer=draw(0.5, 2.0),
            moving_mean_initializer=draw(-1.0, 1.0),
            moving_variance_initializer=draw(0.5, 2.0),
        )(x)

    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(normalised(layers.Conv2D(4, 3, bias_initializer="random_normal")(inputs)))
    x = layers.ReLU()(normalised(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)))
    x = normalised(layers.SeparableConv2D(4, 3)(x))
    x = normalised(layers.Conv2DTranspose(3, 3, strides=2)(layers.ReLU()(x)))
    x = normalised(layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    model = keras.Model(inputs, layers.Dense(3)(x))
    canonized = lrp.canonize(model)
    assert not [layer for layer in canonized.layers if isinstance(layer, layers.BatchNormalization)]
    np.testing.assert_allclose(canonized(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_batch_normalisation_that_follows_no_linear_layer_stays(images, keras_seed):
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.BatchNormalization(), layers.Conv2D(2, 3), layers.ReLU()]
    )
    kinds = [type(layer) for layer in lrp.canonize(model).layers]
    assert layers.BatchNormalization in kinds
    np.testing.assert_allclose(lrp.canonize(model)(images), model(images), atol=1e-5)


def test_canonizing_leaves_the_model_as_it_is(images, keras_seed):
    model = resnet_like()
    weights = [np.array(weight) for weight in model.get_weights()]
    calls = [len(layer._inbound_nodes) for layer in model.layers]
    canonized = lrp.canonize(model)
    for weight in canonized.weights:
        weight.assign(tf.zeros_like(weight))
    assert calls == [len(layer._inbound_nodes) for layer in model.layers]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_nested_and_shared_layers_are_walked(images, keras_seed):
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", use_bias=False)
    part = keras.Sequential([keras.Input((12, 12, 4)), shared, layers.AveragePooling2D(2)])
    inputs = keras.Input(SHAPE)
    x = shared_first = layers.Conv2D(4, 1, use_bias=False, activation="relu")(inputs)
    x = layers.Subtract()([shared(x), shared_first])
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(part(x))))
    explainer = lrp.LRP(model, "epsilon-plus")
    relevance = start(explainer, images)
    np.testing.assert_allclose(explainer.forward(images), model(images), atol=1e-6)
    found = np.asarray(explainer(images, relevance))
    np.testing.assert_allclose(found.sum((1, 2, 3)), np.sum(relevance, axis=1), rtol=1e-3)


def test_the_signal_of_a_gated_product_takes_all(images, keras_seed):
    inputs = keras.Input(SHAPE)
    signal = layers.Conv2D(4, 3, use_bias=False, activation="relu")(inputs)
    gate = layers.Dense(4, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D()(signal))
    gated = signal * layers.Reshape((1, 1, 4))(gate)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.GlobalMaxPooling2D()(gated)))
    explainer = lrp.LRP(model)
    steps = {step.name: step for step in explainer.by_step(images, start(explainer, images))}
    np.testing.assert_allclose(steps["gate"].received, 0.0)
    found = np.asarray(explainer.explain(images)).sum((1, 2, 3))
    np.testing.assert_allclose(found, np.max(model(images), axis=1), rtol=1e-3)


@pytest.mark.parametrize("is_own_key", [True, False], ids=["values as keys", "other keys"])
def test_attention_with_its_weights_as_given_shares_among_values(is_own_key, rng, keras_seed):
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, use_bias=False)
    keys = layers.Dense(4)(inputs)
    x = attention(inputs, inputs) if is_own_key else attention(query=inputs, value=inputs, key=keys)
    model = keras.Model(inputs, layers.Activation("tanh")(x))
    values = rng.normal(size=(2, 5, 4)).astype(np.float32)
    relevance = rng.normal(size=(2, 5, 4)).astype(np.float32)
    found = np.asarray(lrp.LRP(model, "epsilon")(values, relevance))
    # (b, heads, query, value): with these weights fixed, the layer is linear in its values.
    kernels = [np.asarray(weight, np.float64) for weight in attention.get_weights()]
    key = values if is_own_key else np.asarray(keras.Model(inputs, keys)(values))
    _, weights = attention(values, values, key, return_attention_scores=True)
    paths = np.einsum("bhqv,dhe,ehf->bvdqf", weights, kernels[2], kernels[3].transpose(1, 0, 2))
    contributions = values[..., None, None] * paths
    total = contributions.sum((1, 2), keepdims=True)
    expected = (contributions / total * relevance[:, None, None]).sum((3, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_token_receives_the_relevance_of_its_embedding(rng, keras_seed):
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 4),
            layers.Conv1D(3, 2, use_bias=False, activation="relu"),
        ]
        + [layers.GlobalMaxPooling1D(), layers.Dense(2, use_bias=False)]
    )
    tokens = rng.integers(0, 9, (3, 6))
    found = np.asarray(lrp.LRP(model).explain(tokens))
    assert found.shape == (3, 6)
    np.testing.assert_allclose(found.sum(1), np.max(model(tokens), axis=1), rtol=1e-3)


class Doubled(layers.Layer):
    """A layer that no composite knows."""

    def call(self, inputs):
        return 2 * inputs


def test_a_layer_without_a_rule_is_named_and_a_rule_can_be_registered(images, keras_seed):
    inputs = keras.Input(SHAPE)
    x = Doubled(name="twice")(inputs)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"no rule for layer 'twice' of type Doubled.*with_rules"):
        lrp.LRP(model)
    explainer = lrp.LRP(model, lrp.EPSILON_PLUS_FLAT.with_rules({Doubled: lrp.Share()}))
    np.testing.assert_allclose(
        np.sum(explainer.explain(images), axis=(1, 2, 3)), np.max(model(images), axis=1), rtol=1e-3
    )


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.LRP(Subclassed()), "a subclassed model, whose `call` is Python code, has none"),
        (lambda: lrp.LRP(keras.Sequential([layers.Dense(2)])), "before it is built"),
        (lambda: lrp.LRP(vgg_like(), "epsilon-gamma-box"), "needs bounds"),
    ],
)
def test_what_cannot_be_explained_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_factors_that_are_no_gates_are_refused(images):
    inputs = keras.Input(SHAPE)
    first, second = layers.Conv2D(2, 3)(inputs), layers.Conv2D(2, 3)(inputs)
    model = keras.Model(inputs, layers.Multiply(name="product")([first, second]))
    with pytest.raises(ValueError, match="'product' multiplies tensors of which none is seen to be a gate"):
        lrp.LRP(model)(images, tf.ones((3, 10, 10, 2)))
