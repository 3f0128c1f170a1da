"""Unrolled differentiation: exact values, the promises of every calculator, and what it costs."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_contract import all_values

from deel_dualview import UnrolledInfluenceCalculator
from deel_dualview.calculators.method_specs import resolve
from deel_dualview.evaluation import record_training

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def training(problem):
    """The contract suite's problem, trained in 9 steps from weights of its own."""
    generator = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)]
    )
    for variable in model.trainable_variables:
        variable.assign(0.5 * generator.normal(size=variable.shape))
    optimizer = keras.optimizers.SGD(0.5, momentum=0.5)
    return record_training(
        model, problem.train(), epochs=3, batch_size=20, optimizer=optimizer, loss_function=LOSS
    )


@pytest.fixture(scope="module")
def make(training, problem):
    def made(train=None, **settings):
        train = problem.train() if train is None else train
        return UnrolledInfluenceCalculator(training.model, train, training=training, **settings)

    return made


@pytest.fixture(scope="module")
def calculator(make):
    return make()


@pytest.fixture(scope="module")
def values(calculator, problem):
    return all_values(calculator, problem.test())


def losses(logits, classes):
    logits = logits.astype(np.float64)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(classes)), classes]


def test_values_are_the_rise_of_the_loss_without_an_example(calculator, values, training, problem):
    """By central differences of the loss of the prediction; float32 trainings leave 3 digits at this step."""
    predictions = training.outputs(problem.test_inputs).argmax(axis=1)

    def loss(weights):
        return losses(training.outputs(problem.test_inputs, training.retrain(weights)), predictions)

    expected = np.empty_like(values)
    for example in range(60):
        step = 0.05 * np.eye(60)[example]
        expected[:, example] = (loss(training.weights - step) - loss(training.weights + step)) / 0.1
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_values_of_logits_are_their_fall_without_an_example(make, training, problem):
    found = all_values(make(function="logit", target=1), problem.test())

    def logit(weights):
        return training.outputs(problem.test_inputs, training.retrain(weights))[:, 1].astype(np.float64)

    step = 0.05 * np.eye(60)[7]
    expected = (logit(training.weights + step) - logit(training.weights - step)) / 0.1
    np.testing.assert_allclose(found[:, 7], expected, rtol=0, atol=1e-3 * np.abs(found).max())


def test_batches_of_queries_change_no_value(make, values, problem):
    for other in (all_values(make(), problem.test(15)), all_values(make(queries_at_once=4), problem.test(7))):
        np.testing.assert_allclose(other, values, rtol=1e-4, atol=1e-6)


def test_queries_at_once_hold_a_gibibyte_unless_chosen(make, training, monkeypatch):
    assert make().queries_at_once == 64
    assert training.bytes_per_function == 4 * 2 * len(training.parameters) * 4
    monkeypatch.setattr(type(training), "bytes_per_function", 2**28 + 1)
    assert make().queries_at_once == 3
    monkeypatch.setattr(type(training), "bytes_per_function", 2**31)
    assert make().queries_at_once == 1
    assert make(queries_at_once=5).queries_at_once == 5


def test_top_k_agrees_with_sorting_all_values(calculator, values, problem):
    (top,) = calculator.top_k(problem.test(15), k=3)
    order = np.argsort(-values, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(top.training_indices, order)
    np.testing.assert_array_equal(top.influence_values, np.take_along_axis(values, order, 1))
    np.testing.assert_array_equal(top.training_samples[0], problem.train_inputs[order])


def test_self_influence_is_the_diagonal(make, problem):
    calculator = make(target="label")
    found = np.concatenate(list(calculator.compute_influence_values()))
    np.testing.assert_array_equal(found, np.diag(all_values(calculator, problem.train())))
    assert (found > 0).mean() > 0.9


def test_values_of_known_queries_cost_nothing_again(make, problem, training, monkeypatch):
    calls, derivatives = [], type(training).derivatives
    monkeypatch.setattr(
        type(training), "derivatives", lambda own, rows: (calls.append(len(rows)), derivatives(own, rows))[1]
    )
    calculator = make(queries_at_once=10)
    first = all_values(calculator, problem.test(15))
    assert calls == [10, 5]
    list(calculator.top_k_indices(problem.test(4), k=2))
    np.testing.assert_array_equal(all_values(calculator, problem.test(15).map(lambda x, y: x)), first)
    assert calls == [10, 5]


def test_one_unit_is_a_removal_to_first_order(values, training, problem):
    predictions = training.outputs(problem.test_inputs).argmax(axis=1)
    before = losses(training.outputs(problem.test_inputs), predictions)
    middle = np.abs(values).sum(axis=0).argsort()[29:32]
    for example in middle:
        trained = training.retrain(training.without([example]))
        change = losses(training.outputs(problem.test_inputs, trained), predictions) - before
        assert np.corrcoef(values[:, example], change)[0, 1] > 0.9
        assert 0.7 < (values[:, example] @ change) / (change @ change) < 1.3


def test_it_runs_as_a_method_that_is_given_by_a_partial(training, values, problem):
    spec = resolve(functools.partial(UnrolledInfluenceCalculator, training=training))
    assert spec.name == "UnrolledInfluenceCalculator"
    made = spec.build(training.model, problem.train(), None)
    np.testing.assert_array_equal(all_values(made, problem.test()), values)


def test_another_model_or_training_set_raises_an_error(training, problem):
    with pytest.raises(ValueError, match="weights that the recorded training led to"):
        UnrolledInfluenceCalculator(problem.model, problem.train(), training=training)
    with pytest.raises(ValueError, match="examples of the recorded training"):
        UnrolledInfluenceCalculator(training.model, problem.train().take(2), training=training)
    with pytest.raises(TypeError, match="record_training"):
        UnrolledInfluenceCalculator(training.model, problem.train(), training=None)


def test_there_are_no_influence_vectors(calculator):
    with pytest.raises(ValueError, match="no influence vectors"):
        calculator.compute_influence_vector()


def test_convolutions_and_pooling_are_differentiated_exactly():
    generator = np.random.default_rng(0)
    images, labels = generator.normal(size=(8, 6, 6, 1)), np.arange(8) % 2
    layers = keras.layers
    parts = [layers.Conv2D(2, 3, activation="gelu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)]
    for part in parts:
        part.dtype_policy = keras.DTypePolicy("float64")
    model = keras.Sequential([keras.Input((6, 6, 1), dtype="float64"), *parts])
    for variable in model.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    training = record_training(
        model, train, epochs=2, batch_size=4, optimizer=keras.optimizers.Adam(0.05), loss_function=LOSS
    )
    functions = generator.normal(size=(1, len(training.parameters)))
    step = 1e-6 * np.eye(8)[5]
    expected = (
        functions
        @ (training.retrain(training.weights + step) - training.retrain(training.weights - step))
        / 2e-6
    )
    np.testing.assert_allclose(training.derivatives(functions)[:, 5], expected, rtol=1e-5)
