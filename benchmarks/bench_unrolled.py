"""What do several queries cost by unrolled differentiation, together and one after another, in trainings?

    python benchmarks/bench_unrolled.py [--networks mlp ...] [--queries 1 4 16 64] [--data-dir TFDS_DIRECTORY]

Records a training of each network and differentiates random functions of its trained weights: so many in one replay of
the training, and four, each in a replay of its own. Networks: `mlp` (64-32-10, momentum, 300 steps on digits),
`mlp-adam`, `wide` (784-500-100-10 on MNIST, 443,610 parameters, 20 steps) and `cnn`, the DualView paper's on MNIST
(1,262,565 parameters, 20 steps). Seconds are of the CPU, those of a training the mean of several; memory is what the
process takes at most beyond what it held, with the recorded training in memory. Prints one line of JSON a row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping

import keras
import numpy as np
from memory import peak, reset_peak
from recorded_cases import CASES, Case, descent, record

from deel_dualview.evaluation import RecordedTraining
from deel_dualview.evaluation.networks import paper_cnn

_TRAININGS, _ALONE = 5, 4


def wide(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a network of two wide hidden layers."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(500, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(num_classes),
        ]
    )


NETWORKS: Mapping[str, Case] = {
    "mlp": CASES["digits-mlp"],
    "mlp-adam": CASES["digits-mlp-adam"],
    "wide": Case("mnist", 2_000, 0, wide, descent, 1, 100),
    "cnn": Case("mnist", 2_000, 0, paper_cnn, descent, 1, 100),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--queries", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--data-dir", help="where TFDS keeps its datasets")
    options = parser.parse_args()
    for name in options.networks:
        training = record(NETWORKS[name], options.data_dir).training
        training.retrain(training.weights)
        start = time.process_time()
        for _ in range(_TRAININGS):
            training.retrain(training.weights)
        seconds = (time.process_time() - start) / _TRAININGS
        for row in measure(training, sorted(options.queries), seconds):
            print(json.dumps({"network": name, "training_seconds": round(seconds, 3), **row}), flush=True)


def measure(training: RecordedTraining, numbers: list[int], seconds: float) -> list[dict[str, float]]:
    """Return a row for each number of queries, with their cost in trainings."""
    shape = numbers[-1], len(training.parameters)
    functions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    training.derivatives(functions[:1])
    start = time.process_time()
    alone = np.concatenate([training.derivatives(functions[one : one + 1]) for one in range(_ALONE)])
    one_by_one = (time.process_time() - start) / _ALONE
    rows = []
    for number in numbers:
        before, start = reset_peak(), time.process_time()
        found = training.derivatives(functions[:number])
        together = (time.process_time() - start) / number
        few = min(number, _ALONE)
        rows.append(
            {
                "queries": number,
                "trainings_a_query_alone": round(one_by_one / seconds, 2),
                "trainings_a_query_together": round(together / seconds, 2),
                "times_faster": round(one_by_one / together, 2),
                "memory_mb": round(peak() - before, 1),
                "largest_difference": float(np.abs(found[:few] - alone[:few]).max() / np.abs(alone).max()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
