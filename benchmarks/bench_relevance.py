"""What pair relevance costs: on an LSTM, the MNIST CNN and ResNet-50, against gradients or a forward pass.

    python benchmarks/bench_relevance.py [--rounds 5] [--skip-resnet] [--skip-memory]

One core; a figure is the least of several rounds in turns, CPU seconds of the process. Both models have random weights,
which cost the same as trained ones. "heatmap" is propagation by the default rule (epsilon-gamma) or another one, with
its forward pass; "pair" the two heatmaps of a pair by `DualRelevance.of_pairs`, features and contributions included;
"integrated gradients" tf-explain's helper with 20 steps for a logit, "pair by integrated gradients" our rule that calls
it. Targets: a pair of the CNN under 2 ms in batches of 64; on ResNet-50 at 224 x 224 a heatmap in at most 6 forward
passes. Memory is by how much a process grew at its peak while one batch of heatmaps of ResNet-50 was made, after one
image; each size has a process of its own, for what a process has freed it uses again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import keras
import numpy as np
import tensorflow as tf
from memory import peak, reset_peak
from tf_explain.core import IntegratedGradients

from deel_dualview import LRP, DualRelevance, DualView, InfluenceModel

NUM_STEPS = 20


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-resnet", action="store_true")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument(
        "--memory-of", type=int, metavar="SIZE", help="measure the memory of one batch, no more"
    )
    return parser.parse_args()


def paper_cnn() -> keras.Model:
    """Return the DualView paper's CNN for MNIST with random weights."""
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Rescaling(1 / 255)]
        + [layers.Conv2D(filters, 3, activation="relu") for filters in (5, 10, 5)]
        + [layers.Flatten(), layers.Dense(500, activation="relu"), layers.Dense(100, activation="relu")]
        + [layers.Dense(10, use_bias=False)]
    )


def integrated_gradients(model: keras.Model, inputs: tf.Tensor) -> Callable[[], list[tf.Tensor]]:
    """Return tf-explain's integrated gradients of the first logit, times the inputs, up to 32 images at once."""
    fractions = tf.reshape((tf.range(NUM_STEPS, dtype=tf.float32) + 0.5) / NUM_STEPS, (1, -1, 1, 1, 1))
    size = 32 if inputs.shape[1] < 100 else 1

    def one(images: tf.Tensor) -> tf.Tensor:
        points = tf.reshape(fractions * images[:, tf.newaxis], (-1, *inputs.shape[1:]))
        return images * IntegratedGradients.get_integrated_gradients(points, model, 0, NUM_STEPS)

    return lambda: [one(inputs[start : start + size]) for start in range(0, len(inputs), size)]


def least_seconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run every way in turns; return the least CPU seconds of each."""
    for way in ways.values():
        way()
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            found[name] = min(found[name], time.process_time() - start)
    return found


def report(title: str, seconds: dict[str, float], num_examples: int) -> None:
    """Print milliseconds an example, and the ratios to a forward pass and to tf-explain's integrated gradients."""
    print(title)
    for name, value in seconds.items():
        print(
            f"  {name:28s} {1e3 * value / num_examples:9.3f} ms  {value / seconds['forward']:7.2f} forward passes  "
            f"{value / seconds['integrated gradients']:6.3f} integrated gradients"
        )


def bench_cnn(arguments: argparse.Namespace) -> None:
    """Time pairs of the MNIST CNN in batches of 64."""
    model = paper_cnn()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (640, 28, 28, 1)).astype(np.float32)
    labels = np.arange(640) % 10
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(64)
    calculator = DualView(InfluenceModel(model), train, kernel="cosine")
    relevance, others = DualRelevance(calculator), DualRelevance(calculator, "integrated-gradients")
    lrp, flat = LRP(model), LRP(model, "epsilon-plus-flat")
    top = next(iter(calculator.top_k(train, k=1)))
    inputs, start = tf.constant(images[:64]), tf.one_hot(labels[:64], 10)
    forward = tf.function(model, autograph=False)
    ways = {
        "forward": lambda: forward(inputs),
        "heatmap": lambda: lrp(inputs, start),
        "heatmap, epsilon-plus-flat": lambda: flat(inputs, start),
        "integrated gradients": integrated_gradients(model, inputs),
        "pair": lambda: relevance.of_pairs(top),
        "pair by integrated gradients": lambda: others.of_pairs(top),
    }
    report("MNIST CNN, batches of 64, an example (or pair)", least_seconds(ways, 4 * arguments.rounds), 64)


def bench_recurrent(arguments: argparse.Namespace) -> None:
    """Time heatmaps of a bidirectional LSTM over 64 sequences of 100 steps against gradients times inputs."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((100, 32)), layers.Bidirectional(layers.LSTM(64)), layers.Dense(2)])
    lrp = LRP(model)
    inputs = tf.random.stateless_normal((64, 100, 32), (0, 0))
    start = tf.one_hot([0] * 64, 2)

    @tf.function
    def gradients(given: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(given)
            outputs = model(given)[:, 0]
        return given * tape.gradient(outputs, given)

    ways = {"heatmap": lambda: lrp(inputs, start), "gradients times inputs": lambda: gradients(inputs)}
    found = least_seconds(ways, arguments.rounds)
    ratio = found["heatmap"] / found["gradients times inputs"]
    print(
        f"Bidirectional LSTM, 64 sequences of 100 steps: a heatmap {1e3 * found['heatmap'] / 64:.2f} ms, "
        f"{ratio:.2f} times gradients times inputs",
        flush=True,
    )


def bench_resnet(arguments: argparse.Namespace) -> None:
    """Time heatmaps of ResNet-50 with random weights, and tell what is lost on the way."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    lrp = LRP(model)
    inputs = tf.constant(np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype(np.float32))
    start = tf.one_hot([0, 1, 2, 3], 1000)
    forward = tf.function(model, autograph=False)
    flat = LRP(model, "epsilon-plus-flat")
    ways = {
        "forward": lambda: forward(inputs),
        "heatmap": lambda: lrp(inputs, start),
        "heatmap, epsilon-plus-flat": lambda: flat(inputs, start),
        "integrated gradients": integrated_gradients(model, inputs),
    }
    report("ResNet-50, 224 x 224, batches of 4", least_seconds(ways, arguments.rounds), 4)


def bench_memory() -> None:
    """Tell the peak memory of heatmaps of ResNet-50 in batches of several sizes, each in a process of its own."""
    print("ResNet-50, 224 x 224, memory at the peak of a batch of heatmaps", flush=True)
    for size in (2, 4, 8, 16):
        subprocess.run([sys.executable, __file__, "--memory-of", str(size)], check=True)


def measure_memory(size: int) -> None:
    """Print by how much the process grows for one batch."""
    lrp = LRP(keras.applications.ResNet50(weights=None, classifier_activation=None))
    lrp(tf.random.uniform((1, 224, 224, 3)), tf.one_hot([0], 1000))
    inputs, start = tf.random.uniform((size, 224, 224, 3)), tf.one_hot([0] * size, 1000)
    before = reset_peak()
    lrp(inputs, start)
    print(
        f"  batch of {size}: {peak() - before:.0f} MB, {(peak() - before) / size:.0f} MB an image", flush=True
    )


def main() -> None:
    """Time both models."""
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.memory_of:
        measure_memory(arguments.memory_of)
        return
    bench_recurrent(arguments)
    bench_cnn(arguments)
    if not arguments.skip_resnet:
        bench_resnet(arguments)
    if not arguments.skip_memory:
        bench_memory()


if __name__ == "__main__":
    main()
