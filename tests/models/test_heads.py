"""Last layers that are more than a Dense layer: exact by a computation by hand, or refused with the reason."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from deel_dualview import (
    DualRelevance,
    DualView,
    GradDot,
    InfluenceModel,
    PerExampleGradients,
    RepresenterPointL2,
)
from deel_dualview.curvature import LayersCurvature, curvature_of
from deel_dualview.linalg import blocks

NUM, PRIOR = 9, np.array([0.5, -1.0, 2.0], np.float32)
LABELS = np.arange(NUM) % 3


@pytest.fixture(autouse=True)
def same_weights(keras_seed):
    """Start every model from the same weights."""


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(NUM, 4)).astype("float32")


@pytest.fixture
def images(rng):
    return rng.normal(size=(NUM, 6, 5, 2)).astype("float32")


def dataset(inputs):
    return tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(4)


def of_vectors(after, *, head=None, activation="softmax"):
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, activation="tanh", name="hidden")(inputs)
    logits = after((head or layers.Dense(3, name="logits", bias_initializer="normal"))(hidden))
    return keras.Model(inputs, layers.Activation(activation)(logits))


MIXED = np.array([[1.0, 0.2, 0.0], [0.0, 2.0, -0.3], [0.5, 0.0, 1.0]], np.float32)
AFFINE = {
    "temperature": (lambda z: z / 2.0, lambda z: z / 2.0),
    "multiple": (lambda z: 3.0 * z, lambda z: 3.0 * z),
    "Rescaling": (lambda z: layers.Rescaling(0.5, offset=1.0)(z), lambda z: 0.5 * z + 1.0),
    "logit adjustment": (lambda z: z + PRIOR, lambda z: z + PRIOR),
    "matrix": (lambda z: ops.matmul(z, MIXED), lambda z: z @ MIXED),
    "nested": (
        lambda z: keras.Sequential([keras.Input((3,)), layers.Rescaling(4.0), layers.Dropout(0.5)])(z),
        lambda z: 4.0 * z,
    ),
}


def hand_features(model, vectors):
    kernel, bias = (np.float64(weight) for weight in model.get_layer("hidden").get_weights())
    return np.tanh(vectors @ kernel + bias)


@pytest.mark.parametrize(("keras_step", "numpy_step"), AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "linear"])
def test_an_affine_step_after_the_last_layer_is_part_of_the_head(keras_step, numpy_step, activation, vectors):
    model = of_vectors(keras_step, activation=activation)
    kernel, bias = (np.float64(weight) for weight in model.get_layer("logits").get_weights())
    split = InfluenceModel(model)
    features, logits = split.features_and_logits(vectors)
    expected = numpy_step(hand_features(model, vectors) @ kernel + bias)
    np.testing.assert_allclose(logits, expected, atol=2e-6)
    np.testing.assert_allclose(features.numpy() @ split.head.kernel + split.head.bias, expected, atol=2e-6)


def last_gradients(model, vectors, layer):
    """Differentiate the loss of one example after the other in the layer's own weights, rows of the kernel last."""
    rows = []
    for row, label in zip(vectors, LABELS, strict=True):
        with tf.GradientTape() as tape:
            loss = -tf.math.log(model(row[np.newaxis])[0, label])
        kernel, *bias = tape.gradient(loss, [variable.value for variable in layer.trainable_variables])
        matrix = np.reshape(kernel, (-1, kernel.shape[-1])).T
        rows.append(np.hstack([matrix, *(np.asarray(part)[:, np.newaxis] for part in bias)]).ravel())
    return np.stack(rows)


@pytest.mark.parametrize("step", [step for step, _ in AFFINE.values()], ids=AFFINE)
def test_gradients_in_the_last_layer_go_through_the_step(step, vectors):
    model = of_vectors(step)
    found = blocks.to_dense(PerExampleGradients(InfluenceModel(model))(vectors, LABELS))
    expected = last_gradients(model, vectors, model.get_layer("logits"))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("step", [AFFINE["temperature"][0], AFFINE["matrix"][0]])
def test_the_curvature_in_the_last_layer_is_that_of_differentiating_twice(step, vectors, rng):
    split = InfluenceModel(of_vectors(step))
    own = curvature_of(split, dataset(vectors))
    expected = LayersCurvature(split, dataset(vectors), weights=["logits"]).to_dense().numpy()
    np.testing.assert_allclose(own.to_dense(), expected, atol=1e-6)
    rows = rng.normal(size=(2, own.size)).astype("float32")
    np.testing.assert_allclose(curvature_of(split, dataset(vectors)).matmul(rows), rows @ expected, atol=1e-5)
    assert own.trace() == pytest.approx(np.trace(expected), rel=1e-5)
    batch = next(own.sampled(1000, seed=0)).matmul(rows)
    np.testing.assert_allclose(batch, rows @ expected, atol=0.1, err_msg="a thousand examples drawn of nine")


def test_one_output_with_a_temperature_is_two_classes(vectors):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Activation("sigmoid")(layers.Dense(1, name="logits")(inputs) / 4.0))
    split = InfluenceModel(model)
    np.testing.assert_allclose(tf.nn.softmax(split.logits(vectors))[:, 1], model(vectors)[:, 0], atol=1e-6)
    classes = LABELS % 2
    found = blocks.to_dense(PerExampleGradients(split)(vectors, classes))
    delta = (model(vectors).numpy() - classes[:, np.newaxis]) / 4.0
    np.testing.assert_allclose(found, np.hstack([delta * vectors, delta]), atol=1e-6)


NOT_AFFINE = {
    "soft cap": lambda z: 5.0 * ops.tanh(z / 5.0),
    "cosine scale": lambda z: 16.0 * z / ops.norm(z, axis=1, keepdims=True),
    "clip": lambda z: ops.clip(z, -10.0, 10.0) * 1.5,
}


@pytest.mark.parametrize("step", NOT_AFFINE.values(), ids=NOT_AFFINE)
def test_a_step_that_is_not_affine_leaves_named_features_without_a_linear_head(step, vectors):
    model = of_vectors(step)
    with pytest.raises(ValueError, match="feature_layer=NAME"):
        InfluenceModel(model).logits(vectors * 0.1 if step is NOT_AFFINE["soft cap"] else vectors)
    split = InfluenceModel(model, feature_layer="hidden")
    DualView(split, dataset(vectors))
    assert split.head is None
    np.testing.assert_allclose(tf.nn.softmax(split.logits(vectors)), model(vectors), atol=1e-6)
    np.testing.assert_allclose(split.features(vectors), hand_features(model, vectors), atol=1e-6)


def test_parts_keep_a_temperature_exactly(vectors):
    whole = of_vectors(AFFINE["temperature"][0])
    head = keras.Sequential(
        [keras.Input((5,)), whole.get_layer("logits"), layers.Rescaling(0.5), layers.Softmax()]
    )
    split = InfluenceModel.from_parts(keras.Model(whole.input, whole.get_layer("hidden").output), head)
    expected = InfluenceModel(whole)
    np.testing.assert_allclose(split.logits(vectors), expected.logits(vectors), atol=1e-6)
    np.testing.assert_allclose(split.head.kernel, expected.head.kernel, atol=1e-7)


class DependsOnInputs(keras.Model):
    """The step after the last layer is another one for each example."""

    def __init__(self):
        super().__init__()
        self.scores = layers.Dense(3)

    def call(self, inputs, training=False):
        return self.scores(inputs) * inputs[:, :1]


def test_a_step_that_depends_on_the_example_is_no_fixed_one(vectors):
    model = DependsOnInputs()
    model(vectors)
    with pytest.raises(ValueError, match="not the linear head"):
        InfluenceModel(model).logits(vectors)


POOLED = {
    "1x1": lambda: [
        layers.Conv2D(3, 1, bias_initializer="normal", name="head"),
        layers.GlobalAveragePooling2D(),
    ],
    "same": lambda: [layers.Conv2D(3, 3, padding="same", name="head"), layers.GlobalAveragePooling2D()],
    "valid, strides": lambda: [
        layers.Conv2D(3, (2, 3), strides=2, name="head"),
        layers.GlobalAveragePooling2D(),
    ],
    "dilated": lambda: [layers.Conv2D(3, 2, dilation_rate=2, name="head"), layers.GlobalAveragePooling2D()],
    "normalised": lambda: [
        layers.Conv2D(3, 1, name="head"),
        layers.BatchNormalization(gamma_initializer="uniform", beta_initializer="normal"),
        layers.GlobalAveragePooling2D(),
    ],
    "temperature": lambda: [
        layers.Conv2D(3, 3, name="head"),
        layers.GlobalAveragePooling2D(),
        layers.Rescaling(0.5, offset=1.0),
    ],
    "flattened": lambda: [layers.Conv2D(3, (6, 5), name="head"), layers.Flatten()],
    "sequence": lambda: [
        layers.Reshape((10, 6)),
        layers.Conv1D(3, 3, padding="causal", name="head"),
        layers.GlobalAveragePooling1D(),
    ],
    "dense on positions": lambda: [
        layers.Dense(3, bias_initializer="normal", name="head"),
        layers.GlobalAveragePooling2D(),
    ],
}


def pooled(head, activation="softmax"):
    body = [keras.Input((6, 5, 2)), layers.Conv2D(2, 3, padding="same", activation="relu", use_bias=False)]
    return keras.Sequential([*body, *head, layers.Activation(activation)])


@pytest.mark.parametrize("head", POOLED.values(), ids=POOLED)
def test_a_convolution_before_global_pooling_is_linear_in_mean_patches(head, images):
    model = pooled(head())
    split = InfluenceModel(model)
    features, logits = split.features_and_logits(images)
    final = keras.Model(model.inputs, model.layers[-2].output)
    np.testing.assert_allclose(logits, final(tf.constant(images)), atol=2e-6)
    np.testing.assert_allclose(
        features.numpy() @ split.head.kernel + split.head.bias, final(tf.constant(images)), atol=2e-6
    )
    found = blocks.to_dense(PerExampleGradients(split)(images, LABELS))
    np.testing.assert_allclose(found, last_gradients(model, images, model.get_layer("head")), atol=2e-6)


def test_mean_patches_are_those_of_a_loop_over_positions(images):
    model = pooled(POOLED["valid, strides"]())
    maps = keras.Model(model.inputs, model.layers[0].output)(tf.constant(images)).numpy().astype("float64")
    patches = [maps[:, i : i + 2, j : j + 3].reshape(NUM, -1) for i in (0, 2, 4) for j in (0, 2)]
    np.testing.assert_allclose(InfluenceModel(model).features(images), np.mean(patches, axis=0), atol=1e-6)


@pytest.mark.parametrize("name", ["1x1", "same", "valid, strides", "sequence", "dense on positions"])
def test_relevance_goes_through_mean_patches_without_loss(name, images):
    split = InfluenceModel(pooled(POOLED[name]()))
    train = dataset(images)
    found = next(iter(DualRelevance(GradDot(split, train), "epsilon").explain(train, k=2)))
    scale = np.abs(found.top.influence_values).max()
    np.testing.assert_allclose(found.test_leak, 0, atol=1e-3 * scale, err_msg="no bias before, epsilon 1e-6")


@pytest.mark.parametrize(
    "head",
    [
        lambda: [layers.Conv2D(3, 1, name="head"), layers.GlobalMaxPooling2D()],
        lambda: [layers.Conv2D(3, 1, activation="relu", name="head"), layers.GlobalAveragePooling2D()],
        lambda: [
            layers.Conv2D(6, 1),
            layers.Conv2D(3, 1, groups=3, name="head"),
            layers.GlobalAveragePooling2D(),
        ],
    ],
    ids=["maxima", "rectified", "grouped"],
)
def test_a_convolution_whose_outputs_are_not_averaged_is_refused_with_advice(head, images):
    model = pooled(head())
    with pytest.raises(ValueError, match="feature_layer=NAME"):
        InfluenceModel(model).logits(images)
    assert InfluenceModel(model, feature_layer=model.layers[0].name).logits(images).shape == (NUM, 3)


@keras.saving.register_keras_serializable("tests")
class Normalised(layers.Dense):
    """Multiplies by its kernel at unit length."""

    def call(self, inputs, training=None):
        return ops.matmul(inputs, self.kernel / ops.norm(self.kernel, axis=0, keepdims=True)) + self.bias


def with_lora():
    head = layers.Dense(3, name="logits")
    model = of_vectors(lambda z: z, head=head)
    head.enable_lora(2)
    head.lora_kernel_b.assign(np.random.default_rng(1).normal(size=(2, 3)))
    return model, np.asarray(head.kernel)


def with_normalised():
    model = of_vectors(lambda z: z, head=Normalised(3, name="logits"))
    kernel = np.asarray(model.get_layer("logits").kernel)
    return model, kernel / np.linalg.norm(kernel, axis=0)


@pytest.mark.parametrize("make", [with_lora, with_normalised])
def test_the_kernel_of_the_head_is_the_one_that_the_layer_multiplies_by(make, vectors):
    model, kernel = make()
    split = InfluenceModel(model)
    np.testing.assert_allclose(tf.nn.softmax(split.logits(vectors)), model(vectors), atol=1e-6)
    np.testing.assert_allclose(split.head.kernel, kernel, atol=1e-6)
    RepresenterPointL2(split, dataset(vectors))


@pytest.mark.parametrize("make", [with_lora, with_normalised])
def test_gradients_in_such_a_layer_are_those_in_its_own_weights(make, vectors):
    model, _ = make()
    split = InfluenceModel(model)
    found = blocks.to_dense(PerExampleGradients(split)(vectors, LABELS))
    variables = [variable.value for variable in model.get_layer("logits").trainable_variables]
    for row in range(NUM):
        with tf.GradientTape() as tape:
            loss = -tf.math.log(model(vectors[row : row + 1])[0, LABELS[row]])
        expected = np.concatenate([np.ravel(part) for part in tape.gradient(loss, variables)])
        np.testing.assert_allclose(found[row], expected, atol=2e-6)
    curvature = curvature_of(split, dataset(vectors))
    expected = LayersCurvature(split, dataset(vectors), weights=["logits"]).to_dense()
    np.testing.assert_allclose(curvature.to_dense(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="weights='last'"):
        DualRelevance(GradDot(split, dataset(vectors)))


def test_a_quantized_layer_is_refused_with_the_true_reason(vectors):
    model = of_vectors(lambda z: z)
    model.get_layer("logits").quantize("int8")
    with pytest.raises(ValueError, match=r"quantized \(int8\)"):
        InfluenceModel(model)
    split = InfluenceModel(model, feature_layer="hidden")
    DualView(split, dataset(vectors))
    assert split.head is None
    np.testing.assert_allclose(tf.nn.softmax(split.logits(vectors)), model(vectors), atol=1e-6)


def test_half_precision_keeps_a_temperature(vectors):
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = of_vectors(AFFINE["temperature"][0])
    finally:
        keras.mixed_precision.set_global_policy(policy)
    split = InfluenceModel(model)
    np.testing.assert_allclose(split.head.kernel, np.asarray(model.get_layer("logits").kernel) / 2, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(split.logits(vectors)), model(vectors), atol=5e-3)


def test_several_outputs_are_refused_by_name():
    inputs = keras.Input((4,))
    outputs = [layers.Dense(2, name="kind")(inputs), layers.Dense(3, name="colour")(inputs)]
    with pytest.raises(ValueError, match="outputs kind, colour"):
        InfluenceModel(keras.Model(inputs, outputs))


def test_models_of_other_numbers_of_classes_do_not_share_a_trace(vectors):
    for num_classes in (3, 4, 5):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(num_classes, name="logits")])
        found = blocks.to_dense(PerExampleGradients(InfluenceModel(model))(vectors, LABELS))
        assert found.shape == (NUM, 5 * num_classes)
