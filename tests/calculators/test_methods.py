"""The methods by name: each makes the calculator that it stands for, and says what it lacks."""

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import deel_dualview
from deel_dualview import (
    METHODS,
    BaseInfluenceCalculator,
    Checkpoints,
    GradCos,
    InfluenceModel,
    NamedMethod,
    TracIn,
)

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def model() -> InfluenceModel:
    keras.utils.set_random_seed(0)
    return InfluenceModel(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(NUM_CLASSES)])
    )


@pytest.fixture(scope="module")
def train() -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(24, 4)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((inputs, np.arange(24) % NUM_CLASSES)).batch(8)


@pytest.fixture(scope="module")
def checkpoints(model) -> Checkpoints:
    """An earlier model, and one equal to the last."""
    copies = [keras.models.clone_model(model.model) for _ in range(2)]
    copies[1].set_weights(model.model.get_weights())
    return Checkpoints([InfluenceModel(copy) for copy in copies], [0.1, 0.03], [1, 2])


def values_of(calculator: BaseInfluenceCalculator, dataset: tf.data.Dataset) -> np.ndarray:
    batches = calculator.estimate_influence_values_in_batches(dataset)
    return np.concatenate(list(batches.as_numpy_iterator()))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_method_gives_values_of_every_training_example(name, model, train, checkpoints):
    calculator = NamedMethod(name, checkpoints)(model, train)
    assert type(calculator).__name__ == METHODS[name].class_name
    assert calculator.target == "prediction"
    values = values_of(calculator, train.take(1))
    assert values.shape == (8, 24)
    assert np.isfinite(values).all() and np.ptp(values) > 0


def test_every_calculator_of_the_package_has_a_method():
    public = [getattr(deel_dualview, name) for name in deel_dualview.__all__]
    calculators = {
        value.__name__
        for value in public
        if isinstance(value, type)
        and issubclass(value, BaseInfluenceCalculator)
        and not inspect.isabstract(value)
    }
    # One is made of calculators, the other of a recorded training.
    of_something_else = {"Ensemble", "UnrolledInfluenceCalculator"}
    assert calculators - of_something_else | {"RandomInfluence"} == {
        method.class_name for method in METHODS.values()
    }


def test_sim_normalises_training_gradients_of_the_logit(model, train):
    expected = GradCos(model, train, normalize="train", function="logit")
    np.testing.assert_allclose(
        values_of(NamedMethod("sim")(model, train), train), values_of(expected, train), rtol=1e-5
    )


def test_an_inverse_is_the_one_that_the_name_says(model, train):
    assert type(NamedMethod("ekfac")(model, train).ihvp).__name__ == "EkfacIHVP"


def test_tracin_weighs_checkpoints_by_their_learning_rates(model, train, checkpoints):
    expected = TracIn(checkpoints.models, train, learning_rates=[0.1, 0.03])
    found = NamedMethod("tracin", checkpoints)(model, train)
    np.testing.assert_allclose(values_of(found, train), values_of(expected, train), rtol=1e-5)


def test_tracin_explains_the_model_itself(model, train, checkpoints):
    assert NamedMethod("tracin", checkpoints)(model, train).model is model


def test_trak_averages_over_checkpoints_where_there_are_some(model, train, checkpoints):
    assert len(NamedMethod("trak", checkpoints)(model, train).gradients.models) == 2
    assert len(NamedMethod("trak")(model, train).gradients.models) == 1


def test_checkpoints_that_end_in_another_model_are_refused(model, train, checkpoints):
    unfinished = Checkpoints(checkpoints.models[:1], [0.1], [1])
    with pytest.raises(ValueError, match="last checkpoint must be the model.*epoch 1"):
        NamedMethod("tracin", unfinished)(model, train)


def test_a_method_without_the_checkpoints_that_it_needs_is_refused_at_once():
    with pytest.raises(ValueError, match="tracin needs checkpoints.*SaveCheckpoints.*--checkpoints"):
        NamedMethod("tracin")


def test_an_unknown_method_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="dualview, first-order.*feature-similarity.*'influence'"):
        NamedMethod("influence")


def test_the_table_is_read_without_tensorflow():
    code = "import deel_dualview.calculators.methods, sys; print('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
