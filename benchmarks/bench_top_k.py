"""Top-k search of DualView against the same search in bare NumPy, and against a dense one in TensorFlow.

    python benchmarks/bench_top_k.py --features mnist_features.npz [--num-queries 10000] [--K 0.1]

The archive is one of `train_models.py`: penultimate features and labels. The model here starts at
those features, so that its forward pass costs next to nothing. Everything runs on one core, in turns, and a
figure is the least of several rounds. The targets (60,000 training examples, k = 5, batches of 256): at most
0.1 ms a query, and twice NumPy's time.

    top_k_indices    DualView: values and positions
    top_k            DualView: the training examples too, fetched in passes over the training set
    numpy            support vectors of the class; one matrix product and one argpartition a class and batch
    dense            TensorFlow: all n features, coefficients of the class, tf.math.top_k
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import DualView, InfluenceModel

BATCH_SIZE = 256


def linear_model(features: np.ndarray, labels: np.ndarray) -> InfluenceModel:
    """Train a linear head on the features."""
    num_classes = int(labels.max()) + 1
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(num_classes)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(features, labels, batch_size=512, epochs=2, verbose=0)
    return InfluenceModel(model)


def numpy_search(calculator: DualView, k: int) -> Callable[[np.ndarray], np.ndarray]:
    """Prepare the support vectors of every class; the search itself is what is timed."""
    coefficients = calculator.surrogate.coefficients.tocsc()
    phi = np.concatenate([np.asarray(block.right) for block in calculator.compute_influence_vector()])
    rows = [
        coefficients.indices[slice(*coefficients.indptr[c : c + 2])] for c in range(coefficients.shape[1])
    ]
    vectors = [
        phi[own] * coefficients.data[slice(*coefficients.indptr[c : c + 2])][:, None].astype(np.float32)
        for c, own in enumerate(rows)
    ]
    head = calculator.model.head

    def search(features: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(features), BATCH_SIZE):
            batch = features[start : start + BATCH_SIZE]
            classes = (batch @ head.kernel + head.bias).argmax(1)
            queries = calculator.feature_map(batch).numpy()
            best = np.empty((len(batch), k), np.int64)
            for c in np.unique(classes):
                values = queries[classes == c] @ vectors[c].T
                part = np.argpartition(-values, k - 1, axis=1)[:, :k]
                order = np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable")
                best[classes == c] = rows[c][np.take_along_axis(part, order, 1)]
            found.append(best)
        return np.concatenate(found)

    return search


def dense_search(calculator: DualView, k: int) -> Callable[[np.ndarray], np.ndarray]:
    """Search among all training examples, support vectors or not."""
    phi = tf.concat([block.right for block in calculator.compute_influence_vector()], 0)
    alpha = tf.constant(calculator.surrogate.coefficients.toarray().T, tf.float32)
    head = calculator.model.head
    kernel, bias = tf.constant(head.kernel), tf.constant(head.bias)

    @tf.function(reduce_retracing=True)
    def search_batch(batch: tf.Tensor) -> tf.Tensor:
        classes = tf.argmax(batch @ kernel + bias, axis=1)
        values = tf.matmul(calculator.feature_map(batch), phi, transpose_b=True) * tf.gather(alpha, classes)
        return tf.math.top_k(values, k).indices

    def search(features: np.ndarray) -> np.ndarray:
        batches = range(0, len(features), BATCH_SIZE)
        found = [search_batch(tf.constant(features[at : at + BATCH_SIZE])).numpy() for at in batches]
        return np.concatenate(found)

    return search


def best_seconds(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run all in turns and return the least time of each; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(times[1:]) for name, times in seconds.items()}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=pathlib.Path, required=True, help="archive of train_models.py")
    parser.add_argument("--num-queries", type=int, default=10_000, help="test examples")
    parser.add_argument("--k", type=int, default=5, help="training examples for each query")
    parser.add_argument("--K", type=float, default=None, help="penalty (default: the library's)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    return parser.parse_args()


def main() -> None:
    """Measure, check that all contestants agree, and print a table."""
    arguments = parse_arguments()
    k = arguments.k
    with np.load(arguments.features) as archive:
        features, labels = archive["train_features"], archive["train_labels"]
        queries = archive["test_features"][: arguments.num_queries]
    train = tf.data.Dataset.from_tensor_slices((features, labels)).batch(BATCH_SIZE)
    calculator = DualView(linear_model(features, labels), train, K=arguments.K, kernel="cosine")
    test = tf.data.Dataset.from_tensor_slices(queries).batch(BATCH_SIZE)
    bare, dense = numpy_search(calculator, k), dense_search(calculator, k)
    ours = np.concatenate([indices for _, indices in calculator.top_k_indices(test, k)])
    seconds = best_seconds(
        {
            "top_k_indices": lambda: list(calculator.top_k_indices(test, k)),
            "top_k": lambda: list(calculator.top_k(test, k=k)),
            "numpy": lambda: bare(queries),
            "dense": lambda: dense(queries),
        },
        arguments.rounds,
    )
    surrogate = calculator.surrogate
    print(f"{len(features):,} training examples, {surrogate.num_support_vectors:,} support vectors, k = {k}")
    for name, value in seconds.items():
        ratio = value / seconds["numpy"]
        print(f"{name:16}{1e3 * value / len(queries):9.4f} ms a query{ratio:9.2f} times NumPy")
    for name, search in (("numpy", bare), ("dense", dense)):
        print(f"same top-{k} as {name}: {(search(queries) == ours).mean():.4%}")


if __name__ == "__main__":
    main()
