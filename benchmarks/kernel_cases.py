"""Small networks on images, texts and tables whose classes have known subclasses, kept as features and logits."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from label_issue_data import save_arrays

from deel_dualview import InfluenceModel
from deel_dualview.data.digits import load_digits
from deel_dualview.evaluation.networks import digits_cnn, paper_cnn
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels

NUM_TRAIN, NUM_TEST = 5000, 1000
MARKED_CLASS = 2
_NUM_TOKENS, _NUM_WORDS = 6000, 120
_HORROR = re.compile(rb"horror|zombie|slasher|vampire", re.IGNORECASE)
_COMEDY = re.compile(rb"comed|hilarious|sitcom|laughs", re.IGNORECASE)
layers = keras.layers


class Source(NamedTuple):
    """Inputs and the finest known classes of a training and a test set, and what builds a network for them."""

    train_inputs: np.ndarray
    train_classes: np.ndarray
    test_inputs: np.ndarray
    test_classes: np.ndarray
    build: Callable[[tuple[int, ...], int], keras.Model]
    epochs: int
    batch_size: int = 32


class Spec(NamedTuple):
    """A case: its data, what is asked of it, and the class (superclass) that every finest class belongs to."""

    source: str
    kind: str
    groups: tuple[int, ...]


class Case(NamedTuple):
    """Arrays of one trained network.

    Attributes:
        features: of the training set, shape (n, d).
        labels: that the network was trained on, shape (n,).
        classes: finest classes of the training set, shape (n,).
        is_changed: wrong label or marked image, shape (n,).
        queries: features of the test set, shape (m, d).
        logits: of the test set, shape (m, c).
        truth: finest classes of the test set, shape (m,).
    """

    features: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    is_changed: np.ndarray
    queries: np.ndarray
    logits: np.ndarray
    truth: np.ndarray


_TEN = tuple(range(10))
_PAIRS, _HALVES = tuple(i // 2 for i in range(10)), tuple(i // 5 for i in range(10))
SPECS: dict[str, Spec] = {
    "digits, pairs": Spec("digits", "superclass", _PAIRS),
    "digits, two": Spec("digits", "superclass", _HALVES),
    "digits, wrong labels": Spec("digits", "poisoned", _TEN),
    "digits, marked": Spec("digits", "marked", _TEN),
    "Fashion-MNIST, pairs": Spec("fashion_mnist", "superclass", _PAIRS),
    "Fashion-MNIST, two": Spec("fashion_mnist", "superclass", _HALVES),
    "Fashion-MNIST, wrong labels": Spec("fashion_mnist", "poisoned", _TEN),
    "Fashion-MNIST, marked": Spec("fashion_mnist", "marked", _TEN),
    "AG News, {World, Sports}": Spec("ag_news", "superclass", (0, 0, 1, 1)),
    "MNIST, pairs": Spec("mnist", "superclass", _PAIRS),
    "MNIST, two": Spec("mnist", "superclass", _HALVES),
    "MNIST, wrong labels": Spec("mnist", "poisoned", _TEN),
    "MNIST, marked": Spec("mnist", "marked", _TEN),
    "AG News, {World, Business}": Spec("ag_news", "superclass", (0, 1, 0, 1)),
    "IMDB, horror and comedy": Spec("imdb", "superclass", (0, 1, 0, 1)),
    "table of digits, pairs": Spec("digits_table", "superclass", _PAIRS),
    "table of digits, two": Spec("digits_table", "superclass", _HALVES),
    "table of wines, {0, 1}": Spec("wine", "superclass", (0, 0, 1)),
    "table of clouds, pairs": Spec("clouds", "superclass", _PAIRS),
    "digits, two, marked": Spec("digits", "marked", _HALVES),
    "Fashion-MNIST, two, marked": Spec("fashion_mnist", "marked", _HALVES),
}
"""Cases by name: what is asked of which data, and the class that each finest class belongs to."""


def load_case(name: str, seed: int, data_dir: str | None, folder: pathlib.Path) -> Case:
    """Return a case from the folder, or train its network now and keep it there."""
    path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-{seed}.npz"
    if not path.exists():
        save_arrays(path, **_train(SPECS[name], seed, data_dir)._asdict())
    with np.load(path) as arrays:
        return Case(**arrays)


def _train(spec: Spec, seed: int, data_dir: str | None) -> Case:
    source = _SOURCES[spec.source](data_dir)
    groups = np.array(spec.groups)
    classes, truth, labels = source.train_classes, source.test_classes, groups[source.train_classes]
    train_inputs, test_inputs = source.train_inputs, source.test_inputs
    is_changed = np.zeros(len(labels), bool)
    if spec.kind == "poisoned":
        wrong = PoisonedLabels.draw(labels, 0.3, len(groups), seed=seed)
        labels = labels.copy()
        labels[wrong.indices] = wrong.labels
        is_changed = wrong.is_poisoned(len(labels))
    marked_class = min(MARKED_CLASS, int(groups.max()))
    if spec.kind == "marked":
        is_small = train_inputs.shape[1] < 16
        marks = Marks.draw(labels, marked_class, 0.3, seed=seed, largest=1.0 if is_small else 255.0)
        marks = Marks(marks.indices, 1, 2, marks.largest) if is_small else marks
        is_changed = marks.is_marked(len(labels))
        train_inputs = np.where(
            is_changed[:, None, None, None], np.asarray(marks.mark(train_inputs)), train_inputs
        )
        test_inputs = np.asarray(marks.mark(test_inputs))
    keras.utils.set_random_seed(seed)
    num_classes = int(groups.max()) + 1
    model = source.build(train_inputs.shape[1:], num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(train_inputs, labels, batch_size=source.batch_size, epochs=source.epochs, verbose=0)
    explained = InfluenceModel(model)
    features, _ = _features_and_logits(explained, train_inputs)
    queries, logits = _features_and_logits(explained, test_inputs)
    kept = np.arange(len(truth)) < NUM_TEST
    if spec.kind == "marked":
        kept = (groups[truth] != marked_class) & (logits.argmax(axis=1) == marked_class)
    return Case(
        features, labels.astype(np.int64), classes, is_changed, queries[kept], logits[kept], truth[kept]
    )


def _features_and_logits(model: InfluenceModel, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [model.features_and_logits(inputs[i : i + 500]) for i in range(0, len(inputs), 500)]
    features, logits = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in (0, 1))
    return features, logits


def _read(name: str, data_dir: str | None) -> list[dict[str, np.ndarray]]:
    loaded = tfds.load(name, split=["train", "test"], batch_size=-1, data_dir=data_dir, download=False)
    return list(tfds.as_numpy(loaded))


def _images(name: str) -> Callable[[str | None], Source]:
    def read(data_dir: str | None) -> Source:
        train, test = _read(name, data_dir)
        images, labels = train["image"][:NUM_TRAIN], train["label"][:NUM_TRAIN]
        tests, truth = test["image"][: 3 * NUM_TEST], test["label"][: 3 * NUM_TEST]
        return Source(images, labels, tests, truth, paper_cnn, epochs=8, batch_size=128)

    return read


def _digits(data_dir: str | None) -> Source:
    del data_dir
    (images, labels), (tests, truth) = load_digits()
    return Source(images, labels, tests, truth, digits_cnn, epochs=15)


def _table_of_digits(data_dir: str | None) -> Source:
    (images, labels), (tests, truth) = load_digits()
    return Source(images.reshape(-1, 64), labels, tests.reshape(-1, 64), truth, _perceptron, epochs=20)


def _wines(data_dir: str | None) -> Source:
    del data_dir
    inputs, classes = sklearn.datasets.load_wine(return_X_y=True)
    return _split((inputs - inputs.mean(axis=0)) / inputs.std(axis=0), classes, 100, epochs=60)


def _clouds(data_dir: str | None) -> Source:
    del data_dir
    inputs, classes = sklearn.datasets.make_blobs(
        6000, 12, centers=10, cluster_std=3.0, center_box=(-4.0, 4.0), random_state=90210
    )
    return _split(inputs, classes, NUM_TRAIN, epochs=10)


def _split(inputs: np.ndarray, classes: np.ndarray, num_train: int, epochs: int) -> Source:
    order = np.random.default_rng(1511).permutation(len(classes))
    inputs, classes = inputs[order].astype(np.float32), classes[order]
    parts = inputs[:num_train], classes[:num_train], inputs[num_train:], classes[num_train:]
    return Source(*parts, _perceptron, epochs)


def _news(data_dir: str | None) -> Source:
    train, test = _read("ag_news_subset", data_dir)
    texts = [tf.strings.join([part["title"], part["description"]], " ").numpy() for part in (train, test)]
    ids = _token_ids(texts[0][:NUM_TRAIN], texts[1][:NUM_TEST])
    return Source(
        ids[0], train["label"][:NUM_TRAIN], ids[1], test["label"][:NUM_TEST], _pooled_embedding, epochs=8
    )


def _reviews(data_dir: str | None) -> Source:
    """Keep reviews with words of horror or of comedies, not both: class = 2 * is comedy + sentiment."""
    texts, classes = [], []
    for part in _read("imdb_reviews", data_dir):
        is_horror, is_comedy = (
            np.array([found(text) is not None for text in part["text"]])
            for found in (_HORROR.search, _COMEDY.search)
        )
        rows = np.flatnonzero(is_horror != is_comedy)
        texts.append(part["text"][rows])
        classes.append(2 * is_comedy[rows] + part["label"][rows])
    ids = _token_ids(texts[0][:NUM_TRAIN], texts[1][:NUM_TEST])
    return Source(ids[0], classes[0][:NUM_TRAIN], ids[1], classes[1][:NUM_TEST], _pooled_embedding, epochs=8)


def _token_ids(train: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    vectorize = layers.TextVectorization(_NUM_TOKENS, output_sequence_length=_NUM_WORDS)
    vectorize.adapt(train)
    return [vectorize(tf.constant(texts)).numpy().astype(np.int32) for texts in (train, test)]


def _pooled_embedding(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(shape, dtype="int32"),
            layers.Embedding(_NUM_TOKENS, 64, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(num_classes),
        ]
    )


def _perceptron(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    hidden = [layers.Dense(width, activation="relu") for width in (64, 32)]
    return keras.Sequential([keras.Input(shape), *hidden, layers.Dense(num_classes)])


_SOURCES: dict[str, Callable[[str | None], Source]] = {
    "digits": _digits,
    "mnist": _images("mnist"),
    "fashion_mnist": _images("fashion_mnist"),
    "ag_news": _news,
    "imdb": _reviews,
    "digits_table": _table_of_digits,
    "wine": _wines,
    "clouds": _clouds,
}
