"""Training the last layer again, and the questions that rest on it."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from deel_dualview import InfluenceModel
from deel_dualview.evaluation import Recipe, benchmark, retraining_tasks, subject
from deel_dualview.evaluation.retraining import HeadRetrainer, KeptOutputs, with_converged_head

RECIPE = Recipe("digits-cnn", epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def normal(models):
    return subject("digits", "normal", 0, directory=models, recipe=RECIPE)


@pytest.fixture(scope="module")
def biased():
    """A model with a bias and its data, as a subject would have them."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    inputs = (generator.normal(size=(60, 4)) + np.eye(3, 4)[labels]).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)])
    return model, tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16), inputs, labels


def retrainer_of(biased):
    model, train, inputs, _ = biased
    own = InfluenceModel(model)
    own.prepare(inputs[:4])
    return HeadRetrainer(own, train, inputs[:10])


def test_the_retrained_head_is_stationary_on_the_kept_examples(biased):
    retrainer, labels = retrainer_of(biased), biased[3]
    kept = np.arange(0, 60, 2)
    weights = retrainer.weights(kept)
    features = InfluenceModel(biased[0]).features(biased[2]).numpy()[kept].astype(np.float64)
    features = np.hstack([features, np.ones((len(kept), 1))])  # the bias is a constant feature
    errors = scipy.special.softmax(features @ weights, axis=1) - np.eye(3)[labels[kept]]
    gradient = features.T @ errors / len(kept) + 2 * retrainer.penalty * weights
    assert np.linalg.norm(gradient) < 1e-6 * np.linalg.norm(2 * retrainer.penalty * weights) + 1e-9
    assert weights.shape == (7, 3)


def test_a_converged_head_says_what_the_retrainer_says(biased):
    model, train, inputs, labels = biased

    @dataclasses.dataclass(frozen=True)
    class Given:
        model: keras.Model
        train: tf.data.Dataset

    before = model.predict(inputs, verbose=0)
    converged = with_converged_head(Given(model, train)).model
    logits = converged.predict(inputs[:10], verbose=0)
    expected = retrainer_of(biased).log_probabilities(np.arange(60))
    np.testing.assert_allclose(scipy.special.log_softmax(logits, axis=1), expected, atol=1e-3)
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), before)  # the given model stays


def test_a_converged_head_is_found_once_as_its_last_digits_depend_on_the_number_of_threads(
    normal, tmp_path, monkeypatch
):
    first = with_converged_head(normal, tmp_path).model.get_weights()
    monkeypatch.setattr(HeadRetrainer, "weights", lambda *_: pytest.fail("computed"))
    again = with_converged_head(normal, tmp_path).model.get_weights()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_file_of_a_head_or_of_outputs_is_named(normal, tmp_path):
    with_converged_head(normal, tmp_path)
    [path] = tmp_path.glob("head-*.npy")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged: delete it"):
        with_converged_head(normal, tmp_path)


def test_a_model_without_a_dense_head_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    train = tf.data.Dataset.from_tensor_slices((np.ones((6, 4), "float32"), np.arange(6) % 2)).batch(3)

    @dataclasses.dataclass(frozen=True)
    class Given:
        model: keras.Model
        train: tf.data.Dataset

    with pytest.raises(ValueError, match="one output a class"):
        with_converged_head(Given(model, train))


class TestKeptOutputs:
    class Counting:
        calls = 0

        def log_probabilities(self, kept):
            self.calls += 1
            return np.full((2, 3), len(kept), np.float64)

    def test_a_subset_is_trained_on_once(self, tmp_path):
        counting = self.Counting()
        for _ in range(2):
            kept = KeptOutputs(tmp_path / "subsets", "model a")
            assert kept.get(np.array([1, 2]), counting)[0, 0] == 2
            assert kept.get(np.array([1, 2, 5]), counting)[0, 0] == 3
        assert counting.calls == 2

    def test_two_that_need_a_subset_at_the_same_time_train_on_it_once(self, tmp_path, capsys):
        """Locks of files hold between threads as they do between processes."""
        begun, may_end = threading.Event(), threading.Event()

        class Slow(self.Counting):
            def log_probabilities(self, kept):
                begun.set()
                assert may_end.wait(60)
                return super().log_probabilities(kept)

        slow, kept = Slow(), KeptOutputs(tmp_path, "model a")
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(kept.get, np.array([1, 2]), slow)
            assert begun.wait(60)
            second = pool.submit(kept.get, np.array([1, 2]), slow)
            while "Waiting for another process" not in capsys.readouterr().err:
                assert not second.done()
                time.sleep(0.01)
            may_end.set()
            np.testing.assert_array_equal(first.result(60), second.result(60))
        assert slow.calls == 1

    def test_outputs_for_another_architecture_are_refused(self, tmp_path):
        KeptOutputs(tmp_path, "model a")
        with pytest.raises(ValueError, match="another architecture"):
            KeptOutputs(tmp_path, "model b")


@pytest.mark.reproduction
def test_influence_functions_predict_retraining_and_random_numbers_do_not(
    models, normal, tmp_path, monkeypatch
):
    """On a convex head to its optimum, exact influence functions should be nearly right."""
    monkeypatch.setattr(retraining_tasks, "NUM_SUBSETS", 16)
    monkeypatch.setattr(retraining_tasks, "NUM_REMOVED", 12)
    monkeypatch.setattr(retraining_tasks, "NUM_BRITTLE", 5)
    found = benchmark(
        "digits",
        ["first-order", "random"],
        ["lds", "leave-one-out", "core-set", "brittleness"],
        output=tmp_path,
        num_test=20,
        models=models,
        recipe=RECIPE,
        progress=False,
    )
    assert found.failed == []
    means = {key: summary.value for key, summary in found.summaries.items()}
    first = "first-order"
    assert means[first, "lds"] > 0.7 and abs(means["random", "lds"]) < 0.3
    assert means[first, "leave-one-out"] > 0.9 and abs(means["random", "leave-one-out"]) < 0.4
    assert means[first, "core-set"] > 0 and means[first, "pruning"] > means["random", "pruning"]
    assert 0 <= means["random", "brittleness"] <= means[first, "brittleness"] <= 1
    [cell] = [c for c in found.cells if c.identity.method == "random" and c.identity.protocol == "core-set"]
    assert len(cell.details["core_set_losses"]) == len(cell.details["shares"]) == 9
