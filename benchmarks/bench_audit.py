"""Time and memory of a whole audit, step by step, on an image set of TFDS.

    python benchmarks/bench_audit.py --data-dir TFDS_DIRECTORY --model mnist.keras [--json FILE]

Memory is the peak of the process above what it had after TensorFlow was imported and had run once:
reading the data, the model and the audit are in it. The targets (MNIST, 60,000 training and 1,000 test
examples, 2 cores) are 60 seconds and 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import tensorflow as tf

from deel_dualview.report.provenance import peak_memory_bytes


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=pathlib.Path, help="TFDS directory (default: TFDS's own)")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="Keras model of raw images")
    parser.add_argument("--dataset", default="mnist", help="name of the TFDS image set")
    parser.add_argument("--method", default="dualview", help="name of the method")
    parser.add_argument("--num-test", type=int, default=1000, help="test examples that are explained")
    parser.add_argument("--threads", type=int, default=2, help="threads of TensorFlow")
    parser.add_argument("--json", type=pathlib.Path, help="write the numbers here too")
    parser.add_argument("--report", type=pathlib.Path, help="keep the report in this directory")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Audit once and return seconds by step and bytes of memory."""
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.reduce_sum(tf.ones((64, 64)) @ tf.ones((64, 64))).numpy()
    memory_before = peak_memory_bytes() or 0
    import keras
    import tensorflow_datasets as tfds

    from deel_dualview import audit

    model = keras.models.load_model(arguments.model)
    train, test = tfds.load(
        arguments.dataset,
        split=["train", f"test[:{arguments.num_test}]"],
        as_supervised=True,
        data_dir=arguments.data_dir and str(arguments.data_dir),
        download=arguments.data_dir is None,
    )
    start = time.perf_counter()
    report = audit(model, train.batch(256), test.batch(256), method=arguments.method)
    seconds = {step.name: step.seconds for step in report.overview.steps}
    written = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        page = report.to_html(arguments.report or pathlib.Path(folder) / "audit", overwrite=True)
        sizes = {file.name: file.stat().st_size for file in sorted(page.parent.iterdir())}
    seconds["Writing the report"] = time.perf_counter() - written
    return {
        "dataset": arguments.dataset,
        "num_train": report.overview.num_train,
        "num_test": report.overview.num_test,
        "seconds": seconds | {"All": time.perf_counter() - start},
        "memory_above_tensorflow": (peak_memory_bytes() or 0) - memory_before,
        "file_sizes": sizes,
        "findings": [finding.title for finding in report.findings],
        "relative_gap": report.overview.certificate.relative_gap,
    }


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    arguments = parse_arguments()
    result = measure(arguments)
    print(f"{result['dataset']}: {result['num_train']:,} training and {result['num_test']:,} test examples")
    for name, seconds in result["seconds"].items():
        print(f"  {name:32}{seconds:8.2f} s")
    print(f"  {'Memory above TensorFlow':32}{result['memory_above_tensorflow'] / 2**20:8.0f} MiB")
    for name, size in result["file_sizes"].items():
        print(f"  {name:32}{size / 1000:8.0f} kB")
    for title in result["findings"]:
        print(f"  {title}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
