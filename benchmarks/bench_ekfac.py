"""Time and memory of inverses that scale: EK-FAC and Arnoldi on the MNIST CNN.

    python benchmarks/bench_ekfac.py ekfac --num-examples 60000 --model mnist.keras --data-dir DIR
    python benchmarks/bench_ekfac.py arnoldi --num-examples 2000 --model mnist.keras --data-dir DIR
    python benchmarks/bench_ekfac.py last-layer --num-examples 2000 --peer-json influenciae.json --threads 1
        --model mnist.keras --data-dir DIR

The model is the CNN of the DualView paper (1,262,565 parameters), the data come from TensorFlow Datasets.

    ekfac       set-up of EkfacIHVP in all weights, and a solve for 20 test images
    arnoldi     set-up of ArnoldiIHVP in all weights
    last-layer  set-up of ArnoldiInfluenceCalculator in the last layer, the first top 5 of 100 queries and a
                second one; the peer's times, from peers/influenciae, are of the same set-up with the same
                number of iterations and eigenvalues

Memory is the growth of the process' peak, with the images and the model loaded and called before. Prints one
line of JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from memory import peak, reset_peak

from deel_dualview import ArnoldiIHVP, ArnoldiInfluenceCalculator, EkfacIHVP, InfluenceModel

_NUM_QUERIES = 100


def main() -> None:
    """Measure and print one line of JSON."""
    options = _options()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images, labels = _load("train", options.num_examples, options.data_dir)
    queries = _load("test", _NUM_QUERIES, options.data_dir)
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(options.batch_size)
    model = InfluenceModel(keras.models.load_model(options.model, compile=False))
    model.logits(images[: options.batch_size])
    list(train.take(2))
    settings = {"what": options.what, "examples": options.num_examples, "threads": options.threads}
    print(json.dumps(settings | _METHODS[options.what](model, train, queries, options)))


def _ekfac(
    model: InfluenceModel, train: tf.data.Dataset, queries: tuple, options: argparse.Namespace
) -> dict[str, Any]:
    ihvp, figures = _measured(lambda: EkfacIHVP(model, train, weights="all", num_samples=options.num_samples))
    gradients = ihvp.gradients(queries[0][:20], queries[1][:20])
    _, solve = _measured(lambda: ihvp.solve(gradients))
    _, again = _measured(lambda: ihvp.solve(gradients))
    figures |= {"parameters": ihvp.size, "num_samples": options.num_samples, "damping": ihvp.damping}
    return figures | {"solve 20, first s": solve["s"], "solve 20, warm s": again["s"]}


def _arnoldi(
    model: InfluenceModel, train: tf.data.Dataset, queries: tuple, options: argparse.Namespace
) -> dict[str, Any]:
    del queries
    ihvp, figures = _measured(
        lambda: ArnoldiIHVP(
            model,
            train,
            weights="all",
            damping=0.0,
            rank=options.rank,
            num_iterations=options.num_iterations,
        )
    )
    return figures | _describe(ihvp)


def _last_layer(
    model: InfluenceModel, train: tf.data.Dataset, queries: tuple, options: argparse.Namespace
) -> dict[str, Any]:
    dataset = tf.data.Dataset.from_tensor_slices(queries).batch(_NUM_QUERIES)
    calculator, figures = _measured(
        lambda: ArnoldiInfluenceCalculator(
            model,
            train,
            ArnoldiIHVP(model, train, rank=options.rank, num_iterations=options.num_iterations),
        )
    )
    _, first = _measured(lambda: list(calculator.top_k_indices(dataset, k=5)))
    _, warm = _measured(lambda: list(calculator.top_k_indices(dataset, k=5)))
    figures |= {"first top k s": first["s"], "warm top k s": warm["s"]} | _describe(calculator.ihvp)
    if options.peer_json is not None:
        peer = json.loads(options.peer_json.read_text())["results"]["arnoldi"].get(str(options.num_examples))
        if peer is not None:
            figures["peer set-up s"] = round(peer["setup_seconds"], 2)
            figures["peer / ours"] = round(peer["setup_seconds"] / figures["s"], 1)
    outside = calculator.ihvp.solve(calculator.ihvp.gradients(*queries)).relative_residual
    return figures | {"share of queries outside": round(float(np.median(outside)), 3)}


_METHODS = {"ekfac": _ekfac, "arnoldi": _arnoldi, "last-layer": _last_layer}


def _describe(ihvp: ArnoldiIHVP) -> dict[str, Any]:
    spectrum = ihvp.spectrum
    return {
        "parameters": ihvp.size,
        "iterations": ihvp.num_iterations,
        "eigenvalues": ihvp.rank,
        "largest": round(float(spectrum.eigenvalues[0]), 4),
        "smallest kept": round(float(spectrum.eigenvalues[-1]), 6),
        "largest residual / eigenvalue": float(np.max(spectrum.residuals / np.abs(spectrum.eigenvalues))),
    }


def _measured(make: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what a function returns, its wall and CPU seconds and the growth of the peak memory, MB."""
    before = reset_peak()
    wall, processor = time.perf_counter(), time.process_time()
    result = make()
    return result, {
        "s": round(time.perf_counter() - wall, 3),
        "CPU s": round(time.process_time() - processor, 2),
        "extra peak MB": round(peak() - before, 1),
    }


def _load(split: str, num_examples: int, data_dir: str | None) -> tuple[tf.Tensor, tf.Tensor]:
    dataset = tfds.load("mnist", split=f"{split}[:{num_examples}]", data_dir=data_dir, as_supervised=True)
    return next(iter(dataset.batch(num_examples)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=_METHODS)
    parser.add_argument("--model", required=True, help="a .keras file that takes raw uint8 images")
    parser.add_argument("--data-dir", default=None, help="of TensorFlow Datasets")
    parser.add_argument("--num-examples", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-samples", type=int, default=1, help="random directions an example (ekfac)")
    parser.add_argument("--rank", type=int, default=25, help="eigenvalues kept (arnoldi)")
    parser.add_argument("--num-iterations", type=int, default=50, help="products (arnoldi)")
    parser.add_argument("--peer-json", type=Path, default=None, help="from peers/influenciae")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
