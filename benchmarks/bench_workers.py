"""What do two workers gain in the pass of a network over its training set?

One process with one thread fills a store, then two workers of a cluster on this machine, with one thread each, fill
another one together. Their time is that of the slower one, and includes what they wait for each other.

    python benchmarks/bench_workers.py --examples 4096
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

SIDE, CLASSES, BATCH = 48, 10, 32
ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")


def work(num_examples: int, folder: str) -> None:
    """Fill a store, as one of the workers of TF_CONFIG if there is one, and print the seconds that it took."""
    import contextlib

    import numpy as np
    import tensorflow as tf

    has_others = "TF_CONFIG" in os.environ
    scope = tf.distribute.MultiWorkerMirroredStrategy().scope() if has_others else contextlib.nullcontext()
    import keras
    from keras import layers

    from deel_dualview import DiskStore, InfluenceModel
    from deel_dualview.stores import stored_features

    images = np.random.default_rng(0).normal(size=(num_examples, SIDE, SIDE, 3)).astype("float32")
    train = tf.data.Dataset.from_tensor_slices((images, np.arange(num_examples) % CLASSES)).batch(BATCH)
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((SIDE, SIDE, 3))])
    for filters in (32, 64, 128):
        network.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        network.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        network.add(layers.MaxPooling2D())
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Dense(CLASSES))
    with scope:
        model = InfluenceModel(network)
    model.features(images[:BATCH])
    if model.workers is not None:
        with model.workers.together():
            pass  # Both begin now.
    store = DiskStore(folder, shard_size=8 * BATCH, progress=False)
    start = np.array([time.perf_counter(), time.process_time()])
    stored_features(store, model, train)
    print(json.dumps((np.array([time.perf_counter(), time.process_time()]) - start).tolist()))


def run(configs: list[dict[str, str]], num_examples: int) -> tuple[float, float]:
    """Fill a store by one process for each environment; return seconds, and CPU seconds, of the slowest."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--work", folder, "--examples", str(num_examples)]
        running = [
            subprocess.Popen(command, env=os.environ | ONE_THREAD | config, stdout=subprocess.PIPE, text=True)
            for config in configs
        ]
        outputs = [one.communicate()[0] for one in running]
    seconds, cpu_seconds = zip(*(json.loads(output.splitlines()[-1]) for output in outputs), strict=True)
    return max(seconds), max(cpu_seconds)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def main() -> None:
    """Print seconds, examples a second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many")
    parser.add_argument("--output", type=pathlib.Path, help="a JSON file of the figures")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.examples, options.work)
        return
    found: dict[str, list[tuple[float, float]]] = {"one process": [], "two workers": []}
    for _ in range(options.repeats):
        found["one process"].append(run([{}], options.examples))
        cluster = {"worker": [f"localhost:{free_port()}" for _ in range(2)]}
        tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
        found["two workers"].append(
            run([{"TF_CONFIG": json.dumps(task)} for task in tasks], options.examples)
        )
    best = {name: tuple(map(min, zip(*runs, strict=True))) for name, runs in found.items()}
    for name, (seconds, cpu_seconds) in best.items():
        rate = options.examples / seconds
        print(f"{name:12} {seconds:8.2f} s, {cpu_seconds:8.2f} CPU s each {rate:9.1f} examples a second")
    ratio, of_cpu = (one / two for one, two in zip(best["one process"], best["two workers"], strict=True))
    print(f"ratio {ratio:.2f} (bar 1.6), of CPU seconds {of_cpu:.2f} (what an idle machine may reach)")
    if options.output is not None:
        options.output.write_text(json.dumps({"examples": options.examples, "runs": found, "ratio": ratio}))


if __name__ == "__main__":
    main()
