"""Do influence values predict what training without 1 or 5 % of the examples does, all else being as it was?

    python benchmarks/reproduce_retraining.py --data-dir TFDS_DIRECTORY --output RESULTS [--cases digits-mlp ...]

Records a training of each network, trains it again without each of 40 or 24 random sets of examples, from the same
weights, in the same order, and asks every method for the influence on the log-probability of the labels of test
examples. A training repeats to the bit, so that a perfect method would score 1. In small cases each method then names
the strongest 1 % of the proponents of each example's label, the training is run without them, and with half their
weight, and the rise of the loss is set beside the predicted one. Trainings and methods that are there already are not
run again. Seconds are of the CPU; memory is what a method takes beyond what was held.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from memory import peak, reset_peak
from recorded_cases import CASES, Case, Recorded, draw_left_out, ground_truth, record
from reproducing import Results, make_parser

from deel_dualview import (
    BaseInfluenceCalculator,
    NamedMethod,
    TracIn,
    UnrolledInfluenceCalculator,
    metrics,
)

ALL = {"weights": "all"}
Build = Callable[[Recorded], BaseInfluenceCalculator]
_CHECKPOINTS, _REMOVED, _MANY = 5, 0.01, 100_000


def named(name: str, **settings: object) -> Build:
    """Return a factory of a method by its name, which explains the labels."""
    return lambda recorded: NamedMethod(name, settings={"target": "label", **settings})(
        recorded.training.model, recorded.train
    )


def unrolled(recorded: Recorded) -> BaseInfluenceCalculator:
    """Return the derivatives through the training."""
    training = recorded.training
    return UnrolledInfluenceCalculator(training.model, recorded.train, training=training, target="label")


def tracin(recorded: Recorded, weights: str) -> BaseInfluenceCalculator:
    """Return gradient products over five checkpoints, the last being the model."""
    training = recorded.training
    steps = [round(training.num_steps * (part + 1) / _CHECKPOINTS) for part in range(_CHECKPOINTS)]
    earlier = [training.model_with(training.parameters_after(step)) for step in steps[:-1]]
    return TracIn([*earlier, training.model], recorded.train, weights=weights, target="label")


def ekfac_cg(recorded: Recorded) -> BaseInfluenceCalculator:
    """Return conjugate gradients after EK-FAC: of a large network 15 steps on the curvature of 1,000 examples."""
    few = {"ihvp.num_curvature_examples": 1_000, "ihvp.max_iterations": 15}
    return named("ekfac-cg", **(few if len(recorded.training.parameters) > _MANY else {}))(recorded)


METHODS: Mapping[str, Build] = {
    "Unrolled differentiation": unrolled,
    "IF, EK-FAC, all layers": named("ekfac", **{"ihvp.weights": "all"}),
    "IF, EK-FAC + CG, all layers": ekfac_cg,
    "IF, last layer, exact": named("first-order"),
    "TracIn, last layer, 5 checkpoints": functools.partial(tracin, weights="last"),
    "TracIn, all layers, 5 checkpoints": functools.partial(tracin, weights="all"),
    "GradDot, last layer": named("graddot"),
    "GradDot, all layers": named("graddot", weights="all"),
    "TRAK, last layer": named("trak"),
    "DualView": named("dualview"),
    "Feature similarity": named("feature-similarity"),
    "random": named("random"),
}
LARGE = ("TracIn, all layers, 5 checkpoints", "GradDot, all layers")
"""Left out for networks of more than 100,000 weights, of which they would keep several gradients of every example."""


def score(values: np.ndarray, case: Case, share: float, outputs: np.ndarray) -> dict[str, object]:
    """Return the linear datamodelling score of values (m, n) on the subsets of one size."""
    kept = np.ones((case.num_subsets, case.num_train), bool)
    np.put_along_axis(kept, draw_left_out(case, share), False, axis=1)
    metric = metrics.LinearDatamodelingScore(kept)
    metric.update_state(values, outputs[: len(values)])
    result = metric.result()
    return {"value": round(result.value, 4), "interval": [round(float(end), 4) for end in result.interval]}


def measure(
    case: Case, recorded: Recorded, build: Build, truths: Mapping[str, np.ndarray]
) -> dict[str, object]:
    """Return the scores of a method, with its CPU seconds and memory."""
    before, start = reset_peak(), time.process_time()
    calculator = build(recorded)
    ready = time.process_time()
    queries = recorded.queries(case.num_queries)
    values = np.concatenate(list(calculator.estimate_influence_values_in_batches(queries)))
    found: dict[str, object] = {
        "set_up_seconds": round(ready - start, 2),
        "query_seconds": round((time.process_time() - ready) / case.num_queries, 4),
        "memory_mb": round(peak() - before),
    }
    return found | {share: score(values, case, float(share), outputs) for share, outputs in truths.items()}


def measure_removals(case: Case, recorded: Recorded, build: Build) -> dict[str, object]:
    """Train without the strongest 1 % of each example's proponents, and with half their weight."""
    training, before = recorded.training, recorded.log_probabilities()
    queries = recorded.queries(case.num_removals)
    values = np.concatenate(list(build(recorded).estimate_influence_values_in_batches(queries)))
    labels = recorded.test_labels[: case.num_removals]
    predictions = training.outputs(recorded.test_images).argmax(axis=1)
    rises, halves, predicted, flips = [], [], [], []
    for query, row in enumerate(values):
        removed = np.argsort(-row, kind="stable")[: round(_REMOVED * case.num_train)]
        without = training.without(removed)
        trained = training.retrain(without)
        rises.append(before[query] - recorded.log_probabilities(trained)[query])
        if predictions[query] == labels[query]:
            after = training.outputs(recorded.test_images[query : query + 1], trained)
            flips.append(after.argmax(axis=1)[0] != labels[query])
        halved = training.retrain((without + training.weights) / 2)
        halves.append(before[query] - recorded.log_probabilities(halved)[query])
        predicted.append(row[removed].sum(dtype=np.float64))
    return {
        "queries": len(values),
        "mean_rise": round(float(np.mean(rises)), 4),
        "mean_rise_at_half_weight": round(float(np.mean(halves)), 4),
        "share_flipped": round(float(np.mean(flips)), 4),
        "rank_correlation_with_predicted": round(float(scipy.stats.spearmanr(predicted, rises).statistic), 4),
    }


def run(name: str, options: argparse.Namespace, results: Results) -> None:
    """Train what lacks, and score what is not scored, of one case."""
    case, found = CASES[name], results.found["cases"].setdefault(name, {"scores": {}})
    start = time.process_time()
    recorded = record(case, options.data_dir)
    training, own = recorded.training, recorded.log_probabilities()
    again = training.retrain(training.weights)
    found["training"] = {
        "steps": training.num_steps,
        "parameters": len(training.parameters),
        "examples": training.num_train,
        "queries": case.num_queries,
        "subsets": case.num_subsets,
        "seconds_with_trace": round(time.process_time() - start, 2),
        "test_accuracy_of_256": round(float(np.mean(_accuracy(recorded))), 4),
        "differing_weights_when_repeated": int((again != training.parameters).sum()),
    }
    folder: pathlib.Path = options.output / "ground_truth"
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for share in case.shares:
        start = time.process_time()
        truths[str(share)] = ground_truth(name, recorded, share, folder)
        changes = np.abs(truths[str(share)] - own[:, np.newaxis])
        part = found.setdefault(f"without_{share}", {"seconds": 0.0})
        part["seconds"] = round(part["seconds"] + time.process_time() - start, 1)
        part["median_change_of_log_probability"] = float(np.median(changes[: case.num_queries]))
        results.write()
    for title, build in METHODS.items():
        is_large = title in LARGE and len(training.parameters) > _MANY
        if title not in found["scores"] and not is_large:
            found["scores"][title] = measure(case, recorded, build, truths)
            print(name, title, found["scores"][title], flush=True)
            results.write()
        removals = found.setdefault("removals", {}) if case.num_removals else {}
        if case.num_removals and title not in removals:
            removals[title] = measure_removals(case, recorded, build)
            print(name, title, removals[title], flush=True)
            results.write()


def _accuracy(recorded: Recorded) -> np.ndarray:
    return recorded.training.outputs(recorded.test_images).argmax(axis=1) == recorded.test_labels


def _cell(found: dict | None) -> str:
    if found is None:
        return ""
    low, high = found["interval"]
    return f"{found['value']:.3f} ({low:.3f} .. {high:.3f})"


def _removals_table(removals: dict, count: int) -> list[str]:
    """Return the lines of a table of what happened without the strongest proponents; none without any."""
    if not removals:
        return []
    lines = [
        f"Without the {count} strongest proponents of the label of each of "
        f"{next(iter(removals.values()))['queries']} examples:",
        "",
        "| method | mean rise of the loss | at half their weight | right predictions that flip | rank correlation of "
        "predicted and actual rise |",
        "|---|---|---|---|---|",
    ]
    for title, row in sorted(removals.items(), key=lambda pair: -pair[1]["mean_rise"]):
        lines.append(
            f"| {title} | {row['mean_rise']:.3f} | {row['mean_rise_at_half_weight']:.3f} | "
            f"{row['share_flipped']:.0%} | {row['rank_correlation_with_predicted']:.2f} |"
        )
    return [*lines, ""]


def to_markdown(results: dict) -> str:
    """Return a table for each case, methods by their score at 1 %."""
    lines = ["# Without 1 and 5 % of the examples", "", __doc__.strip().splitlines()[0], ""]
    for name, found in results["cases"].items():
        training = found["training"]
        lines += [
            f"## {name}",
            "",
            f"{training['examples']:,} examples, {training['parameters']:,} weights, {training['steps']} steps; "
            f"{training['queries']} queries; {training['subsets']} subsets of each size. Ceiling 1.0: of the weights, "
            f"{training['differing_weights_when_repeated']} differ when the training is repeated.",
            "",
            "| method | LDS, 1 % left out | LDS, 5 % left out | set-up, s | a query, s | memory, MB |",
            "|---|---|---|---|---|---|",
        ]
        for title, row in sorted(found["scores"].items(), key=lambda pair: -pair[1]["0.01"]["value"]):
            scores = " | ".join(_cell(row.get(share)) for share in ("0.01", "0.05"))
            times = f"{row['set_up_seconds']:.1f} | {row['query_seconds']:.3f} | {row['memory_mb']:,}"
            lines.append(f"| {title} | {scores} | {times} |")
        lines += ["", *_removals_table(found.get("removals", {}), round(_REMOVED * training["examples"]))]
    context = results["context"]
    machine = context["machine"]
    return "\n".join(
        [*lines, f"Command: `{context['command']}` on {machine['processor']}; {context['created']}.", ""]
    )


def main() -> None:
    """Run the cases that are asked for."""
    parser = make_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    keras.config.disable_interactive_logging()
    command = "python benchmarks/reproduce_retraining.py"
    results = Results(options.output / "recorded-training.json", {"cases": {}}, command, to_markdown)
    for name in options.cases:
        run(name, options, results)
    results.write()


if __name__ == "__main__":
    main()
