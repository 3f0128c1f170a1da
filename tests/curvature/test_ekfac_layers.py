"""EK-FAC of every kind of layer: against naive twins, and which layers are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ekfac_twins import NUM_CLASSES, Twin
from gradient_cases import Case
from keras import layers

from deel_dualview import EkfacIHVP, InfluenceModel, PerExampleGradients
from deel_dualview.linalg import blocks

NUM_EXAMPLES = 14
TANH = {"activation": "tanh"}
TWINS = {
    "Dense": (layers.Dense(4, **TANH), (5,)),
    "Dense without bias": (layers.Dense(4, use_bias=False, **TANH), (5,)),
    "Dense on sequences": (layers.Dense(4, **TANH), (6, 3)),
    "Dense on short sequences": (layers.Dense(6, **TANH), (2, 7)),
    "Conv1D, causal": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2, **TANH), (7, 2)),
    "Conv2D": (layers.Conv2D(4, (2, 3), strides=(2, 1), **TANH), (6, 7, 2)),
    "Conv2D, same": (layers.Conv2D(3, 3, padding="same", strides=2, **TANH), (5, 6, 2)),
    "Conv2D, same, dilated, no bias": (
        layers.Conv2D(3, 2, padding="same", dilation_rate=2, use_bias=False, **TANH),
        (5, 6, 2),
    ),
    "Conv2D, groups": (layers.Conv2D(6, 2, groups=2, **TANH), (5, 5, 4)),
    "DepthwiseConv1D": (layers.DepthwiseConv1D(3, depth_multiplier=2, **TANH), (6, 3)),
    "DepthwiseConv2D, same": (
        layers.DepthwiseConv2D(2, strides=2, padding="same", depth_multiplier=2, use_bias=False, **TANH),
        (5, 5, 3),
    ),
    "EinsumDense": (layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de", **TANH), (4, 5)),
    "Embedding": (layers.Embedding(7, 4), (5,)),
}
UNKNOWN = ("Conv2DTranspose", "EinsumDense, bias over time", "LSTM", "custom", "tied weights")
KNOWN = (
    "BatchNormalization",
    "EinsumDense, two inputs",
    "GroupNormalization",
    "LayerNormalization over two axes",
    "MultiHeadAttention",
    "RMSNormalization",
    "nested",
    "one output",
    "shared embedding",
    "shared layer",
    "softmax head",
)


@pytest.fixture(scope="module", params=TWINS)
def twin(request):
    """A layer under test before a softmax layer: the model, its inputs, the twin."""
    keras.utils.set_random_seed(0)
    layer, shape = TWINS[request.param]
    is_lookup = isinstance(layer, layers.Embedding)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(NUM_EXAMPLES, *shape)).astype("float32")
    inputs = rng.integers(0, 7, (NUM_EXAMPLES, *shape)) if is_lookup else inputs
    tanh = [layers.Activation("tanh")] if is_lookup else []
    model = keras.Sequential(
        [
            keras.Input(shape, dtype="int32" if is_lookup else None),
            layer,
            *tanh,
            layers.Flatten(),
            layers.Dense(NUM_CLASSES),
        ]
    )
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model, inputs, Twin(layer, model.layers[-1], inputs)


def batched(inputs):
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    labels = np.zeros(len(tf.nest.flatten(inputs)[0]), np.int64)
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(5)


def test_every_kind_of_layer_agrees_with_its_naive_twin(twin):
    keras_model, inputs, naive = twin
    outputs = keras_model.layers[0](inputs).numpy().reshape(NUM_EXAMPLES, -1)
    hidden = naive.outputs.reshape(NUM_EXAMPLES, -1)
    is_lookup = isinstance(naive.layer, layers.Embedding)
    np.testing.assert_allclose(outputs, hidden if is_lookup else np.tanh(hidden), atol=1e-5)

    damping = 0.1 * (naive.gradients**2).sum() / NUM_EXAMPLES / np.prod(naive.shape)
    ihvp = EkfacIHVP(
        InfluenceModel(keras_model),
        batched(inputs),
        weights=[naive.layer.name],
        damping=damping,
        num_samples=None,
    )
    matrices = np.random.default_rng(1).normal(size=(3, *naive.shape))
    flatten = ihvp.gradients.groups[0].flatten
    found = ihvp.solve(flatten(naive.to_variables(matrices))).value
    expected = flatten(naive.to_variables(naive.solve(matrices, damping)))
    np.testing.assert_allclose(
        found, expected, atol=2e-3 * np.abs(expected).max(), err_msg="float32 eigenvectors"
    )


@pytest.fixture(scope="module", params=KNOWN)
def known(request):
    return Case(request.param)


def test_the_trace_is_that_of_the_gauss_newton_matrix_for_every_layer_that_is_known(known):
    num_classes = known.model.num_classes
    ihvp = EkfacIHVP(known.model, batched(known.inputs), weights="all", num_samples=None, damping=1.0)
    probabilities = tf.nn.softmax(known.model.logits(known.inputs)).numpy()
    gradients = PerExampleGradients(known.model, "all", route="map")
    expected = 0.0
    for label in range(num_classes):
        rows = blocks.to_dense(gradients(known.inputs, np.full(len(probabilities), label))).numpy()
        expected += (probabilities[:, label] * (rows**2).sum(axis=1)).mean()
    np.testing.assert_allclose(ihvp.approximation.trace(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_layers_are_refused_by_name(name):
    case = Case(name)
    with pytest.raises(ValueError, match=r"EK-FAC does not know these layers.*naming others, weights=\["):
        EkfacIHVP(case.model, batched(case.inputs), weights="all")


def test_layers_beside_unknown_ones_can_be_chosen_by_name():
    case = Case("LSTM")
    ihvp = EkfacIHVP(case.model, batched(case.inputs), weights=[case.keras_model.layers[-1].name])
    assert ihvp.solve(tf.ones((1, ihvp.size))).value.shape == (1, ihvp.size)


def test_a_layer_without_parameters_is_refused():
    case = Case("Conv2D")
    flatten = case.keras_model.layers[1].name
    with pytest.raises(ValueError, match=r"this layer has none.*Layers with some are: conv2d"):
        EkfacIHVP(case.model, batched(case.inputs), weights=[flatten])
