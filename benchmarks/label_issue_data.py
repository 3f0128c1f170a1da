"""Data sets of the benchmark of label issues: raw inputs as a user has them, labels taken as right, and noise.

Rows are late ones of the training files and splits of tables have their own seed, so that they are not the first rows
that prototypes usually take. A random forest, judged out of bag, says which classes look alike: it is no network and no
head on one, so ambiguous noise favours none of the scores that are compared.
"""

from __future__ import annotations

import ast
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.ensemble import RandomForestClassifier

SPLIT_SEED = 1511
NUM_TOKENS = 6000
"""Size of the vocabularies, index 0 for padding and 1 for unknown words."""
AMBIGUITY_FLOOR = 0.03
"""Added to the probability of an example's second class, so that every example may be mislabelled."""
FOREST_TOKENS, FOREST_TREES = 1500, 150


class Data(NamedTuple):
    """Inputs and labels of a training and a test set; `observed` are labels by one human rater, if there are."""

    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    observed: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


def load(name: str, data_dir: str, cache: pathlib.Path) -> Data:
    """Return a data set of `SOURCES`, from the cache if it was read before."""
    path = cache / "data" / f"{name}.npz"
    if not path.exists():
        found = SOURCES[name](data_dir)
        save_arrays(path, **{key: value for key, value in found._asdict().items() if value is not None})
    with np.load(path) as arrays:
        return Data(**arrays)


def save_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Write an archive whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.replace(path)


def second_opinion(name: str, data: Data, cache: pathlib.Path) -> np.ndarray:
    """Return probabilities (n, c) of the classes of the training set by a random forest, out of bag."""
    path = cache / "data" / f"{name}.forest.npz"
    if not path.exists():
        forest = RandomForestClassifier(FOREST_TREES, oob_score=True, min_samples_leaf=2, random_state=7)
        forest.fit(_as_table(data.train_inputs), data.train_labels)
        probabilities = np.nan_to_num(forest.oob_decision_function_, nan=1 / data.num_classes)
        save_arrays(path, probabilities=probabilities.astype(np.float32))
    with np.load(path) as arrays:
        return arrays["probabilities"]


def wrong_labels(
    noise: str, rate: float, labels: np.ndarray, probabilities: np.ndarray, seed: int
) -> np.ndarray:
    """Return labels (n,) of which `rate` are wrong, and the others unchanged.

    Args:
        noise: `"none"`; `"uniform"`, any other class; `"asymmetric"`, the class that examples of the true one look
            like most; `"ambiguous"`, the likeliest other class of the example itself, and rather of those for which
            it is likely.
        rate: share of wrong labels.
        labels: the true ones, (n,).
        probabilities: of the classes by another model, (n, c).
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    num_examples, num_classes = probabilities.shape
    num_wrong = 0 if noise == "none" else round(rate * num_examples)
    others = np.where(np.arange(num_classes) == labels[:, None], -1.0, probabilities)
    weights, wrong = np.ones(num_examples), others.argmax(axis=1)
    if noise == "uniform":
        wrong = (labels + generator.integers(1, num_classes, size=num_examples)) % num_classes
    elif noise == "asymmetric":
        likeness = np.array([others[labels == label].mean(axis=0) for label in range(num_classes)])
        wrong = likeness.argmax(axis=1)[labels]
    elif noise == "ambiguous":
        weights = AMBIGUITY_FLOOR + others.max(axis=1)
    elif noise != "none":
        raise ValueError(f"Unknown kind of noise. Received: noise={noise!r}.")
    rows = generator.choice(num_examples, num_wrong, replace=False, p=weights / weights.sum())
    given = labels.copy()
    given[rows] = wrong[rows]
    return given


def imbalanced_rows(labels: np.ndarray, factor: float, seed: int) -> np.ndarray:
    """Return the rows left, ascending, where class k keeps a share `factor` ** k of its examples, at least ten."""
    generator = np.random.default_rng(seed)
    kept = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        kept.append(generator.permutation(rows)[: max(10, round(len(rows) * factor ** int(label)))])
    return np.sort(np.concatenate(kept))


def _as_table(inputs: np.ndarray) -> np.ndarray | scipy.sparse.csr_matrix:
    """Return columns: pixels, columns as they are, counts of frequent tokens."""
    if inputs.dtype.kind in "SU":
        inputs = _token_ids(inputs, inputs, length=100)[0]
    if inputs.dtype != np.int32:
        return inputs.reshape(len(inputs), -1)
    rows, _ = np.nonzero(inputs)
    tokens = inputs[inputs != 0]
    counts = scipy.sparse.csr_matrix((np.ones(len(tokens)), (rows, tokens)), shape=(len(inputs), NUM_TOKENS))
    return counts[:, :FOREST_TOKENS]


def _images(
    name: str, start: int, sizes: tuple[int, int], merge: Callable[[np.ndarray], np.ndarray] | None = None
) -> Callable[[str], Data]:
    """Return what reads images: rows of the training file from `start`, the last rows of the test file."""

    def read(data_dir: str) -> Data:
        splits = [f"train[{start}:{start + sizes[0]}]", f"test[-{sizes[1]}:]"]
        loaded = tfds.load(
            name, split=splits, batch_size=-1, as_supervised=True, data_dir=data_dir, download=False
        )
        (inputs, labels), (test_inputs, test_labels) = tfds.as_numpy(loaded)
        to_class = merge or (lambda labels: labels)
        return Data(
            inputs, to_class(labels).astype(np.int64), test_inputs, to_class(test_labels).astype(np.int64)
        )

    return read


def _texts(name: str, start: int, sizes: tuple[int, int], length: int | None) -> Callable[[str], Data]:
    """Return what reads texts, as token ids of `length`, or as strings if it is None."""

    def read(data_dir: str) -> Data:
        splits = [f"train[{start}:{start + sizes[0]}]", f"test[-{sizes[1]}:]"]
        loaded = tfds.load(name, split=splits, batch_size=-1, data_dir=data_dir, download=False)
        texts, labels = [], []
        for part in loaded:
            parts = [part[key] for key in ("title", "description", "text") if key in part]
            texts.append(tf.strings.strip(tf.strings.join(parts, " ")).numpy().astype(bytes))
            labels.append(part["label"].numpy().astype(np.int64))
        if length is not None:
            texts = list(_token_ids(*texts, length=length))
        return Data(texts[0], labels[0], texts[1], labels[1])

    return read


def _token_ids(train: np.ndarray, test: np.ndarray, **settings: int | str) -> tuple[np.ndarray, np.ndarray]:
    length = settings.pop("length")
    vectorize = keras.layers.TextVectorization(NUM_TOKENS, output_sequence_length=length, **settings)
    vectorize.adapt(train)
    first, second = (vectorize(tf.constant(texts)).numpy().astype(np.int32) for texts in (train, test))
    return first, second


def _split(inputs: np.ndarray, labels: np.ndarray, num_train: int, shift: int = 0) -> Data:
    """Return a random split; `shift` gives another one."""
    order = np.random.default_rng(SPLIT_SEED + shift).permutation(len(labels))
    train, test = order[:num_train], order[num_train:]
    labels = labels.astype(np.int64)
    return Data(inputs[train], labels[train], inputs[test], labels[test])


def _table(load: Callable, num_train: int) -> Callable[[str], Data]:
    def read(data_dir: str) -> Data:
        del data_dir
        inputs, labels = load(return_X_y=True)
        return _split(inputs.astype(np.float32), labels, num_train)

    return read


def _german_credit(data_dir: str) -> Data:
    loaded = tfds.load(
        "german_credit_numeric",
        split="train",
        batch_size=-1,
        as_supervised=True,
        data_dir=data_dir,
        download=False,
    )
    inputs, labels = tfds.as_numpy(loaded)
    return _split(inputs.astype(np.float32), labels, 650)


def _overlapping(data_dir: str) -> Data:
    """Make five unequal classes, two elongated clouds each, which overlap."""
    del data_dir
    generator = np.random.default_rng(90210)
    shares, num_columns = np.array([0.34, 0.26, 0.2, 0.13, 0.07]), 12
    labels = generator.choice(len(shares), 4500, p=shares)
    clouds = labels * 2 + generator.integers(0, 2, len(labels))
    centres = generator.normal(0, 0.65, (2 * len(shares), num_columns))
    stretch = generator.uniform(0.5, 1.6, (2 * len(shares), num_columns))
    inputs = centres[clouds] + stretch[clouds] * generator.normal(size=(len(labels), num_columns))
    inputs[:, 0] = np.exp(inputs[:, 0])
    return _split(inputs.astype(np.float32), labels, 3000)


def _rated_words(rater: int) -> Callable[[str], Data]:
    """Return what reads words that ten people rated: the truth is the sign of the mean, `observed` that of one.

    Words which that person called neutral are left out. Inputs are ids of characters, of their pairs and triples.
    """

    def read(data_dir: str) -> Data:
        del data_dir
        try:
            import vaderSentiment
        except ImportError as error:
            raise ImportError(
                'Rated words need the package vaderSentiment. Install it with `pip install -e ".[benchmarks]"`, or '
                "leave its settings out with `--skip vader`."
            ) from error
        path = pathlib.Path(vaderSentiment.__file__).parent / "vader_lexicon.txt"
        words, ratings = [], []
        for line in path.read_text(encoding="utf-8").splitlines():
            word, _, _, rated = line.split("\t")
            if word.isalpha() and word.isascii():
                words.append(word)
                ratings.append(ast.literal_eval(rated))
        means, signs = np.sign(np.mean(ratings, axis=1)), np.sign(np.array(ratings)[:, rater])
        rows = np.flatnonzero((means != 0) & (signs != 0))
        rows = np.random.default_rng(SPLIT_SEED).permutation(rows)
        train, test = rows[:3800], rows[3800:]
        texts = np.array(words).astype(bytes)
        ids = _token_ids(texts[train], texts[test], length=48, split="character", ngrams=3)
        truth, observed = (means > 0).astype(np.int64), (signs > 0).astype(np.int64)
        return Data(ids[0], truth[train], ids[1], truth[test], observed[train])

    return read


SOURCES: dict[str, Callable[[str], Data]] = {
    "mnist": _images("mnist", 51_000, (4000, 1500)),
    "mnist_parity": _images("mnist", 56_000, (2500, 1500), lambda labels: labels % 2),
    "mnist_60000": _images("mnist", 0, (60_000, 10_000)),
    "fashion_mnist": _images("fashion_mnist", 52_000, (3500, 1500)),
    "fashion_tops": _images(
        "fashion_mnist", 48_000, (2500, 1500), lambda labels: np.isin(labels, (0, 2, 4, 6))
    ),
    "cifar10": _images("cifar10", 45_000, (2500, 1500)),
    "cifar10_pretrained": _images("cifar10", 40_000, (2000, 1500)),
    "cifar10_other": _images("cifar10", 0, (12_000, 1)),
    "ag_news": _texts("ag_news_subset", 8000, (3500, 2000), 60),
    "ag_news_strings": _texts("ag_news_subset", 6000, (2000, 1500), None),
    "imdb": _texts("imdb_reviews", 20_000, (3500, 1500), 200),
    "german": _german_credit,
    "digits": _table(sklearn.datasets.load_digits, 900),
    "wine": _table(sklearn.datasets.load_wine, 110),
    "breast_cancer": _table(sklearn.datasets.load_breast_cancer, 320),
    "iris": _table(sklearn.datasets.load_iris, 90),
    "overlap": _overlapping,
    "vader_3": _rated_words(3),
    "vader_8": _rated_words(8),
}
"""What reads each data set, given the TFDS folder."""


def seed_of(name: str) -> int:
    """Return a seed that a setting always has."""
    return zlib.crc32(name.encode()) % 100_000
