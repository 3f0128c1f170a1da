"""Models with every kind of layer, and their per-example gradients by differentiating one at a time."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel
from deel_dualview.gradients import select_groups

NUM_CLASSES = 3
NUM_EXAMPLES = 3


class Scaled(layers.Layer):
    """A custom layer with a weight of its own."""

    def build(self, shape):
        self.factors = self.add_weight(shape=(shape[-1],), initializer="ones", name="factors")

    def call(self, inputs):
        return inputs * self.factors


class SquaredDense(layers.Dense):
    """A subclass that does not compute what its class does."""

    def call(self, inputs):
        return super().call(inputs) ** 2


class Tied(layers.Layer):
    """Uses another layer's kernel once more."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def call(self, inputs):
        return tf.matmul(inputs, self.source.kernel, transpose_b=True)


class TiedALittle(layers.Layer):
    """Passes its inputs on, and a hundredth of what another layer would make of them, unseen by Keras."""

    def __init__(self, source):
        super().__init__()
        self.kernel = lambda: source.kernel

    def call(self, inputs):
        return tf.concat([inputs, 0.01 * tf.matmul(inputs, self.kernel(), transpose_b=True)], axis=1)


def after(*hidden, shape):
    return keras.Sequential([keras.Input(shape), *hidden, layers.Flatten(), layers.Dense(NUM_CLASSES)])


def on_tokens(*hidden):
    return keras.Sequential(
        [keras.Input((5,), dtype="int32"), *hidden, layers.Flatten(), layers.Dense(NUM_CLASSES)]
    )


def attention():
    inputs = keras.Input((4, 6))
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    hidden = layers.LayerNormalization()(layers.Add()([inputs, attended]))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES)(layers.GlobalAveragePooling1D()(hidden)))


def shared_layer():
    inputs = keras.Input((6,))
    dense = layers.Dense(6, activation="tanh", name="shared")
    return keras.Model(inputs, layers.Dense(NUM_CLASSES)(dense(dense(inputs))))


def shared_embedding():
    first, second = keras.Input((3,), dtype="int32"), keras.Input((2,), dtype="int32")
    embedding = layers.Embedding(7, 4)
    both = layers.Concatenate(axis=1)([embedding(first), embedding(second)])
    return keras.Model([first, second], layers.Dense(NUM_CLASSES)(layers.Flatten()(both)))


def nested():
    inner = keras.Sequential(
        [layers.Conv1D(3, 2, activation="relu"), layers.BatchNormalization()], name="inner"
    )
    return after(inner, layers.Dense(4, activation="tanh"), shape=(6, 2))


def tied_weights():
    dense = layers.Dense(4, activation="tanh")
    return keras.Sequential([keras.Input((6,)), dense, Tied(dense), layers.Dense(NUM_CLASSES)])


def weights_tied_a_little():
    dense = layers.Dense(4, activation="tanh")
    return keras.Sequential([keras.Input((6,)), dense, TiedALittle(dense), layers.Dense(NUM_CLASSES)])


MODELS = {
    "Dense": lambda: after(layers.Dense(4, activation="tanh"), shape=(6,)),
    "Dense without bias": lambda: after(layers.Dense(4, "relu", use_bias=False), shape=(6,)),
    "Dense on sequences": lambda: after(layers.Dense(4, activation="gelu"), shape=(5, 3)),
    "Dense with a layer as activation": lambda: after(layers.Dense(4, activation=layers.PReLU()), shape=(6,)),
    "softmax head": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax")]),
    "one output": lambda: keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(1, "sigmoid")]
    ),
    "Conv1D": lambda: after(layers.Conv1D(4, 3, activation="relu", dilation_rate=2), shape=(8, 3)),
    "Conv1D, causal": lambda: after(layers.Conv1D(4, 3, padding="causal", dilation_rate=2), shape=(8, 3)),
    "Conv2D": lambda: after(layers.Conv2D(4, (2, 3), strides=(2, 1), activation="relu"), shape=(6, 7, 2)),
    "Conv2D, same, no bias": lambda: after(
        layers.Conv2D(3, 3, padding="same", strides=2, use_bias=False), shape=(5, 6, 2)
    ),
    "Conv2D, dilated": lambda: after(layers.Conv2D(3, 2, padding="same", dilation_rate=2), shape=(5, 6, 2)),
    "Conv2D, groups": lambda: after(layers.Conv2D(6, 3, groups=2), shape=(5, 5, 4)),
    "Conv2DTranspose": lambda: after(layers.Conv2DTranspose(3, 2, strides=2), shape=(3, 3, 2)),
    "DepthwiseConv1D": lambda: after(layers.DepthwiseConv1D(3, depth_multiplier=2), shape=(6, 3)),
    "DepthwiseConv2D": lambda: after(layers.DepthwiseConv2D(2, depth_multiplier=2), shape=(4, 5, 3)),
    "SeparableConv2D": lambda: after(layers.SeparableConv2D(4, 2), shape=(4, 5, 3)),
    "Embedding": lambda: on_tokens(layers.Embedding(7, 4)),
    "BatchNormalization": lambda: after(layers.Conv2D(3, 2), layers.BatchNormalization(), shape=(4, 4, 2)),
    "BatchNormalization without scale": lambda: after(layers.BatchNormalization(scale=False), shape=(6,)),
    "LayerNormalization": lambda: after(layers.Dense(4), layers.LayerNormalization(), shape=(5, 3)),
    "LayerNormalization over two axes": lambda: after(layers.LayerNormalization(axis=(1, 2)), shape=(5, 3)),
    "GroupNormalization": lambda: after(layers.GroupNormalization(2), shape=(3, 3, 4)),
    "RMSNormalization": lambda: after(layers.RMSNormalization(), shape=(5, 4)),
    "EinsumDense": lambda: after(
        layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de"), shape=(4, 5)
    ),
    "EinsumDense, any rank": lambda: after(
        layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"), shape=(4, 5)
    ),
    "EinsumDense, two inputs": lambda: after(
        layers.EinsumDense("abcd,cde->abe", (4, 3), bias_axes="e"), shape=(4, 5, 2)
    ),
    "EinsumDense, bias over time": lambda: after(
        layers.EinsumDense("abc,cd->abd", (4, 3), bias_axes="bd"), shape=(4, 5)
    ),
    "EinsumDense, a kernel for each step": lambda: after(
        layers.EinsumDense("abc,bcd->abd", (4, 3)), shape=(4, 5)
    ),
    "MultiHeadAttention": attention,
    "LSTM": lambda: after(layers.LSTM(3), shape=(4, 2)),
    "GRU": lambda: after(layers.GRU(3), shape=(4, 2)),
    "bidirectional": lambda: on_tokens(
        layers.Embedding(7, 3, mask_zero=True), layers.Bidirectional(layers.LSTM(2))
    ),
    "TimeDistributed": lambda: after(layers.TimeDistributed(layers.Dense(3)), shape=(4, 2)),
    "custom": lambda: after(Scaled(), layers.Dense(4, activation="relu"), shape=(6,)),
    "a subclass of Dense": lambda: after(SquaredDense(4), shape=(6,)),
    "shared layer": shared_layer,
    "shared embedding": shared_embedding,
    "nested": nested,
    "tied weights": tied_weights,
    "weights tied a little": weights_tied_a_little,
}


class Case:
    """A model with moved weights, a batch of inputs and labels."""

    def __init__(self, name):
        keras.utils.set_random_seed(1)
        self.name = name
        self.keras_model = MODELS[name]()
        rng = np.random.default_rng(1)
        for weight in self.keras_model.weights:
            if "seed" not in weight.path:
                moved = weight.numpy() + 0.3 * rng.normal(size=weight.shape)
                weight.assign(np.abs(moved) if "variance" in weight.path else moved)
        drawn = [self.draw(spec, rng) for spec in self.keras_model.inputs]
        self.inputs = drawn if len(drawn) > 1 else drawn[0]
        self.classes = np.arange(NUM_EXAMPLES) % (2 if name == "one output" else NUM_CLASSES)
        self.model = InfluenceModel(self.keras_model)

    def draw(self, spec, rng):
        shape = (NUM_EXAMPLES, *spec.shape[1:])
        return (
            rng.integers(0, 7, shape) if spec.dtype == "int32" else rng.normal(size=shape).astype("float32")
        )

    def by_hand(self, function="loss"):
        """Gradients of examples as those of batches of one, of formulas written out anew."""
        groups = select_groups(self.model, "all")
        rows = []
        for row in range(NUM_EXAMPLES):
            single = tf.nest.map_structure(
                lambda array, row=row: tf.constant(array[row : row + 1]), self.inputs
            )
            with tf.GradientTape() as tape:
                value = FUNCTIONS[function](logits_of(self.keras_model, single)[0], int(self.classes[row]))
            variables = [variable.value for group in groups for variable in group.variables]
            found = tape.gradient(value, variables, unconnected_gradients="zero")
            found = iter([tf.convert_to_tensor(gradient)[tf.newaxis] for gradient in found])
            rows.append(
                np.concatenate([group.flatten([next(found) for _ in group.variables]) for group in groups], 1)
            )
        return np.concatenate(rows)


def logits_of(model, inputs):
    outputs = model(inputs, training=False)
    if model.layers[-1].activation is keras.activations.softmax:
        return tf.math.log(outputs)
    if model.layers[-1].activation is keras.activations.sigmoid:
        z = tf.math.log(outputs) - tf.math.log1p(-outputs)
        return tf.concat([-z, z], axis=1) / 2
    return outputs


FUNCTIONS = {
    "loss": lambda logits, c: tf.reduce_logsumexp(logits) - logits[c],
    "logit": lambda logits, c: logits[c],
    "margin": lambda logits, c: (
        logits[c] - tf.reduce_logsumexp(tf.stack([logits[j] for j in range(logits.shape[0]) if j != c]))
    ),
}


def assert_close(found, expected):
    """Compare float32 gradients with a tolerance relative to the largest."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
