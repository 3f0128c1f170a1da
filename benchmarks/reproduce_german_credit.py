"""Flipped labels of German credit under XGBoost (RPS-LJE paper, section 5.4): found, and put right.

    python benchmarks/reproduce_german_credit.py --data-dir TFDS_DIRECTORY --table german.data --output RESULTS

800 training and 200 test rows, 30 % of the training labels flipped, XGBoost of 80 trees of depth 8 at a learning rate
of .005, 10 runs (each its own split and flips). Every method orders the training rows; what was found is told for every
further 5 % inspected, and after 10, 20 and 30 % the flipped labels among those are put right and XGBoost is trained
again. `--table` is UCI's symbolic file (one-hot: 61 columns, as in the paper); without it the numeric variant of TFDS
is read. Needs the extra `benchmarks` for cleanlab. Writes `german-credit.json` and `.md` (`german-credit-numeric` of
TFDS).
"""

from __future__ import annotations

import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_datasets as tfds
import xgboost
from reproducing import Results, make_parser
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from deel_dualview import (
    DualView,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    RelatIF,
    RepresenterPointL2,
    RepresenterPointLJE,
    TreeEnsembleModel,
    label_issues,
    swap_labels,
)

NUM_TRAIN, FLIPPED_SHARE = 800, 0.3
# As in the paper's year: a base score estimated from the labels, as XGBoost 2 and later do, and 80 steps of .005 away
# from it leave nearly all predictions at the larger class.
SETTINGS = {"base_score": 0.5, "n_estimators": 80, "max_depth": 8, "learning_rate": 0.005, "n_jobs": 1}
INSPECTED = np.arange(0, 105, 5)
RETRAINED = (10, 20, 30)
NO_LABEL, EVERY_LABEL = "no label put right", "every label put right"


def load(options) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (1000, w) and labels, 1 = bad."""
    if options.table is None:
        dataset = tfds.load(
            "german_credit_numeric", split="train", data_dir=options.data_dir, as_supervised=True
        )
        inputs, labels = next(iter(dataset.batch(1000).as_numpy_iterator()))
        return inputs.astype(np.float32), 1 - labels.astype(np.int64)
    table = pd.read_csv(options.table, sep=" ", header=None)
    return pd.get_dummies(table.iloc[:, :20]).to_numpy(np.float32), (table[20] == 2).to_numpy().astype(
        np.int64
    )


def fit(inputs: np.ndarray, labels: np.ndarray) -> xgboost.XGBClassifier:
    """Return XGBoost fitted to these labels."""
    return xgboost.XGBClassifier(**SETTINGS).fit(inputs, labels)


def orders(
    inputs: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return for every method the value by which it orders the rows, largest first, and its seconds."""
    from cleanlab.rank import get_label_quality_scores  # of the extra: `--help` goes without

    booster = fit(inputs, labels)
    model, few = TreeEnsembleModel(booster), TreeEnsembleModel(booster, features="trees")
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(256)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(
        xgboost.XGBClassifier(**SETTINGS), inputs, labels, cv=folds, method="predict_proba"
    )

    def own_influence(calculator) -> np.ndarray:
        return np.concatenate([values.numpy() for values in calculator.compute_influence_values()])

    def of_labels(**given) -> np.ndarray:
        return label_issues(model, (inputs, labels), seed=seed, progress=False, **given).scores

    inverse = ExactIHVP(model, train_set)
    methods = {
        "RPS-LJE, leaves": lambda: np.abs(own_influence(RepresenterPointLJE(model, train_set))),
        "RPS-LJE, margins of trees": lambda: np.abs(own_influence(RepresenterPointLJE(few, train_set))),
        "RPS-L2": lambda: np.abs(RepresenterPointL2(few, train_set).surrogate.coefficients)[:, 0],
        "influence functions": lambda: own_influence(
            FirstOrderInfluenceCalculator(model, train_set, inverse)
        ),
        "RelatIF": lambda: own_influence(RelatIF(model, train_set, inverse)),
        "DualView, slack": lambda: DualView(model, train_set).surrogate.slack,
        "DualView, sparse (cosine), slack": lambda: (
            DualView(model, train_set, kernel="cosine").surrogate.slack
        ),
        "label issues": of_labels,
        "label issues with out-of-fold probabilities": lambda: of_labels(pred_probs=probabilities),
        "cleanlab, out-of-fold probabilities": lambda: -get_label_quality_scores(labels, probabilities),
        "loss": lambda: -np.log(booster.predict_proba(inputs)[np.arange(len(labels)), labels]),
        "random": lambda: np.random.default_rng(seed).random(len(labels)),
    }
    values, seconds = {}, {}
    for name, method in methods.items():
        start = time.perf_counter()
        values[name] = method()
        seconds[name] = round(time.perf_counter() - start, 2)
    return values, seconds


def run(inputs: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, dict]:
    """Return what every order finds in one run, and what that is worth."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    train, test = rows[:NUM_TRAIN], rows[NUM_TRAIN:]
    swapped = swap_labels(labels[train], round(FLIPPED_SHARE * NUM_TRAIN), num_classes=2, seed=seed)
    is_flipped = np.zeros(NUM_TRAIN, bool)
    is_flipped[swapped.indices] = True

    def accuracy(given: np.ndarray) -> float:
        return float((fit(inputs[train], given).predict(inputs[test]) == labels[test]).mean())

    values, seconds = orders(inputs[train], swapped.labels, seed)
    found: dict[str, dict] = {
        NO_LABEL: {"accuracy": {"0": accuracy(swapped.labels)}},
        EVERY_LABEL: {"accuracy": {"100": accuracy(labels[train])}},
    }
    for name, order in ((name, np.argsort(-value, kind="stable")) for name, value in values.items()):
        accuracies = {}
        for share in RETRAINED:
            given = swapped.labels.copy()
            inspected = order[: share * NUM_TRAIN // 100]
            given[inspected] = labels[train][inspected]
            accuracies[str(share)] = accuracy(given)
        counts = [is_flipped[order[: share * NUM_TRAIN // 100]].sum() for share in INSPECTED]
        shares = np.array(counts) / is_flipped.sum()
        found[name] = {"found": shares.round(4).tolist(), "accuracy": accuracies, "seconds": seconds[name]}
    return found


def to_markdown(results: dict) -> str:
    """Return means and deviations over the runs."""
    runs, shares = results["runs"], (10, 20, 30, 40, 60)
    heads = [f"found at {share} %" for share in shares]
    heads += [f"accuracy, {share} % inspected" for share in RETRAINED] + ["seconds"]
    lines = [
        f"# German credit under XGBoost, {results['data']}",
        "",
        f"{len(runs)} runs, mean ± deviation.",
        "",
    ]
    lines += [f"| order | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in runs[0]:
        own = [one[name] for one in runs]
        cells = [_spread([one["found"][share // 5] for one in own if "found" in one]) for share in shares]
        of_all = [value for one in own for value in one["accuracy"].values()]
        cells += [
            _spread([one["accuracy"][str(share)] for one in own] if "found" in own[0] else of_all)
            for share in RETRAINED
        ]
        cells.append(f"{np.mean([one['seconds'] for one in own]):.1f}" if "seconds" in own[0] else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    context = results["context"]
    note = "The paper: an accuracy of 78.5 % on right labels, 73.4 % on flipped ones."
    return "\n".join([*lines, "", note, "", f"Command: `{context['command']}`; {context['created']}.", ""])


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "–"


def main() -> None:
    """Do the runs that are not there yet."""
    parser = make_parser(__doc__)
    parser.add_argument("--table", type=pathlib.Path, help="UCI's german.data")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    numeric = options.table is None
    name = "german-credit-numeric" if numeric else "german-credit"
    command = f"python benchmarks/reproduce_german_credit.py{'' if numeric else ' --table german.data'}"
    results = Results(options.output / f"{name}.json", {"runs": []}, command, to_markdown)
    results.found["data"] = "numeric, 24 columns" if numeric else "symbolic, 61 columns after one-hot"
    inputs, labels = load(options)
    for seed in range(len(results.found["runs"]), options.runs):
        results.found["runs"].append(run(inputs, labels, seed))
        results.write()
        print(f"run {seed} of {options.runs}", flush=True)


if __name__ == "__main__":
    main()
