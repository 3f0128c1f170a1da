"""Calls of other threads, and of other traces, leave no mark in a trace."""

import threading

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from deel_dualview import LRP, InfluenceModel, PerExampleGradients
from deel_dualview.linalg import blocks
from deel_dualview.models import recording

INPUTS = np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 0])


def convolutional():
    """A network with convolutions, both normalisations, and a layer that is called twice."""
    inputs, layer = keras.Input((6, 6, 1)), layers.Dense(4, activation="tanh")
    hidden = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(inputs))
    hidden = layers.Dense(4)(layers.Flatten()(hidden))
    return keras.Model(inputs, layers.Dense(3)(layers.LayerNormalization()(layer(layer(hidden)))))


class _Gate(layers.Layer):
    """Lets a second thread run to its end while a first one traces."""

    def __init__(self):
        super().__init__()
        self.meanwhile = None

    def call(self, inputs):
        if self.meanwhile is not None and not tf.executing_eagerly():
            meanwhile, self.meanwhile = self.meanwhile, None
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()
        return inputs


def gated():
    gate = _Gate()
    return gate, keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(4, activation="relu", name="features"), gate]
        + [layers.Dense(3)]
    )


def test_a_call_in_another_thread_during_a_trace_is_not_recorded():
    gate, model = gated()
    expected = InfluenceModel(model, "features").features(INPUTS).numpy()
    influence = InfluenceModel(model, "features")
    gate.meanwhile = lambda: model(INPUTS[:1] + 1)
    np.testing.assert_allclose(influence.features(INPUTS), expected, atol=1e-6)


def test_a_call_in_another_thread_while_gradients_are_traced_changes_neither():
    gate, model = gated()
    influence = InfluenceModel(model)
    expected = blocks.to_dense(PerExampleGradients(influence, "all")(INPUTS, LABELS)).numpy()
    own, seen = model(INPUTS).numpy(), []
    gradients = PerExampleGradients(influence, "all")
    gradients.prepare(INPUTS, LABELS)
    gate.meanwhile = lambda: seen.append(model(INPUTS).numpy())
    np.testing.assert_allclose(blocks.to_dense(gradients(INPUTS, LABELS)), expected, atol=1e-5)
    np.testing.assert_array_equal(seen[0], own)


def test_a_thread_that_calls_a_normalisation_while_its_gradients_are_taken_sees_its_own_scale():
    from deel_dualview.gradients import rules

    layer = layers.LayerNormalization()
    rows = tf.constant(INPUTS.reshape(4, -1))
    layer(rows)
    layer.gamma.assign(tf.fill((36,), 3.0))
    expected, seen = layer(rows).numpy(), []
    with rules._unscaled(layer):
        thread = threading.Thread(target=lambda: seen.append(layer(rows).numpy()))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(seen[0], expected)


def test_recordings_that_overlap_end_in_any_order():
    layer, x = layers.Dense(2, activation="relu"), tf.ones((1, 2))
    layer(x)
    attributes = dict(vars(layer))
    first, second = recording.recorded([layer]), recording.recorded([layer])
    with_first, with_second = first.__enter__(), second.__enter__()
    layer(x)
    first.__exit__(None, None, None)
    layer(x)
    second.__exit__(None, None, None)
    layer(x)
    assert (len(with_first), len(with_second)) == (1, 2)
    assert dict(vars(layer)) == attributes


def test_a_call_that_the_user_replaced_is_put_back():
    layer = layers.ReLU()
    layer.call = own = lambda inputs: -inputs
    with recording.recorded([layer]) as calls:
        layer(tf.ones((1, 2)))
    assert layer.call is own and len(calls) == 1


def test_models_that_wrap_one_keras_model_share_its_lock():
    model = convolutional()
    assert InfluenceModel(model).lock is InfluenceModel(model).lock
    assert InfluenceModel(convolutional()).lock is not InfluenceModel(model).lock


def test_four_threads_on_one_keras_model_compute_what_one_does():
    model = convolutional()
    reference = InfluenceModel(model)
    expected = reference.features(INPUTS).numpy()
    expected_gradients = blocks.to_dense(PerExampleGradients(reference, "all")(INPUTS, LABELS)).numpy()
    relevance = LRP(model)(INPUTS, np.ones((4, 3))).numpy()
    shared, results, barrier = InfluenceModel(model), {}, threading.Barrier(4)

    def work(number):
        barrier.wait()
        influence = shared if number % 2 else InfluenceModel(model)
        gradients = PerExampleGradients(influence, "all")(INPUTS, LABELS)
        found = influence.features(INPUTS), blocks.to_dense(gradients), LRP(model)(INPUTS, np.ones((4, 3)))
        results[number] = [part.numpy() for part in found]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        model(INPUTS)
        thread.join()
    assert len(results) == 4
    for features, gradients, own_relevance in results.values():
        np.testing.assert_allclose(own_relevance, relevance, atol=1e-5)
        np.testing.assert_allclose(features, expected, atol=1e-6)
        np.testing.assert_allclose(gradients, expected_gradients, atol=1e-5)
