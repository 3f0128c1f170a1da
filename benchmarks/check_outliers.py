"""How many ordinary examples does an audit call outliers, and how many planted ones does it find?

    python benchmarks/check_outliers.py [--data-dir DIR] [--names wine cifar10 ...]

A small network is trained on each set, as it is. Clean: outliers that are named in training and test. Planted: 30
examples in the test set, each kind on its own: of a table one column ten deviations from its mean, or all columns drawn
four times as wide; of images uniform noise, and the same images inverted.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow_datasets as tfds
from check_weak_groups import compute_features, make_evidence
from sklearn import datasets

from deel_dualview.auditing.data_checks import find_outliers
from deel_dualview.report import Outliers

layers = keras.layers
TABLES = {"digits": "digits", "wine": "wine", "iris": "iris", "breast cancer": "breast_cancer"}
IMAGES = ("mnist", "fashion_mnist", "cifar10")
OTHERS = ("german_credit_numeric",)
NUM_PLANTED, NUM_TRAIN, NUM_TEST = 30, 3000, 1000


def load(name: str, data_dir: str | None, seed: int) -> tuple[np.ndarray, ...]:
    """Return training and test inputs and labels: two thirds of a table in training."""
    if name in IMAGES:
        first = NUM_TRAIN * seed
        splits = [f"train[{first}:{first + NUM_TRAIN}]", f"test[:{NUM_TEST}]"]
        parts = tfds.load(name, split=splits, batch_size=-1, data_dir=data_dir)
        arrays = [(part["image"].numpy().astype("float32") / 255, part["label"].numpy()) for part in parts]
        return (*arrays[0], *arrays[1])
    if name in TABLES:
        rows, labels = getattr(datasets, f"load_{TABLES[name]}")(return_X_y=True)
    else:
        part = tfds.load(name, split="train", batch_size=-1, data_dir=data_dir)
        rows, labels = part["features"].numpy(), part["label"].numpy()
    order = np.random.default_rng(seed).permutation(len(rows))
    train, test = order[: 2 * len(rows) // 3], order[2 * len(rows) // 3 :]
    return rows[train].astype("float32"), labels[train], rows[test].astype("float32"), labels[test]


def train_network(inputs: np.ndarray, labels: np.ndarray, seed: int) -> keras.Model:
    """Return a small network: convolutions of images, else an MLP on standardised columns."""
    keras.utils.set_random_seed(seed)
    if inputs.ndim == 4:
        first = [
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ]
    else:
        normalisation = layers.Normalization()
        normalisation.adapt(inputs)
        first = [normalisation, layers.Dense(32, activation="relu"), layers.Dense(16, activation="relu")]
    head = layers.Dense(int(labels.max()) + 1)
    model = keras.Sequential([keras.Input(inputs.shape[1:]), *first, head])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, labels, epochs=8 if inputs.ndim == 4 else 40, batch_size=64, verbose=0)
    return model


def plant(inputs: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return 30 planted examples of each kind."""
    some = inputs[rng.choice(len(inputs), NUM_PLANTED, replace=False)].copy()
    if inputs.ndim == 4:
        return {"noise": rng.uniform(0, 1, some.shape).astype("float32"), "inverted": 1 - some}
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    columns = rng.integers(0, inputs.shape[1], NUM_PLANTED)
    signs = rng.choice([-1, 1], NUM_PLANTED)
    some[np.arange(NUM_PLANTED), columns] = mean[columns] + 10 * deviation[columns] * signs
    return {"column": some, "wide": mean + 4 * deviation * rng.normal(size=some.shape)}


def find(labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Outliers:
    """Return the finding about outliers."""
    nothing = np.zeros(len(test), np.int64)
    return next(find_outliers(make_evidence(labels, nothing, nothing), train, test))


def main() -> None:
    """Print a line for each set and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--names", nargs="+", default=[*TABLES, *OTHERS, *IMAGES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for name in options.names:
        for seed in options.seeds:
            inputs, labels, test_inputs, _ = load(name, options.data_dir, seed)
            planted = plant(inputs, np.random.default_rng(seed))
            model = train_network(inputs, labels, seed)
            train, test, *others = compute_features(model, inputs, test_inputs, *planted.values())
            clean = find(labels, train, test)
            found = {
                kind: find(labels, train, features).num_test
                for kind, features in zip(planted, others, strict=True)
            }
            print(
                f"{name}, seed {seed}: clean {clean.num_train} of {len(train)}, {clean.num_test} of {len(test)}, "
                f"{clean.severity.value}; of {NUM_PLANTED} planted {found}",
                flush=True,
            )


if __name__ == "__main__":
    main()
