"""Ensembles: the mean over calculators of several models, and models of subsets to make them of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import Ensemble, FirstOrderInfluenceCalculator, GradDot, InfluenceModel
from deel_dualview.evaluation import train_on_subsets

NUM_TRAIN = 24


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, NUM_TRAIN + 8)
    return (rng.normal(size=(NUM_TRAIN + 8, 4)) + np.eye(4)[labels]).astype(np.float32), labels


@pytest.fixture(scope="module")
def train_set(data):
    return tf.data.Dataset.from_tensor_slices((data[0][:NUM_TRAIN], data[1][:NUM_TRAIN])).batch(7)


@pytest.fixture(scope="module")
def queries(data):
    return tf.data.Dataset.from_tensor_slices((data[0][NUM_TRAIN:], data[1][NUM_TRAIN:])).batch(5)


def network(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3)])


@pytest.fixture(scope="module")
def models():
    return [InfluenceModel(network(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def members(models, train_set):
    return [GradDot(models[0], train_set), FirstOrderInfluenceCalculator(models[1], train_set)]


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def predicted_by(model, data):
    return model.logits(data[0][NUM_TRAIN:]).numpy().argmax(axis=1)


def test_values_are_the_mean_over_the_members_for_the_class_that_the_model_predicts(
    models, train_set, members, data
):
    classes = predicted_by(models[2], data)
    others = predicted_by(models[0], data)
    assert (classes != others).any()
    queries = tf.data.Dataset.from_tensor_slices((data[0][NUM_TRAIN:], classes)).batch(5)
    expected = sum(
        all_values(made, queries)
        for made in (
            GradDot(models[0], train_set, target="label"),
            FirstOrderInfluenceCalculator(models[1], train_set, target="label"),
        )
    )
    found = all_values(Ensemble(members, model=models[2]), queries)
    np.testing.assert_allclose(found, expected / 2, rtol=1e-5, atol=1e-7)


def test_values_of_unit_deviation_for_each_query_are_averaged(members, queries):
    by_label = [all_values(Ensemble([member], target="label"), queries) for member in members]
    expected = sum(values / values.std(axis=1, keepdims=True) for values in by_label) / 2
    found = all_values(Ensemble(members, scale="query", target="label"), queries)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_one_member_is_itself(members, queries, train_set):
    np.testing.assert_array_equal(all_values(Ensemble(members[1:]), queries), all_values(members[1], queries))
    found = np.concatenate(list(Ensemble(members[1:]).compute_influence_values()))
    np.testing.assert_array_equal(found, np.concatenate(list(members[1].compute_influence_values())))


def test_bytes_are_those_of_all_members(members):
    assert Ensemble(members).stored_bytes == sum(member.stored_bytes for member in members) > 0


def test_members_keep_their_own_targets(members):
    Ensemble(members, target="label")
    assert [member.target for member in members] == ["prediction"] * 2


BAD = [
    ({"calculators": []}, ValueError, "An ensemble is made of"),
    ({"calculators": "all"}, TypeError, "An ensemble is made of"),
    ({"calculators": [3]}, TypeError, "member='int'"),
    ({"scale": "unit"}, ValueError, "scale='unit'"),
    ({"target": 3}, ValueError, "target=3"),
    ({"model": 3}, TypeError, "model"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
def test_bad_arguments_are_refused(settings, error, message, members):
    with pytest.raises(error, match=message):
        Ensemble(**{"calculators": members} | settings)


def test_members_of_another_training_set_or_other_outputs_are_refused(models, members, train_set):
    with pytest.raises(ValueError, match=r"same training set.*calculator=1"):
        Ensemble([members[0], GradDot(models[1], train_set.take(2))])
    four = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"same outputs.*outputs=3.*of the model=4"):
        Ensemble(members, model=four)


def test_a_member_whose_weights_have_changed_is_detected(train_set, queries):
    changing = network(5)
    ensemble = Ensemble([GradDot(InfluenceModel(network(4)), train_set), GradDot(changing, train_set)])
    changing.layers[-1].bias.assign_add(np.ones(3))
    with pytest.raises(ValueError, match="weights"):
        all_values(ensemble, queries)


class Trainer:
    """Makes a model whose last bias is what it was trained on, and counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, dataset, seed):
        inputs = np.concatenate([element[0] for element in dataset])
        self.calls.append((inputs, seed))
        model = network(seed)
        model.layers[-1].bias.assign(inputs[:3, 0])
        return model


def test_models_are_trained_on_random_parts_of_the_training_set(train_set, data):
    train = Trainer()
    found = train_on_subsets(train, train_set, num_models=3, share=0.5, seed=4)
    assert [seed for _, seed in train.calls] == [4, 5, 6]
    for one, (inputs, _) in zip(found, train.calls, strict=True):
        np.testing.assert_array_equal(inputs, data[0][one.indices])
        assert len(one.indices) == NUM_TRAIN // 2 and (np.diff(one.indices) > 0).all()
    assert not np.array_equal(found[0].indices, found[1].indices)


def test_an_interrupted_training_of_subsets_goes_on(train_set, tmp_path):
    train = Trainer()
    first = train_on_subsets(train, train_set, num_models=1, directory=tmp_path)
    (tmp_path / ".dualview-unfinished-0-subset-1.keras").write_bytes(b"killed while it was written")
    again = train_on_subsets(train, train_set, num_models=2, directory=tmp_path)
    assert [seed for _, seed in train.calls] == [0, 1]
    np.testing.assert_array_equal(again[0].indices, first[0].indices)
    for before, after in zip(first[0].model.get_weights(), again[0].model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "subset-0.keras",
        "subset-1.keras",
        "subsets.json",
    ]


def test_a_directory_of_other_subsets_is_refused(train_set, tmp_path):
    train_on_subsets(Trainer(), train_set, num_models=1, directory=tmp_path)
    for settings in ({"share": 0.4}, {"seed": 1}):
        with pytest.raises(ValueError, match="other examples, shares or seeds"):
            train_on_subsets(Trainer(), train_set, directory=tmp_path, **settings)
    with pytest.raises(ValueError, match="other examples"):
        train_on_subsets(Trainer(), train_set.take(2), directory=tmp_path)


@pytest.mark.parametrize("settings", [{"num_models": 0}, {"share": 1.5}, {"share": 0.0}, {"seed": -1}])
def test_bad_settings_of_subsets_are_refused(settings, train_set):
    with pytest.raises(ValueError, match="Received"):
        train_on_subsets(Trainer(), train_set, **settings)


def test_what_is_no_model_is_refused(train_set):
    with pytest.raises(TypeError, match="returned='NoneType'"):
        train_on_subsets(lambda dataset, seed: None, train_set, num_models=1)


@pytest.mark.parametrize(
    "given", ["train", None, network(0), lambda dataset: None, lambda dataset, seed, more: None]
)
def test_what_cannot_train_on_a_subset_is_refused_before_any_work(given, train_set, tmp_path):
    with pytest.raises(TypeError, match="a function of a batched dataset and a seed"):
        train_on_subsets(given, train_set, directory=tmp_path / "subsets")
    assert not (tmp_path / "subsets").exists()


def test_a_damaged_model_of_a_directory_is_named(train_set, tmp_path):
    train_on_subsets(Trainer(), train_set, num_models=1, directory=tmp_path)
    (tmp_path / "subset-0.keras").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"subset-0.keras cannot be loaded: if it is damaged, delete it"):
        train_on_subsets(Trainer(), train_set, num_models=1, directory=tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="a file is there"):
        train_on_subsets(Trainer(), train_set, num_models=1, directory=file)


def test_a_model_that_could_not_be_loaded_again_is_not_kept(train_set, tmp_path):
    class Unregistered(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    def train(dataset, seed):
        return keras.Sequential([keras.Input((4,)), Unregistered(), layers.Dense(3)])

    with pytest.raises(ValueError, match="register its classes"):
        train_on_subsets(train, train_set, num_models=1, directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["subsets.json"]
    assert len(train_on_subsets(train, train_set, num_models=1)) == 1
