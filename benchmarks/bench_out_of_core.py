"""What does a memory budget cost, and is it kept? DualView of a stream of features, on the disk and in memory.

    python benchmarks/bench_out_of_core.py [--sizes 100000 1000000] [--width 512] [--classes 100] [--budget-mb 256]
        [--in-memory 100000] [--audit] [--output benchmarks/results/out_of_core.json]

The model is a Dense layer on made-up features of a dataset that makes them batch by batch, so that none are held by
the data. Each line is a process of its own, of one thread: the pass over the data, the fit to a relative gap of 1e-3
with what it takes to compile, how often the fit read every row, the five first of 128 queries, and the peak memory
above what TensorFlow and the model took.

With `--audit` each line is a whole audit instead, of a network with a layer before the features, whose 2 % of wrong
labels it has to find: its steps, its peak memory, and what it says about the labels.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NUM_QUERIES, K_FIRST, BATCH, TOLERANCE = 128, 5, 4096, 1e-3
NUM_TEST, WRONG = 4096, 0.02


def stream(size: int, width: int, classes: int, *, seed: int = 0, wrong: float = WRONG):
    """Return (centres of the classes, dataset of `size` features and labels, a share of them wrong, made as read)."""
    import numpy as np
    import tensorflow as tf

    centres = np.random.default_rng(0).normal(size=(classes, width)).astype(np.float32)

    def batches():
        for start in range(0, size, BATCH):
            rng = np.random.default_rng([seed, start])
            labels = rng.integers(0, classes, min(BATCH, size - start))
            rows = np.maximum(
                0.6 * centres[labels] + rng.standard_normal((len(labels), width), np.float32), 0
            )
            flipped = rng.random(len(labels)) < wrong
            labels[flipped] = rng.integers(0, classes, flipped.sum())
            yield rows, labels

    spec = tf.TensorSpec((None, width)), tf.TensorSpec((None,), tf.int64)
    return centres, tf.data.Dataset.from_generator(batches, output_signature=spec)


def measure_audit(size: int, width: int, classes: int, budget: int | None) -> dict:
    """Return one line about a whole audit."""
    import keras
    import numpy as np
    from memory import peak, reset_peak

    from deel_dualview import audit

    centres, train = stream(size, width, classes)
    _, test = stream(NUM_TEST, width, classes, seed=1, wrong=0)
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(classes)]
    model = keras.Sequential([keras.Input((width,)), *layers])
    layers[0].set_weights([np.eye(width), np.zeros(width)])
    layers[1].set_weights([0.6 * centres.T, -0.18 * (np.maximum(centres, 0) ** 2).sum(axis=1)])
    model.predict(test, verbose=0)
    before, start, spent = reset_peak(), time.perf_counter(), time.process_time()
    report = audit(model, train, test, memory_budget=budget, relevance=None, progress=False)
    count = report.label_issues.count
    return {
        "examples": size,
        "budget_mb": budget and budget // 2**20,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - spent, 1),
        "peak_mb": round(peak() - before),
        "steps": {step.name: round(step.seconds, 1) for step in report.overview.steps},
        "relative_gap": report.overview.certificate.relative_gap,
        "support_vectors": report.overview.num_support_vectors,
        "counted_wrong": count.estimate,
        "interval": [count.low, count.high],
        "findings": [finding.title for finding in report.findings],
    }


def measure(size: int, width: int, classes: int, budget: int | None, penalty: float | None) -> dict:
    """Return one line."""
    import keras
    import numpy as np
    from memory import peak, reset_peak

    from deel_dualview import DualSVMSolver, DualView, MemoryStore
    from deel_dualview.stores.rows import StoredRows

    centres, train = stream(size, width, classes)
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(classes, use_bias=False)])
    model.layers[-1].kernel.assign(centres.T)
    queries = train.unbatch().take(NUM_QUERIES).batch(NUM_QUERIES)

    counted = {"read": 0}
    read = StoredRows._read

    def count(self: StoredRows, positions: np.ndarray) -> np.ndarray:
        counted["read"] += len(positions)
        return read(self, positions)

    StoredRows._read = count
    moments = [time.perf_counter()]
    spent = [time.process_time()]
    before = reset_peak()

    class Timed(DualView):
        def _fit(self, *arguments):
            moments.append(time.perf_counter())
            spent.append(time.process_time())
            counted["read"] = 0
            return super()._fit(*arguments)

    store = MemoryStore(progress=False, memory_budget=budget)
    calculator = Timed(model, train, K=penalty, store=store, solver=DualSVMSolver(TOLERANCE))
    moments.append(time.perf_counter())
    spent.append(time.process_time())
    reads = counted["read"] / size
    list(calculator.top_k_indices(queries, K_FIRST))
    moments.append(time.perf_counter())
    return {
        "examples": size,
        "budget_mb": budget and budget // 2**20,
        "pass_seconds": round(moments[1] - moments[0], 1),
        "fit_seconds": round(moments[2] - moments[1], 1),
        "fit_cpu_seconds": round(spent[2] - spent[1], 1),
        "reads": round(reads, 1),
        "query_seconds": round(moments[3] - moments[2], 1),
        "peak_mb": round(peak() - before),
        "relative_gap": calculator.surrogate.relative_gap,
        "support_vectors": calculator.surrogate.num_support_vectors,
    }


def main() -> None:
    """Print a line for each size and budget, and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--in-memory", type=int, nargs="*", default=[100_000], help="Sizes also without a budget."
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--budget-mb", type=int, default=256)
    parser.add_argument("-K", type=float, help="DualView's; its default by default.")
    parser.add_argument("--audit", action="store_true", help="Whole audits.")
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        size, budget = options.one[0], options.one[1] * 2**20 or None
        print(
            json.dumps(
                measure_audit(size, options.width, options.classes, budget)
                if options.audit
                else measure(size, options.width, options.classes, budget, options.K)
            )
        )
        return
    lines = []
    for size, budget in [(n, 0) for n in options.in_memory] + [(n, options.budget_mb) for n in options.sizes]:
        command = [sys.executable, __file__, "--one", str(size), str(budget), "--width", str(options.width)]
        command += ["--audit"] * options.audit
        command += ["--classes", str(options.classes), *([] if options.K is None else ["-K", str(options.K)])]
        lines.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        print(lines[-1], flush=True)
    on_disk = {line["examples"]: line for line in lines if line["budget_mb"]}
    for line in lines:
        other = on_disk.get(line["examples"])
        if other and not line["budget_mb"]:
            key, what = ("cpu_seconds", "audit") if options.audit else ("fit_cpu_seconds", "fit")
            ratio = other[key] / line[key]
            print(
                f"{line['examples']}: the {what} on the disk takes {ratio:.2f} of the CPU seconds in memory"
            )
    if len(on_disk) > 1:
        small, large = min(on_disk), max(on_disk)
        ratio = on_disk[large]["peak_mb"] / on_disk[small]["peak_mb"]
        print(f"peak memory of {large} examples over {small}: {ratio:.2f}")
    if options.output:
        options.output.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
