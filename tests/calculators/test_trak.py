"""Trak: its closed form in NumPy, ensembles, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import layers

from deel_dualview import FactoredProjection, IdentityProjection, InfluenceModel, PerExampleGradients, Trak
from deel_dualview.calculators.represented import Represented
from deel_dualview.linalg import blocks


def values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


@pytest.fixture(scope="module")
def models(problem):
    found = [InfluenceModel(problem.model)]
    for seed in range(2):
        twin = keras.models.clone_model(problem.model)
        rng = np.random.default_rng(seed)
        twin.set_weights(
            [weight + 0.3 * rng.normal(size=weight.shape) for weight in problem.model.get_weights()]
        )
        found.append(InfluenceModel(twin))
    return found


def probabilities(model, inputs):
    logits = model.logits(inputs).numpy().astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def margin_gradients(model, inputs, classes):
    """Of the last layer, by the chain rule: d log(p / (1 - p)) = (onehot - p) / (1 - p) at the own class."""
    p = probabilities(model, inputs)
    own = p[np.arange(len(p)), classes][:, None]
    features = np.hstack([model.features(inputs), np.ones((len(p), 1))])
    delta = (np.eye(3)[classes] - p) / (1 - own)
    return (delta[:, :, None] * features[:, None]).reshape(len(p), -1)


def by_hand(models, problem, damping):
    """Equations 13 to 16 of Park et al. in float64."""
    products, doubts = [], []
    for model in models:
        train = margin_gradients(model, problem.train_inputs, problem.train_labels)
        test = margin_gradients(model, problem.test_inputs, problem.test_labels)
        gram = train.T @ train
        gram += damping * np.trace(gram) / len(gram) * np.eye(len(gram))
        products.append(test @ np.linalg.solve(gram, train.T))
        doubts.append(1 - probabilities(model, problem.train_inputs)[np.arange(60), problem.train_labels])
    return np.mean(products, axis=0) * np.mean(doubts, axis=0)


@pytest.mark.parametrize("num_models", [1, 3])
@pytest.mark.parametrize("projection", [None, IdentityProjection()])
def test_without_a_projection_it_is_its_closed_form(projection, num_models, models, problem):
    chosen = models[:num_models]
    calculator = Trak(chosen, problem.train(), projection=projection, relative_damping=1e-2, target="label")
    expected = by_hand(chosen, problem, 1e-2)
    np.testing.assert_allclose(
        values(calculator, problem.test()), expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max()
    )


def test_margins_have_the_gradients_of_their_formula(models, problem):
    gradients = PerExampleGradients(models[0], function="margin")
    found = blocks.to_dense(gradients(problem.test_inputs, problem.test_labels))
    expected = margin_gradients(models[0], problem.test_inputs, problem.test_labels)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_influence_vectors_give_the_values_by_inner_products(models, problem):
    calculator = Trak(models[:2], problem.train())
    vectors = [np.concatenate(parts) for parts in zip(*calculator.compute_influence_vector(), strict=True)]
    evaluated = Represented(calculator.model, None, inputs=problem.test_inputs)
    queries = calculator._queries(evaluated, np.argmax(evaluated.logits, axis=1))
    products = sum(query.numpy() @ vector.T for query, vector in zip(queries, vectors, strict=True))
    np.testing.assert_allclose(values(calculator, problem.test()), products, rtol=1e-3, atol=1e-6)


def test_with_a_projection_it_is_the_closed_form_of_projected_gradients(models, problem):
    projection = FactoredProjection(16)
    calculator = Trak(models[0], problem.train(), weights="all", projection=projection, target="label")
    gradients = PerExampleGradients(models[0], "all", function="margin")
    train, test = (
        np.asarray(blocks.to_dense(projection(gradients(inputs, labels))), np.float64)
        for inputs, labels in [
            (problem.train_inputs, problem.train_labels),
            (problem.test_inputs, problem.test_labels),
        ]
    )
    gram = train.T @ train
    gram += np.trace(gram) / 16 * np.eye(16)
    doubts = 1 - probabilities(models[0], problem.train_inputs)[np.arange(60), problem.train_labels]
    expected = test @ np.linalg.solve(gram, train.T) * doubts
    np.testing.assert_allclose(
        values(calculator, problem.test()), expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max()
    )


def test_an_example_supports_itself(models, problem):
    found = np.concatenate(list(Trak(models, problem.train()).compute_influence_values()))
    assert (found > 0).all()


def test_more_damping_gives_smaller_values(models, problem):
    small, large = (
        np.abs(values(Trak(models[0], problem.train(), relative_damping=damping), problem.test())).max()
        for damping in (1e-2, 10.0)
    )
    assert large < small


def test_too_many_weights_without_a_projection_are_refused(problem):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3000), layers.Dense(3)])
    with pytest.raises(ValueError, match="FactoredProjection"):
        Trak(InfluenceModel(model), problem.train(), weights="all")


@pytest.mark.parametrize("damping", [0.0, -1.0, np.nan])
def test_damping_must_be_positive(damping, models, problem):
    with pytest.raises(ValueError, match="relative_damping"):
        Trak(models, problem.train(), relative_damping=damping)


def test_gradients_that_are_all_zero_are_refused(problem):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), layers.ReLU(), layers.Dense(3, use_bias=False)]
    )
    model.layers[0].set_weights([np.zeros((6, 4)), -np.ones(4)])
    with pytest.raises(ValueError, match="not all zero"):
        Trak(InfluenceModel(model), problem.train())
