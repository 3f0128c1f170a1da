"""What does it cost to explain XGBoost, in time and memory?

    python benchmarks/bench_trees.py [--large] [--output benchmarks/results/trees.json]

80 trees of depth 8 on 1,000 rows: set-up and the five first proponents of 50 queries, beside influence functions and
shared leaves in bare NumPy on dense one-hot leaves, in the same process, and a whole audit. With --large: 500 trees of
depth 6 on 50,000 rows, and the peak of memory from before the set-up, where one-hot leaves would take gigabytes.
Times are CPU seconds of one thread, TensorFlow's traces included unless said.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import xgboost
from memory import peak, reset_peak

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    DualView,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    RepresenterPointL2,
    RepresenterPointLJE,
    TreeEnsembleModel,
    audit,
)

K = 5


class Problem:
    """A booster on made-up rows of 20 numbers, and queries.

    Args:
        num_rows: of the training set.
        num_trees: of the booster.
        max_depth: of each.
        num_queries: evaluated rows.
    """

    def __init__(self, num_rows: int, num_trees: int, max_depth: int, num_queries: int) -> None:
        generator = np.random.default_rng(0)
        inputs = generator.normal(size=(num_rows + num_queries, 20)).astype(np.float32)
        logits = (
            inputs[:, :6].sum(axis=1) + inputs[:, 0] * inputs[:, 7] + 2 * generator.normal(size=len(inputs))
        )
        labels = (logits > 0).astype(np.int64)
        self.inputs, self.queries = inputs[:num_rows], inputs[num_rows:]
        self.labels, self.query_labels = labels[:num_rows], labels[num_rows:]
        self.booster = xgboost.XGBClassifier(
            n_estimators=num_trees, max_depth=max_depth, learning_rate=0.05, n_jobs=1
        ).fit(self.inputs, self.labels)
        self.leaves = TreeEnsembleModel(self.booster)
        self.trees = TreeEnsembleModel(self.booster, features="trees")
        self.train_set = tf.data.Dataset.from_tensor_slices((self.inputs, self.labels)).batch(256)
        self.query_set = tf.data.Dataset.from_tensor_slices(self.queries).batch(25)

    def methods(self, *, is_large: bool) -> dict[str, Callable]:
        """Return how calculators are made, by name."""
        leaves, trees, train_set = self.leaves, self.trees, self.train_set
        found = {
            "shared leaves": lambda: FeatureSimilarity(leaves, train_set),
            "influence functions, trees": lambda: FirstOrderInfluenceCalculator(trees, train_set),
            "DualView, trees": lambda: DualView(trees, train_set),
            "RPS-L2, trees": lambda: RepresenterPointL2(trees, train_set),
            "RPS-LJE, trees": lambda: RepresenterPointLJE(trees, train_set),
        }
        if is_large:

            def by_products() -> FirstOrderInfluenceCalculator:
                inverse = ConjugateGradientDescentIHVP(leaves, train_set)
                return FirstOrderInfluenceCalculator(leaves, train_set, inverse)

            return {"influence functions, leaves, conjugate gradients": by_products, **found}
        return {
            "DualView, leaves": lambda: DualView(leaves, train_set),
            "influence functions, leaves": lambda: FirstOrderInfluenceCalculator(leaves, train_set),
            **found,
        }

    def one_hot(self, inputs: np.ndarray) -> np.ndarray:
        """Return dense leaves and a constant, float64."""
        features = self.leaves.leaves(inputs).numpy().astype(np.float64)
        return np.hstack([features, np.ones((len(features), 1))])


def measure(make: Callable, query_set: tf.data.Dataset) -> dict[str, float]:
    """Return the costs of one calculator, MiB above the memory before."""
    before, start = reset_peak(), time.process_time()
    calculator = make()
    ready = time.process_time()
    for _ in calculator.top_k_indices(query_set, k=K):
        pass
    stop, grown = time.process_time(), peak() - before
    return {
        "set_up_s": round(ready - start, 2),
        "queries_s": round(stop - ready, 2),
        "kept_mib": round(calculator.stored_bytes / 2**20, 1),
        "peak_mib": round(grown),
    }


def naive_influence(problem: Problem) -> float:
    """Return CPU seconds of influence functions by the whole Hessian of one-hot leaves in NumPy."""
    start = time.process_time()
    train, queries = problem.one_hot(problem.inputs), problem.one_hot(problem.queries)
    p, q = (
        problem.booster.predict_proba(inputs)[:, 1].astype(np.float64)
        for inputs in (problem.inputs, problem.queries)
    )
    hessian = (train * (p * (1 - p))[:, None]).T @ train / len(train)
    np.fill_diagonal(hessian, np.diag(hessian) + 0.1 * np.trace(hessian) / len(hessian))
    solved = np.linalg.solve(hessian, ((q - (q > 0.5))[:, None] * queries).T).T
    values = solved @ ((p - problem.labels)[:, None] * train).T / len(train)
    np.argsort(-values, axis=1)[:, :K]
    return time.process_time() - start


def naive_neighbours(problem: Problem) -> float:
    """Return CPU seconds of the share of trees in which rows share their leaf, query by query in NumPy."""
    start = time.process_time()
    train, queries = problem.booster.apply(problem.inputs), problem.booster.apply(problem.queries)
    for query in queries:
        np.argsort(-(train == query).mean(axis=1), kind="stable")[:K]
    return time.process_time() - start


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="500 trees on 50,000 rows")
    parser.add_argument("--output", type=pathlib.Path, help="where the figures are written as JSON")
    options = parser.parse_args()
    problem = Problem(50_000, 500, 6, 25) if options.large else Problem(1_000, 80, 8, 50)
    num_leaves = len(problem.leaves.head.get_weights()[0])
    results: dict[str, object] = {"rows": len(problem.inputs), "leaves": num_leaves}
    print(results, flush=True)
    for name, make in problem.methods(is_large=options.large).items():
        results[name] = measure(make, problem.query_set)
        print(name, results[name], flush=True)
    if not options.large:
        results["NumPy, influence functions, leaves"] = round(naive_influence(problem), 2)
        results["NumPy, shared leaves"] = round(naive_neighbours(problem), 2)
        sets = [(problem.inputs, problem.labels), (problem.queries, problem.query_labels)]
        start = time.process_time()
        audit(problem.leaves, *sets, progress=False)
        results["audit, leaves"] = round(time.process_time() - start, 1)
        print({name: value for name, value in results.items() if not isinstance(value, dict)})
    if options.output is not None:
        known = json.loads(options.output.read_text()) if options.output.exists() else {}
        known["large" if options.large else "small"] = results
        options.output.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
