"""Time support vector regression and binary machines, one for each output, against liblinear in one run.

    python benchmarks/bench_separable_solver.py [--rows 5000 20000] [--widths 64 256] [--outputs 1 10]

Ours is timed to its certificate of every output. liblinear offers none: for each output alone its stopping
tolerance is tightened until its primal objective is within the same relative distance of a lower bound that our
solver certified, which is a weaker demand; the last fit of each output counts. Traces of the TensorFlow
functions are made before the clock starts, on one thread each. Features and targets are made up: ReLU features of
a few latent directions, E||phi||^2 = 1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from sklearn.svm import LinearSVC, LinearSVR

from deel_dualview import PerOutputSVMSolution, PerOutputSVMSolver

EPSILON = 0.1
# liblinear's stopping tolerances, loose to tight.
PEER_TOLERANCES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)


def make_examples(n: int, d: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) float32 and targets (n, t) with noise."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(n, max(8, d // 8)))
    mixed = latent @ generator.normal(size=(latent.shape[1], d)) / np.sqrt(latent.shape[1])
    features = np.maximum(mixed + 0.5 * generator.normal(size=(n, d)) + 0.1, 0.0) * np.linspace(1.5, 0.2, d)
    features /= np.sqrt(np.mean(np.sum(features**2, axis=1)))
    targets = latent @ generator.normal(size=(latent.shape[1], t)) / np.sqrt(latent.shape[1])
    return features.astype(np.float32), targets + 0.5 * generator.normal(size=(n, t))


def solve(
    kind: str, features: np.ndarray, targets: np.ndarray, K: float, tolerance: float
) -> PerOutputSVMSolution:
    """Our solution."""
    solver = PerOutputSVMSolver(tolerance)
    if kind == "binary":
        return solver.solve_binary(features, targets, K)
    return solver.solve_regression(features, targets, K, epsilon=EPSILON)


def peer_gap(
    kind: str, features: np.ndarray, target: np.ndarray, weights: np.ndarray, K: float, bound: float
) -> float:
    """How far P(w) is above a lower bound, relative to P(w)."""
    scores = features @ weights
    loss = 1.0 - target * scores if kind == "binary" else np.abs(scores - target) - EPSILON
    primal = 0.5 * weights @ weights + K * np.maximum(loss, 0.0).sum()
    return float((primal - bound) / primal)


def time_peer(
    kind: str, features: np.ndarray, target: np.ndarray, K: float, bound: float, tolerance: float, cap: float
) -> tuple[float, float, bool]:
    """CPU and wall seconds of the fit of one output, and whether it reached the tolerance."""
    common = {"C": K, "fit_intercept": False, "max_iter": 1_000_000, "random_state": 0}
    spent = 0.0
    for peer_tolerance in PEER_TOLERANCES:
        if kind == "binary":
            model = LinearSVC(loss="hinge", tol=peer_tolerance, **common)
        else:
            model = LinearSVR(
                epsilon=EPSILON, loss="epsilon_insensitive", dual=True, tol=peer_tolerance, **common
            )
        cpu, wall = time.process_time(), time.perf_counter()
        model.fit(features, target)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        spent += cpu
        if peer_gap(kind, features, target, model.coef_.reshape(-1), K, bound) <= tolerance:
            return cpu, wall, True
        if spent > cap:
            break
    return cpu, wall, False


def compare(kind: str, n: int, d: int, t: int, K: float, tolerance: float, cap: float) -> None:
    """Print one row of the table; liblinear's times are lower bounds where it ran into its cap."""
    features, targets = make_examples(n, d, t)
    if kind == "binary":
        targets = np.where(targets > -0.5, 1.0, -1.0)
    cpu, wall = time.process_time(), time.perf_counter()
    solution = solve(kind, features, targets, K, tolerance)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tight = solve(kind, features, targets, K, tolerance / 20)
    doubles = features.astype(np.float64)
    peers = [
        time_peer(kind, doubles, target, K, bound, tolerance, cap / t)
        for target, bound in zip(targets.T, np.maximum(tight.dual, solution.dual), strict=True)
    ]
    peer_cpu, peer_wall = sum(peer[0] for peer in peers), sum(peer[1] for peer in peers)
    mark = "" if all(peer[2] for peer in peers) else ">"
    print(
        f"{kind:<11} {n:>6} {d:>4} {t:>3} {K:>6g} {cpu:>7.2f} {wall:>7.2f} {solution.relative_gap.max():>8.1e} "
        f"{solution.num_iterations.max():>5} {mark:>1}{peer_cpu:>7.2f} {peer_wall:>7.2f} "
        f"{mark:>1}{peer_cpu / cpu:>6.2f} {peer_wall / wall:>6.2f}",
        flush=True,
    )


def main() -> None:
    """Run the comparison named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["regression", "binary"])
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--outputs", type=int, nargs="+", default=[1, 10])
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[0.1, 1, 10], help="K, with E||phi||^2 = 1"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument(
        "--peer-cap", type=float, default=60.0, help="CPU seconds for liblinear's fits of a row"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(
        f"{'kind':<11} {'n':>6} {'d':>4} {'t':>3} {'K':>6} {'cpu':>7} {'wall':>7} {'gap':>8} {'steps':>5}  "
        f"{'peercpu':>7} {'wall':>7}  {'ratio':>6} {'wall':>6}"
    )
    for n, d, t, kind in itertools.product(
        arguments.rows, arguments.widths, arguments.outputs, arguments.kinds
    ):
        # Shapes are traced on few rows, among them those of the levels.
        features, targets = make_examples(4_500, d, t)
        solve(kind, features, np.sign(targets) if kind == "binary" else targets, 0.1, arguments.tolerance)
        for K in arguments.strengths:
            compare(kind, n, d, t, K, arguments.tolerance, arguments.peer_cap)


if __name__ == "__main__":
    main()
