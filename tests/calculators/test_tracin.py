"""TracIn: sums over checkpoints, learning rates, and the callback that writes checkpoints."""

import keras
import numpy as np
import pytest
from keras import layers

from deel_dualview import (
    DiskStore,
    FactoredProjection,
    GradDot,
    InfluenceModel,
    SaveCheckpoints,
    TracIn,
    load_checkpoints,
)

# Keras' own saving of weights under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


@pytest.fixture(scope="module")
def checkpoints(problem):
    """Three models of one architecture with different weights."""
    models = []
    for seed in range(3):
        twin = keras.models.clone_model(problem.model)
        rng = np.random.default_rng(seed)
        twin.set_weights(
            [weight + 0.2 * rng.normal(size=weight.shape) for weight in problem.model.get_weights()]
        )
        models.append(InfluenceModel(twin))
    return models


@pytest.mark.parametrize(
    "options", [{}, {"weights": "all"}, {"weights": "all", "projection": FactoredProjection(8)}]
)
def test_one_checkpoint_is_the_learning_rate_times_gradient_products(options, checkpoints, problem):
    traced = TracIn(checkpoints[0], problem.train(), learning_rates=0.3, **options)
    products = GradDot(checkpoints[0], problem.train(), **options)
    np.testing.assert_allclose(
        values(traced, problem.test()), 0.3 * values(products, problem.test()), rtol=1e-5, atol=1e-6
    )


def test_checkpoints_add_up_with_their_learning_rates(checkpoints, problem):
    rates = [0.5, 0.0, 0.1]
    traced = TracIn(checkpoints, problem.train(), learning_rates=rates, weights="all", target=2)
    products = [GradDot(model, problem.train(), weights="all", target=2) for model in checkpoints]
    expected = sum(
        rate * values(single, problem.test()) for rate, single in zip(rates, products, strict=True)
    )
    np.testing.assert_allclose(values(traced, problem.test()), expected, rtol=1e-4, atol=1e-5)


def test_self_influence_is_the_sum_of_squared_norms(checkpoints, problem):
    traced = TracIn(checkpoints, problem.train(), learning_rates=[0.5, 0.2, 0.1])
    found = np.concatenate(list(traced.compute_influence_values()))
    products = [
        np.concatenate(list(GradDot(model, problem.train()).compute_influence_values()))
        for model in checkpoints
    ]
    np.testing.assert_allclose(found, 0.5 * products[0] + 0.2 * products[1] + 0.1 * products[2], rtol=1e-4)


def test_the_last_checkpoint_says_what_is_explained(checkpoints, problem):
    predicted = np.argmax(checkpoints[-1].logits(problem.test_inputs), axis=1)
    by_prediction = values(TracIn(checkpoints, problem.train()), problem.test())
    by_label = TracIn(checkpoints, problem.train(), target="label")
    relabelled = problem._replace(test_labels=predicted)
    np.testing.assert_array_equal(by_prediction, values(by_label, relabelled.test()))


def test_other_learning_rates_read_the_same_store(checkpoints, problem, tmp_path):
    TracIn(checkpoints, problem.train(), learning_rates=1.0, store=DiskStore(tmp_path / "store"))
    again = TracIn(checkpoints, problem.train(), learning_rates=0.5, store=DiskStore(tmp_path / "store"))
    fresh = TracIn(checkpoints, problem.train(), learning_rates=0.5)
    np.testing.assert_array_equal(values(again, problem.test()), values(fresh, problem.test()))


def test_other_checkpoints_are_refused_by_the_store(checkpoints, problem, tmp_path):
    TracIn(checkpoints, problem.train(), store=DiskStore(tmp_path / "store"))
    with pytest.raises(ValueError, match="checkpoints"):
        TracIn(checkpoints[1:], problem.train(), store=DiskStore(tmp_path / "store"))


@pytest.mark.parametrize(
    ("rates", "error"),
    [
        ([0.1, 0.2], ValueError),
        ([], ValueError),
        (-0.1, ValueError),
        ([0.1, np.nan, 0.1], ValueError),
        ("0.1", TypeError),
    ],
)
def test_wrong_learning_rates_are_refused(rates, error, checkpoints, problem):
    with pytest.raises(error, match="learning"):
        TracIn(checkpoints, problem.train(), learning_rates=rates)


@pytest.mark.parametrize("hidden", [[layers.Dense(9, activation="relu")], [layers.Dense(8), layers.Dense(8)]])
def test_checkpoints_of_different_architectures_are_refused(hidden, checkpoints, problem):
    other = InfluenceModel(keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)]))
    with pytest.raises(ValueError, match="one architecture"):
        TracIn([checkpoints[0], other], problem.train())


@pytest.mark.parametrize(("models", "error"), [([], ValueError), (["model"], TypeError), (3, TypeError)])
def test_wrong_checkpoints_are_refused(models, error, problem):
    with pytest.raises(error, match="heckpoint"):
        TracIn(models, problem.train())


@pytest.fixture
def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(3)])


def fit(model, problem, callbacks, rate, epochs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss)
    model.fit(
        problem.train_inputs,
        problem.train_labels,
        batch_size=30,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    )


def test_a_run_can_be_traced_from_its_directory(make_model, problem, tmp_path):
    kept = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(make_model.get_weights())
    )
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    fit(make_model, problem, [SaveCheckpoints(tmp_path / "run"), schedule, keep], 0.1, 3)
    found = load_checkpoints(tmp_path / "run", make_model)
    assert found.epochs == [1, 2, 3]
    np.testing.assert_allclose(found.learning_rates, [0.1, 0.05, 0.1 / 3], rtol=1e-6)
    for model, weights in zip(found.models, kept, strict=True):
        for own, expected in zip(model.model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(own, expected)
    assert np.isfinite(
        values(TracIn(found.models, problem.train(), learning_rates=found.learning_rates), problem.test())
    ).all()


def test_a_schedule_inside_the_optimizer_is_read(make_model, problem, tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.2, 0.1])
    fit(make_model, problem, [SaveCheckpoints(tmp_path)], schedule, 4)
    np.testing.assert_allclose(
        load_checkpoints(tmp_path, make_model).learning_rates, [0.2, 0.2, 0.1, 0.1], rtol=1e-6
    )


def test_every_second_epoch_can_be_kept_over_two_fits(make_model, problem, tmp_path):
    callback = SaveCheckpoints(tmp_path, every=2)
    fit(make_model, problem, [callback], 0.1, 3)
    fit(make_model, problem, [callback], 0.01, 3)
    found = load_checkpoints(tmp_path, make_model)
    assert found.epochs == [2, 4, 6]
    np.testing.assert_allclose(found.learning_rates, [0.1, 0.01, 0.01], rtol=1e-6)


def test_a_directory_of_another_run_is_refused(make_model, problem, tmp_path):
    fit(make_model, problem, [SaveCheckpoints(tmp_path)], 0.1, 1)
    with pytest.raises(ValueError, match="another run"):
        fit(make_model, problem, [SaveCheckpoints(tmp_path)], 0.1, 1)


def test_checkpoints_of_another_architecture_are_refused(make_model, problem, tmp_path):
    fit(make_model, problem, [SaveCheckpoints(tmp_path)], 0.1, 1)
    other = keras.Sequential([keras.Input((6,)), layers.Dense(9), layers.Dense(3)])
    with pytest.raises(ValueError, match="of another architecture"):
        load_checkpoints(tmp_path, other)


def test_a_directory_without_checkpoints_is_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match="SaveCheckpoints"):
        load_checkpoints(tmp_path, make_model)


def test_a_function_may_build_the_models(make_model, problem, tmp_path):
    fit(make_model, problem, [SaveCheckpoints(tmp_path)], 0.1, 1)
    found = load_checkpoints(tmp_path, lambda: keras.models.clone_model(make_model))
    np.testing.assert_array_equal(found.models[0].model.get_weights()[0], make_model.get_weights()[0])
