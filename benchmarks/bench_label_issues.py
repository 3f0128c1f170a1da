"""How well do label issues rank wrong labels and count them, beside cleanlab, kNN and the model's own loss?

    python benchmarks/bench_label_issues.py --data-dir TFDS_DIRECTORY [--only mnist] [--out DIRECTORY]
    python benchmarks/bench_label_issues.py --summary [--out DIRECTORY] [--write]

Needs cleanlab and vaderSentiment: `pip install -e ".[benchmarks]"`. Every setting of `label_issue_settings.py` is one
network trained on labels some of which are wrong. The results of a setting are one JSON file in --out, written whole; a
setting that has its file is not run again. Networks, labels and the scores of the baselines are kept in --cache: to
measure a change to `label_issues`, give another --out (or --again). `--without label_issues` runs the baselines alone,
and a later run adds the rest. `--summary` prints the tables; with --write it makes the files to commit,
`benchmarks/results/label-issues.json` and `.md`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import label_issue_networks as networks
import numpy as np
import tensorflow as tf
from label_issue_bars import OURS
from label_issue_data import Data, imbalanced_rows, load, save_arrays, second_opinion, seed_of, wrong_labels
from label_issue_metrics import flag_metrics, precision_at, rank_metrics
from label_issue_scores import BASELINES, BATCH_SIZE, REFERENCES, Subject, baselines, subject_of
from label_issue_settings import SETTINGS, Setting
from label_issue_tables import to_markdown
from tqdm import tqdm

import deel_dualview
from deel_dualview import load_checkpoints
from deel_dualview.report.provenance import describe_context

tf.get_logger().setLevel("ERROR")

RESULTS = pathlib.Path(__file__).parent / "results"
_VERSION = 1
"""Part of what a cached network is known by; a new one, after a change to networks or baselines, makes all again."""


class Trained(NamedTuple):
    """A trained network with what it was trained on.

    Attributes:
        model: the network.
        data: the examples, with right labels.
        given: training labels as given, (n,).
        given_test: test labels as `label_issues` gets them, (m,).
        folder: what is cached of the setting.
        facts: epochs, accuracies and seconds of the training.
    """

    model: keras.Model
    data: Data
    given: np.ndarray
    given_test: np.ndarray
    folder: pathlib.Path
    facts: dict[str, float]


class Outcome(NamedTuple):
    """How a setting ended: its name, and a line about its results or the error."""

    name: str
    line: str
    has_failed: bool


def examples_of(setting: Setting, data_dir: str, cache: pathlib.Path) -> tuple[Data, np.ndarray, np.ndarray]:
    """Return the examples of a setting, its given training labels and its given test labels."""
    data, seed = load(setting.data, data_dir, cache), seed_of(setting.name)
    probabilities = np.full((len(data.train_labels), data.num_classes), 1 / data.num_classes)
    if setting.noise in ("asymmetric", "ambiguous"):
        probabilities = second_opinion(setting.data, data, cache)
    if setting.imbalance != 1:
        rows = imbalanced_rows(data.train_labels, setting.imbalance, seed)
        test_rows = imbalanced_rows(data.test_labels, setting.imbalance, seed + 1)
        probabilities = probabilities[rows]
        data = Data(
            data.train_inputs[rows],
            data.train_labels[rows],
            data.test_inputs[test_rows],
            data.test_labels[test_rows],
        )
    given_test = data.test_labels
    if setting.noise == "human":
        assert data.observed is not None
        return data, data.observed, given_test
    given = wrong_labels(setting.noise, setting.rate, data.train_labels, probabilities, seed)
    if setting.test == "noisy":
        even = np.full((len(given_test), data.num_classes), 1 / data.num_classes)
        given_test = wrong_labels(setting.noise, setting.rate, given_test, even, seed + 2)
    return data, given, given_test


def trained(setting: Setting, data_dir: str, cache: pathlib.Path) -> Trained:
    """Return the network of a setting, from the cache if it was trained before."""
    data, given, given_test = examples_of(setting, data_dir, cache)
    network = networks.NETWORKS[setting.data]
    identity = json.dumps([_VERSION, setting, network[1:]])
    folder = cache / "settings" / f"{setting.name}.{zlib.crc32(identity.encode()):08x}"
    done = folder / "training.json"
    if done.exists():
        facts = json.loads(done.read_text())
        if facts.pop("identity") == identity and np.array_equal(np.load(folder / "given.npy"), given):
            model = keras.models.load_model(folder / "model.keras")
            return Trained(model, data, given, given_test, folder, facts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if setting.data == "cifar10_pretrained":
        networks.pretrain_body(data_dir, cache)
    model = networks.build(setting.data, data.train_inputs, data.num_classes, cache, seed_of(setting.name))
    checkpoints = folder / "checkpoints" if setting.checkpoints else None
    training = networks.train(model, data.train_inputs, given, network, setting.training, checkpoints)
    test_probabilities = networks.probabilities_of(model, data.test_inputs)
    facts = {
        "epochs": training.epochs,
        "train_accuracy": round(training.train_accuracy, 4),
        "test_accuracy": round(networks.accuracy_of(test_probabilities, data.test_labels), 4),
        "seconds": round(training.seconds, 2),
    }
    model.save(folder / "model.keras")
    np.save(folder / "given.npy", given)
    write_json(done, {"identity": identity, **facts})
    return Trained(model, data, given, given_test, folder, facts)


def baseline_results(found: Trained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return metrics and counts of the baselines, and their scores; from the cache if they were made before."""
    path, scores_path = found.folder / "baselines.json", found.folder / "scores.npz"
    if path.exists():
        with np.load(scores_path) as arrays:
            return json.loads(path.read_text()), dict(arrays)
    is_wrong = found.given != found.data.train_labels
    made = baselines(_subject(found))
    results: dict[str, Any] = {
        "scores": {name: rank_metrics(made.scores[name], is_wrong) for name in BASELINES},
        "seconds": made.seconds,
        "counts": {
            name: {
                "count": count.count,
                "calibrated": count.calibrated,
                **flag_metrics(count.flagged, is_wrong),
            }
            for name, count in made.counts.items()
        },
    }
    save_arrays(scores_path, **made.scores)
    write_json(path, results)
    return results, made.scores


def our_results(setting: Setting, found: Trained, baseline_scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run `label_issues`, and return metrics of its ranking, of its count and of what it flags."""
    is_wrong = found.given != found.data.train_labels
    train_set = _batches(found.data.train_inputs, found.given)
    test_set = None if setting.test == "none" else _batches(found.data.test_inputs, found.given_test)
    options = {}
    if setting.checkpoints:
        options["checkpoints"] = [
            checkpoint.model
            for checkpoint in load_checkpoints(found.folder / "checkpoints", found.model).models
        ]
    start, cpu_start = time.perf_counter(), time.process_time()
    issues = deel_dualview.label_issues(found.model, train_set, test_set, seed=0, **options)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    scores, flagged = np.asarray(issues.scores, np.float64), np.asarray(issues.flagged, bool)
    size = int(flagged.sum())
    at_that_size = [precision_at(values, is_wrong, size) for values in (scores, *baseline_scores.values())]
    suggested = np.asarray(issues.suggested_labels)
    save_arrays(found.folder / "label_issues.npz", scores=scores, flagged=flagged, suggested=suggested)
    count = issues.count
    return {
        "metrics": rank_metrics(scores, is_wrong),
        "status": count.status,
        **{name: _number(getattr(count, name)) for name in ("estimate", "low", "high", "at_most")},
        **flag_metrics(flagged, is_wrong),
        "best_precision_at_flagged": round(max(at_that_size), 4) if size else None,
        "suggested_right": (
            round(float((suggested == found.data.train_labels)[is_wrong].mean()), 4)
            if is_wrong.any()
            else None
        ),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
    }


def run(setting: Setting, options: argparse.Namespace) -> str:
    """Run what the file of a setting lacks, and return a line about it."""
    path = options.out / f"{setting.name}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    wanted = OURS not in options.without
    if result and (OURS in result or not wanted) and not options.again:
        return f"{setting.name}: done before."
    keras.utils.clear_session()
    found = trained(setting, options.data_dir, options.cache)
    num_wrong = int((found.given != found.data.train_labels).sum())
    result = {
        "setting": setting._asdict(),
        "num_train": len(found.given),
        "num_test": 0 if setting.test == "none" else len(found.given_test),
        "num_classes": found.data.num_classes,
        "num_wrong": num_wrong,
        "training": found.facts,
        "scores": {},
    }
    scores: dict[str, np.ndarray] = {}
    if not setting.is_timed_only:
        made, scores = baseline_results(found)
        result |= made
    if wanted:
        ours = our_results(setting, found, scores)
        result["scores"] = {OURS: ours.pop("metrics"), **result["scores"]}
        result[OURS] = ours
    write_json(path, result)
    return _line(setting, result)


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    unfinished.replace(path)


def read_results(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the results that are there, in the order of `SETTINGS`."""
    paths = [folder / f"{setting.name}.json" for setting in SETTINGS]
    return [{"name": path.stem, **json.loads(path.read_text())} for path in paths if path.exists()]


def summarise(options: argparse.Namespace) -> None:
    """Print the tables; write the files to commit, a setting a line, if asked to."""
    results = read_results(options.out)
    if not results:
        raise SystemExit(f"No results. Run the benchmark first. Received: out={options.out}.")
    context = describe_context("python benchmarks/bench_label_issues.py")
    text = to_markdown(results, context)
    print(text)
    if options.write:
        rows = ",\n".join(json.dumps(result, allow_nan=False) for result in results)
        compact = f'{{"context": {json.dumps(context)},\n"settings": [\n{rows}\n]}}\n'
        (options.results / "label-issues.json").write_text(compact)
        (options.results / "label-issues.md").write_text(text)


def _outcomes(chosen: list[Setting], options: argparse.Namespace) -> Iterator[Outcome]:
    if options.jobs == 1:
        yield from (_attempt(setting, options) for setting in chosen)
        return
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, mp_context=spawned) as executor:
        futures = [executor.submit(_attempt, setting, options) for setting in chosen]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def _attempt(setting: Setting, options: argparse.Namespace) -> Outcome:
    """Run a setting; an error is text, so that the other settings go on and the next command runs this one again."""
    try:
        return Outcome(setting.name, run(setting, options), has_failed=False)
    except Exception:
        return Outcome(setting.name, f"{setting.name} failed:\n{traceback.format_exc()}", has_failed=True)


def _batches(inputs: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(BATCH_SIZE)


def _subject(found: Trained) -> Subject:
    return subject_of(found.model, found.data.train_inputs, found.given)


def _number(value: Any) -> float | int | None:
    return None if value is None else round(float(value), 2)


def _line(setting: Setting, result: dict[str, Any]) -> str:
    training, scores = result["training"], result["scores"]
    line = f"{setting.name}: {result['num_wrong']} of {result['num_train']} wrong, "
    line += f"train {training['train_accuracy']:.3f}, test {training['test_accuracy']:.3f}"
    if result["num_wrong"] and not setting.is_timed_only:
        line += "; AUC " + ", ".join(f"{name} {scores[name]['area']:.3f}" for name in REFERENCES)
    if OURS in result:
        ours = result[OURS]
        line += f"; ours {scores[OURS].get('area', float('nan')):.3f}, {ours['status']} {ours['estimate']}"
    return line


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS keeps its datasets")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/label_issues"))
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("build/label_issues_cache"))
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of settings, * for anything")
    parser.add_argument("--skip", default="", metavar="TEXT", help="leave out settings whose names hold this")
    parser.add_argument("--without", nargs="*", default=[], choices=[OURS])
    parser.add_argument("--jobs", type=int, default=1, help="processes; their times are not those of one")
    parser.add_argument(
        "--again", action="store_true", help="run `label_issues` again where results are there"
    )
    parser.add_argument("--summary", action="store_true", help="print tables of the results that are there")
    parser.add_argument("--write", action="store_true", help="with --summary: write the files to commit")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="where --write writes")
    return parser


def main() -> None:
    """Run the settings that are not there yet, or print the tables."""
    options = make_parser().parse_args()
    if options.summary:
        summarise(options)
        return
    if OURS not in options.without and not hasattr(deel_dualview, OURS):
        raise SystemExit(
            "This version of deel_dualview has no `label_issues`; run the rest with `--without label_issues`."
        )
    pattern = options.only if "*" in options.only else f"*{options.only}*"
    chosen = [setting for setting in SETTINGS if fnmatch.fnmatch(setting.name, pattern)]
    chosen = [setting for setting in chosen if not options.skip or options.skip not in setting.name]
    failed = []
    for outcome in tqdm(_outcomes(chosen, options), total=len(chosen), unit="setting"):
        tqdm.write(outcome.line, file=sys.stderr if outcome.has_failed else None)
        failed += [outcome.name] if outcome.has_failed else []
    if failed:
        raise SystemExit(f"{len(failed)} settings failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
