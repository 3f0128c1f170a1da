"""Speed and accuracy of representer points and feature similarity on the last layer of the MNIST CNN.

    python benchmarks/train_models.py --data-dir DIR --output MODELS
    python benchmarks/bench_representers.py --data-dir DIR --model MODELS/mnist.keras
    python benchmarks/bench_representers.py ... --peer-json influenciae.json

One thread, CPU seconds, compilation apart. `features_seconds` is one pass of the images through the network
and their hashing, once for all methods; `setup_seconds` is what a calculator's construction adds, which
checks the hashes of the images again (medians of the repetitions). Queries are `top_k_indices` of 100 test
images with k = 5, through the network. Against the peer, whose set-up passes images through the network
itself, both set-up parts count.
"""

import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_dualview import (
    BaseInfluenceCalculator,
    FeatureSimilarity,
    InfluenceModel,
    MemoryStore,
    RepresenterPointL2,
    RepresenterPointLJE,
)

METHODS: dict[str, Callable[..., BaseInfluenceCalculator]] = {
    "representer_l2": RepresenterPointL2,
    "representer_lje": RepresenterPointLJE,
    "feature_similarity": FeatureSimilarity,
}
NUM_QUERIES = 100


def load(split: str, data_dir: str | None) -> tf.data.Dataset:
    """Return MNIST's images and labels in batches, in memory."""
    parts = tfds.load(
        "mnist", split=split, as_supervised=True, data_dir=data_dir, download=False, batch_size=-1
    )
    return tf.data.Dataset.from_tensor_slices(parts).batch(500)


def seconds(action: Callable[[], object], repetitions: int) -> float:
    """Return the median CPU seconds of a call, a first one to compile apart."""
    action()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def accuracy(calculator: BaseInfluenceCalculator, queries: tf.data.Dataset) -> dict[str, float]:
    """Return what a calculator certifies about itself."""
    if isinstance(calculator, RepresenterPointL2):
        return {
            "gradient_norm": calculator.surrogate.gradient_norm,
            "newton_steps": calculator.surrogate.num_iterations,
            "completeness_error": calculator.surrogate_fidelity(queries).completeness_error,
            "agreement": calculator.surrogate_fidelity(queries).agreement,
        }
    if isinstance(calculator, RepresenterPointLJE):
        return {
            "pearson": calculator.correlation(queries),
            "condition_number": calculator.expansion.condition_number,
            "residual": calculator.expansion.residual,
        }
    return {}


def measure(
    model: InfluenceModel, train: tf.data.Dataset, queries: tf.data.Dataset, repetitions: int
) -> dict[str, dict[str, float]]:
    """Return seconds and accuracy by method."""
    store = MemoryStore()
    start = time.process_time()
    FeatureSimilarity(model, train, store=store)
    features_seconds = time.process_time() - start
    figures = {}
    for name, build in METHODS.items():
        calculator = build(model, train, store=store)
        figures[name] = {
            "features_seconds": features_seconds,
            "setup_seconds": seconds(lambda build=build: build(model, train, store=store), repetitions),
            "top_k_seconds": seconds(
                lambda made=calculator: list(made.top_k_indices(queries, k=5)), repetitions
            ),
            **accuracy(calculator, queries),
        }
    return figures


def ratios(ours: dict[str, dict], peer: dict[str, dict], num_train: int) -> dict[str, dict[str, float]]:
    """Return how many times faster than the peer's measurement each method is."""
    found = {}
    for name, figures in ours.items():
        theirs = peer.get(name, {}).get(str(num_train))
        if theirs:
            found[name] = {
                "setup": theirs["setup_seconds"] / (figures["features_seconds"] + figures["setup_seconds"]),
                "top_k": theirs["warm_top_k_seconds"] / figures["top_k_seconds"],
            }
    return found


def main() -> None:
    """Print one line of JSON for each number of training examples."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS keeps MNIST (default: its own place)")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--num-train", type=int, nargs="+", default=[2000, 8000, 32000, 60000])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--peer-json", type=pathlib.Path, help="written by peers/influenciae/time_influenciae.py"
    )
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = InfluenceModel(keras.models.load_model(options.model, compile=False))
    queries = load(f"test[:{NUM_QUERIES}]", options.data_dir)
    model.prepare(next(iter(queries))[0])
    peer = json.loads(options.peer_json.read_text())["results"] if options.peer_json else {}
    for num_train in options.num_train:
        train = load(f"train[:{num_train}]", options.data_dir)
        figures = measure(model, train, queries, options.repetitions)
        report = {"num_train": num_train, "ours": figures, "times_faster": ratios(figures, peer, num_train)}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
