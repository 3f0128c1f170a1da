"""Confident models: what does not depend on the size of gradients is right at any margin of the logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_graddot import values

from deel_dualview import (
    ExactIHVP,
    FactoredProjection,
    FeatureSimilarity,
    GradCos,
    GradDot,
    InfluenceModel,
    KroneckerProjection,
    RelatIF,
)

NUM_TRAIN, NUM_TEST = 60, 15


class Saturated:
    """A classifier of Dense(relu), Dense, whose logits lead by a given margin in the median."""

    def __init__(self, margin):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.labels = np.arange(NUM_TRAIN + NUM_TEST) % 3
        self.inputs = (rng.normal(size=(NUM_TRAIN + NUM_TEST, 6)) + 2 * np.eye(6)[self.labels]).astype(
            "float32"
        )
        self.hidden, self.last = layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3)
        self.model = keras.Sequential([keras.Input((6,)), self.hidden, self.last])
        self.hidden.bias.assign(np.full(8, 0.5, np.float32))
        ranked = np.sort(self.logits(), axis=1)
        factor = margin / np.median(ranked[:, -1] - ranked[:, -2])
        self.last.set_weights([factor * weight for weight in self.last.get_weights()])
        self.classes = self.logits().argmax(axis=1)

    def features(self):
        weights, bias = (weight.astype(np.float64) for weight in self.hidden.get_weights())
        return np.maximum(self.inputs @ weights + bias, 0)

    def logits(self):
        weights, bias = (weight.astype(np.float64) for weight in self.last.get_weights())
        return self.features() @ weights + bias

    def train(self):
        train = self.inputs[:NUM_TRAIN], self.labels[:NUM_TRAIN]
        return tf.data.Dataset.from_tensor_slices(train).batch(16)

    def test(self):
        return tf.data.Dataset.from_tensor_slices(self.inputs[NUM_TRAIN:]).batch(5)

    def errors(self, classes):
        """Return p - y by the loss (n, 3): that of the label is minus the sum of the others."""
        rows = np.arange(len(classes))
        logits = self.logits()
        p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        p[rows, classes] = 0
        p[rows, classes] = -p.sum(axis=1)
        return p

    def directions(self, classes, layers_from=0):
        """Return gradients of the loss at unit length (n, p), in the hidden and the last layer or one of them."""
        # Over 1 - p_y, which float64 holds up to a margin of 745 alone.
        rows, logits = np.arange(len(classes)), self.logits()
        logits[rows, classes] = -np.inf
        delta = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        delta[rows, classes] = -1
        features = self.features()
        inner = (delta @ self.last.get_weights()[0].T.astype(np.float64)) * (features > 0)
        one = np.ones((len(delta), 1))
        parts = [
            np.hstack([self.inputs, one])[:, None] * inner[:, :, None],
            np.hstack([features, one])[:, None] * delta[:, :, None],
        ]
        rows = np.concatenate([part.reshape(len(delta), -1) for part in parts[layers_from]], axis=1)
        rows /= np.abs(rows).max(axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def cosines(self, layers_from):
        train = self.directions(self.labels, layers_from)[:NUM_TRAIN]
        return self.directions(self.classes, layers_from)[NUM_TRAIN:] @ train.T


@pytest.fixture(scope="module", params=[20, 60, 200, 500])
def saturated(request):
    return Saturated(request.param)


@pytest.mark.parametrize(
    ("weights", "layers_from"),
    [("last", slice(1, 2)), ("all", slice(0, 2)), (["hidden"], slice(0, 1))],
)
def test_cosines_are_those_of_float64_at_any_margin(weights, layers_from, saturated):
    found = values(GradCos(saturated.model, saturated.train(), weights=weights), saturated.test())
    np.testing.assert_allclose(found, saturated.cosines(layers_from), atol=1e-4)


def test_the_twin_is_the_formula_where_float64_holds_it():
    saturated = Saturated(20)
    features = np.hstack([saturated.features(), np.ones((NUM_TRAIN + NUM_TEST, 1))])
    gradients = (saturated.errors(saturated.labels)[:, :, None] * features[:, None]).reshape(
        len(features), -1
    )
    expected = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    np.testing.assert_allclose(saturated.directions(saturated.labels, slice(1, 2)), expected, atol=1e-6)


@pytest.mark.parametrize("projection", [FactoredProjection(16), KroneckerProjection(2, 2)])
@pytest.mark.parametrize("weights", ["last", "all"])
def test_projected_cosines_are_those_of_a_model_less_sure(weights, projection):
    """Two classes: the direction of a gradient does not depend on the size of the last layer's weights."""
    examples = Saturated(20)  # the same inputs and labels at any margin; the models are other ones

    def found(size):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(2)])
        model.layers[-1].set_weights([size * weight for weight in model.layers[-1].get_weights()])
        train = tf.data.Dataset.from_tensor_slices((examples.inputs, examples.labels % 2)).batch(16)
        return values(
            GradCos(
                model,
                train,
                weights=[model.layers[0].name] if weights == "all" else "last",
                projection=projection,
            ),
            examples.test(),
        )

    np.testing.assert_allclose(found(1000.0), found(1.0), atol=1e-4)


def test_training_gradients_alone_are_divided_by_their_norms(saturated):
    """The explained class is not the predicted one, so that its gradient is not small."""
    calculator = GradCos(saturated.model, saturated.train(), normalize="train", target=0)
    wrong = saturated.classes[NUM_TRAIN:] != 0
    classes = np.zeros(len(saturated.inputs), int)
    features = np.hstack([saturated.features(), np.ones((len(classes), 1))])
    queries = (saturated.errors(classes)[:, :, None] * features[:, None]).reshape(len(classes), -1)[
        NUM_TRAIN:
    ]
    expected = queries @ saturated.directions(saturated.labels, slice(1, 2))[:NUM_TRAIN].T
    np.testing.assert_allclose(values(calculator, saturated.test())[wrong], expected[wrong], atol=1e-3)


@pytest.mark.parametrize("normalisation", ["theta", "loss"])
@pytest.mark.parametrize("margin", [20, 200])
def test_relative_influence_counts_training_examples_by_their_directions(margin, normalisation):
    saturated = Saturated(margin)
    # A small damping that is absolute: the curvature of a certain model vanishes.
    ihvp = ExactIHVP(saturated.model, saturated.train(), damping=0.5)
    calculator = RelatIF(saturated.model, saturated.train(), ihvp, normalisation=normalisation, target=0)
    wrong = saturated.classes[NUM_TRAIN:] != 0
    train = saturated.directions(saturated.labels, slice(1, 2))[:NUM_TRAIN]
    inverse = ihvp.inverse.numpy()
    sizes = {
        "theta": np.linalg.norm(train @ inverse, axis=1),
        "loss": np.sqrt(np.sum((train @ inverse) * train, axis=1)),
    }[normalisation]
    classes = np.zeros(len(saturated.inputs), int)
    features = np.hstack([saturated.features(), np.ones((len(classes), 1))])
    queries = (saturated.errors(classes)[:, :, None] * features[:, None]).reshape(len(classes), -1)[
        NUM_TRAIN:
    ]
    expected = queries @ inverse @ train.T / sizes
    found = values(calculator, saturated.test())
    np.testing.assert_allclose(found[wrong], expected[wrong], rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_cosines_of_features_do_not_depend_on_their_size(size, rng):
    inputs = rng.normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 1, 0, 1, 0, 1])

    def cosines(inputs):
        model = keras.Sequential([keras.Input((4,)), layers.Activation("linear"), layers.Dense(2)])
        train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)
        return values(FeatureSimilarity(InfluenceModel(model), train, target=0), train)

    np.testing.assert_allclose(cosines(inputs * np.float32(size)), cosines(inputs), atol=1e-5)


def certain_without_gradients():
    """A model so certain that the gradient of its loss is 0 in float32, and its training set."""
    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 5000)
    return (
        model,
        inputs,
        tf.data.Dataset.from_tensor_slices((inputs, model(inputs).numpy().argmax(1))).batch(20),
    )


def test_values_that_are_all_zero_are_warned_of_once_by_their_positions():
    model, inputs, train = certain_without_gradients()
    calculator = GradDot(model, train)
    queries = tf.data.Dataset.from_tensor_slices(inputs[5:9]).batch(2)
    with pytest.warns(UserWarning, match=r"exactly 0.*positions of evaluated examples=\[0, 1\]") as caught:
        list(calculator.top_k(queries, k=3))
        list(calculator.top_k_indices(queries, k=3, order="ascending"))
    assert len(caught) == 1


def test_a_query_of_zero_features_is_warned_of_by_its_position_in_the_dataset():
    inputs = np.array([[1, 2], [3, 1], [2, 2], [0, 0], [1, 1]], np.float32)
    model = keras.Sequential([keras.Input((2,)), layers.Activation("linear"), layers.Dense(2)])
    train = tf.data.Dataset.from_tensor_slices((inputs[:3], [0, 1, 0])).batch(2)
    calculator = FeatureSimilarity(model, train)
    with pytest.warns(UserWarning, match=r"examples=\[3\]"):
        list(calculator.top_k_indices(tf.data.Dataset.from_tensor_slices(inputs).batch(2), k=2))


def test_a_side_without_proponents_is_not_warned_of():
    """All values are negative or 0, and the order of the opponents means something."""
    inputs = np.array([[1, 0], [0, 1], [0, 2], [0, 3]], np.float32)
    model = keras.Sequential([keras.Input((2,)), layers.Activation("linear"), layers.Dense(2)])
    train = tf.data.Dataset.from_tensor_slices((inputs, [1, 0, 0, 0])).batch(2)
    calculator = FeatureSimilarity(model, train, target=0)
    ((found, _),) = calculator.top_k_indices(tf.data.Dataset.from_tensors(inputs[:1]), k=2)
    assert not np.any(found)
