"""Would other heads improve the ranking of label issues? Tried on settings of their own, not on the benchmark's.

    python benchmarks/bench_label_issue_variants.py --data-dir TFDS_DIRECTORY [--cache DIRECTORY]

Trains the networks of `label_issue_development.py` (kept in --cache) and compares with the heads of `label_issues`:
DualView's margin without an example's own term, and a kernel ridge on an untrained copy of the network. F are the
features, G the layer before, R the inputs as a table, U the layer before in the untrained copy.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bench_label_issues as benchmark
import keras
import label_issue_networks as networks
import numpy as np
import tensorflow as tf
from label_issue_data import save_arrays, seed_of
from label_issue_development import IMAGES, RANKED, TABLES, TEXTS
from label_issue_metrics import rank_metrics
from label_issue_scores import BATCH_SIZE
from label_issue_settings import Setting

from deel_dualview import InfluenceModel
from deel_dualview.labels import finding
from deel_dualview.labels.calibration import best_temperature
from deel_dualview.labels.counting import margins
from deel_dualview.labels.heads import HeadScores, Problem, logistic_head, ridge_head
from deel_dualview.labels.inputs import InputTable
from deel_dualview.labels.reading import takes_token_ids
from deel_dualview.models.hidden import HiddenLayers
from deel_dualview.svm import DualSVMSolver

PENALTIES = (0.01, 0.03, 0.1, 0.3)
"""K of the margins without own terms; features have unit length."""
PRESENT = "label_issues"
HEADS = ("ridge F", "logistic F", "ridge G", "logistic G", "ridge R")
VARIANTS: dict[str, Sequence[str]] = {
    PRESENT: HEADS,
    "+ own-term-free F": (*HEADS, "own-term-free F"),
    "+ own-term-free F, G": (*HEADS, "own-term-free F", "own-term-free G"),
    "own-term-free for logistic": ("ridge F", "own-term-free F", "ridge G", "own-term-free G", "ridge R"),
    "own-term-free for ridge": ("own-term-free F", "logistic F", "own-term-free G", "logistic G", "ridge R"),
    "+ untrained": (*HEADS, "ridge U"),
    "untrained for inputs": (*HEADS[:-1], "ridge U"),
    "without inputs": HEADS[:-1],
}


def representations(setting: Setting, data_dir: str, cache: pathlib.Path) -> dict[str, np.ndarray]:
    """Return rows of both sets, by representation and set, and labels."""
    path = cache / "rows" / f"{setting.name}.npz"
    if not path.exists():
        found = benchmark.trained(setting, data_dir, cache)
        data = found.data
        untrained = networks.build(
            setting.data, data.train_inputs, data.num_classes, cache, 1 + seed_of(setting.name)
        )
        rows = {"labels": found.given, "truth": data.train_labels, "test_labels": data.test_labels}
        table = InputTable(has_token_ids=takes_token_ids(untrained))
        for name, inputs in {"train": data.train_inputs, "test": data.test_inputs}.items():
            rows[f"F {name}"], rows[f"G {name}"] = _hidden(found.model, inputs)
            rows[f"U {name}"] = _unit(_hidden(untrained, inputs)[1])
            table.add(inputs, name)
        rows["R train"], rows["R test"] = (part[:] for part in table.rows())
        save_arrays(path, **rows)
    with np.load(path) as arrays:
        return dict(arrays)


def _hidden(model: keras.Model, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and the layer before them; the features again where there is none."""
    layers = HiddenLayers(InfluenceModel(model))
    found = [layers(batch) for batch in tf.data.Dataset.from_tensor_slices(inputs).batch(BATCH_SIZE)]
    features = np.concatenate([part.features for part in found])
    if found[0].before is None:
        return features, features
    return features, np.concatenate([part.before for part in found])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def own_term_free_head(train: np.ndarray, test: np.ndarray, problem: Problem) -> HeadScores:
    """Return logits of DualView's surrogate, of a training example without its own term.

    K is that of the smallest log loss on the test labels.
    """
    train, test = _unit(train), _unit(test)
    solver = DualSVMSolver(1e-3)
    path = solver.fit_path(train, problem.labels, problem.num_classes, PENALTIES)
    losses = [best_temperature(test @ found.weights, problem.test_labels)[1] for found in path]
    best = path[int(np.argmin(losses))]
    own = best.coefficients.toarray() * np.square(train).sum(axis=1, keepdims=True)
    return HeadScores(
        (train @ best.weights - own).astype(np.float32), (test @ best.weights).astype(np.float32)
    )


def heads_of(rows: dict[str, np.ndarray]) -> tuple[dict[str, HeadScores], dict[str, float]]:
    """Return every head, and the CPU seconds of each."""
    problem = Problem(rows["labels"], rows["test_labels"], int(rows["test_labels"].max()) + 1)
    heads, seconds = {}, {}

    def add(name: str, make: Callable[..., HeadScores], **settings: Any) -> None:
        start, both = time.process_time(), [rows[f"{name[-1]} {part}"] for part in ("train", "test")]
        heads[name] = make(*both, problem, **settings)
        seconds[name] = time.process_time() - start

    for on in "FG":
        rng = np.random.default_rng(0)
        add(f"ridge {on}", ridge_head, distance="cosine", by_test=True, rng=rng)
        add(f"logistic {on}", logistic_head, rng=rng)
        add(f"own-term-free {on}", own_term_free_head)
    for on in "RU":
        add(f"ridge {on}", ridge_head, distance="euclidean", by_test=False, rng=np.random.default_rng(0))
    return heads, seconds


def compare(rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return the metrics of every variant and of every head alone, with CPU seconds."""
    (heads, seconds), labels = heads_of(rows), rows["labels"]
    problem = Problem(labels, rows["test_labels"], int(rows["test_labels"].max()) + 1)
    found = {}
    for variant, names in {**VARIANTS, **{name: (name,) for name in heads}}.items():
        stack = finding._Stack.fit([finding._Head(name, name, heads[name]) for name in names], problem, None)
        logs = stack.log_probabilities([heads[name].train[:] for name in names], slice(None))
        found[variant] = rank_metrics(-margins(logs, labels), labels != rows["truth"])
        found[variant]["seconds"] = sum(seconds[name] for name in names)
    return found


def to_markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a table for each kind of data: means, and differences from `label_issues` with standard errors."""
    lines = []
    for kind, names in {
        "all": (*IMAGES, *TEXTS, *TABLES),
        "images": IMAGES,
        "texts": TEXTS,
        "tables": TABLES,
    }.items():
        own = [result for name, result in results.items() if name.split(".")[0] in names]
        lines += [
            "",
            f"{kind}, {len(own)} settings",
            "",
            "| heads | ROC-AUC | P@wrong | CPU s |",
            "|---|---|---|---|",
        ]
        for variant in own[0]:
            cells = [variant]
            for metric in ("area", "precision"):
                values = np.array([result[variant][metric] for result in own])
                added = values - [result[PRESENT][metric] for result in own]
                error = added.std(ddof=1) / np.sqrt(len(own))
                cells.append(f"{values.mean():.4f} ({added.mean():+.4f} +- {error:.4f})")
            cells.append(f"{np.mean([result[variant]['seconds'] for result in own]):.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Compare in all settings and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="where TFDS keeps its datasets")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("build/label_issues_cache"))
    options = parser.parse_args()
    results = {}
    for setting in RANKED:
        results[setting.name] = compare(representations(setting, options.data_dir, options.cache))
        present = results[setting.name][PRESENT]
        print(
            f"{setting.name}: ROC-AUC {present['area']:.3f}, P@wrong {present['precision']:.3f}", flush=True
        )
    print(to_markdown(results))


if __name__ == "__main__":
    main()
