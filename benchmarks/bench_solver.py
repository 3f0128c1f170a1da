"""Time the dual solver against liblinear, on one thread each, in one run.

    python benchmarks/bench_solver.py --features mnist_features.npz ... [--made-up 20000x128x100 ...] [--json FILE]

Ours is timed to its strong certificate, (P(W_a) - D) / P(W_a) <= tolerance. liblinear offers no
certificate: its stopping tolerance is tightened until its primal objective is within the same relative
distance of a lower bound that our solver certified, which is a weaker demand; only the last fit counts.
Seconds are CPU seconds of the process, so that a busy machine disturbs the ratio less. A first fit traces and
compiles; it is reported apart, in the JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import time
import warnings
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from sklearn.svm import LinearSVC

from deel_dualview import DualSVMSolution, DualSVMSolver

# liblinear's stopping tolerances, loose to tight.
PEER_TOLERANCES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
# A solve shorter than this is repeated.
CHEAP_SECONDS = 5.0


class Examples(NamedTuple):
    """A named training set: features (n, d) float32, labels (n,)."""

    name: str
    features: np.ndarray
    labels: np.ndarray

    @property
    def num_classes(self) -> int:
        """Number of classes c."""
        return int(self.labels.max()) + 1

    @property
    def mean_squared_norm(self) -> float:
        """E||f||^2."""
        return float(np.mean(np.sum(self.features.astype(np.float64) ** 2, axis=1)))


def load(path: pathlib.Path) -> Examples:
    """Read an archive of `train_models.py`."""
    with np.load(path) as archive:
        return Examples(path.stem, archive["train_features"], archive["train_labels"])


def made_up(shape: str) -> Examples:
    """ReLU features of unit length around class means, 2 % of the labels drawn anew; `shape` as in 20000x128x100."""
    n, d, c = (int(part) for part in shape.split("x"))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, c, n)
    centres = generator.normal(size=(c, d)).astype(np.float32)
    noise = generator.normal(size=(n, d)).astype(np.float32)
    features = np.maximum(centres[labels] + np.float32(1.5) * noise, 0.0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    is_drawn = generator.random(n) < 0.02
    labels[is_drawn] = generator.integers(0, c, int(is_drawn.sum()))
    return Examples(shape, features, labels)


def timed_solve(examples: Examples, K: float, tolerance: float) -> tuple[DualSVMSolution, float, float]:
    """Our solution, the CPU seconds of the first fit, compiling included, and the median of those after it."""
    solver = DualSVMSolver(tolerance=tolerance)
    seconds: list[float] = []
    while len(seconds) < 4:
        start = time.process_time()
        solution = solver.solve(examples.features, examples.labels, examples.num_classes, K)
        seconds.append(time.process_time() - start)
        if len(seconds) > 1 and seconds[1] > CHEAP_SECONDS:
            break
    return solution, seconds[0], statistics.median(seconds[1:])


def primal(examples: Examples, weights: np.ndarray, K: float) -> float:
    """P(W) in float64, a block of rows at a time."""
    total = 0.5 * float(np.sum(weights**2))
    for start in range(0, len(examples.labels), 4096):
        labels = examples.labels[start : start + 4096]
        margins = examples.features[start : start + 4096].astype(np.float64) @ weights + 1.0
        rows = np.arange(len(labels))
        margins[rows, labels] -= 1.0
        total += K * float(np.sum(margins.max(axis=1) - margins[rows, labels]))
    return total


def timed_peer(
    examples: Examples, K: float, lower_bound: float, tolerance: float, cap: float
) -> tuple[float, float, bool]:
    """liblinear's CPU seconds, the relative gap it reached, and whether that was the tolerance."""
    features = examples.features.astype(np.float64)
    spent, seconds, gap = 0.0, 0.0, float("inf")
    for peer_tolerance in PEER_TOLERANCES:
        model = LinearSVC(
            C=K,
            multi_class="crammer_singer",
            fit_intercept=False,
            tol=peer_tolerance,
            max_iter=1_000_000,
            random_state=0,
        )
        start = time.process_time()
        model.fit(features, examples.labels)
        seconds = time.process_time() - start
        value = primal(examples, model.coef_.T, K)
        gap = (value - lower_bound) / value
        spent += seconds
        if gap <= tolerance:
            return seconds, gap, True
        if spent > cap:
            break
    return seconds, gap, False


def peak_mebibytes() -> float:
    """Largest resident size of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(examples: Examples, strength: float, tolerance: float, cap: float) -> dict[str, object]:
    """One row of the table."""
    K = strength / examples.mean_squared_norm
    before = peak_mebibytes()
    solution, first_seconds, seconds = timed_solve(examples, K, tolerance)
    memory = peak_mebibytes() - before
    tight = DualSVMSolver(tolerance=tolerance / 20).solve(
        examples.features, examples.labels, examples.num_classes, K, warm_start=solution
    )
    peer_seconds, peer_gap, reached = timed_peer(examples, K, tight.dual, tolerance, cap)
    return {
        "set": examples.name,
        "strength": strength,
        "K": K,
        "first_seconds": first_seconds,
        "seconds": seconds,
        "relative_gap": solution.relative_gap,
        "iterations": solution.num_iterations,
        "support_vectors": solution.num_support_vectors,
        "extra_mebibytes": memory,
        "peer_seconds": peer_seconds,
        "peer_gap": peer_gap,
        "peer_reached": reached,
        "speedup": peer_seconds / seconds,
    }


def show(row: dict[str, object]) -> None:
    """Print one row; a speedup is a lower bound where liblinear ran into its cap."""
    bound = "" if row["peer_reached"] else ">"
    print(
        f"{row['set']:<24} {row['strength']:>7g} {row['K']:>9.2e} {row['seconds']:>8.2f} "
        f"{row['relative_gap']:>8.1e} {row['iterations']:>6} {row['support_vectors']:>7} "
        f"{row['extra_mebibytes']:>7.0f} {bound:>1}{row['peer_seconds']:>8.2f} {row['peer_gap']:>8.1e} "
        f"{bound:>1}{row['speedup']:>6.2f}",
        flush=True,
    )


def main() -> None:
    """Run the comparison named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--features", type=pathlib.Path, nargs="*", default=[], help="archives of train_models.py"
    )
    parser.add_argument(
        "--made-up", nargs="*", default=[], help="examples x features x classes, such as 20000x128x100"
    )
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[0.1, 1, 10, 100, 500], help="K E||f||^2"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument(
        "--peer-cap", type=float, default=120.0, help="CPU seconds for liblinear's fits of a row"
    )
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(
        f"{'set':<24} {'KE||f||2':>7} {'K':>8} {'seconds':>8} {'gap':>8} {'iters':>6} {'support':>7} "
        f"{'+MiB':>7}  {'peer':>8} {'gap':>8}  {'ratio':>6}"
    )
    rows = []
    for examples in [load(path) for path in arguments.features] + [
        made_up(shape) for shape in arguments.made_up
    ]:
        for strength in arguments.strengths:
            rows.append(compare(examples, strength, arguments.tolerance, arguments.peer_cap))
            show(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
