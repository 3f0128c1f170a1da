"""Kill all that writes (stores, passes, fits, reports, benchmarks, checkpoints) at random times; count what it costs.

A round is five runs that are killed (SIGKILL) and one that may end. What a killed run had finished must be there
at the end, nothing but the files of a run that was never killed may be there, and the results must be its results.

    python benchmarks/survive_kills.py --kills 50
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview import DiskStore, DualView, SaveCheckpoints, load_checkpoints
from deel_dualview.evaluation import Recipe, benchmark, read_benchmark
from deel_dualview.report import check_output_directory, writing
from deel_dualview.svm import DualSVMSolution, DualSVMSolver, checkpoints, dual

KILLS_A_ROUND = 5
ROWS, EPOCHS, VERSIONS = 400, 6, 12
RECIPE = Recipe("digits-cnn", epochs=1, batch_size=128)


class Case(NamedTuple):
    """A kind of work.

    Attributes:
        work: does it, or goes on with it, in a folder.
        finished: what is finished in the folder, by name.
        results: what comes out at the end, by name.
    """

    work: Callable[[pathlib.Path], None]
    finished: Callable[[pathlib.Path], Mapping[str, str]]
    results: Callable[[pathlib.Path], Mapping[str, Any]]


class Counts(NamedTuple):
    """Of one case."""

    kills: int
    lost: int
    litter: int
    wrong: int


def write_store(folder: pathlib.Path) -> None:
    """Keep the vectors of a dataset, in shards of fifty."""
    _open(folder)


def _open(folder: pathlib.Path) -> Any:
    data = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
    train = tf.data.Dataset.from_tensor_slices((data, np.arange(ROWS) % 3)).batch(10)
    return DiskStore(folder / "store", shard_size=50, progress=False).open(
        {"model": "squares"}, train, lambda element: {"squares": np.asarray(element[0]) ** 2}
    )


def write_features(folder: pathlib.Path) -> None:
    """Pass a network over a training set and keep its features, in shards of fifty."""
    _attributions(folder)


def _attributions(folder: pathlib.Path) -> list[Any]:
    """Influence values of six examples on themselves, and the features, all bits of them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(8, 3, activation="relu")]
        + [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)]
    )
    data = np.random.default_rng(0).normal(size=(ROWS, 28, 28, 1)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((data, np.arange(ROWS) % 3)).batch(10)
    store = DiskStore(folder / "store", shard_size=50, progress=False)
    calculator = DualView(model, train, K=0.01, store=store)
    values = calculator.estimate_influence_values_in_batches(train.take(1))
    shards = sorted((folder / "store").glob("*.npy"))
    return [[value.numpy().tolist() for value in values], [path.read_bytes().hex() for path in shards]]


def write_fit(folder: pathlib.Path) -> None:
    """Fit a machine to features on the disk, which keeps its state after each cycle."""
    _fit(folder)


def _fit(folder: pathlib.Path) -> DualSVMSolution:
    checkpoints._SECONDS = 0.0
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 10 * ROWS)
    features = rng.normal(size=(10 * ROWS, 24)) + rng.normal(size=(8, 24))[labels]
    np.save(folder.parent / "features.npy", features.astype(np.float32))
    rows = np.load(folder.parent / "features.npy", mmap_mode="r")
    solver = DualSVMSolver(checkpoints=folder / "fits", memory_budget=1)
    dual._LARGE = 0
    return solver.solve(rows, labels, 8, 0.04)


def _fit_bits(folder: pathlib.Path) -> list[str]:
    solution = _fit(folder)
    return [array.tobytes().hex() for array in (solution.weights, solution.coefficients.data)]


def _read_fit(folder: pathlib.Path) -> dict[str, str]:
    """Return that the fit ended, if it did; the next run reads its state."""
    for path in (folder / "fits").glob("fit-*.npz"):
        with np.load(path) as arrays:
            return {"fit": "ended"} if "alpha_data" in arrays else {}
    return {}


def write_report(folder: pathlib.Path) -> None:
    """Write a report, again and again."""
    for version in range(VERSIONS):
        matrix = scipy.sparse.csr_array(np.full((200, 200), float(version)))
        place = check_output_directory(folder / "audit", overwrite=True)
        writing.write_report(
            place,
            {
                "index.html": lambda file, text=str(version) * 100_000: writing.write_text(file, text),
                "audit.json": lambda file, value=version: writing.write_json(file, {"version": value}),
                "attributions.npz": lambda file, matrix=matrix: writing.write_attributions(file, matrix, {}),
            },
        )


def _read_report(folder: pathlib.Path) -> dict[str, str]:
    """Return which version there is, where the three files are of one."""
    place = check_output_directory(folder / "audit", overwrite=True)  # what the next run does first
    if not place.exists():
        return {}
    version = json.loads((place / "audit.json").read_text())["version"]
    is_whole = (place / "index.html").read_text() == str(version) * 100_000
    is_whole = is_whole and scipy.sparse.load_npz(place / "attributions.npz")[0, 0] == version
    return {"report": "whole"} if is_whole else {}


def write_benchmark(folder: pathlib.Path) -> None:
    """Compare two methods on one question."""
    benchmark(
        "digits",
        ["random", "gradcos"],
        ["superclass"],
        output=folder / "results",
        models=folder.parent / "models",
        num_test=20,
        recipe=RECIPE,
        progress=False,
    )


def _read_results(folder: pathlib.Path) -> dict[str, str]:
    try:
        cells = read_benchmark(folder / "results", "digits").cells
    except FileNotFoundError:
        return {}
    return {
        str(cell.identity.place): json.dumps([cell.metrics, cell.error], sort_keys=True) for cell in cells
    }


def write_checkpoints(folder: pathlib.Path) -> None:
    """Train with checkpoints, from the last one."""
    _train(folder)


def _train(folder: pathlib.Path) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    data = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    start = max(map(int, _read_epochs(folder)), default=0)
    if start:  # Keras' own BackupAndRestore is not used: a kill may leave half a file of it
        model.optimizer.build(model.trainable_variables)
        model.load_weights(folder / "run" / f"epoch_{start:05d}.weights.h5")
    options = {"initial_epoch": start, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    model.fit(data, np.arange(ROWS) % 3, callbacks=[SaveCheckpoints(folder / "run")], **options)
    return model


def _read_epochs(folder: pathlib.Path) -> dict[str, str]:
    try:
        content = json.loads((folder / "run" / "checkpoints.json").read_text())
    except FileNotFoundError:
        return {}
    return {str(one["epoch"]): one["weights"] for one in content["epochs"] if one["file"]}


def _read_shards(folder: pathlib.Path) -> dict[str, str]:
    try:
        content = json.loads((folder / "store" / "manifest.json").read_text())
    except FileNotFoundError:
        return {}
    return {str(number): json.dumps(shard, sort_keys=True) for number, shard in enumerate(content["shards"])}


CASES = {
    "store": Case(
        write_store, _read_shards, lambda folder: {"squares": _open(folder).array("squares").tolist()}
    ),
    "features": Case(write_features, _read_shards, lambda folder: {"values": _attributions(folder)}),
    "fit": Case(write_fit, _read_fit, lambda folder: {"bits": _fit_bits(folder)}),
    "report": Case(
        write_report, _read_report, lambda folder: {**_read_report(folder), "last": _last(folder)}
    ),
    "benchmark": Case(write_benchmark, _read_results, _read_results),
    "checkpoints": Case(write_checkpoints, _read_epochs, lambda folder: {"losses": _checkpoint_sums(folder)}),
}


def _last(folder: pathlib.Path) -> int:
    return json.loads((folder / "audit" / "audit.json").read_text())["version"]


def _checkpoint_sums(folder: pathlib.Path) -> list[Any]:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    found = load_checkpoints(folder / "run", lambda: keras.models.clone_model(model))
    sums = [float(sum(np.abs(weight).sum() for weight in own.model.get_weights())) for own in found.models]
    return [found.epochs, sums, found.learning_rates]


def survive(case: Case, kills: int, folder: pathlib.Path, draws: random.Random) -> Counts:
    """Count what `kills` kills of one kind of work lose, leave behind and make wrong."""
    seconds = [_reference(case, folder) for _ in range(2)][-1]  # the first one trains what all runs need
    expected, names = _results(case, folder / "reference"), _names(folder / "reference")
    counts, place = Counts(0, 0, 0, 0), folder / "killed"
    while counts.kills < kills:
        place.mkdir()
        known: Mapping[str, str] = {}
        for _ in range(min(KILLS_A_ROUND, kills - counts.kills)):
            start = time.perf_counter()
            if not _run(case.work, place, kill_after=draws.uniform(0, seconds)):
                seconds = min(seconds, time.perf_counter() - start)  # the machine is quicker now
                break
            now = case.finished(place)
            counts = counts._replace(kills=counts.kills + 1, lost=counts.lost + _num_lost(known, now))
            known = now
        _run(case.work, place)
        litter, is_wrong = _names(place) - names, _results(case, place) != expected
        counts = counts._replace(
            lost=counts.lost + _num_lost(known, case.finished(place)),
            litter=counts.litter + len(litter),
            wrong=counts.wrong + is_wrong,
        )
        if litter:
            print("left behind:", *sorted(litter), file=sys.stderr)
        print(f"{counts.kills} of {kills} kills: {counts}", file=sys.stderr)
        shutil.rmtree(place)
    return counts


def _reference(case: Case, folder: pathlib.Path) -> float:
    """Do the work without a kill; return the seconds that it takes."""
    place = folder / "reference"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    start = time.perf_counter()
    _run(case.work, place)
    return time.perf_counter() - start


def _num_lost(known: Mapping[str, str], now: Mapping[str, str]) -> int:
    return sum(now.get(name) != value for name, value in known.items())


def _names(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _results(case: Case, folder: pathlib.Path) -> Any:
    """Return the results, read by a process of its own: this one must not start TensorFlow, as it forks."""
    answer = folder.parent / "answer.json"
    _run(lambda place: answer.write_text(json.dumps(case.results(place))), folder)
    return json.loads(answer.read_text())


def _run(work: Callable[[pathlib.Path], Any], folder: pathlib.Path, kill_after: float | None = None) -> bool:
    """Do work in a process of its own; return whether it was killed.

    Raises:
        ChildProcessError: it failed.
    """
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder,))
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise ChildProcessError(f"A run failed, as shown above. Received: exitcode={process.exitcode}.")
    return process.exitcode != 0


def main() -> None:
    """Print a table; the exit code is 1 if anything was lost, left behind or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cases", nargs="*", choices=[*CASES, []], help="What is killed; everything by default."
    )
    parser.add_argument("--kills", type=int, default=50, help="Of each case.")
    parser.add_argument("--seed", type=int, default=0, help="Of the times.")
    options = parser.parse_args()
    total = Counts(0, 0, 0, 0)
    print(f"{'':12}{'kills':>8}{'lost':>8}{'litter':>8}{'wrong':>8}{'seconds':>9}")
    for name in options.cases or CASES:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            counts = survive(CASES[name], options.kills, pathlib.Path(folder), random.Random(options.seed))
        total = Counts(*map(sum, zip(total, counts, strict=True)))
        print(
            f"{name:12}" + "".join(f"{count:8}" for count in counts) + f"{time.perf_counter() - start:9.0f}",
            flush=True,
        )
    sys.exit(int(total.lost + total.litter + total.wrong > 0))


if __name__ == "__main__":
    main()
