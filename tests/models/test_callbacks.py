"""Checkpoints lead to the model that `fit` left, whatever changed its weights, and a run goes on in its directory."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import InfluenceModel, NamedMethod, SaveCheckpoints, TracIn, load_checkpoints

# Keras' own saving of weights under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(40, 4)).astype("float32"), np.arange(40) % 3


def make(seed=0, optimizer=None):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    return model


def fit(model, callbacks, **options):
    options = {"epochs": 4, "verbose": 0, "batch_size": 20, "callbacks": callbacks} | options
    return model.fit(INPUTS, LABELS, **options)


def leads_to(found, model):
    """Whether the last checkpoint has the weights of the model."""
    pairs = zip(found.models[-1].model.get_weights(), model.get_weights(), strict=True)
    return len(found.models) == len(found.epochs) and all(np.array_equal(*pair) for pair in pairs)


class BestIsEpoch(keras.callbacks.EarlyStopping):
    """Restores the weights of an epoch (from 1) when training ends."""

    def __init__(self, epoch):
        super().__init__(monitor="wanted", mode="max", patience=9, restore_best_weights=True)
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {"wanted": epoch == self.epoch - 1})


class Average(keras.callbacks.Callback):
    """Leaves the mean of all epochs' weights, as stochastic weight averaging does."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.get_weights())

    def on_train_end(self, logs=None):
        self.model.set_weights([np.mean(weights, axis=0) for weights in zip(*self.seen, strict=True)])


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (9, [3])])
def test_checkpoints_end_at_the_epoch_whose_weights_were_restored(is_first, every, expected, tmp_path):
    model, saving = make(), SaveCheckpoints(tmp_path, every=every)
    fit(model, [saving, BestIsEpoch(3)] if is_first else [BestIsEpoch(3), saving])
    if (
        is_first and every == 9
    ):  # nothing of the run up to this epoch is kept: the last epoch alone is written
        expected = [3]
    found = load_checkpoints(tmp_path, model)
    assert found.epochs == expected
    assert leads_to(found, model)


def test_what_tracin_explains_is_the_model_whose_weights_were_restored(tmp_path):
    model, train = make(), tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(20)
    fit(model, [SaveCheckpoints(tmp_path), BestIsEpoch(2)])
    found = load_checkpoints(tmp_path, model)
    by_class = TracIn(found.models, train, learning_rates=found.learning_rates)
    by_name = NamedMethod("tracin", checkpoints=found)(InfluenceModel(model), train)
    for explained in (by_class.model, by_name.model):
        np.testing.assert_allclose(explained.logits(INPUTS), model.predict(INPUTS, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("overwrite", [None, 3])
def test_averaged_weights_are_one_more_checkpoint(overwrite, tmp_path):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=overwrite)
    model = make(optimizer=optimizer)
    fit(model, [SaveCheckpoints(tmp_path)])
    found = load_checkpoints(tmp_path, model)
    assert found.epochs == [1, 2, 3, 4, 4]
    assert leads_to(found, model)


@pytest.mark.parametrize(("is_first", "expected"), [(True, [1, 2, 3, 4, 4]), (False, [1, 2, 3, 4])])
def test_weights_that_are_swapped_for_averages_are_followed(is_first, expected, tmp_path):
    model = make(optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    saving, swapping = SaveCheckpoints(tmp_path), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, [saving, swapping] if is_first else [swapping, saving])
    found = load_checkpoints(tmp_path, model)
    assert found.epochs == expected
    assert leads_to(found, model)


def test_weights_set_at_the_end_of_training_are_kept_by_a_callback_that_is_last(tmp_path):
    model = make()
    fit(model, [Average(), SaveCheckpoints(tmp_path)])
    assert leads_to(load_checkpoints(tmp_path, model), model)


def test_a_model_of_no_epoch_is_refused_with_the_epochs_that_there_are(tmp_path):
    model = make()
    fit(model, [SaveCheckpoints(tmp_path), Average()])
    with pytest.raises(
        ValueError, match=r"epochs 1 to 4.*epoch_00004\.weights\.h5.*SaveCheckpoints after it"
    ):
        load_checkpoints(tmp_path, model)


def test_the_model_before_training_is_no_checkpoint(tmp_path):
    fit(make(), [SaveCheckpoints(tmp_path)])
    with pytest.raises(ValueError, match="epochs 1 to 4"):
        load_checkpoints(tmp_path, make())


def test_the_model_of_an_earlier_epoch_ends_the_checkpoints(tmp_path):
    model = make()
    fit(model, [SaveCheckpoints(tmp_path)])
    model.load_weights(tmp_path / "epoch_00002.weights.h5")
    assert load_checkpoints(tmp_path, model).epochs == [1, 2]


def test_a_function_that_builds_the_model_gives_the_checkpoints_up_to_the_end_of_training(tmp_path):
    model = make()
    fit(model, [BestIsEpoch(2), SaveCheckpoints(tmp_path)])
    found = load_checkpoints(tmp_path, make)
    assert found.epochs == [1, 2]
    assert leads_to(found, model)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_learning_rate_is_that_of_the_epoch_whatever_the_order_of_callbacks(is_first, tmp_path):
    model, saving = make(), SaveCheckpoints(tmp_path)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    fit(model, [saving, schedule] if is_first else [schedule, saving])
    rates = load_checkpoints(tmp_path, model).learning_rates
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3, 0.025], rtol=1e-6)


class Dies(keras.callbacks.Callback):
    """Ends training after an epoch as a killed process does, without a word to other callbacks."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (4, [4, 5])])
def test_an_interrupted_run_goes_on_under_keras_own_numbers(every, expected, tmp_path):
    def callbacks():
        return [
            SaveCheckpoints(tmp_path / "run", every=every),
            keras.callbacks.BackupAndRestore(tmp_path / "b"),
        ]

    with pytest.raises(KeyboardInterrupt):
        fit(make(), [*callbacks(), Dies(3)], epochs=5)
    resumed = make(seed=1)
    fit(resumed, callbacks(), epochs=5)
    found = load_checkpoints(tmp_path / "run", resumed)
    assert found.epochs == expected
    assert leads_to(found, resumed)


def test_epochs_after_the_one_that_training_starts_from_are_replaced(tmp_path):
    fit(make(), [SaveCheckpoints(tmp_path)], epochs=5)
    model = make(seed=1)
    model.load_weights(tmp_path / "epoch_00002.weights.h5")
    fit(model, [SaveCheckpoints(tmp_path)], initial_epoch=2, epochs=3)
    found = load_checkpoints(tmp_path, model)
    assert found.epochs == [1, 2, 3]
    assert leads_to(found, model)
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoints.json",
        *(f"epoch_0000{n}.weights.h5" for n in (1, 2, 3)),
    ]


def test_a_first_epoch_in_an_empty_directory_bears_its_own_number(tmp_path):
    model = make()
    fit(model, [SaveCheckpoints(tmp_path)], initial_epoch=2, epochs=4)
    assert load_checkpoints(tmp_path, model).epochs == [3, 4]


def test_a_second_fit_with_the_same_callback_bears_the_numbers_that_it_was_given(tmp_path):
    model, saving = make(), SaveCheckpoints(tmp_path)
    fit(model, [saving], epochs=2)
    fit(model, [saving], initial_epoch=2, epochs=4)
    fit(model, [saving], epochs=1)
    assert load_checkpoints(tmp_path, model).epochs == [1, 2, 3, 4, 5]


def test_a_second_fit_goes_on_from_the_weights_that_were_restored(tmp_path):
    model, saving = make(), SaveCheckpoints(tmp_path)
    fit(model, [saving, BestIsEpoch(2)])
    fit(model, [saving], epochs=1)
    found = load_checkpoints(tmp_path, model)
    assert found.epochs == [1, 2, 3]
    assert leads_to(found, model)


@pytest.mark.parametrize("initial_epoch", [0, 2, 4])
def test_another_run_is_refused_and_the_first_one_kept(initial_epoch, tmp_path):
    model, saving = make(), SaveCheckpoints(tmp_path)
    fit(model, [saving])
    for callback in (SaveCheckpoints(tmp_path), saving):
        with pytest.raises(ValueError, match=r"another run.*epoch_00004\.weights\.h5"):
            fit(make(seed=1), [callback], initial_epoch=initial_epoch, epochs=6)
    assert load_checkpoints(tmp_path, model).epochs == [1, 2, 3, 4]


def test_the_same_training_again_does_not_replace_a_finished_run(tmp_path):
    fit(make(), [SaveCheckpoints(tmp_path)])
    with pytest.raises(ValueError, match="another run"):
        fit(make(), [SaveCheckpoints(tmp_path)])


def test_a_run_that_was_killed_before_its_first_checkpoint_may_start_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(make(), [SaveCheckpoints(tmp_path, every=3), Dies(2)])
    model = make(seed=1)
    fit(model, [SaveCheckpoints(tmp_path, every=3)])
    assert load_checkpoints(tmp_path, model).epochs == [3, 4]


def test_every_damaged_byte_of_checkpoints_is_refused(tmp_path):
    model = make()
    fit(model, [SaveCheckpoints(tmp_path)], epochs=1)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for position in RNG.choice(len(whole), min(40, len(whole)), replace=False):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(RNG.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"cannot be used: {path.name}"):
                load_checkpoints(tmp_path, model)
        path.write_bytes(whole)
    assert leads_to(load_checkpoints(tmp_path, model), model)


@pytest.mark.parametrize("found", ["{}", "[]", "", '{"format": 2, "epochs": [], "final": null}', "nonsense"])
def test_a_list_of_checkpoints_that_was_not_written_by_the_callback_is_refused(found, tmp_path):
    (tmp_path / "checkpoints.json").write_text(found)
    with pytest.raises(ValueError, match=r"cannot be used: checkpoints\.json.*empty directory"):
        load_checkpoints(tmp_path, make())
    with pytest.raises(ValueError, match=r"cannot be used: checkpoints\.json"):
        fit(make(), [SaveCheckpoints(tmp_path)])


def test_a_missing_file_of_weights_is_named(tmp_path):
    model = make()
    fit(model, [SaveCheckpoints(tmp_path)])
    (tmp_path / "epoch_00002.weights.h5").unlink()
    with pytest.raises(ValueError, match=r"epoch_00002\.weights\.h5 cannot be read"):
        load_checkpoints(tmp_path, model)
