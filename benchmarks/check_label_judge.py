"""Does the surrogate that an audit chooses by the test labels rank wrong training labels as well as the best K?

    python benchmarks/check_label_judge.py --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

Cases: digits of scikit-learn with equal classes, classes of 3 to 1 and a long tail, some labels wrong, in a network of
one layer trained long enough to know them by heart; and the poisoned models of MNIST, Fashion-MNIST and CIFAR-10 of
`reproduce_table2.py` (trained where MODELS lacks them). Each is asked over the K of an audit's path, with the cosine
kernel: area under the ROC curve of the slack, and share of the test labels that the surrogate predicts. And the network
of `reproduce_rps_lje.py` on horses and cars, which hides what it knows by heart. Writes `label-judge.json` and
`label-judge.md`, and resumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from reproduce_rps_lje import EPOCHS as HORSE_CAR_EPOCHS
from reproduce_rps_lje import train, two_classes
from reproducing import Results, make_parser
from sklearn.metrics import roc_auc_score

from deel_dualview import DualView, InfluenceModel, load_digits, swap_labels
from deel_dualview.auditing.surrogate import fit_path, judge_labels
from deel_dualview.evaluation import subject

CLASSES = {
    "equal": (140,) * 10,
    "3 to 1": (140,) * 5 + (47,) * 5,
    "long tail": (145, 145, 145, 145, 100, 60, 40, 20, 10, 5),
}
DIGITS = {
    f"digits, {name}, {wrong:.0%} wrong": (counts, wrong)
    for wrong in (0.03, 0.1)
    for name, counts in CLASSES.items()
}
HORSE_CAR = {f"horse and car, {wrong:.0%} wrong": wrong for wrong in (0.03, 0.2)}
SUBJECTS = {"MNIST": "mnist", "Fashion-MNIST": "fashion_mnist", "CIFAR-10": "cifar10"}
EPOCHS, BATCH_SIZE = 100, 32


def digits_case(counts: tuple[int, ...], wrong: float, seed: int) -> dict:
    """Return what a network of digits, so many of each class, makes of wrong labels."""
    (images, labels), (test_images, test_labels) = load_digits()
    rows = [np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)]
    kept = np.sort(np.concatenate(rows))
    swapped = swap_labels(labels[kept], round(wrong * len(kept)), num_classes=10, seed=seed)
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            layers.Flatten(),
            layers.Dense(256, "relu", name="features"),
            layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(images[kept], swapped.labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    is_wrong = np.zeros(len(kept), bool)
    is_wrong[swapped.indices] = True
    given = tf.data.Dataset.from_tensor_slices((images[kept], swapped.labels)).batch(256)
    test = tf.data.Dataset.from_tensor_slices((test_images, test_labels)).batch(256)
    return compare(model, given, test, is_wrong)


def horse_car_case(data: list[np.ndarray], wrong: float, seed: int) -> dict:
    """Return what the network of figure 4 of the RPS-LJE paper makes of wrong labels."""
    images, labels, test_images, test_labels = data
    swapped = swap_labels(labels, round(wrong * len(labels)), num_classes=2, seed=seed)
    model = train(images, swapped.labels, HORSE_CAR_EPOCHS, seed)
    is_wrong = np.zeros(len(labels), bool)
    is_wrong[swapped.indices] = True
    given = tf.data.Dataset.from_tensor_slices((images, swapped.labels)).batch(500)
    test = tf.data.Dataset.from_tensor_slices((test_images, test_labels)).batch(500)
    return compare(model, given, test, is_wrong)


def subject_case(data: str, seed: int, models: str, data_dir: str | None) -> dict:
    """Return what a poisoned model of the paper's table 2 makes of its labels."""
    chosen = subject(data, "poisoned", seed, directory=models, data_dir=data_dir)
    size = sum(len(labels) for _, labels in chosen.train)
    return compare(chosen.model, chosen.train, chosen.test, chosen.truth.is_poisoned(size))


def compare(
    model: keras.Model, train_set: tf.data.Dataset, test_set: tf.data.Dataset, is_wrong: np.ndarray
) -> dict:
    """Ask the surrogate of every K of an audit's path, and tell which one an audit takes."""
    calculator = DualView(InfluenceModel(model), train_set, kernel="cosine")
    solutions = fit_path(calculator)
    kernel_features = np.concatenate([batch.kernel_features for batch in calculator.evaluate(test_set)])
    test_labels = np.concatenate([labels for _, labels in test_set])
    judge = judge_labels(calculator, solutions, kernel_features, test_labels)
    found = {}
    for K, solution in solutions.items():
        predicted = (kernel_features @ solution.weights).argmax(axis=1)
        suspected = solution.slack > 1
        found[f"{K * len(is_wrong):.4g}"] = {
            "area": round(float(roc_auc_score(is_wrong, solution.slack)), 4),
            "test_accuracy": round(float((predicted == test_labels).mean()), 4),
            "suspected": int(suspected.sum()),
            "right": int(is_wrong[suspected].sum()),
        }
    names = {K: f"{K * len(is_wrong):.4g}" for K in solutions}
    learned = [model.predict(inputs, verbose=0).argmax(1) == labels.numpy() for inputs, labels in train_set]
    return {
        "own": names[calculator.K],
        "judge": names[judge.K],
        "num_wrong": int(is_wrong.sum()),
        "given_labels_learned": round(float(np.concatenate(learned).mean()), 4),
        "by_total_penalty": found,
    }


def to_markdown(results: dict) -> str:
    """Return means over the seeds: of the audit's own surrogate, of K n = 30, of the judge, of the best in area."""
    text = "Area under the ROC curve of wrong labels by slack; share of the test labels that the surrogate predicts."
    heads = ["networks", "given labels learned", "K n = 600", "K n = 30", "the audit's judge", "best area"]
    heads += ["K n of the judge; of the best area"]
    lines = ["# Which surrogate judges labels", "", text, "", f"| case | {' | '.join(heads)} |"]
    lines += ["|---" * (len(heads) + 1) + "|"]
    for name, seeds in results["cases"].items():
        lines.append(f"| {name} | {' | '.join(_cells(list(seeds.values())))} |")
    context = results["context"]
    return "\n".join([*lines, "", f"Command: `{context['command']}`; {context['created']}.", ""])


def _cells(runs: list[dict]) -> list[str]:
    def record(of: Callable[[dict], str]) -> str:
        rows = [one["by_total_penalty"][of(one)] for one in runs]
        area, accuracy = (np.mean([row[key] for row in rows]) for key in ("area", "test_accuracy"))
        return f"{area:.4f}; {accuracy:.3f}"

    def best(one: dict) -> str:
        return max(one["by_total_penalty"], key=lambda name: one["by_total_penalty"][name]["area"])

    learned = np.mean([one["given_labels_learned"] for one in runs])
    names = f"{', '.join(one['judge'] for one in runs)}; {', '.join(best(one) for one in runs)}"
    ways: list[Callable[[dict], str]] = [
        lambda one: one["own"],
        lambda one: "30",
        lambda one: one["judge"],
        best,
    ]
    return [str(len(runs)), f"{learned:.3f}", *(record(way) for way in ways), names]


def main() -> None:
    """Ask the cases that are not there yet."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", required=True, help="folder of the trained models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    cases = [*DIGITS, *HORSE_CAR, *SUBJECTS]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    options = parser.parse_args()
    results = Results(
        options.output / "label-judge.json",
        {"cases": {}},
        "python benchmarks/check_label_judge.py",
        to_markdown,
    )
    horses_and_cars = two_classes(options.data_dir) if {*HORSE_CAR} & {*options.cases} else []
    for name in options.cases:
        seeds = results.found["cases"].setdefault(name, {})
        for seed in options.seeds:
            if str(seed) in seeds:
                continue
            if name in DIGITS:
                found = digits_case(*DIGITS[name], seed)
            elif name in HORSE_CAR:
                found = horse_car_case(horses_and_cars, HORSE_CAR[name], seed)
            else:
                found = subject_case(SUBJECTS[name], seed, options.models, options.data_dir)
            seeds[str(seed)] = found
            results.write()
            print(name, seed, found["judge"], flush=True)


if __name__ == "__main__":
    main()
