"""Cost of every method on one data set: set-up, queries and memory, each in a process of its own.

    python benchmarks/train_models.py --data-dir DIR --output MODELS
    python benchmarks/bench_methods.py --data-dir DIR --model MODELS/mnist.keras [--methods DualView GradDot]

The first 10,000 training images of MNIST go through the whole CNN of 1,262,565 parameters (its last layer:
1,000). CPU seconds of one thread. Set-up is what the constructors take, the tracing of graphs included, as a
user meets it; queries are a warm `top_k_indices` of 100 test images in one batch, k = 5. Vectors are what
`compute_influence_vector` yields of all training examples, peak is by how much the process grew from before the
constructors to the end. Several checkpoints are copies of the one model, as costs do not depend on weights.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from memory import peak, reset_peak

import deel_dualview as dd

NUM_QUERIES, NUM_CHECKPOINTS, NUM_WALKED = 100, 5, 500


class Problem(NamedTuple):
    """What methods are built from.

    Attributes:
        models: the checkpoints, all with the same weights.
        train: images and labels in batches, in memory.
    """

    models: list[dd.InfluenceModel]
    train: tf.data.Dataset

    @property
    def one(self) -> tuple[dd.InfluenceModel, tf.data.Dataset]:
        """The first two arguments of a calculator."""
        return self.models[0], self.train


def arnoldi_of_all(model: dd.InfluenceModel, train: tf.data.Dataset) -> dd.ArnoldiIHVP:
    """Return ten eigenvectors of the whole network's curvature."""
    return dd.ArnoldiIHVP(
        model, train, weights="all", rank=10, num_iterations=20, num_curvature_examples=2000
    )


LAST_LAYER: dict[str, Callable[[Problem], Any]] = {
    "FeatureSimilarity": lambda p: dd.FeatureSimilarity(*p.one),
    "DualView, cosine": lambda p: dd.DualView(*p.one, kernel="cosine"),
    "RepresenterPointL2": lambda p: dd.RepresenterPointL2(*p.one),
    "RepresenterPointLJE": lambda p: dd.RepresenterPointLJE(*p.one),
    "GradDot": lambda p: dd.GradDot(*p.one),
    "GradCos": lambda p: dd.GradCos(*p.one),
    "TracIn": lambda p: dd.TracIn(p.models, p.train),
    "Trak": lambda p: dd.Trak(*p.one),
    "FirstOrder": lambda p: dd.FirstOrderInfluenceCalculator(*p.one),
    "LeverageCorrected": lambda p: dd.LeverageCorrectedInfluenceCalculator(*p.one),
    "SecondOrder": lambda p: dd.SecondOrderInfluenceCalculator(*p.one),
    "RelatIF": lambda p: dd.RelatIF(*p.one),
    "Arnoldi": lambda p: dd.ArnoldiInfluenceCalculator(*p.one),
    "WeightsBoundary": lambda p: dd.WeightsBoundaryCalculator(*p.one),
}
WHOLE_NETWORK: dict[str, Callable[[Problem], Any]] = {
    "GradCos, 128 projections": lambda p: dd.GradCos(
        *p.one, weights="all", projection=dd.FactoredProjection(128)
    ),
    "Trak, 512 projections": lambda p: dd.Trak(*p.one, weights="all", projection=dd.FactoredProjection(512)),
    "Arnoldi, rank 10": lambda p: dd.ArnoldiInfluenceCalculator(*p.one, arnoldi_of_all(*p.one)),
    "FirstOrder, EK-FAC": lambda p: dd.FirstOrderInfluenceCalculator(
        *p.one, dd.EkfacIHVP(*p.one, weights="all")
    ),
    "SampleBoundary, 500 examples": lambda p: dd.SampleBoundaryCalculator(
        p.models[0], p.train.unbatch().take(NUM_WALKED).batch(250)
    ),
}
METHODS = LAST_LAYER | WHOLE_NETWORK


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the CPU seconds that one call took."""
    start = time.process_time()
    action()
    return time.process_time() - start


def load(split: str, data_dir: str | None) -> tf.data.Dataset:
    """Return MNIST's images and labels in batches, in memory."""
    parts = tfds.load(
        "mnist", split=split, as_supervised=True, data_dir=data_dir, download=False, batch_size=-1
    )
    return tf.data.Dataset.from_tensor_slices(parts).batch(250)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one method."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    train = load(f"train[:{options.num_train}]", options.data_dir)
    queries = load(f"test[:{NUM_QUERIES}]", options.data_dir)
    count = NUM_CHECKPOINTS if name == "TracIn" else 1
    problem = Problem(
        [dd.InfluenceModel(keras.models.load_model(options.model, compile=False)) for _ in range(count)],
        train,
    )
    for model in problem.models:
        model.logits(next(iter(train))[0])
    before, made = reset_peak(), []
    figures: dict[str, Any] = {"method": name}
    figures["set-up s"] = round(cpu_seconds(lambda: made.append(METHODS[name](problem))), 2)
    calculator = made[0]
    if "Boundary" in name:
        figures["self-influence s"] = round(
            cpu_seconds(lambda: list(calculator.compute_influence_values())), 2
        )
    else:
        list(calculator.top_k_indices(queries, k=5))
        seconds = cpu_seconds(lambda: list(calculator.top_k_indices(queries, k=5)))
        figures["query ms"] = round(1e3 * seconds / NUM_QUERIES, 2)
    figures["peak MB"] = round(peak() - before)
    if "Boundary" not in name:
        figures["vectors MB"] = round(1e-6 * vector_bytes(calculator), 1)
    return figures


def vector_bytes(calculator: dd.BaseInfluenceCalculator) -> int:
    """Return how many bytes the influence vectors take."""
    return sum(
        part.numpy().nbytes
        for vectors in calculator.compute_influence_vector()
        for part in tf.nest.flatten(vectors)
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS keeps MNIST (default: its own place)")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--num-train", type=int, default=10_000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--here", action="store_true", help="measure the first method, in this process")
    return parser.parse_args()


def main() -> None:
    """Print one line of JSON for each method."""
    options = parse_arguments()
    if options.here:
        print(json.dumps(measure(options.methods[0], options)), flush=True)
        return
    common = ["--model", str(options.model), "--num-train", str(options.num_train), "--here"]
    common += ["--data-dir", options.data_dir] if options.data_dir else []
    for name in options.methods:
        subprocess.run([sys.executable, __file__, *common, "--methods", name], check=True)


if __name__ == "__main__":
    main()
