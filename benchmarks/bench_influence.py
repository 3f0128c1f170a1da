"""Influence functions and inverse Hessians in a last layer: set-up and warm queries, one thread.

    python benchmarks/train_models.py --data-dir DIR --output MODELS
    python benchmarks/bench_influence.py --models MODELS [--peer-json influenciae.json]

CPU seconds, medians, compilation apart. The features of the penultimate layer are given (the model is the
head alone) and batches cached in memory, so that neither the network nor the reading of data hides what the
methods cost. `--peer-json` is what `benchmarks/peers/influenciae/time_influenciae.py` wrote.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
    LissaIHVP,
    MemoryStore,
    RelatIF,
    SecondOrderInfluenceCalculator,
)

K = 5
BATCH_SIZE = 1024
# Our figures, and the method and the field of the peer's that they are compared with.
PEER_FIELDS = {
    "exact: set-up of the inverse": ("exact", "setup_seconds"),
    "exact: top_k of the queries, warm": ("exact", "warm_top_k_seconds"),
    "conjugate gradients: set-up and top_k": ("conjugate_gradient", "seconds_extrapolated"),
    "LiSSA: set-up and top_k": ("lissa", "seconds_extrapolated"),
}


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median CPU seconds of several runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(
    model: InfluenceModel, train: tf.data.Dataset, queries: tf.data.Dataset, repeats: int
) -> dict[str, float]:
    """Return seconds by method and step."""

    def first_order(ihvp: object) -> FirstOrderInfluenceCalculator:
        return FirstOrderInfluenceCalculator(model, train, ihvp, store=MemoryStore(progress=False))

    figures: dict[str, float] = {}
    list(train)  # fills the cache
    figures["exact: set-up of the inverse"] = seconds(lambda: ExactIHVP(model, train), repeats)
    exact = ExactIHVP(model, train)
    figures["exact: set-up of the calculator"] = seconds(lambda: first_order(exact), repeats)
    calculator = first_order(exact)
    list(calculator.top_k(queries, k=K))
    figures["exact: top_k of the queries, warm"] = seconds(
        lambda: list(calculator.top_k(queries, k=K)), repeats
    )
    figures["exact: top_k_indices, warm"] = seconds(
        lambda: list(calculator.top_k_indices(queries, k=K)), repeats
    )
    for name, make in (
        ("conjugate gradients", lambda: ConjugateGradientDescentIHVP(model, train)),
        ("LiSSA", lambda: LissaIHVP(model, train)),
    ):
        figures[f"{name}: set-up and top_k"] = seconds(
            lambda make=make: list(first_order(make()).top_k_indices(queries, k=K)), 1
        )
    for name, kind in (
        ("RelatIF", RelatIF),
        ("second order", SecondOrderInfluenceCalculator),
        ("leverage corrected", LeverageCorrectedInfluenceCalculator),
    ):
        start = time.process_time()
        other = kind(model, train, exact, store=MemoryStore(progress=False))
        figures[f"{name}: set-up after the inverse"] = time.process_time() - start
        figures[f"{name}: top_k_indices"] = seconds(
            lambda other=other: list(other.top_k_indices(queries, k=K)), 1
        )
    return figures


def compared(name: str, value: float, size: int, peer: dict) -> dict[str, float]:
    """Return the seconds, and how many times those of the peer are where it was measured."""
    method, field = PEER_FIELDS.get(name, ("", ""))
    row = {"seconds": round(value, 4)}
    if field in (theirs := peer.get(method, {}).get(str(size), {})):
        row |= {"peer's seconds": round(theirs[field], 2), "times faster": round(theirs[field] / value, 1)}
    return row


def agreement(model: InfluenceModel, train: tf.data.Dataset, queries: tf.data.Dataset) -> dict[str, float]:
    """Return the smallest cosine of each iterative solver's solutions with the exact ones."""
    exact = ExactIHVP(model, train)
    inputs, labels = next(iter(queries))
    gradients = exact.gradients(inputs, labels)
    expected = exact.solve(gradients).value.numpy()
    solvers = {
        "conjugate gradients": ConjugateGradientDescentIHVP(model, train),
        "LiSSA": LissaIHVP(model, train),
        "LiSSA, batches of 512": LissaIHVP(model, train, batch_size=512, max_iterations=2000, tolerance=1.0),
    }
    figures = {}
    for name, solver in solvers.items():
        solution = solver.solve(gradients)
        found = solution.value.numpy()
        norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        figures[f"{name}: smallest cosine"] = float(np.min(np.sum(expected * found, axis=1) / norms))
        figures[f"{name}: iterations"] = solution.num_iterations
    return figures


def main() -> None:
    """Measure every size asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=pathlib.Path, required=True, help="folder written by train_models.py"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000, 32_000, 60_000])
    parser.add_argument("--num-queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-json", type=pathlib.Path, help="times of Influenciae")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    stored = np.load(options.models / "mnist_features.npz")
    head = keras.models.load_model(options.models / "mnist.keras", compile=False).layers[-1]
    layer = keras.layers.Dense(head.units, use_bias=head.use_bias)
    model = InfluenceModel(keras.Sequential([keras.Input((stored["train_features"].shape[1],)), layer]))
    layer.set_weights(head.get_weights())
    queries = tf.data.Dataset.from_tensor_slices(
        tuple(stored[f"test_{part}"][: options.num_queries] for part in ("features", "labels"))
    ).batch(options.num_queries)
    peer = json.loads(options.peer_json.read_text())["results"] if options.peer_json else {}
    for size in [options.sizes[0], *options.sizes]:
        train = tf.data.Dataset.from_tensor_slices(
            tuple(stored[f"train_{part}"][:size] for part in ("features", "labels"))
        ).batch(BATCH_SIZE)
        figures = measure(model, train.cache(), queries, options.repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        rows = {name: compared(name, value, size, peer) for name, value in figures.items()}
        print(json.dumps({"n": size, "peak MiB": peak, **rows}, indent=2), flush=True)
    print(json.dumps(agreement(model, train, queries), indent=2), flush=True)


if __name__ == "__main__":
    main()
