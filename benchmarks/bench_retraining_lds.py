"""Do influence values predict retraining on half of the data? Methods, dampings and ensembles on small networks.

    python benchmarks/bench_retraining_lds.py digits --output RESULTS.json --folder FOLDER
    python benchmarks/bench_retraining_lds.py fashion_mnist --output RESULTS.json --folder FOLDER --data-dir DIR
    python benchmarks/bench_retraining_lds.py mnist --output RESULTS.json --folder FOLDER --data-dir DIR

Ground truth: a network is trained on 60 random halves with 6 seeds (4 of the CNN) each. The score is the linear
datamodelling score: the rank correlation over halves of summed influence with log p(label), against the mean over one
half of the seeds, and over the other, averaged. A perfect predictor scores the *ceiling*, the root of the correlation
of these two means.

Every method explains the labels of all evaluated examples, of 3 models trained on all examples (1 of fashion_mnist and
mnist) and, where the row says so, of 8 models trained on random halves that have nothing to do with those of the ground
truth, and averaged as an `Ensemble` does. Trained models are kept in FOLDER, results row by row in RESULTS.json: both
go on where they were.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from memory import peak, reset_peak
from retraining_networks import LEARNING_RATE, Network, Trainer, network

from deel_dualview import Checkpoints, InfluenceModel, NamedMethod, RelativeDamping, _files
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.tracin import TracIn
from deel_dualview.evaluation import train_on_subsets
from deel_dualview.linalg.projections import FactoredProjection

NUM_HALVES, NUM_OF_HALVES = 60, 8
_TRUTH_SEED, _FULL_SEED, _HALF_SEED = 1000, 50, 70
_GAUSS_NEWTON = {"ihvp.weights": "all", "ihvp.curvature": "gauss-newton"}
_TRAK = {"weights": "all", "projection": FactoredProjection(512)}


def _damped(method: str, factor: float, **settings: Any) -> tuple[str, dict[str, Any]]:
    return method, {"ihvp.damping": RelativeDamping(factor), **settings}


# Name -> method and settings; those after a star are also applied to models of halves.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"IF, exact, last layer, damping {one}": _damped("first-order", one) for one in (0.01, 1.0)},
    "*IF, exact, last layer, damping 0.1": _damped("first-order", 0.1),
    **{
        f"IF, exact, all layers, damping {one}": _damped("first-order", one, **_GAUSS_NEWTON)
        for one in (0.1, 1.0, 10.0)
    },
    "*IF, exact, all layers, damping 3.0": _damped("first-order", 3.0, **_GAUSS_NEWTON),
    **{
        f"IF, EK-FAC, all layers, damping {one}": _damped("ekfac", one, **{"ihvp.weights": "all"})
        for one in (0.01, 1.0)
    },
    "*IF, EK-FAC, all layers, damping 0.1": _damped("ekfac", 0.1, **{"ihvp.weights": "all"}),
    **{f"IF, EK-FAC + CG, damping {one}": _damped("ekfac-cg", one) for one in (0.1, 1.0, 10.0)},
    "*IF, EK-FAC + CG, damping 3.0": _damped("ekfac-cg", 3.0),
    **{f"TRAK, last layer, damping {one}": ("trak", {"relative_damping": one}) for one in (1e-3, 0.1, 1.0)},
    **{
        f"TRAK, all layers, damping {one}": ("trak", _TRAK | {"relative_damping": one})
        for one in (1e-3, 0.1, 10.0)
    },
    "*TRAK, all layers, damping 1.0": ("trak", _TRAK | {"relative_damping": 1.0}),
    "TracIn, last layer": ("tracin", {}),
    "TracIn, all layers": ("tracin", {"weights": "all"}),
    "*DualView": ("dualview", {}),
    "DualView, cosine": ("dualview", {"kernel": "cosine"}),
    "RelatIF": ("relatif", {}),
    "Feature similarity": ("feature-similarity", {}),
}
# The matrix of all layers takes a pass a weight: EK-FAC + CG solves the same system on the two larger networks.
_SLOW_ELSEWHERE = "IF, exact, all layers"


def main() -> None:
    """Measure what is not measured yet and print the table."""
    options = _options()
    chosen = network(options.network, options.data_dir)
    folder = options.folder / options.network
    folder.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    mine = results.setdefault(options.network, {"rows": {}})
    score, mine["ceiling"], mine["ground truth CPU seconds"] = _ground_truth(chosen, folder)
    trained = _Models(chosen, folder, 3 if options.network == "digits" else 1)
    for starred, row in ROWS.items():
        name, has_halves = starred.removeprefix("*"), starred.startswith("*")
        if name in mine["rows"] or (name.startswith(_SLOW_ELSEWHERE) and options.network != "digits"):
            continue
        measured = _measure(trained, *row, score)
        if has_halves and options.network == "digits":
            measured |= _measure_halves(trained, *row, score)
        mine["rows"][name] = measured
        mine["halves CPU seconds"] = trained.seconds_of_halves
        _files.write_file(options.output, (json.dumps(results, indent=1) + "\n").encode())
        print(name, measured, flush=True)
    print(table(mine))


Score = Callable[[np.ndarray], float]


def _ground_truth(chosen: Network, folder: Path) -> tuple[Score, float, float]:
    """Return the score of influence values (m, n), its ceiling, and the CPU seconds that the ground truth took."""
    arrays = chosen.arrays
    num_train = len(arrays.labels)
    halves = [
        np.random.default_rng([1, one]).permutation(num_train)[: num_train // 2] for one in range(NUM_HALVES)
    ]
    path = folder / "truth.npz"
    if not path.exists():
        start, trainer, found = time.process_time(), Trainer(chosen, arrays.inputs, arrays.labels), []
        for seed in range(chosen.seeds):
            for number, half in enumerate(halves):
                trainer.train(half, _TRUTH_SEED + NUM_HALVES * seed + number)
                found.append(trainer.log_probabilities(arrays.test_inputs, arrays.test_labels))
        with _files.written_aside(path) as aside:
            outputs = np.reshape(found, (chosen.seeds, NUM_HALVES, -1)).transpose(0, 2, 1)
            np.savez(aside, outputs=outputs, seconds=time.process_time() - start)
    stored = np.load(path)
    middle = chosen.seeds // 2
    means = [_ranks(part.mean(axis=0)) for part in (stored["outputs"][:middle], stored["outputs"][middle:])]
    masks = np.zeros((num_train, NUM_HALVES))
    for number, half in enumerate(halves):
        masks[half, number] = 1

    def score(values: np.ndarray) -> float:
        predicted = _ranks(values.astype(np.float64) @ masks)
        return float(np.mean([np.sum(predicted * mean, axis=1).mean() for mean in means]))

    return score, float(np.sqrt(np.sum(means[0] * means[1], axis=1).mean())), float(stored["seconds"])


def _ranks(rows: np.ndarray) -> np.ndarray:
    """Return centred ranks of every row, of unit length."""
    ranks = scipy.stats.rankdata(rows, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)


class _Models:
    """Models of all examples, with their checkpoints, and of random halves, trained when they are needed first."""

    def __init__(self, chosen: Network, folder: Path, num_full: int) -> None:
        arrays = chosen.arrays
        self.chosen, self.folder = chosen, folder
        self.train = tf.data.Dataset.from_tensor_slices((arrays.inputs, arrays.labels)).batch(250)
        self.test = tf.data.Dataset.from_tensor_slices((arrays.test_inputs, arrays.test_labels)).batch(300)
        trainer, every = Trainer(chosen, arrays.inputs, arrays.labels), np.arange(len(arrays.labels))
        self.full = [self._checkpoints(trainer.train(every, _FULL_SEED + one)) for one in range(num_full)]
        self.indices_of_halves: list[np.ndarray] = []
        self._halves: list[Checkpoints] = []

    @property
    def halves(self) -> list[Checkpoints]:
        """Models of halves, as checkpoints of one."""
        if not self._halves:
            start = time.process_time()
            found = train_on_subsets(
                self._train_subset,
                self.train,
                num_models=NUM_OF_HALVES,
                seed=_HALF_SEED,
                directory=self.folder / "halves",
            )
            record = self.folder / "halves-seconds.txt"
            if not record.exists():
                _files.write_file(record, str(time.process_time() - start).encode())
            self.indices_of_halves = [one.indices for one in found]
            self._halves = [Checkpoints([InfluenceModel(one.model)], [LEARNING_RATE], [1]) for one in found]
        return self._halves

    @property
    def seconds_of_halves(self) -> float | None:
        """CPU seconds that the models of halves took to train."""
        record = self.folder / "halves-seconds.txt"
        return float(record.read_text()) if record.exists() else None

    def _train_subset(self, subset: tf.data.Dataset, seed: int) -> keras.Model:
        inputs, labels = (np.concatenate(parts) for parts in zip(*subset.as_numpy_iterator(), strict=True))
        trainer = Trainer(self.chosen, inputs, labels)
        trainer.train(np.arange(len(labels)), seed)
        return trainer.model

    def _checkpoints(self, weights: Sequence[list[np.ndarray]]) -> Checkpoints:
        models = []
        for one in weights:
            models.append(self.chosen.build())
            models[-1].set_weights(one)
        return Checkpoints([InfluenceModel(one) for one in models], [LEARNING_RATE] * 3, [1, 2, 3])


def _make(
    method: str, settings: dict[str, Any], checkpoints: Checkpoints, trained: _Models
) -> BaseInfluenceCalculator:
    last = checkpoints.models[-1]
    if method == "tracin":
        return TracIn(
            checkpoints.models, trained.train, learning_rates=LEARNING_RATE, target="label", **settings
        )
    return NamedMethod(method, None, {"target": "label", **settings})(last, trained.train)


def _values(calculator: BaseInfluenceCalculator, test: tf.data.Dataset) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(test)))


def _averaged(members: Sequence[np.ndarray], scale: str) -> np.ndarray:
    """Return what an `Ensemble` of the members gives, whose values are known already."""
    if scale == "query":
        members = [values / values.std(axis=1, keepdims=True) for values in members]
    return np.mean(members, axis=0)


def _measure(trained: _Models, method: str, settings: dict[str, Any], score: Score) -> dict[str, float]:
    """Return scores of one model and of all of them together, CPU seconds and memory of the first."""
    found, figures = [], {}
    for checkpoints in trained.full:
        before, start = reset_peak(), time.process_time()
        calculator = _make(method, settings, checkpoints, trained)
        made = time.process_time()
        found.append(_values(calculator, trained.test))
        figures = figures or {
            "set-up CPU seconds": round(made - start, 2),
            "CPU ms a query": round(
                1e3 * (time.process_time() - made) / len(trained.chosen.arrays.test_labels), 2
            ),
            "peak MB": round(peak() - before),
        }
    scores = [score(values) for values in found]
    together = score(_averaged(found, "none"))
    return {
        "one": float(np.mean(scores)),
        "lowest": min(scores),
        "highest": max(scores),
        "together": together,
    } | figures


def _measure_halves(trained: _Models, method: str, settings: dict[str, Any], score: Score) -> dict[str, Any]:
    """Return scores of one model of a half and of ensembles of them, by both scales."""
    found = [_values(_make(method, settings, one, trained), trained.test) for one in trained.halves]
    measured: dict[str, Any] = {"one half": float(np.mean([score(values) for values in found]))}
    for number in (3, 5, NUM_OF_HALVES):
        for scale in ("none", "query"):
            measured[f"{number} halves, scale {scale}"] = score(_averaged(found[:number], scale))
    # What it would be if a model gave no value to the examples that it has not seen.
    for indices, values in zip(trained.indices_of_halves, found, strict=True):
        values[:, np.setdiff1d(np.arange(values.shape[1]), indices)] = np.nan
    measured[f"{NUM_OF_HALVES} halves, seen examples alone"] = score(np.nan_to_num(np.nanmean(found, axis=0)))
    return measured


def table(results: dict[str, Any]) -> str:
    """Return the rows of one network as a table in Markdown."""
    columns = [
        "one",
        "together",
        "one half",
        "3 halves, scale none",
        "5 halves, scale none",
        "8 halves, scale none",
    ]
    columns += ["set-up CPU seconds", "CPU ms a query", "peak MB"]
    lines = [
        f"Ceiling {results['ceiling']:.3f}.",
        "",
        "| method | " + " | ".join(columns) + " |",
        "|---" * 10 + "|",
    ]
    for name, row in results["rows"].items():
        cells = [row.get(column) for column in columns]
        shown = [
            "" if one is None else f"{one:.3f}" if column in columns[:6] else f"{one:g}"
            for column, one in zip(columns, cells, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=("digits", "fashion_mnist", "mnist"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where trained models are kept")
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    return parser.parse_args()


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
