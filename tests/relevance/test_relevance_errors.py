"""Where pair relevance ends: the message names the layer and the way out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, DualView, FeatureSimilarity, InfluenceModel

LABELS = np.arange(12) % 3
ROWS = np.random.default_rng(0).uniform(size=(12, 6)).astype(np.float32)


def batched(inputs):
    return tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(5)


def of(model, inputs=ROWS, feature_layer=None):
    return FeatureSimilarity(InfluenceModel(model, feature_layer), batched(inputs))


class Block(layers.Layer):
    """A layer that calls another one in its Python code."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.hidden = layers.Dense(6, name="hidden")

    def call(self, inputs):
        return keras.ops.relu(self.hidden(inputs))


class Inner(keras.Model):
    """A subclassed part of a Functional model."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = layers.Dense(6)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_feature_layer_inside_the_code_of_another_layer_cannot_be_reached():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Block(name="block")(inputs)))
    with pytest.raises(ValueError, match=r"no part of the graph.*from_parts.*layer='hidden', calls=0"):
        DualRelevance(of(model, feature_layer="hidden"))


def test_a_layer_of_ones_own_is_named_with_the_way_to_register_a_rule():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Block(name="block")(inputs)))
    with pytest.raises(ValueError, match=r"no rule for layer 'block' of type Block.*with_rules\(\{Block"):
        DualRelevance(of(model))


def test_a_subclassed_model_inside_a_functional_one_is_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Inner(name="inner")(inputs)))
    with pytest.raises(ValueError, match=r"from_parts.*model='inner'"):
        DualRelevance(of(model))


def test_from_parts_with_a_functional_extractor_is_the_way_out():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    extractor = keras.Model(inputs, layers.Dense(5, activation="relu", use_bias=False)(inputs))
    head = layers.Dense(3)
    head.build((None, 5))
    model = InfluenceModel.from_parts(extractor, head)
    relevance = DualRelevance(DualView(model, batched(ROWS), K=1.0), rule="epsilon")
    pair = next(iter(relevance.explain(batched(ROWS).take(1), k=2)))
    sums = np.asarray(pair.train_relevance).sum(axis=-1)
    np.testing.assert_allclose(
        sums + pair.train_leak + pair.bias_share, pair.top.influence_values, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("rule", ["gradients-inputs", "integrated-gradients"])
def test_tokens_have_no_gradient_and_the_message_says_what_to_take(rule):
    pytest.importorskip("tf_explain")
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)]
    )
    tokens = (ROWS * 9).astype(np.int32)
    with pytest.raises(ValueError, match=r"they are integers.*layer-wise relevance propagation"):
        next(
            iter(
                DualRelevance(DualView(InfluenceModel(model), batched(tokens), K=1.0), rule).explain(
                    batched(tokens), k=2
                )
            )
        )
