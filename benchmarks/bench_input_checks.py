"""False alarms, planted cases and time of the checks of the inputs; see docs/measurements/data_checks.md.

    python benchmarks/bench_input_checks.py --data-dir tensorflow_datasets

No network is needed: the checks read inputs and labels alone.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from scipy.ndimage import gaussian_filter

from deel_dualview import load_digits
from deel_dualview.auditing.columns import Column, find_column_problems
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.image_checks import Properties, class_areas, find_image_problems, tree_skill
from deel_dualview.auditing.image_properties import PROPERTIES, ImageProperties
from deel_dualview.auditing.order import find_order
from deel_dualview.labels import InputTable
from deel_dualview.report.input_findings import InputProblem

NUM_TRAIN, NUM_TEST, BATCH_SIZE = 10_000, 5_000, 256
IMAGES = ("digits", "mnist", "fashion_mnist", "cifar10")
NONE = np.empty(0, np.int64)
Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_images(name: str, data_dir: str) -> Sets:
    """Return images and labels of the training and of the test set, in the order of the data set."""
    if name == "digits":
        (images, labels), (test_images, test_labels) = load_digits()
        return images, labels, test_images, test_labels
    parts: list[np.ndarray] = []
    for split, size in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        dataset = tfds.load(name, split=split, data_dir=data_dir, download=False, as_supervised=True)
        images, labels = next(iter(dataset.batch(size).as_numpy_iterator()))
        parts += [images, labels]
    return parts[0], parts[1], parts[2], parts[3]


def make_evidence(labels: np.ndarray, test_labels: np.ndarray, num_classes: int) -> Evidence:
    """Return what the checks of images need of an audit's arrays."""
    zeros = np.zeros(len(labels))
    return Evidence(
        num_classes, 1, NONE, NONE, labels, None, zeros, test_labels, None, test_labels, zeros, None, None
    )  # fmt: skip


def batches(values: np.ndarray) -> Iterator[tf.Tensor]:
    """Yield batches as an audit reads them."""
    for start in range(0, len(values), BATCH_SIZE):
        yield tf.constant(values[start : start + BATCH_SIZE])


def properties_of(images: np.ndarray, test_images: np.ndarray) -> Properties:
    """Measure the images of both sets."""
    found = ImageProperties()
    for split, values in (("train", images), ("test", test_images)):
        for batch in batches(values):
            found.add(batch, split)
    train, test = found.of("train"), found.of("test")
    assert train is not None and test is not None
    return Properties(train, test)


def rows_of(values: np.ndarray) -> np.ndarray:
    """Return the rows of a table, as the test of the order gets them."""
    table = InputTable(has_token_ids=False)
    for batch in batches(values):
        table.add(batch, "train")
    return table.rows()[0]


def image_problems(sets: Sets) -> list[InputProblem]:
    """Return the problems of images."""
    images, labels, test_images, test_labels = sets
    names = [str(label) for label in range(labels.max() + 1)]
    evidence = make_evidence(labels, test_labels, len(names))
    return list(find_image_problems(evidence, properties_of(images, test_images), names))


def report_images(name: str, sets: Sets) -> None:
    """Print alarms on the images as they are, how near the bars natural properties come, and planted cases."""
    images, labels, test_images, test_labels = sets
    print(f"\n## {name}: {len(images)} training, {len(test_images)} test images")
    for problem in image_problems(sets):
        print(f"as it is: {problem.kind}: {problem.title}")
    properties = properties_of(images, test_images)
    for column, own in enumerate(PROPERTIES):
        known = np.isfinite(properties.train[:, column])
        if known.any():
            values = properties.train[known, column]
            areas = class_areas(values, labels[known]).values()
            area = max(max(area, 1 - area) for area in areas)
            print(f"{own}: largest area {area:.3f}, skill {tree_skill(values, labels[known]):.3f}")
    found = dict.fromkeys(("dark", "bright", "low contrast", "blurred", "noise", "one colour"), 0)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(images), 20, replace=False)
    high = float(images.max())
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "dark": lambda image: 0.05 * image,
        "bright": lambda image: high - 0.05 * (high - image),
        "low contrast": lambda image: image.mean() + 0.05 * (image - image.mean()),
        "blurred": lambda image: gaussian_filter(image, (2, 2, 0)),
        "noise": lambda image: rng.uniform(0, high, image.shape),
        "one colour": lambda image: 0 * image + image.mean(),
    }
    evidence = make_evidence(labels, test_labels, int(labels.max()) + 1)
    for what, change in ways.items():
        planted = images.astype(np.float32)
        # One at a time: many odd images would make each other usual.
        measured = properties_of(
            np.stack(
                [change(planted[index]).astype(np.float32) for index in chosen]
                + [0 * planted[0], 0 * planted[0] + high]
            ),
            test_images[:1].astype(np.float32),
        ).train
        for place, index in enumerate(chosen):
            changed = Properties(properties.train.copy(), properties.test)
            changed.train[index] = measured[place]
            shown = [
                (odd.example.split, odd.example.index)
                for problem in find_image_problems(evidence, changed, [str(label) for label in range(10)])
                for odd in problem.examples
                if problem.kind in ("odd-images", "constant")
            ]
            found[what] += ("train", index) in shown
    print("planted and shown, of 20:", found)
    for factor in (0.3, 0.5, 0.7):
        darker = [
            np.where((own == 3)[:, None, None, None], factor * part, part).astype(np.float32)
            for part, own in ((images, labels), (test_images, test_labels))
        ]
        one = {
            problem.kind
            for problem in image_problems((darker[0], labels, test_images.astype(np.float32), test_labels))
        }
        both = {problem.kind for problem in image_problems((darker[0], labels, darker[1], test_labels))}
        print(
            f"class 3 at {factor} of its brightness: in training alone {sorted(one)}, in both {sorted(both)}"
        )


def report_order(name: str, values: np.ndarray, labels: np.ndarray, num_permutations: int = 5) -> None:
    """Print what is said about the order of a set as it is, permuted, sorted, and about drifting ones."""
    rows = rows_of(values.astype(np.float32))
    alarms = 0
    for seed in range(num_permutations):
        order = np.random.default_rng(seed).permutation(len(rows))
        alarms += bool(list(find_order(rows[order], labels[order], "training")))
    as_it_is = [problem.advice.split(". ")[0] for problem in find_order(rows, labels, "training")]
    order = np.argsort(labels, kind="stable")
    has_sorted = bool(list(find_order(rows[order], labels[order], "training")))
    # Half of the set in random order, then the other half sorted.
    half = len(rows) // 2
    order = np.concatenate([np.arange(half), half + np.argsort(labels[half:], kind="stable")])
    has_half = bool(list(find_order(rows[order], labels[order], "training")))
    print(
        f"order of {name} ({len(rows)}): alarms when permuted {alarms} of {num_permutations}; "
        f"sorted found: {has_sorted}; half sorted found: {has_half}; as it is: {as_it_is or 'nothing'}"
    )


def report_random_orders(num_sets: int) -> None:
    """Print false alarms of the order on synthetic sets of independent examples."""
    alarms = 0
    for seed in range(num_sets):
        rng = np.random.default_rng(1000 + seed)
        num, classes, columns = (
            int(rng.choice(own)) for own in ([50, 100, 300, 1000, 3000], [2, 3, 10, 100], [1, 5, 30])
        )
        labels = rng.choice(classes, num, p=rng.dirichlet(np.full(classes, rng.choice([0.3, 3]))))
        clustered = rng.normal(size=(num, columns)) + 3 * rng.normal(size=(classes, columns))[labels]
        discrete = rng.integers(0, 3, (num, columns)).astype(float)
        alarms += bool(list(find_order(clustered if seed % 2 else discrete, labels, "training")))
    print(f"order of synthetic sets in random order: {alarms} alarms of {num_sets}")


def report_columns(num_tables: int, data_dir: str) -> None:
    """Print false alarms on columns of real and synthetic tables, and planted ones."""
    german = tfds.as_numpy(
        tfds.load(
            "german_credit_numeric",
            split="train",
            data_dir=data_dir,
            download=False,
            as_supervised=True,
            batch_size=-1,
        )
    )
    tables = {
        name: (own.data, own.target)
        for name, own in (
            ("wine", sklearn.datasets.load_wine()),
            ("breast cancer", sklearn.datasets.load_breast_cancer()),
            ("iris", sklearn.datasets.load_iris()),
            ("digits as a table", sklearn.datasets.load_digits()),
        )
    }
    tables["german credit"] = german
    for name, (values, labels) in tables.items():
        report_order(name, values, labels)
        found = [column_problems(values, labels, seed) for seed in range(10)]
        alarms, constant = sum(map(has_alarm, found)), sum("constant-column" in kinds for kinds in found)
        planted = planted_columns(values, labels)
        print(
            f"columns of {name}: {alarms} alarms of 10 random splits, {constant} with constant columns; planted and "
            f"found, of 10: {planted}"
        )
    alarms = constant = 0
    for seed in range(num_tables):
        rng = np.random.default_rng(1000 + seed)
        num, classes = int(rng.choice([80, 130, 400, 1300])), int(rng.choice([2, 3, 10]))
        labels = rng.integers(0, classes, num)
        values = np.concatenate(
            [
                rng.normal(size=(num, 4)) + 0.7 * labels[:, None] * rng.normal(size=4),
                rng.random((num, 4)) < [0.5, 0.1, 0.05, 0.01],
                rng.poisson(30, (num, 2)),
                np.round(rng.lognormal(8, 1, (num, 2))),
                rng.integers(0, 10**5, (num, 1)),
            ],
            axis=1,
        )
        kinds = column_problems(values, labels, seed)
        alarms, constant = alarms + has_alarm(kinds), constant + ("constant-column" in kinds)
    print(f"columns of synthetic tables: {alarms} alarms of {num_tables}, {constant} with constant columns")


def has_alarm(kinds: Sequence[str]) -> bool:
    """Return whether any problem is more than a column that has one value in all examples, which is a fact."""
    return bool(set(kinds) - {"constant-column"})


def column_problems(values: np.ndarray, labels: np.ndarray, seed: int) -> list[str]:
    """Return the kinds of problems of the columns of a table that is split at random."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return split_problems(values[order], labels[order])


def split_problems(values: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return the kinds of problems of the columns of a table whose last quarter is the test set."""
    cut = 3 * len(labels) // 4
    values = values.astype(np.float32)
    columns = [
        Column(f"column {own}", values[:cut, own], values[cut:, own]) for own in range(values.shape[1])
    ]
    return [problem.kind for problem in find_column_problems(columns, labels[:cut])]


def planted_columns(values: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """Return in how many of ten random splits each kind of planted column is found."""
    found: Counter[str] = Counter()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        own, given, num = values[order], labels[order], len(labels)
        in_test = np.arange(num) >= 3 * num // 4
        for name, kind, column in (
            ("row number", "identifier", np.arange(num)),
            ("shuffled row number", "identifier", rng.permutation(num)),
            ("id below 1,000,000", "identifier", rng.choice(10**6, num, replace=False)),
            ("coded label", "leaking-column", rng.permutation(given.max() + 1)[given]),
            (
                "label with 5 % wrong",
                "leaking-column",
                np.where(rng.random(num) < 0.05, rng.permutation(given), given),
            ),
            ("one value in training", "one-value-column", np.where(in_test, rng.integers(0, 2, num), 0)),
        ):
            found[name] += kind in split_problems(np.concatenate([own, column[:, None]], axis=1), given)
    return dict(found)


def report_time(sets: Sets) -> None:
    """Print the CPU seconds of every check of 10,000 training and 5,000 test images."""
    images, labels, test_images, test_labels = sets
    table = InputTable(has_token_ids=False)
    for split, values in (("train", images), ("test", test_images)):
        for batch in batches(values):
            table.add(batch, split)
    rows, test_rows = table.rows()
    names = [str(label) for label in range(10)]
    start = time.process_time()
    properties = properties_of(images, test_images)
    measured = time.process_time()
    list(find_image_problems(make_evidence(labels, test_labels, 10), properties, names))
    checked = time.process_time()
    list(find_order(rows, labels, "training"))
    list(find_order(test_rows, test_labels, "test"))
    end = time.process_time()
    print(
        f"CPU seconds: properties {measured - start:.2f}, checks of images {checked - measured:.2f}, "
        f"order of both sets {end - checked:.2f}"
    )


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="of TensorFlow Datasets")
    arguments = parser.parse_args()
    report_random_orders(200)
    report_columns(200, arguments.data_dir)
    for name in IMAGES:
        sets = load_images(name, arguments.data_dir)
        report_images(name, sets)
        report_order(f"{name} train", sets[0], sets[1])
        report_order(f"{name} test", sets[2], sets[3])
        if name != "digits":
            report_time(sets)


if __name__ == "__main__":
    main()
