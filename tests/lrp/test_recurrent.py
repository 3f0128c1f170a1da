"""Recurrent layers: the paper's rule written out in NumPy, gradients where all is linear, masks, directions, states."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import LRP
from deel_dualview.lrp import EPSILON, ThroughTime

EXACT = EPSILON.with_rules({layers.RNN: ThroughTime(1e-9), layers.Bidirectional: ThroughTime(1e-9)})
SEQUENCES = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]], bool)


@pytest.fixture(autouse=True, scope="module")
def without_tracing():
    """Run step by step, which costs less here than tracing a graph for every case; one test below runs the graph."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def model_of(layer, *, is_masked=False, size=2):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, size))
    x = layers.Masking()(inputs) if is_masked else inputs
    model = keras.Model(inputs, layer(x))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(scale=0.7, size=weight.shape) for weight in model.get_weights()])
    return model


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def twin(kind, weights, inputs, mask, relevance, *, sequences=False):
    """Return the relevance of the inputs (t, d) of one sequence: Arras et al., one step after the other."""
    kernel, recurrent, bias = (np.asarray(weight, np.float64) for weight in weights)
    units, steps = recurrent.shape[0], []
    h, c = np.zeros(units), np.zeros(units)
    for x, is_read in zip(inputs.astype(np.float64), mask, strict=True):
        old_h, factor = h, np.ones(units)
        if kind == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
            kept, added = sigmoid(f) * c, sigmoid(i) * np.tanh(g)
            new_c, new_h = kept + added, sigmoid(o) * np.tanh(kept + added)
            own = slice(2 * units, 3 * units)
        elif kind == "gru":
            z, r, g = np.split(x @ kernel + bias[0], 3)
            rz, rr, rg = np.split(h @ recurrent + bias[1], 3)
            z, factor = sigmoid(z + rz), sigmoid(r + rr)
            g = g + factor * rg
            kept, added = z * h, (1 - z) * np.tanh(g)
            new_h = new_c = kept + added
            own = slice(2 * units, 3 * units)
        else:
            g = x @ kernel + h @ recurrent + bias
            kept, added = np.zeros(units), np.tanh(g)
            new_h = new_c = added
            own = slice(0, units)
        if is_read:
            h, c = new_h, new_c
        steps.append((x, is_read, old_h, kept, added, g, factor, own))
    found, of_h, of_c = np.zeros(inputs.shape), np.zeros(units), np.zeros(units)
    for time in reversed(range(len(steps))):
        x, is_read, old_h, kept, added, g, factor, own = steps[time]
        of_h = of_h + (relevance[time] if sequences else relevance * (time == len(steps) - 1))
        if not is_read:
            continue
        whole = of_h + of_c
        of_c, of_g = kept / (kept + added) * whole, added / (kept + added) * whole
        found[time] = sum(x * kernel[:, own][:, j] / g[j] * of_g[j] for j in range(units))
        of_h = sum(old_h * recurrent[:, own][:, j] * factor[j] / g[j] * of_g[j] for j in range(units))
    return found


LAYERS = {"lstm": layers.LSTM, "gru": layers.GRU, "simple": layers.SimpleRNN}


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("kind", LAYERS)
def test_relevance_is_that_of_the_paper_with_masked_steps_left_out(kind, sequences):
    layer = LAYERS[kind](3, return_sequences=sequences)
    inputs = np.where(MASK[..., None], SEQUENCES, 0)
    model = model_of(layer, is_masked=True)
    lrp = LRP(model, EXACT)
    np.testing.assert_allclose(lrp.forward(inputs), model(inputs), atol=1e-6)
    # Two explanations of every example.
    relevance = np.random.default_rng(2).normal(size=(6, *model.output_shape[1:])).astype(np.float32)
    found = np.asarray(lrp(inputs, relevance))
    expected = [
        twin(kind, layer.get_weights(), inputs[row // 2], MASK[row // 2], relevance[row], sequences=sequences)
        for row in range(6)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


CONSERVING = {
    "LSTM": lambda: layers.LSTM(3, use_bias=False),
    "LSTM, sequences": lambda: layers.LSTM(3, use_bias=False, return_sequences=True),
    "LSTM, backwards": lambda: layers.LSTM(3, use_bias=False, go_backwards=True, return_sequences=True),
    "GRU": lambda: layers.GRU(3, use_bias=False),
    "GRU, reset before": lambda: layers.GRU(3, use_bias=False, reset_after=False),
    "SimpleRNN": lambda: layers.SimpleRNN(3, use_bias=False, activation="relu"),
    "RNN of a cell": lambda: layers.RNN(layers.GRUCell(3, use_bias=False)),
    **{
        f"Bidirectional, {mode}": lambda mode=mode: layers.Bidirectional(
            layers.LSTM(3, use_bias=False, return_sequences=True), merge_mode=mode
        )
        for mode in ("concat", "sum", "ave", "mul")
    },
    "Bidirectional, last": lambda: layers.Bidirectional(layers.GRU(3, use_bias=False)),
    "zeros where masked": lambda: layers.LSTM(
        3, use_bias=False, return_sequences=True, zero_output_for_mask=True
    ),
}


@pytest.mark.parametrize("kind", CONSERVING)
def test_without_biases_nothing_is_lost_and_masked_steps_receive_nothing(kind):
    inputs = np.where(MASK[..., None], SEQUENCES, 0)
    model = model_of(CONSERVING[kind](), is_masked=True)
    lrp = LRP(model, EXACT)
    outputs = np.asarray(model(inputs))
    np.testing.assert_allclose(lrp.forward(inputs), outputs, atol=1e-6)
    found = np.asarray(lrp(inputs, outputs))
    assert not found[~MASK].any()
    expected = outputs.reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("is_backwards", [False, True])
def test_where_all_is_linear_it_is_gradient_times_input(is_backwards):
    """An LSTM whose gates see nothing is linear in its inputs."""
    model = model_of(layers.LSTM(3, activation="linear", use_bias=False, go_backwards=is_backwards))
    layer = model.layers[-1]
    kept = np.repeat([0, 0, 1, 0], 3)
    layer.set_weights([weight * kept for weight in layer.get_weights()])
    inputs = tf.constant(SEQUENCES)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = model(inputs)
    expected = inputs * tape.gradient(outputs, inputs)
    np.testing.assert_allclose(LRP(model, EXACT)(SEQUENCES, outputs), expected, rtol=1e-3, atol=1e-4)


def test_both_directions_are_those_of_single_layers():
    both = model_of(layers.Bidirectional(layers.LSTM(3)))
    weights = both.get_weights()
    relevance = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
    single = [model_of(layers.LSTM(3, go_backwards=is_back)) for is_back in (False, True)]
    for model, part in zip(single, (weights[:3], weights[3:]), strict=True):
        model.set_weights(part)
    expected = sum(
        np.asarray(LRP(model, EXACT)(SEQUENCES, part))
        for model, part in zip(single, np.split(relevance, 2, axis=1), strict=True)
    )
    np.testing.assert_allclose(LRP(both, EXACT)(SEQUENCES, relevance), expected, rtol=1e-4, atol=1e-4)


def test_initial_states_receive_their_share():
    sequences, h, c = keras.Input((5, 2)), keras.Input((3,)), keras.Input((3,))
    model = keras.Model([sequences, h, c], layers.LSTM(3, use_bias=False)(sequences, initial_state=[h, c]))
    states = np.random.default_rng(3).normal(size=(2, 3, 3)).astype(np.float32)
    given = [SEQUENCES, *states]
    outputs = np.asarray(model(given))
    found = [np.asarray(part) for part in LRP(model, EXACT)(given, outputs)]
    assert all(part.any() for part in found)
    total = sum(part.reshape(3, -1).sum(axis=1) for part in found)
    np.testing.assert_allclose(total, outputs.sum(axis=1), rtol=1e-2, atol=1e-3)


def test_tokens_through_two_recurrent_layers_receive_all_and_padding_nothing():
    tokens = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 5]], np.int32)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(3, use_bias=False, return_sequences=True))(x)
    model = keras.Model(inputs, layers.GRU(4, use_bias=False)(x))
    outputs = np.asarray(model(tokens))
    for rule in (EXACT, "epsilon-plus-flat"):
        tf.config.run_functions_eagerly(rule is not EXACT)
        found = np.asarray(LRP(model, rule)(tokens, outputs))
        tf.config.run_functions_eagerly(True)
        assert not found[tokens == 0].any()
        np.testing.assert_allclose(found.sum(axis=1), outputs.sum(axis=1), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.ConvLSTM1D(2, 2, name="memory"),
        lambda: layers.RNN([layers.LSTMCell(2), layers.LSTMCell(2)], name="memory"),
        lambda: layers.LSTM(2, stateful=True, name="memory"),
    ],
    ids=["convolutional", "stacked", "stateful"],
)
def test_a_recurrent_layer_without_a_rule_is_named_with_ways_out(make):
    shape = (2, 5, 4, 2) if "Conv" in type(make()).__name__ else (2, 5, 2)
    inputs = keras.Input(batch_shape=shape)
    with pytest.raises(ValueError, match=r"no rule for layer 'memory'.*Share\(\).*gradients-inputs"):
        LRP(keras.Model(inputs, make()(inputs)))
