"""Per-example gradients: their form, which weights they are taken in, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gradient_cases import NUM_EXAMPLES, Case, assert_close
from keras import layers

from deel_dualview import InfluenceModel, PerExampleGradients
from deel_dualview.gradients import LastLayerGradients, check_finite, select_groups
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import OuterProduct
from deel_dualview.models.objectives import SoftmaxCrossEntropy


@pytest.fixture(scope="module")
def conv():
    return Case("nested")


def test_the_last_layer_is_an_outer_product_of_delta_and_features(conv):
    (block,) = LastLayerGradients(conv.model)(conv.inputs, conv.classes)
    features, logits = conv.model.features_and_logits(conv.inputs)
    delta = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[conv.classes]
    assert isinstance(block, OuterProduct)
    np.testing.assert_allclose(block.left, delta, atol=1e-6)
    np.testing.assert_array_equal(block.right, np.hstack([features, np.ones((NUM_EXAMPLES, 1))]))


@pytest.mark.parametrize("own", [0.0, -30.0])
def test_the_gradient_of_the_loss_keeps_its_digits_where_the_model_is_nearly_certain(own):
    logits, classes = tf.constant([[own, -40.0, -60.0]]), tf.constant([0], tf.int64)
    shifted = np.exp(np.array([own, -40.0, -60.0]) - own)
    others = shifted[1:] / shifted.sum()
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SoftmaxCrossEntropy().evaluate(logits, classes, "loss")
    np.testing.assert_allclose(loss, [np.log1p(shifted[1:].sum())], rtol=1e-5)
    for gradient in (SoftmaxCrossEntropy().gradient(logits, classes, "loss"), tape.gradient(loss, logits)):
        np.testing.assert_allclose(gradient[0], [-others.sum(), *others], rtol=1e-5)


def test_a_model_with_one_output_has_one_row():
    case = Case("one output")
    (block,) = LastLayerGradients(case.model)(case.inputs, case.classes)
    assert block.left.shape == (NUM_EXAMPLES, 1)


def test_a_dense_layer_is_not_multiplied_out():
    case = Case("Dense")
    found = PerExampleGradients(case.model, "all")(case.inputs, case.classes)
    assert all(isinstance(block, OuterProduct) for block in found)


def test_batches_of_any_size_give_the_same_rows(conv):
    gradients = PerExampleGradients(conv.model, "all")
    whole = blocks.to_dense(gradients(conv.inputs, conv.classes))
    parts = [blocks.to_dense(gradients(conv.inputs[i : i + 2], conv.classes[i : i + 2])) for i in (0, 2)]
    assert_close(np.concatenate(parts), whole.numpy())


def test_an_empty_batch_has_no_rows(conv):
    gradients = PerExampleGradients(conv.model, "all")
    gradients.prepare(conv.inputs, conv.classes)
    assert blocks.to_dense(gradients(conv.inputs[:0], conv.classes[:0])).shape == (0, gradients.size)


def test_statistics_of_batch_normalization_are_no_parameters(conv):
    names = [variable.name for group in select_groups(conv.model, "all") for variable in group.variables]
    assert "moving_mean" not in names and names.count("gamma") == 1


def test_a_nested_model_stands_for_the_layers_inside(conv):
    inner = PerExampleGradients(conv.model, ["inner"])
    inside = PerExampleGradients(conv.model, [group.layer.name for group in inner.groups])
    assert len(inner.groups) == 2
    np.testing.assert_array_equal(
        blocks.to_dense(inner(conv.inputs, conv.classes)), blocks.to_dense(inside(conv.inputs, conv.classes))
    )


def test_frozen_layers_are_left_out():
    case = Case("Dense")
    case.keras_model.layers[0].trainable = False
    assert len(select_groups(case.model, "all")) == 1


def test_the_model_is_left_as_it_was(conv):
    before = [weight.numpy() for weight in conv.keras_model.weights]
    PerExampleGradients(conv.model, "all")(conv.inputs, conv.classes)
    for weight, value in zip(conv.keras_model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not any("call" in vars(layer) for layer in conv.keras_model._flatten_layers())
    assert conv.keras_model.layers[1].activation is keras.activations.tanh


def test_half_precision_is_near():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        case = Case("Conv2D")
    finally:
        keras.config.set_dtype_policy(policy)
    found = blocks.to_dense(PerExampleGradients(case.model, "all")(case.inputs, case.classes))
    expected = case.by_hand()
    np.testing.assert_allclose(
        found, expected, atol=5e-2 * np.abs(expected).max(), err_msg="eight bits of mantissa"
    )


def test_a_layer_without_parameters_is_refused(conv):
    with pytest.raises(ValueError, match="this layer has none"):
        select_groups(conv.model, [conv.keras_model.layers[-2].name])


def test_a_frozen_layer_is_refused():
    case = Case("Dense")
    case.keras_model.layers[0].trainable = False
    with pytest.raises(ValueError, match="frozen"):
        select_groups(case.model, [case.keras_model.layers[0].name])


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (["nowhere"], ValueError, "nowhere"),
        ("inner", TypeError, r"\['dense_1'\]"),
        (3, TypeError, "`weights`"),
        ([], ValueError, "at least one"),
        (["inner", "inner"], ValueError, "each once"),
    ],
)
def test_wrong_names_of_layers_are_refused(weights, error, message, conv):
    with pytest.raises(error, match=message):
        select_groups(conv.model, weights)


def test_a_model_without_a_linear_head_needs_names_of_layers():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(3, 2, name="conv"), layers.GlobalAveragePooling2D()]
    )
    split, inputs = InfluenceModel(model, "conv"), np.ones((2, 4, 4, 1), "float32")
    with pytest.raises(ValueError, match="weights='all'"):
        PerExampleGradients(split)(inputs, np.array([0, 1]))
    assert blocks.to_dense(PerExampleGradients(split, ["conv"])(inputs, np.array([0, 1]))).shape == (2, 15)


@pytest.mark.parametrize("option", [{"function": "accuracy"}, {"route": "jacobian"}])
def test_unknown_options_are_refused(option, conv):
    with pytest.raises(ValueError, match="must be one of"):
        PerExampleGradients(conv.model, "all", **option)


def test_a_closed_form_is_refused_where_there_is_none():
    case = Case("LSTM")
    with pytest.raises(ValueError, match="lstm"):
        PerExampleGradients(case.model, "all", route="closed-form")(case.inputs, case.classes)


def test_gradients_that_are_not_finite_name_their_rows(conv):
    inputs = conv.inputs.copy()
    inputs[[0, 2]] = np.nan
    gradients = PerExampleGradients(conv.model, "all")
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        check_finite(gradients(inputs, conv.classes), "examples")
