"""Gradient products with Adam's diagonal matrix: the formulas in NumPy, and models that have none."""

import keras
import numpy as np
import pytest
from cases_contract import all_values
from test_graddot import gradients_by_hand

from deel_dualview import (
    FactoredProjection,
    GradCos,
    GradDot,
    InfluenceModel,
    SaveCheckpoints,
    TracIn,
    load_checkpoints,
)
from deel_dualview.calculators.method_specs import resolve
from deel_dualview.evaluation import record_training
from deel_dualview.models.optimizer_steps import adam_scales

# Keras' own saving of weights under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def diagonal_by_hand(model, layers_from=0):
    """Return 1 / (sqrt(v_hat) + epsilon) by the optimizer's variables, float64, in the order of the weights."""
    optimizer = model.optimizer
    moments = [variable.numpy() for variable in optimizer.variables if variable.path.endswith("velocity")]
    correction = 1 - 0.999 ** float(optimizer.iterations)
    parts = [np.sqrt(moment.astype(np.float64) / correction).ravel() for moment in moments[layers_from:]]
    return 1 / (np.concatenate(parts) + 1e-7 / np.sqrt(correction))


def by_hand(problem, layers_from, function="loss"):
    """Return the gradients of training and evaluated examples at their labels, and the diagonal."""
    train = gradients_by_hand(
        problem.model, problem.train_inputs, problem.train_labels, function, layers_from
    )
    test = gradients_by_hand(problem.model, problem.test_inputs, problem.test_labels, function, layers_from)
    return train, test, diagonal_by_hand(problem.model, layers_from)


@pytest.fixture(scope="module")
def trained(problem):
    """Another model of the problem, compiled with Adam."""
    model = keras.models.clone_model(problem.model)
    model.set_weights(problem.model.get_weights())
    model.compile(keras.optimizers.Adam(0.05), LOSS)
    return model


@pytest.mark.parametrize(("weights", "layers_from"), [("last", 2), ("all", 0)])
def test_values_are_inner_products_with_the_diagonal(weights, layers_from, problem):
    calculator = GradDot(
        problem.model, problem.train(), weights=weights, preconditioner="adam", target="label"
    )
    train, test, diagonal = by_hand(problem, layers_from)
    expected = (test * diagonal) @ train.T
    np.testing.assert_allclose(
        all_values(calculator, problem.test()), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
    )
    own = np.concatenate(list(calculator.compute_influence_values()))
    np.testing.assert_allclose(own, (train**2) @ diagonal, rtol=1e-3)


@pytest.mark.parametrize("normalize", ["both", "train"])
def test_cosines_have_the_norms_of_the_diagonal(normalize, problem):
    calculator = GradCos(
        problem.model, problem.train(), normalize=normalize, preconditioner="adam", target="label"
    )
    train, test, diagonal = by_hand(problem, 2)
    expected = (test * diagonal) @ train.T / np.sqrt((train**2) @ diagonal)
    if normalize == "both":
        expected /= np.sqrt((test**2) @ diagonal)[:, np.newaxis]
        own = np.concatenate(list(calculator.compute_influence_values()))
        np.testing.assert_allclose(own, 1, rtol=1e-5)
    found = all_values(calculator, problem.test())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_the_diagonal_is_that_of_a_step_of_keras(problem, trained):
    trained.fit(problem.train(), epochs=1, verbose=0, shuffle=False)
    before = [variable.numpy() for variable in trained.trainable_variables]
    trained.fit(problem.train().take(1), epochs=1, verbose=0, shuffle=False)
    scales, optimizer = adam_scales(trained), trained.optimizer
    first = [variable for variable in optimizer.variables if variable.path.endswith("momentum")]
    for variable, earlier, moment in zip(trained.trainable_variables, before, first, strict=True):
        mean = moment.numpy() / (1 - 0.9 ** float(optimizer.iterations))
        change = -0.05 * mean * scales[id(variable)].numpy()
        np.testing.assert_allclose(variable.numpy() - earlier, change, rtol=1e-3, atol=1e-6)


def test_every_checkpoint_has_its_own_diagonal(problem, trained, tmp_path):
    """Files of weights hold the optimizer too."""
    trained.fit(
        problem.train(), epochs=3, verbose=0, shuffle=False, callbacks=[SaveCheckpoints(tmp_path, every=2)]
    )
    found = load_checkpoints(tmp_path, trained)
    assert found.epochs == [2, 3]
    traced = TracIn(found.models, problem.train(), learning_rates=[0.5, 0.1], preconditioner="adam", target=1)
    products = [
        GradDot(model, problem.train(), preconditioner="adam", target=1)
        for model in (found.models[0], trained)
    ]
    first, last = (all_values(calculator, problem.test()) for calculator in products)
    expected = 0.5 * first + 0.1 * last
    np.testing.assert_allclose(
        all_values(traced, problem.test()), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    assert not np.allclose(*(diagonal_by_hand(one) for one in (found.models[0].model, trained)))
    own = [np.concatenate(list(one.compute_influence_values())) for one in (traced, *products)]
    np.testing.assert_allclose(own[0], 0.5 * own[1] + 0.1 * own[2], rtol=1e-4)


def test_a_recorded_training_leaves_the_optimizer_as_fit_does(problem):
    models = [keras.models.clone_model(problem.model) for _ in range(2)]
    for model in models:
        model.set_weights(problem.model.get_weights())
        model.compile(keras.optimizers.Adam(0.01), LOSS)
    train = problem.train(60)
    training = record_training(models[0], train, epochs=3, batch_size=60)
    models[1].fit(train, epochs=3, verbose=0, shuffle=False)
    middle = training.model_after(2)
    found, expected = (model.optimizer.variables for model in models)
    assert [one.path.split("/")[-1] for one in found] == [one.path.split("/")[-1] for one in expected]
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), other.numpy(), rtol=1e-3, atol=1e-6)
    models[1].set_weights(problem.model.get_weights())
    models[1].compile(keras.optimizers.Adam(0.01), LOSS)
    models[1].fit(train, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_allclose(diagonal_by_hand(middle), diagonal_by_hand(models[1]), rtol=1e-3)


def test_models_without_averages_of_squared_gradients_raise_an_error(problem):
    def products(model, **settings):
        return GradDot(model, problem.train(), preconditioner="adam", **settings)

    model = keras.models.clone_model(problem.model)
    model.compile(keras.optimizers.Adam(0.05), LOSS)
    with pytest.raises(ValueError, match=r"has taken no step.*`compile` after the training"):
        products(model)
    model.compile(keras.optimizers.SGD(0.05), LOSS)
    model.fit(problem.train().take(1), verbose=0, shuffle=False)
    with pytest.raises(ValueError, match="compiled with Adam or AdamW.*optimizer='SGD'"):
        products(model)
    with pytest.raises(ValueError, match="without a projection.*factored"):
        products(problem.model, weights="all", projection=FactoredProjection(4))


def test_weights_that_were_frozen_raise_an_error(problem):
    frozen = keras.models.clone_model(problem.model)
    frozen.layers[0].trainable = False
    frozen.compile(keras.optimizers.AdamW(0.05), LOSS)
    frozen.fit(problem.train().take(1), verbose=0, shuffle=False)
    frozen.layers[0].trainable = True
    with pytest.raises(ValueError, match="frozen when the model was compiled"):
        GradDot(frozen, problem.train(), weights="all", preconditioner="adam")
    GradDot(frozen, problem.train(), preconditioner="adam")


def test_it_has_a_name_with_a_setting(problem):
    found = resolve("graddot?preconditioner=adam").build(problem.model, problem.train(), None)
    expected = GradDot(problem.model, problem.train(), preconditioner="adam")
    np.testing.assert_array_equal(*(all_values(one, problem.test()) for one in (found, expected)))


def test_there_are_no_contributions_of_features(problem):
    calculator = GradDot(problem.model, problem.train(), preconditioner="adam")
    with pytest.raises((TypeError, ValueError)):
        calculator.check_feature_contributions()
    with pytest.raises(ValueError, match="preconditioner"):
        GradDot(InfluenceModel(problem.model), problem.train(), preconditioner="momentum")
