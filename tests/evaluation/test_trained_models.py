"""Models trained for the questions of the metrics: kept whole, checked, and the same for the same seed."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from deel_dualview.evaluation import RECIPES, Recipe, load_images, subject, trained_models
from deel_dualview.evaluation.networks import NETWORKS, paper_cnn, resnet
from deel_dualview.evaluation.trained_models import build

_QUICK = Recipe("digits-cnn", epochs=1, batch_size=128)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


@pytest.fixture(scope="module", params=["normal", "superclass", "poisoned", "marked"])
def trained(request, directory):
    return subject("digits", request.param, 0, directory=directory, recipe=_QUICK)


def _all(dataset):
    parts = list(dataset.as_numpy_iterator())
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def test_a_subject_has_its_data_as_the_model_saw_them(trained, images):
    inputs, labels = _all(trained.train)
    expected_labels = {
        "normal": images.train_labels,
        "superclass": images.train_labels // 2,
        "marked": images.train_labels,
    }
    if trained.kind == "poisoned":
        share = np.mean(labels != images.train_labels)
        assert 0.25 < share < 0.35
    else:
        np.testing.assert_array_equal(labels, expected_labels[trained.kind])
    is_changed = (inputs != images.train_images).any(axis=(1, 2, 3))
    assert is_changed.any() == (trained.kind == "marked")
    assert set(images.train_labels[is_changed]) <= {2}
    assert trained.model.output_shape == (None, 5 if trained.kind == "superclass" else 10)


def test_a_subject_is_loaded_and_not_trained_again(trained, directory):
    again = subject("digits", trained.kind, 0, directory=directory, recipe=_QUICK)
    assert again.seconds == trained.seconds
    for own, other in zip(trained.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(_all(again.train)[1], _all(trained.train)[1])


def test_the_last_checkpoint_is_the_model(trained):
    checkpoints = trained.checkpoints
    assert checkpoints.epochs == [1]
    images = next(iter(trained.test))[0]
    expected = trained.model(images).numpy()
    np.testing.assert_allclose(checkpoints.models[-1].logits(images), expected, rtol=1e-5, atol=1e-5)


def test_the_recorded_accuracy_is_that_of_the_test_set(trained):
    inputs, labels = _all(trained.test)
    accuracy = np.mean(trained.model.predict(inputs, verbose=0).argmax(axis=1) == labels)
    assert trained.test_accuracy == pytest.approx(accuracy, abs=1e-6)


def test_a_seed_gives_the_same_weights_anywhere(directory, tmp_path):
    first = subject("digits", "normal", 0, directory=directory, recipe=_QUICK)
    second = subject("digits", "normal", 0, directory=tmp_path, recipe=_QUICK)
    other = subject("digits", "normal", 1, directory=tmp_path, recipe=_QUICK)
    for own, same in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_allclose(own, same, atol=1e-5)
    assert np.abs(first.model.get_weights()[0] - other.model.get_weights()[0]).max() > 0.01


def test_a_model_of_another_recipe_is_refused(directory):
    subject("digits", "normal", 0, directory=directory, recipe=_QUICK)
    with pytest.raises(ValueError, match="trained otherwise.*epochs"):
        subject("digits", "normal", 0, directory=directory, recipe=_QUICK._replace(epochs=2))


def test_a_model_from_before_momentum_was_recorded_was_trained_by_adam(tmp_path):
    get = functools.partial(subject, "digits", "normal", 0, directory=tmp_path)
    trained, path = get(recipe=_QUICK), tmp_path / "digits" / "normal-0" / "record.json"
    record = json.loads(path.read_text())
    assert record.pop("momentum") is None
    path.write_text(json.dumps(record))
    assert get(recipe=_QUICK).seconds == trained.seconds
    with pytest.raises(ValueError, match=r"momentum='None there, 0\.9 asked"):
        get(recipe=_QUICK._replace(momentum=0.9))


@pytest.mark.parametrize("momentum", [None, 0.0, 0.9])
def test_a_recipe_with_momentum_is_gradient_descent(momentum, images):
    optimizer = build(_QUICK._replace(momentum=momentum, learning_rate=0.25), images, 10).optimizer
    wanted = keras.optimizers.Adam if momentum is None else keras.optimizers.SGD
    assert type(optimizer) is wanted
    assert getattr(optimizer, "momentum", None) == momentum
    assert float(optimizer.learning_rate) == 0.25


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "digits" / "normal-0").mkdir(parents=True)
    with pytest.raises(ValueError, match="no model of a benchmark"):
        subject("digits", "normal", 0, directory=tmp_path, recipe=_QUICK)


def test_an_interrupted_training_leaves_nothing_in_place(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            subject("digits", "normal", 0, directory=tmp_path, recipe=_QUICK)
    assert not (tmp_path / "digits" / "normal-0").exists()
    assert subject("digits", "normal", 0, directory=tmp_path, recipe=_QUICK).seconds > 0


def test_two_that_need_a_model_at_the_same_time_train_it_once(tmp_path, monkeypatch):
    """Locks of files hold between threads as they do between processes."""
    trained = []

    def train(*settings):
        trained.append(settings)
        return really_train(*settings)

    really_train = trained_models._train
    monkeypatch.setattr(trained_models, "_train", train)
    get = functools.partial(subject, "digits", "normal", 0, directory=tmp_path, recipe=_QUICK)
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result(300) for future in [pool.submit(get), pool.submit(get)])
    assert len(trained) == 1
    assert first.seconds == second.seconds


@pytest.mark.parametrize(
    ("data", "kind", "recipe", "message"),
    [
        ("svhn", "normal", None, "digits, mnist, fashion_mnist, cifar10"),
        ("digits", "broken", None, "normal, superclass, poisoned, marked"),
        (
            "digits",
            "normal",
            Recipe("vgg", epochs=1),
            "paper-cnn, smooth-cnn, mlp, digits-cnn, resnet8, resnet20",
        ),
    ],
)
def test_unknown_names_are_listed(tmp_path, data, kind, recipe, message):
    with pytest.raises(ValueError, match=message):
        subject(data, kind, 0, directory=tmp_path, recipe=recipe)


def test_the_networks_have_the_published_sizes(images):
    assert paper_cnn((28, 28, 1), 10).count_params() == 1_262_565
    trainable = sum(int(np.prod(weight.shape)) for weight in resnet(3, (32, 32, 3), 10).trainable_weights)
    assert 265_000 < trainable < 280_000
    assert build(RECIPES["digits"], images, 10).output_shape == (None, 10)


@pytest.mark.parametrize(
    ("name", "shape"), [("paper-cnn", (28, 28, 1)), ("digits-cnn", (8, 8, 1)), ("resnet8", (32, 32, 3))]
)
def test_layers_with_weights_have_the_same_names_in_every_model_of_a_process(name, shape):
    """Settings name layers, and the models of all questions are trained one after the other."""
    first, second = (
        [layer.name for layer in NETWORKS[name](shape, 10).layers if layer.weights] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(first)
