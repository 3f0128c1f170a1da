"""How well do label issues of regressions and of independent labels rank wrong labels?

    python benchmarks/bench_label_issues_regression.py --data-dir TFDS_DIRECTORY [--only diabetes] [--write]

Every setting is a network of two hidden layers of 32 units, trained on labels of which some are made wrong: shifted by
two standard deviations, swapped between examples, a slip of the decimal point (times ten or a tenth), the wrong sign;
independent labels are flipped. Stopped early (15 epochs), trained as usual (60) or until it has memorised its labels
(250). The design was chosen on the first four sets of numbers and is judged on the others, at which nobody looked.
Baselines: the model's own residual, residuals out of fold of a ridge on the features, a ridge and boosted trees on the
inputs, and the distance to the median of ten nearest neighbours. With --write the results are committed,
`benchmarks/results/label-issues-regression.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.ndimage
import sklearn.datasets
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier, MLPRegressor

from deel_dualview import label_issues
from deel_dualview.report.provenance import describe_context

RESULTS = pathlib.Path(__file__).parent / "results" / "label-issues-regression"
OURS = "label_issues"
CHOSEN_ON = ("friedman1", "digit value", "mean radius", "two targets")
JUDGED = ("friedman2", "friedman3", "diabetes", "colour of wines", "credit amount", "angle of digits")
LABELS = ("digit properties", "made-up labels", "yes and no of wines")
NOISE = (
    ("shift", 0.05, 60),
    ("swap", 0.05, 60),
    ("slip", 0.03, 60),
    ("sign", 0.05, 60),
    ("swap", 0.1, 250),
    ("shift", 0.1, 15),
)
FLIPS = (("flip", 0.03, 60), ("flip", 0.08, 60), ("flip", 0.05, 250), ("none", 0.0, 60))


def load(name: str, data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, w) and labels (n, t) of a data set."""
    if name.startswith("friedman"):
        noise = {"friedman1": 1.0, "friedman2": 60.0, "friedman3": 0.1}[name]
        return getattr(sklearn.datasets, f"make_{name}")(1600, noise=noise, random_state=0)
    if name == "two targets":
        return sklearn.datasets.make_regression(
            1200, 20, n_informative=8, n_targets=2, noise=10.0, random_state=0
        )
    if name == "made-up labels":
        return sklearn.datasets.make_multilabel_classification(1600, 30, n_classes=6, random_state=0)
    if name in ("credit amount", "angle of digits"):
        return _from_tfds(name, data_dir)
    if name == "diabetes":
        return sklearn.datasets.load_diabetes(return_X_y=True)
    if name == "mean radius":
        columns = sklearn.datasets.load_breast_cancer().data
        return columns[:, 4:10], columns[:, 0]
    wines, kinds = sklearn.datasets.load_wine(return_X_y=True)
    if name == "colour of wines":
        return np.delete(wines, 9, axis=1), wines[:, 9]
    if name == "yes and no of wines":
        return wines, np.stack([kinds == 0, kinds == 1, wines[:, 0] > 13], axis=1)
    inputs, digits = sklearn.datasets.load_digits(return_X_y=True)
    if name == "digit value":
        return inputs, digits
    return inputs, np.stack([digits % 2 == 0, digits > 4, np.isin(digits, [0, 6, 8, 9])], axis=1)


def _from_tfds(name: str, data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    if name == "credit amount":
        rows = tfds.as_numpy(tfds.load("german_credit_numeric", split="train", data_dir=data_dir))
        columns = np.array([row["features"] for row in rows], np.float64)
        return np.delete(columns, 3, axis=1), columns[:, 3]
    images = [
        row["image"][..., 0]
        for row in tfds.as_numpy(tfds.load("mnist", split="train[:1200]", data_dir=data_dir))
    ]
    angles = np.random.default_rng(0).uniform(-60, 60, len(images))
    turned = [
        scipy.ndimage.rotate(image, angle, reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.array(turned)[:, ::2, ::2].reshape(len(images), -1) / 255.0, angles


def plant(
    right: np.ndarray, kind: str, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which some are wrong, and which are, both (n, t)."""
    given, deviation = right.copy(), right.std(axis=0)
    rows = rng.choice(len(right), max(4, round(rate * len(right))) if rate else 0, replace=False)
    outputs = rng.integers(right.shape[1], size=len(rows))
    at = rows, outputs
    if kind == "shift":
        given[at] += 2 * deviation[outputs] * rng.choice([-1, 1], len(rows))
    elif kind == "slip":
        given[at] *= np.where(rng.random(len(rows)) < 0.5, 10, 0.1)
    elif kind == "sign":
        given[at] *= -1
    elif kind == "flip":
        given[at] = 1 - given[at]
    elif kind == "swap":
        for output in range(right.shape[1]):
            own = rows[outputs == output]
            given[own, output] = given[np.roll(own, 1), output]
    return given, given != right


def train(inputs: np.ndarray, labels: np.ndarray, epochs: int, *, has_labels: bool) -> keras.Model:
    """A network with the weights of scikit-learn's, which trains in a tenth of the time."""
    kind = MLPClassifier if has_labels else MLPRegressor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = kind(
            hidden_layer_sizes=(32, 32),
            learning_rate_init=3e-3,
            batch_size=64,
            max_iter=epochs,
            tol=0,
            n_iter_no_change=epochs,
            alpha=0,
            random_state=0,
        ).fit(inputs, labels.squeeze())
    layers = [keras.layers.Dense(len(bias), "relu") for bias in found.intercepts_[:-1]]
    last = keras.layers.Dense(labels.shape[1], "sigmoid" if has_labels else None)
    model = keras.Sequential([keras.Input((inputs.shape[1],)), *layers, last])
    model.set_weights([part for pair in zip(found.coefs_, found.intercepts_, strict=True) for part in pair])
    model.compile(loss="binary_crossentropy" if has_labels else "mse")
    return model


def baselines(
    model: keras.Model, inputs: np.ndarray, given: np.ndarray, *, has_labels: bool
) -> dict[str, np.ndarray]:
    """Scores (n, t) of the ways that there are without this library."""
    features = np.asarray(keras.Model(model.inputs[0], model.layers[-1].input)(inputs))
    outputs = np.asarray(model(inputs))
    folds = KFold(5, shuffle=True, random_state=0)

    def out_of_fold(make: Callable[[], Any], rows: np.ndarray) -> np.ndarray:
        columns = []
        for own in given.T:
            if has_labels:
                probabilities = cross_val_predict(make(), rows, own, cv=folds, method="predict_proba")
                columns.append(1 - probabilities[np.arange(len(own)), own.astype(int)])
            else:
                columns.append(np.abs(own - cross_val_predict(make(), rows, own, cv=folds)))
        return np.stack(columns, axis=1)

    def of_neighbours(rows: np.ndarray) -> np.ndarray:
        rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
        found = NearestNeighbors(n_neighbors=11).fit(rows).kneighbors(rows, return_distance=False)[:, 1:]
        return np.abs(given - (np.mean if has_labels else np.median)(given[found], axis=1))

    def linear() -> Any:
        return LogisticRegression(max_iter=500) if has_labels else RidgeCV(np.geomspace(1e-3, 1e3, 7))

    scores = {
        "model's residual": np.abs(given - outputs),
        "out of fold, features": out_of_fold(linear, features),
        "out of fold, inputs": out_of_fold(linear, inputs),
        "kNN(10), features": of_neighbours(features),
        "kNN(10), inputs": of_neighbours(inputs),
    }
    if not has_labels:
        scores["out of fold, trees"] = out_of_fold(lambda: HistGradientBoostingRegressor(max_iter=60), inputs)
    return scores


def measure(name: str, kind: str, rate: float, epochs: int, data_dir: str) -> dict[str, Any]:
    """Figures of one setting."""
    has_labels = name in LABELS
    inputs, right = load(name, data_dir)
    right = np.reshape(right, (len(inputs), -1)).astype(np.float64)
    rng = np.random.default_rng(zlib.crc32(f"{name} {kind} {rate} {epochs}".encode()))
    inputs = ((inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-9)).astype(np.float32)
    rows, others = np.split(rng.permutation(len(inputs)), [len(inputs) * 3 // 4])
    given, is_wrong = plant(right[rows], kind, rate, rng)
    # Numbers are standardised for the network, as one would; scores of several targets are then alike.
    centre, unit = (0.0, 1.0) if has_labels else (given.mean(axis=0), given.std(axis=0))
    given, tested = ((part - centre) / unit for part in (given, right[others]))
    model = train(inputs[rows], given, epochs, has_labels=has_labels)
    start = time.process_time()
    found = label_issues(model, (inputs[rows], given), (inputs[others], tested), progress=False)
    seconds = time.process_time() - start
    scores = {OURS: found.scores, **baselines(model, inputs[rows], given, has_labels=has_labels)}
    number = int(is_wrong.sum())
    return {
        "data": name,
        "role": "chosen on" if name in CHOSEN_ON else "judged",
        "kind": "labels" if has_labels else "numbers",
        "noise": kind,
        "rate": rate,
        "epochs": epochs,
        "n": len(rows),
        "num_wrong": number,
        "cpu_seconds": round(seconds, 2),
        "scores": {
            key: [
                round(float(roc_auc_score(is_wrong.ravel(), own.ravel())), 4),
                round(float(is_wrong.ravel()[np.argsort(-own.ravel(), kind="stable")[:number]].mean()), 4),
            ]
            for key, own in (scores if number else {}).items()
        },
        "counts": [
            {"true": int(wrong), "status": count.status, "estimate": count.estimate, "low": count.low,
             "high": count.high, "at_most": count.at_most}
            for wrong, count in zip(is_wrong.sum(axis=0), found.counts, strict=True)
        ]
        if has_labels
        else [],
    }  # fmt: skip


def to_markdown(results: Sequence[dict[str, Any]], context: dict[str, Any]) -> str:
    """Tables of all settings."""
    parts = ["# Label issues of regressions and of independent labels", ""]
    for role, kind, title in (
        ("judged", "numbers", "Numbers, on data that nothing was chosen on"),
        ("chosen on", "numbers", "Numbers, on the data that the design was chosen on"),
        ("judged", "labels", "Independent labels"),
    ):
        own = [item for item in results if item["role"] == role and item["kind"] == kind and item["scores"]]
        if own:
            sets = len({item["data"] for item in own})
            parts += [f"## {title}: {len(own)} settings of {sets} sets", "", *_table(own), ""]
    counts = [(item, count) for item in results for count in item["counts"]]
    if counts:
        parts += ["## Counts of independent labels", "", *_counts(counts), ""]
    parts += ["## Settings", "", "ROC-AUC, and precision among as many as are wrong.", ""]
    names = [OURS, *sorted({name for item in results for name in item["scores"]} - {OURS})]
    lines = [["data", "noise", "epochs", "wrong of n", *names], ["---"] * (len(names) + 4)]
    for item in results:
        cells = [
            "{:.3f} {:.2f}".format(*item["scores"][name]) if name in item["scores"] else "–" for name in names
        ]
        noise = f"{item['noise']} {item['rate']:.0%}"
        lines.append(
            [item["data"], noise, str(item["epochs"]), f"{item['num_wrong']} of {item['n']}", *cells]
        )
    parts += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*parts, "", f"Command: `{context['command']}`; {context['created']}.", ""])


def _table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Means over settings, beside the best baseline of each, chosen with hindsight."""
    names = list(results[0]["scores"])
    figures = np.array([[item["scores"][name] for name in names] for item in results])
    best = figures[:, 1:].max(axis=1)
    ranks = (-figures[:, :, 0]).argsort(axis=1).argsort(axis=1) + 1
    lines = [
        "| score | mean AUC | mean P@wrong | mean rank | worst AUC - best baseline | AUC missed by .01 | P@ by .02 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place, name in enumerate(names):
        area, precision = figures[:, place].T
        lines.append(
            f"| {name} | {area.mean():.3f} | {precision.mean():.3f} | {ranks[:, place].mean():.2f} | "
            f"{(area - best[:, 0]).min():+.3f} | {(area < best[:, 0] - 0.01).sum()} | "
            f"{(precision < best[:, 1] - 0.02).sum()} |"
        )
    return [
        *lines,
        f"| best baseline of each setting | {best[:, 0].mean():.3f} | {best[:, 1].mean():.3f} | | | | |",
    ]


def _counts(counts: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    given = [count for _, count in counts if count["status"] == "counted"]
    near = [count for count in given if count["true"] / 2 <= count["estimate"] <= 2 * count["true"]]
    covered = [count for count in given if count["low"] <= count["true"] <= count["high"]]
    clean = [count for _, count in counts if not count["true"]]
    bounds = [count for _, count in counts if count["status"] == "at most"]
    return [
        f"- {len(counts)} labels, {len(clean)} of them without a wrong entry; a count is given of {len(given)}.",
        f"- Within 1/2 to 2 of the truth: {len(near)} of {len(given)}; the interval covers it in {len(covered)}.",
        f"- Counted where none is wrong: {sum(count['status'] == 'counted' for count in clean)} of {len(clean)}.",
        f"- At most: {len(bounds)}, of which {sum(count['true'] > count['at_most'] for count in bounds)} too small.",
    ]


def main() -> None:
    """Measure all settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="of TensorFlow Datasets")
    parser.add_argument("--only", help="one data set")
    parser.add_argument("--write", action="store_true", help="write the results to commit")
    options = parser.parse_args()
    settings = [(name, *noise) for name in (*CHOSEN_ON, *JUDGED) for noise in NOISE]
    settings += [(name, *noise) for name in LABELS for noise in FLIPS]
    results = []
    for setting in settings:
        if options.only in (None, setting[0]):
            results.append(measure(*setting, options.data_dir))
            print(*setting, results[-1]["scores"].get(OURS), f"{results[-1]['cpu_seconds']} s", flush=True)
    context = describe_context(
        "python benchmarks/bench_label_issues_regression.py --data-dir TFDS_DIRECTORY --write"
    )
    text = to_markdown(results, context)
    print(text)
    if options.write:
        RESULTS.with_suffix(".json").write_text(
            json.dumps({"context": context, "results": results}, indent=1) + "\n"
        )
        RESULTS.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
