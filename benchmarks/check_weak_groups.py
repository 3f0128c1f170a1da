"""How often does an audit name a weak group where there is none, and how often does it find one that is planted?

    python benchmarks/check_weak_groups.py [--data-dir DIR] [--seeds 100]

Clean: features of a CNN on Fashion-MNIST (3,000 training, 2,000 test examples) and inputs of two tables of scikit-learn
(half of each in training); errors fall on the examples of a class at random. For common proponents errors fall on the
predictions of a class at random. Severity: MLPs on tables as they are, and with a category of random labels.

Planted: (1) a column of 1,000 examples, of which a category of a given size has a lower accuracy; (2) pairs of classes
of Fashion-MNIST as one class, one of the ten all but missing in training (10 of 300 examples): is a group found of
which most are of that class? A CNN is trained for every other class, and one with all ten complete: what it is weak in.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import scipy.sparse
import tensorflow_datasets as tfds
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deel_dualview import audit
from deel_dualview.auditing import weak_groups
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.grouping import Values
from deel_dualview.auditing.weak_groups import find_weak_groups
from deel_dualview.report import WeakGroups

layers = keras.layers
NUM_RARE, NUM_EACH = 10, 300
NONE = np.empty(0, np.int64)


def make_evidence(
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    predictions: np.ndarray,
    attributions: scipy.sparse.csr_array | None = None,
) -> Evidence:
    """Return evidence of arrays; without attributions no prediction has a proponent."""
    shape = (len(test_labels), len(train_labels))
    return Evidence(
        num_classes=int(train_labels.max()) + 1,
        k=5,
        broken_train=NONE,
        broken_test=NONE,
        train_labels=train_labels,
        train_ids=None,
        self_influence=np.zeros(len(train_labels)),
        test_labels=test_labels,
        test_ids=None,
        predictions=predictions,
        confidences=np.ones(len(test_labels)),
        attributions=scipy.sparse.csr_array(shape) if attributions is None else attributions,
        surrogate=None,
    )


def find(
    evidence: Evidence, features: tuple[np.ndarray, np.ndarray], columns: Values | None = None
) -> WeakGroups:
    """Return the finding about weak groups."""
    return next(find_weak_groups(evidence, features, columns=columns or {}, given={}))


def train_network(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> keras.Model:
    """Return a small CNN."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, epochs=8, batch_size=64, verbose=0)
    return model


def compute_features(model: keras.Model, *sets: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the penultimate features of sets of images."""
    before = keras.Model(model.inputs, model.layers[-2].output)
    return tuple(before.predict(images, verbose=0, batch_size=256) for images in sets)


def load(data_dir: str | None) -> tuple[np.ndarray, ...]:
    """Return Fashion-MNIST: training images and labels, test images and labels."""
    parts = tfds.load("fashion_mnist", split=["train", "test"], batch_size=-1, data_dir=data_dir)
    arrays = [
        (part["image"].numpy().astype("float32") / 255, part["label"].numpy().astype(int)) for part in parts
    ]
    return (*arrays[0], *arrays[1])


def check_clean_tables(num_seeds: int) -> None:
    """Print how often a group is named where errors are at random, by columns and clusters of tables."""
    for name, read in (("digits", load_digits), ("breast cancer", load_breast_cancer)):
        rows, labels = read(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(rows))
        train, test = np.array_split(order, 2)
        columns = {str(place): (rows[train, place], rows[test, place]) for place in range(rows.shape[1])}
        alarms = 0
        for seed in range(num_seeds):
            rng = np.random.default_rng(seed)
            is_wrong = rng.random(len(test)) < rng.uniform(0, 0.2, labels.max() + 1)[labels[test]]
            predictions = np.where(is_wrong, (labels[test] + 1) % (labels.max() + 1), labels[test])
            evidence = make_evidence(labels[train], labels[test], predictions)
            finding = find(evidence, (rows[train], rows[test]), columns)
            alarms += finding.count > 0
        print(f"clean, {name}: {finding.num_examined} groups, alarms in {alarms} of {num_seeds}", flush=True)


def check_clean_network(data: tuple[np.ndarray, ...], num_seeds: int) -> None:
    """Print the same for a network: by its features, and by common proponents."""
    images, labels, test_images, test_labels = data[0][:3000], data[1][:3000], data[2][:2000], data[3][:2000]
    model = train_network(images, labels, 10, 0)
    features = compute_features(model, images, test_images)
    report = audit(
        model, (images, labels), (test_images, test_labels), relevance=None, method="dualview", progress=False
    )
    real = report.finding("weak-groups")
    print(f"the network itself: {real.num_examined} groups, {real.count} weak; accuracy by group")
    for group in real.groups:
        print(
            f"  {group.kind} {group.label}: {group.num_right}/{group.num_test}, expected {group.expected:.2f}"
        )
    predictions = report.arrays["test_predictions"]
    is_wrong = predictions != test_labels
    rates = [
        np.array([is_wrong[own == label].mean() for label in range(10)]) for own in (test_labels, predictions)
    ]
    by_features = by_proponents = 0
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        shift = rng.integers(1, 10, len(test_labels))
        wrong = rng.random(len(test_labels)) < rates[0][test_labels]
        given = np.where(wrong, (test_labels + shift) % 10, test_labels)
        clusters = find(make_evidence(labels, test_labels, given), features)
        by_features += clusters.count > 0
        wrong = rng.random(len(test_labels)) < rates[1][predictions]
        own = np.where(wrong, (predictions + shift) % 10, predictions)
        same = np.zeros((len(labels), 1)), np.zeros((len(own), 1))  # no clusters
        finding = find(make_evidence(labels, own, predictions, report.attributions), same)
        by_proponents += finding.count > 0
    print(
        f"clean, clusters of features: {clusters.num_examined} groups, alarms in {by_features} of {num_seeds}"
    )
    print(
        f"clean, common proponents: {finding.num_examined} groups, alarms in {by_proponents} of {num_seeds}"
    )


def check_planted_columns(num_seeds: int) -> None:
    """Print how often a weak category is found, by its size and accuracy; the rest has 90 %."""
    num_test, same = 1000, (np.zeros((1000, 1)), np.zeros((1000, 1)))
    for size in (20, 50, 100):
        for accuracy in (0.7, 0.5):
            hits = others = 0
            for seed in range(num_seeds):
                rng = np.random.default_rng(seed)
                labels = rng.integers(0, 10, num_test)
                site = np.where(np.arange(num_test) < size, 9, rng.integers(0, 9, num_test)).astype(float)
                columns = {"site": (site, site)}
                columns |= {str(place): 2 * (rng.normal(size=num_test),) for place in range(10)}
                wrong = rng.random(num_test) < np.where(site == 9, 1 - accuracy, 0.1)
                finding = find(
                    make_evidence(labels, labels, np.where(wrong, (labels + 1) % 10, labels)), same, columns
                )
                is_hit = [group.name == "site" and group.num_test == size for group in finding.groups]
                hits += any(is_hit)
                others += len(is_hit) - sum(is_hit)
            print(
                f"planted, column: {size} of 1,000 with accuracy {accuracy}: found {hits} of {num_seeds}, "
                f"other groups {others}",
                flush=True,
            )


def check_planted_subclasses(data: tuple[np.ndarray, ...]) -> None:
    """Print whether a subclass that is rare in training is found."""
    images, labels, test_images, test_labels = data[0][:6000], data[1][:6000], data[2][:2000], data[3][:2000]
    weak_groups.NUM_SHOWN = len(test_labels)  # a group then lists all of its test examples
    pairs = np.array([0, 1, 0, 1, 2, 3, 2, 3, 4, 4])
    for rare in (None, *range(0, 10, 2)):
        kept = [
            np.flatnonzero(labels == label)[: NUM_RARE if label == rare else NUM_EACH] for label in range(10)
        ]
        own = np.random.default_rng(0).permutation(np.concatenate(kept))
        model = train_network(images[own], pairs[labels[own]], 5, 0)
        features = compute_features(model, images[own], test_images)
        predictions = model.predict(test_images, verbose=0, batch_size=256).argmax(axis=1)
        right = predictions == pairs[test_labels]
        finding = find(make_evidence(pairs[labels[own]], pairs[test_labels], predictions), features)
        is_rare = test_labels == rare
        print(f"subclass {rare} rare: accuracy {right.mean():.3f}; {finding.count} weak groups", flush=True)
        if rare is not None:
            print(f"  of it {right[is_rare].mean():.2f}, {(is_rare & ~right).sum()} of {is_rare.sum()} wrong")
        for group in finding.groups:
            members = np.array([item.example.index for item in group.examples])
            print(
                f"  {group.num_right}/{group.num_test}, expected {group.expected:.2f}, train {group.num_train}; "
                f"{is_rare[members].sum()} are of it, {(is_rare & ~right)[members].sum()} of them wrong",
                flush=True,
            )


def check_severity(seeds: range) -> None:
    """Print the severity for real networks on data as they are, and where a quarter of the rows has random labels."""
    for name in ("breast cancer", "wine", "digits", "made", "made, a category of random labels"):
        severities: Counter[str] = Counter()
        for seed in seeds:
            rng = np.random.default_rng(seed)
            if name.startswith("made"):
                rows, labels = make_classification(
                    3000, 10, n_informative=6, n_classes=4, random_state=seed, flip_y=0.05
                )
                rows = np.column_stack([rows, rng.integers(0, 4, len(rows))])
                if name != "made":
                    labels = np.where(rows[:, -1] == 3, rng.permutation(labels), labels)
            else:
                read = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}[name]
                rows, labels = read(return_X_y=True)
            train, test = np.array_split(rng.permutation(len(rows)), 2)
            model = make_pipeline(StandardScaler(), MLPClassifier((32, 16), max_iter=40, random_state=seed))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(rows[train], labels[train])
            columns = {str(place): (rows[train, place], rows[test, place]) for place in range(rows.shape[1])}
            evidence = make_evidence(labels[train], labels[test], model.predict(rows[test]))
            scaled = model[0].transform(rows)
            finding = find(evidence, (scaled[train], scaled[test]), columns)
            severities[finding.severity.value] += 1
        print(f"severity, {name}: {dict(severities)}", flush=True)


def main() -> None:
    """Print the five checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    data = load(options.data_dir)
    check_severity(range(100, 110))
    check_clean_tables(options.seeds)
    check_planted_columns(options.seeds)
    check_clean_network(data, options.seeds)
    check_planted_subclasses(data)


if __name__ == "__main__":
    main()
