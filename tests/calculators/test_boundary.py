"""Distances to the decision boundary, exact where the decision is linear; the model stays as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import (
    ConvergenceWarning,
    InfluenceModel,
    SampleBoundaryCalculator,
    WeightsBoundaryCalculator,
)

KINDS = {
    "sample": SampleBoundaryCalculator,
    "weights": WeightsBoundaryCalculator,
    "all weights": lambda model, train, **settings: WeightsBoundaryCalculator(
        model, train, weights="all", **settings
    ),
}


def all_values(calculator, dataset=None):
    return np.concatenate(list(calculator.compute_influence_values(dataset)))


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of three classes and its weights in float64."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Activation("linear"), layers.Dense(3, name="last")])
    model.layers[-1].bias.assign([0.3, -0.2, 0.1])
    kernel, bias = (weight.astype(np.float64) for weight in model.layers[-1].get_weights())
    return model, kernel, bias


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(2).normal(size=(11, 4)).astype(np.float32)


def dataset_of(inputs, batch_size=4):
    return tf.data.Dataset.from_tensor_slices(inputs).batch(batch_size)


def leads(kernel, bias, inputs):
    """For each example, of every other class: by how much it is behind, and the difference of weights."""
    for x in inputs.astype(np.float64):
        logits = x @ kernel + bias
        own = logits.argmax()
        others = [j for j in range(len(logits)) if j != own]
        yield x, [(logits[own] - logits[j], kernel[:, own] - kernel[:, j]) for j in others]


def test_the_distance_of_an_input_is_that_to_a_hyperplane(linear, points):
    model, kernel, bias = linear
    expected = [-min(gap / np.linalg.norm(w) for gap, w in found) for _, found in leads(kernel, bias, points)]
    values = all_values(SampleBoundaryCalculator(InfluenceModel(model), dataset_of(points)))
    np.testing.assert_allclose(values, expected, rtol=1e-3)


@pytest.mark.parametrize("weights", ["last", "all", ["last"]])
def test_the_distance_of_the_last_layer_is_the_margin_over_the_features(weights, linear, points):
    model, kernel, bias = linear
    expected = [
        -min(gap for gap, _ in found) / np.sqrt(2 * (x @ x + 1)) for x, found in leads(kernel, bias, points)
    ]
    values = all_values(WeightsBoundaryCalculator(InfluenceModel(model), dataset_of(points), weights=weights))
    np.testing.assert_allclose(values, expected, rtol=1e-3)


@pytest.mark.parametrize("weights", ["last", "all"])
def test_a_model_with_one_output_has_one_vector_of_weights(weights, points):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Activation("linear"), layers.Dense(1, activation="sigmoid")]
    )
    kernel = model.layers[-1].get_weights()[0][:, 0]
    expected = -np.abs(points @ kernel) / np.sqrt((points**2).sum(axis=1) + 1)
    values = all_values(WeightsBoundaryCalculator(InfluenceModel(model), dataset_of(points), weights=weights))
    np.testing.assert_allclose(values, expected, rtol=1e-3)


def test_the_walk_ends_where_the_decision_of_a_network_changes(problem):
    """Half the distance crosses in no sampled direction, five times the distance in some."""
    split = InfluenceModel(problem.model)
    inputs = problem.train_inputs[:20]
    distances = -all_values(SampleBoundaryCalculator(split, dataset_of(inputs)))
    own = split.logits(inputs).numpy().argmax(axis=1)
    rng = np.random.default_rng(0)
    crossed = np.zeros((20, 2), bool)
    for _ in range(300):
        directions = rng.normal(size=inputs.shape)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        for column, share in enumerate((0.5, 5.0)):
            moved = (inputs + share * distances[:, None] * directions).astype(np.float32)
            crossed[:, column] |= split.logits(moved).numpy().argmax(axis=1) != own
    assert not crossed[:, 0].any()
    assert crossed[:, 1].mean() > 0.9


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_users_model_is_never_changed(make, problem):
    before = [weight.copy() for weight in problem.model.get_weights()]
    values = iter(make(InfluenceModel(problem.model), problem.train(4)).compute_influence_values())
    next(values)
    for weight, earlier in zip(problem.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, earlier)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_values_do_not_depend_on_the_batch_size(make, problem):
    split = InfluenceModel(problem.model)
    few = all_values(make(split, problem.test(4)))
    np.testing.assert_allclose(few, all_values(make(split, problem.test(15))), rtol=1e-4)
    assert few.shape == (15,) and (few <= 0).all()


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_an_example_next_to_the_boundary_comes_first(make, problem):
    split = InfluenceModel(problem.model)
    logits = np.sort(split.logits(problem.train_inputs[:12]).numpy(), axis=1)
    nearest = np.argmin(logits[:, -1] - logits[:, -2])
    values = all_values(make(split, problem.train()), dataset_of(problem.train_inputs[:12]))
    assert nearest in np.argsort(-values)[:3]


@pytest.mark.parametrize("make", [KINDS["sample"], KINDS["all weights"]], ids=["sample", "all weights"])
def test_a_boundary_that_is_not_reached_is_told(make, problem):
    """A model of constants: no step changes its decision."""
    model = keras.Sequential(
        [keras.Input((6,)), layers.Rescaling(0.0), layers.Dense(3, use_bias=False), layers.Dense(3)]
    )
    model.layers[-1].set_weights([np.zeros((3, 3)), np.array([1.0, 0.0, 0.0])])
    model.layers[-1].trainable = False
    calculator = make(InfluenceModel(model), problem.test(), max_iterations=3)
    with pytest.warns(ConvergenceWarning, match="max_iterations=3"):
        values = all_values(calculator)
    assert np.isneginf(values).all()


@pytest.mark.parametrize("declared", ["float32", "uint8"])
def test_pixels_of_bytes_have_the_distance_of_real_numbers(declared, linear):
    """A model that declares its inputs as bytes rounds what it is called with."""
    model = keras.Sequential([keras.Input((4,), dtype=declared), layers.Rescaling(1.0), layers.Dense(3)])
    model.layers[-1].set_weights(linear[0].layers[-1].get_weights())
    pixels = np.random.default_rng(0).integers(0, 255, (6, 4)).astype(np.uint8)
    _, kernel, bias = linear
    expected = [-min(gap / np.linalg.norm(w) for gap, w in found) for _, found in leads(kernel, bias, pixels)]
    values = all_values(SampleBoundaryCalculator(InfluenceModel(model), dataset_of(pixels)))
    np.testing.assert_allclose(values, expected, rtol=1e-3)


def test_a_model_that_rounds_its_inputs_inside_is_refused(linear):
    inner = keras.Sequential([keras.Input((4,), dtype="uint8"), layers.Rescaling(1.0)])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(3)])
    with pytest.raises(ValueError, match="differentiable"):
        SampleBoundaryCalculator(InfluenceModel(model), dataset_of(np.ones((6, 4), np.float32)))


def test_tokens_can_move_weights_but_not_themselves():
    keras.utils.set_random_seed(0)
    model = InfluenceModel(
        keras.Sequential(
            [keras.Input((5,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten(), layers.Dense(3)]
        )
    )
    tokens = dataset_of(np.random.default_rng(0).integers(0, 9, (6, 5)).astype(np.int32))
    with pytest.raises(ValueError, match="tokens cannot be moved"):
        SampleBoundaryCalculator(model, tokens)
    assert np.isfinite(all_values(WeightsBoundaryCalculator(model, tokens, weights="all"))).all()


def test_a_convolutional_network_with_normalisation_works():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    images = dataset_of(np.random.default_rng(0).normal(size=(5, 6, 6, 1)).astype("float32"), 2)
    for make in KINDS.values():
        assert np.isfinite(all_values(make(InfluenceModel(model), images))).all()


@pytest.mark.parametrize("setting", [{"max_iterations": 0}, {"tolerance": 0.0}, {"num_candidates": 0}])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_bad_setting_is_refused(make, setting, problem):
    with pytest.raises(ValueError, match=next(iter(setting))):
        make(InfluenceModel(problem.model), problem.train(), **setting)
