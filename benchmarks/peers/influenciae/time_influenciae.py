"""Time Influenciae 0.3.0 on the last layer of the MNIST CNN, one thread, and write JSON.

    PEER/bin/python time_influenciae.py --problem problem.npz --output influenciae.json

Run it in the environment of requirements.txt, on a problem written by export_problem.py. Every measurement
runs in a process of its own, bound to one core, with a time limit; what exceeds it is reported as null.
Seconds are of CPU time of that process, so that other work on the machine does not count; `wall_seconds` is
the whole process. Settings are the peer's defaults where it has any, batch sizes those that suit it best.
Conjugate gradients and LiSSA, which solve once for every *training* vector, are timed on few vectors
(compilation apart) and multiplied by n: `seconds_extrapolated`.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable

METHODS = ("exact", "conjugate_gradient", "lissa", "representer_l2", "representer_lje", "arnoldi")
# The exact Hessian takes batch^2 p^2 floats and a time that grows with the batch: single examples are the
# fastest.
HESSIAN_BATCH_SIZE = 1
# Representer points need query and training batches of one size that divides both numbers.
BATCH_SIZE = 100
# Its exact Hessian takes the batches that its queries need.
LJE_BATCH_SIZE = 1
NUM_QUERIES = 100


def load_problem(path: pathlib.Path, num_train: int):
    """Return the CNN's twin, and batched training and query sets with one-hot labels."""
    import numpy as np
    import tensorflow as tf

    arrays = np.load(path)
    layers = tf.keras.layers
    scale, offset = arrays["rescaling"]
    model = tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            layers.Rescaling(scale, offset),
            layers.Conv2D(5, 3, activation="relu"),
            layers.Conv2D(10, 3, activation="relu"),
            layers.Conv2D(5, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10, use_bias=False),
        ]
    )
    model.set_weights([arrays[name] for name in sorted(arrays.files) if name.startswith("weight_")])

    def dataset(split: str, count: int, batch_size: int) -> tf.data.Dataset:
        images = arrays[f"{split}_images"][:count].astype("float32")
        one_hot = np.eye(10, dtype="float32")[arrays[f"{split}_labels"][:count]]
        return tf.data.Dataset.from_tensor_slices((images, one_hot)).batch(batch_size)

    accuracy = np.mean(
        model.predict(dataset("test", 1000, 250), verbose=0).argmax(1) == arrays["test_labels"][:1000]
    )
    if accuracy < 0.9:
        raise ValueError(f"The twin must have the model's accuracy. Received: accuracy={accuracy}.")
    return model, dataset


def seconds(action: Callable[[], object]) -> float:
    """Return the CPU seconds that one call took."""
    start = time.process_time()
    action()
    return time.process_time() - start


def setup_and_queries(build: Callable[[], object], train, queries) -> dict[str, float]:
    """Time a calculator's construction, then its top-k twice: the second time everything is compiled."""
    made = []
    figures = {"setup_seconds": seconds(lambda: made.append(build()))}

    def answer() -> None:
        for _ in made[0].top_k(queries, train, k=5):
            pass

    figures["first_top_k_seconds"] = seconds(answer)
    figures["warm_top_k_seconds"] = seconds(answer)
    return figures


def time_exact(problem: pathlib.Path, num_train: int, options: argparse.Namespace) -> dict[str, float]:
    """Time first-order influence with an exact inverse Hessian."""
    from deel.influenciae.common import ExactIHVP
    from deel.influenciae.influence import FirstOrderInfluenceCalculator

    model, dataset = load_problem(problem, num_train)
    train = dataset("train", num_train, BATCH_SIZE)
    singles = dataset("train", num_train, HESSIAN_BATCH_SIZE)
    wrapped = wrap(model)
    return setup_and_queries(
        lambda: FirstOrderInfluenceCalculator(wrapped, train, ExactIHVP(wrapped, singles)),
        train,
        dataset("test", NUM_QUERIES, BATCH_SIZE),
    )


def wrap(model):
    """Return the peer's view of a model, on its last layer and its logits."""
    import tensorflow as tf
    from deel.influenciae.common import InfluenceModel

    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.NONE)
    return InfluenceModel(model, start_layer=len(model.layers) - 1, loss_function=loss)


def time_iterative(
    solver: Callable, problem: pathlib.Path, num_train: int, num_vectors: int
) -> dict[str, float]:
    """Time the vectors of `num_vectors` training examples, apart from compilation, and extrapolate."""
    from deel.influenciae.influence import FirstOrderInfluenceCalculator

    model, dataset = load_problem(problem, num_train)
    train = dataset("train", num_train, BATCH_SIZE)
    wrapped = wrap(model)
    made = []
    setup = seconds(
        lambda: made.append(FirstOrderInfluenceCalculator(wrapped, train, solver(wrapped, train)))
    )
    batches = list(dataset("train", num_vectors + 1, 1))
    # A first vector compiles, and fills the cache of feature maps.
    setup += seconds(lambda: made[0]._compute_influence_vector(batches[0]))
    per_vector = (
        seconds(lambda: [made[0]._compute_influence_vector(batch) for batch in batches[1:]]) / num_vectors
    )
    return {
        "setup_and_first_vector_seconds": setup,
        "num_vectors_timed": num_vectors,
        "seconds_per_vector": per_vector,
        "seconds_extrapolated": num_train * per_vector,
    }


def time_conjugate_gradient(
    problem: pathlib.Path, num_train: int, options: argparse.Namespace
) -> dict[str, float]:
    """Time a vector by conjugate gradients."""
    from deel.influenciae.common import ConjugateGradientDescentIHVP

    return time_iterative(
        lambda model, train: ConjugateGradientDescentIHVP(model, -1, train),
        problem,
        num_train,
        options.num_vectors,
    )


def time_lissa(problem: pathlib.Path, num_train: int, options: argparse.Namespace) -> dict[str, float]:
    """Time a vector by LiSSA."""
    from deel.influenciae.common import LissaIHVP

    return time_iterative(
        lambda model, train: LissaIHVP(model, -1, train), problem, num_train, options.num_vectors
    )


def time_representer_l2(
    problem: pathlib.Path, num_train: int, options: argparse.Namespace
) -> dict[str, float]:
    """Time RPS-L2."""
    from deel.influenciae.rps import RepresenterPointL2

    model, dataset = load_problem(problem, num_train)
    train = dataset("train", num_train, BATCH_SIZE)
    return setup_and_queries(
        lambda: RepresenterPointL2(model, train, wrap(model).loss_function, lambda_regularization=0.003),
        train,
        dataset("test", NUM_QUERIES, BATCH_SIZE),
    )


def time_representer_lje(
    problem: pathlib.Path, num_train: int, options: argparse.Namespace
) -> dict[str, float]:
    """Time RPS-LJE with an exact inverse Hessian."""
    from deel.influenciae.common import ExactIHVPFactory
    from deel.influenciae.rps import RepresenterPointLJE

    model, dataset = load_problem(problem, num_train)
    train = dataset("train", num_train, LJE_BATCH_SIZE)
    return setup_and_queries(
        lambda: RepresenterPointLJE(wrap(model), train, ExactIHVPFactory(), target_layer=-1),
        train,
        dataset("test", NUM_QUERIES, LJE_BATCH_SIZE),
    )


def time_arnoldi(problem: pathlib.Path, num_train: int, options: argparse.Namespace) -> dict[str, float]:
    """Time Arnoldi influence."""
    from deel.influenciae.influence import ArnoldiInfluenceCalculator

    model, dataset = load_problem(problem, num_train)
    train = dataset("train", num_train, BATCH_SIZE)
    dimension = options.arnoldi_dimension
    return {"subspace_dimension": dimension} | setup_and_queries(
        lambda: ArnoldiInfluenceCalculator(
            wrap(model),
            train,
            subspace_dim=dimension,
            force_hermitian=True,
            k_largest_eig_vals=dimension // 2,
        ),
        train,
        dataset("test", NUM_QUERIES, BATCH_SIZE),
    )


def measure_here(options: argparse.Namespace) -> None:
    """Run one measurement in this process and print it as JSON."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    time_method = globals()[f"time_{options.only}"]
    print(json.dumps(time_method(options.problem, options.num_train[0], options)))


def measure_apart(method: str, num_train: int, options: argparse.Namespace) -> dict[str, float] | None:
    """Run one measurement in another process on one core; None if it fails or exceeds the limit."""
    command = [
        sys.executable, __file__, "--problem", options.problem, "--only", method, "--num-train", num_train,
        "--num-vectors", options.num_vectors, "--arnoldi-dimension", options.arnoldi_dimension,
    ]  # fmt: skip
    environment = {
        **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    core = max(os.sched_getaffinity(0))
    start = time.perf_counter()
    try:
        finished = subprocess.run(
            [str(part) for part in command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=options.limit,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired:
        return None
    if finished.returncode:
        print(finished.stderr[-1500:], file=sys.stderr)
        return None
    return json.loads(finished.stdout.splitlines()[-1]) | {"wall_seconds": time.perf_counter() - start}


def versions() -> dict[str, str]:
    """Return what was measured, on what."""
    from importlib.metadata import version

    names = ("influenciae", "tensorflow-cpu", "keras", "numpy")
    processor = next(
        (
            line
            for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "python": platform.python_version(),
        "machine": processor.split(":")[-1].strip(),
        **{name: version(name) for name in names},
    }


def main() -> None:
    """Measure what was asked for and write it after every measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--problem", type=pathlib.Path, required=True, help="file written by export_problem.py"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("influenciae.json"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--num-train", type=int, nargs="+", default=[2000])
    parser.add_argument(
        "--num-vectors", type=int, default=2, help="training vectors timed with iterative solvers"
    )
    parser.add_argument("--arnoldi-dimension", type=int, default=50)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one measurement")
    parser.add_argument("--only", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure_here(options)
        return
    results = json.loads(options.output.read_text())["results"] if options.output.exists() else {}
    for method in options.methods:
        for num_train in options.num_train:
            figures = measure_apart(method, num_train, options)
            print(method, num_train, figures, file=sys.stderr, flush=True)
            results.setdefault(method, {})[str(num_train)] = figures
            report = {
                "versions": versions(),
                "threads": 1,
                "num_queries": NUM_QUERIES,
                "k": 5,
                "num_parameters": 1000,
                "batch_size": BATCH_SIZE,
                "results": results,
            }
            options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
