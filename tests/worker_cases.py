"""One worker of a cluster on this machine, in a process of its own: `python worker_cases.py WHAT FOLDER`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(61, 5)).astype("float32")
INPUTS[30:40] = INPUTS[:10]  # ties between what two workers hold
LABELS = INPUTS[:, :3].argmax(axis=1)
SHARD_SIZE = 8
# Two shards, after 16 examples for fingerprints, and no more than 20 to prepare the model.
DIES_AFTER = 36
FOLDER = Path(__file__).parent


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment(index, ports):
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [FOLDER.parent, FOLDER])),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
    }


def run_workers(*command):
    """Run a command in each of two workers; return output, messages and exit code of each.

    Raises:
        subprocess.TimeoutExpired: the first does not end within a minute after the second.
    """
    ports = free_ports(2)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen([sys.executable, *command], env=environment(index, ports), **piped)
        for index in range(2)
    ]
    try:
        second = running[1].communicate(timeout=300)
        first = running[0].communicate(timeout=60)
        return [(*first, running[0].returncode), (*second, running[1].returncode)]
    finally:
        for one in running:
            one.kill()


def make_dataset(batch_size):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(batch_size)


def make_model():
    from cost_cases import counting_model

    return counting_model()


def open_store(folder, model, batch_size):
    from deel_dualview import DiskStore
    from deel_dualview.stores import stored_features

    store = DiskStore(folder, shard_size=SHARD_SIZE, progress=False)
    return stored_features(store, model, make_dataset(batch_size))


def examples_of_pass(folder, model, counter):
    """Return how many examples go through the network to fill a store, but for those that a fingerprint takes."""
    model.features(INPUTS[:4])
    counter.num_examples = 0
    model.fingerprint  # noqa: B018
    num_probed = counter.num_examples
    open_store(folder, model, 4)
    return counter.num_examples - 2 * num_probed


def top_of(calculator):
    found = [
        next(iter(calculator.top_k(make_dataset(9).take(1), k=4, order=order)))
        for order in ("descending", "ascending")
    ]
    return [[top.training_indices.numpy().tolist(), top.influence_values.numpy().tolist()] for top in found]


def top_by_similarity(model):
    from deel_dualview import FeatureSimilarity

    return top_of(FeatureSimilarity(model, make_dataset(10)))


def top_by_dualview(model):
    from deel_dualview import DualView

    return top_of(DualView(model, make_dataset(10), K=0.1))


def work(what, folder):
    import tensorflow as tf

    from deel_dualview import InfluenceModel

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    network, counter = make_model()
    with strategy.scope():
        model = InfluenceModel(network)
    if what == "die":
        _die(counter, model.workers.index)
    found = {"index": model.workers.index, "examples": examples_of_pass(folder / "aligned", model, counter)}
    if what == "all":
        found["features"] = open_store(folder / "unaligned", model, 5).array("features").tolist()
        found["top"] = top_by_similarity(model)
    if what == "resume":
        found["top"] = top_by_dualview(model)
    sys.stdout.write(json.dumps(found))


def _die(counter, index):
    """Kill the second worker in its third shard, while the first one is still at work."""
    count = counter._count

    def counted(size):
        count(size)
        if size == 4 and index == 0:
            time.sleep(0.5)
        if index == 1 and counter.num_examples > DIES_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    counter._count = counted


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
