"""The split of a Keras model: what it finds, what it refuses, and that its arithmetic is the model's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel
from deel_dualview.models.hidden import HiddenLayers


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((7, 6, 6, 1)).astype("float32")


def convolutional(*head):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            *head,
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(2, 3, activation="relu")
        self.normalisation = layers.BatchNormalization()
        self.flatten = layers.Flatten()
        self.scores = layers.Dense(3)

    def call(self, inputs, training=False):
        return self.scores(self.flatten(self.normalisation(self.convolution(inputs), training=training)))


def functional_with_softmax_layer():
    inputs = keras.Input((6, 6, 1))
    hidden = layers.Dense(5, activation="relu", name="penultimate")(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(3)(hidden)))


def nested():
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, functional_with_softmax_layer()(layers.Dropout(0.3)(inputs)))


def unbuilt():
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(5, activation="relu"), layers.Dense(3, use_bias=False)]
    )


def called(model):
    """Let a call create the weights."""
    model(np.zeros((1, 6, 6, 1), np.float32))
    return model


MODELS = {
    "logits": lambda: convolutional(layers.Dense(3)),
    "softmax": lambda: convolutional(layers.Dense(3, activation="softmax")),
    "without bias": lambda: convolutional(layers.Dense(3, use_bias=False)),
    "softmax layer": functional_with_softmax_layer,
    "nested": nested,
    "built by a call": lambda: called(unbuilt()),
    "subclassed": lambda: called(Subclassed()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_head_applied_to_the_features_gives_the_model(make, images):
    model = make()
    split = InfluenceModel(model)
    features, logits = split.features_and_logits(images)
    own = model(images, training=False).numpy()
    by_hand = features.numpy() @ split.head.kernel + split.head.bias
    np.testing.assert_allclose(logits, by_hand, atol=1e-5)
    close_to_logits = np.allclose(own, by_hand, atol=1e-5)
    assert close_to_logits or np.allclose(own, tf.nn.softmax(by_hand), atol=1e-5)
    assert split.num_classes == 3 and features.shape == (7, split.num_features)


@pytest.mark.parametrize("make", [unbuilt, Subclassed])
def test_a_model_whose_weights_do_not_exist_yet_warns_and_works(make, images):
    model = make()
    with pytest.warns(UserWarning, match="created just now, at random"):
        logits = InfluenceModel(model).logits(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-5)


def test_trained_layers_in_a_new_wrapper_are_no_reason_to_warn(images):
    trained = functional_with_softmax_layer()
    InfluenceModel(keras.Sequential(trained.layers[1:])).logits(images)


def test_one_sigmoid_output_is_two_classes(images):
    model = convolutional(layers.Dense(1, activation="sigmoid"))
    split = InfluenceModel(model)
    assert split.num_classes == 2
    probability = tf.nn.softmax(split.logits(images))[:, 1]
    np.testing.assert_allclose(probability, model(images)[:, 0], atol=1e-6)
    assert split.head.kernel.shape == (split.num_features, 2)


def test_a_head_of_32_bits_after_layers_of_16_is_the_linear_head():
    inputs = np.random.default_rng(0).normal(size=(32, 13)).astype(np.float32)
    hidden = layers.Dense(8, "tanh", dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((13,)), hidden, layers.Dense(3, dtype="float32")])
    for layer in model.layers:
        layer.kernel.assign(np.random.default_rng(1).normal(size=layer.kernel.shape))
    split = InfluenceModel(model)
    np.testing.assert_allclose(split.logits(inputs), model(inputs), atol=0.1, err_msg="8 bits inside")
    np.testing.assert_array_equal(split.head.kernel, model.layers[-1].kernel)


def test_mixed_precision_gives_float32_features_and_logits(images):
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = convolutional(layers.Dense(3), layers.Activation("softmax", dtype="float32"))
    finally:
        keras.mixed_precision.set_global_policy(policy)
    features, logits = InfluenceModel(model).features_and_logits(images)
    assert features.dtype == logits.dtype == tf.float32
    np.testing.assert_allclose(
        tf.nn.softmax(logits), model(images), atol=2e-2, err_msg="half precision inside"
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("logits", dtype) for dtype in ("uint8", "int32", "float16", "float64")]
    + [("subclassed", dtype) for dtype in ("uint8", "float16", "float64")],
)
def test_inputs_of_any_numeric_type_give_the_same_features(name, dtype, images):
    split = InfluenceModel(MODELS[name]())
    pixels = np.round(images * 10)
    expected = split.features(pixels)
    np.testing.assert_allclose(split.features(pixels.astype(dtype)), expected, atol=1e-5)


def test_dropout_and_batch_statistics_are_frozen(images):
    model = called(Subclassed())
    split = InfluenceModel(model)
    before = split.features(images)
    model(images, training=True)
    moved = split.features(images)
    assert not np.allclose(before, moved), "the moving statistics were updated by the call in training mode"
    np.testing.assert_array_equal(moved, split.features(images))
    np.testing.assert_allclose(split.features(images[:2]), moved[:2], atol=1e-6)


def test_a_named_layer_that_feeds_the_head_keeps_the_linear_head(images):
    split = InfluenceModel(functional_with_softmax_layer(), feature_layer="penultimate")
    assert split.feature_layer == "penultimate" and split.num_features == 5
    by_default = InfluenceModel(split.model)
    np.testing.assert_allclose(split.features(images), by_default.features(images), atol=1e-6)
    np.testing.assert_array_equal(split.head.kernel, by_default.head.kernel)


def test_a_layer_inside_a_nested_model_can_be_named(images):
    assert InfluenceModel(nested(), feature_layer="penultimate").features(images).shape == (7, 5)


def test_a_model_without_a_dense_head_works_with_a_named_layer(images):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
        ]
    )
    split = InfluenceModel(model, feature_layer="maps")
    features, logits = split.features_and_logits(images)
    assert split.head is None and features.shape == (7, 4 * 4 * 4)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(images), atol=1e-6)


def test_inputs_may_be_a_dict():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([inputs["a"], inputs["b"]])))
    values = {"a": np.ones((2, 3), "float32"), "b": np.zeros((2, 2), "float32")}
    np.testing.assert_array_equal(InfluenceModel(model).features(values)[0], [1, 1, 1, 0, 0])


def test_sequences_of_any_length_and_token_ids_work():
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(10, 4), layers.LSTM(3), layers.Dense(2)]
    )
    split = InfluenceModel(model)
    assert (
        split.features(np.ones((2, 5), "int64")).shape
        == split.features(np.ones((2, 6), "int64")).shape
        == (2, 3)
    )


def test_parts_give_what_the_whole_gives(images):
    extractor = keras.Sequential([layers.Flatten(), layers.Dense(5, activation="relu")])
    head = layers.Dense(3)
    head(extractor(images))
    split = InfluenceModel.from_parts(extractor, head)
    np.testing.assert_allclose(split.logits(images), head(extractor(images)), atol=1e-5)
    np.testing.assert_array_equal(split.head.kernel, head.kernel)


def test_a_batch_of_another_size_is_not_traced_again(images):
    split = InfluenceModel(MODELS["logits"]())
    for size in (7, 3, 1, 5):
        split.features(images[:size])
    assert split._forward._function.for_batch(images).experimental_get_tracing_count() == 1


def test_the_model_is_left_as_it_was(images):
    model = MODELS["subclassed"]()
    model(images)
    attributes = [set(vars(layer)) for layer in model.layers]
    InfluenceModel(model).features(images)
    assert [set(vars(layer)) for layer in model.layers] == attributes


def test_the_fingerprint_follows_weights_and_split(images):
    model = functional_with_softmax_layer()
    first = InfluenceModel(model).fingerprint
    assert InfluenceModel(model).fingerprint == first
    assert InfluenceModel(model, feature_layer="penultimate").fingerprint != first
    model.layers[-2].kernel.assign_add(keras.ops.ones_like(model.layers[-2].kernel))
    assert InfluenceModel(model).fingerprint != first


def test_losses_are_the_cross_entropy_for_integer_and_one_hot_labels(images):
    split = InfluenceModel(MODELS["softmax"]())
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    expected = -np.log(split.model(images).numpy()[np.arange(7), labels])
    np.testing.assert_allclose(split.losses(images, labels), expected, rtol=1e-4)
    np.testing.assert_allclose(split.losses(images, np.eye(3)[labels]), expected, rtol=1e-4)


class CallsByName(keras.Model):
    """Calls its layers as `layer(inputs=...)`, as the encoders of KerasHub call theirs."""

    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(1, 2)
        self.head = keras.layers.Dense(2)

    def call(self, inputs):
        mixed = self.attention(query=inputs, value=inputs)
        return self.head(inputs=keras.ops.mean(mixed, axis=1))


def test_layers_may_be_called_by_the_names_of_their_arguments(rng):
    inputs = tf.constant(rng.normal(size=(5, 3, 4)), tf.float32)
    model = CallsByName()
    outputs = model(inputs)
    found = HiddenLayers(InfluenceModel(model))(inputs)
    np.testing.assert_allclose(found.logits, outputs, atol=1e-5)
    np.testing.assert_allclose(
        found.features, keras.ops.mean(model.attention(inputs, inputs), axis=1), atol=1e-5
    )
    np.testing.assert_allclose(found.before, tf.reshape(inputs, (5, -1)), atol=1e-6)


def test_what_is_not_a_keras_model_is_refused():
    with pytest.raises(TypeError, match="Keras 3 model"):
        InfluenceModel("model.keras")


def test_a_model_without_dense_head_says_how_to_name_a_layer():
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 3), layers.Flatten()])
    with pytest.raises(ValueError, match="feature_layer=NAME"):
        InfluenceModel(model)


def test_an_unknown_layer_name_lists_the_layers():
    with pytest.raises(ValueError, match="penultimate"):
        InfluenceModel(functional_with_softmax_layer(), feature_layer="nowhere")


def test_several_outputs_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="output=NAME"):
        InfluenceModel(model)


def test_a_shared_head_is_refused():
    inputs, head = keras.Input((4,)), layers.Dense(4)
    with pytest.raises(ValueError, match="more than once"):
        InfluenceModel(keras.Model(inputs, head(head(inputs))))


def test_a_head_that_is_changed_afterwards_by_what_is_not_affine_is_refused():
    with pytest.raises(ValueError, match="no affine map"):
        InfluenceModel(convolutional(layers.Dense(3), layers.Activation("tanh")))


def test_a_model_that_was_never_called_says_so():
    with pytest.raises(ValueError, match="has not been called"):
        InfluenceModel(Subclassed()).num_classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 3]), "0..2"),
        (np.array([-1, 0]), "0..2"),
        (np.array([0.0, 1.5]), "whole numbers"),
        (np.eye(4)[:2], "as wide as"),
        (np.array([[1, 1, 0]]), "one-hot"),
        (np.array([[0.5, 0.5, 0]]), "one-hot"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
def test_labels_that_are_not_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        InfluenceModel(MODELS["logits"]()).to_classes(labels)
