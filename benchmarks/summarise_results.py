"""Put results of `reproduce_table2.py` beside the papers' cells, as small files to commit.

    python benchmarks/summarise_results.py --results RESULTS --data mnist --output benchmarks/results --costs COSTS

Writes `table2-DATA.json` (every value by row, metric and seed, costs, versions and machine), `table2-DATA.md` (means
over the seeds, the paper's cell beside ours) and `table1-DATA.md` (costs). With --costs these are of other results,
as of `reproduce_table2.py --seeds 0 --questions normal` on a machine with nothing else to do.

A seed gives another model on another processor. With --training NAME the results are put beside those of earlier models
that are in the output folder, their seeds told as "0 NAME"; costs stay what they were.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from reproduce_table2 import ROWS

from deel_dualview._checks import require
from deel_dualview.evaluation import Benchmark, read_benchmark

COLUMNS = {
    "identical-class": "identical class (decision)",
    "identical-class-label": "identical class (label)",
    "identical-subclass": "identical subclass",
    "label-poisoning": "label poisoning (summed)",
    "label-errors-self": "label errors (self)",
    "label-errors": "label errors (own score)",
    "domain-mismatch": "domain mismatch",
    "domain-mismatch-auprc": "mismatch AUPRC",
}
"""Metrics that the table shows."""
PAPER_COLUMNS = ("identical-class-label", "identical-subclass", "label-poisoning", "domain-mismatch")
PAPER = {
    "mnist": {
        "DualView (tempered, 30 / n)": (0.979, 0.663, 0.709, 0.758),
        "DualView, the paper's (z-scored, K = 1e-3)": (0.979, 0.663, 0.709, 0.758),
        "DualView, the paper's code (z-scored, K = 2.5e-4)": (0.979, 0.663, 0.709, 0.758),
        "IF, last layer, exact": (0.107, 0.096, 0.991, 0.000),
        "RPS-L2 (lambda 0.003)": (0.763, 0.300, 0.499, 1.000),
        "SIM-rp (all layers, 128)": (0.979, 0.968, 0.108, 0.947),
        "SIM, last layer": (0.979, 0.975, 0.030, 0.977),
        "random": (0.100, 0.100, 0.500, 0.030),
    },
    "cifar10": {
        "DualView (tempered, 30 / n)": (0.868, 0.486, 0.826, None),
        "DualView, the paper's (z-scored, K = 1e-3)": (0.868, 0.486, 0.826, None),
        "DualView, the paper's code (z-scored, K = 2.5e-4)": (0.868, 0.486, 0.826, None),
        "IF, last layer, exact": (0.835, 0.480, 0.907, 0.000),
        "RPS-L2 (lambda 0.003)": (0.614, 0.358, 0.532, 0.597),
        "SIM-rp (all layers, 128)": (0.868, 0.841, 0.276, 0.500),
        "random": (0.100, 0.100, 0.500, 0.030),
    },
}
"""Table 2 of the paper, by our rows, in the order of `PAPER_COLUMNS`; its SIM is of all layers."""
PAPER_COSTS = {
    "mnist": {
        "DualView, the paper's (z-scored, K = 1e-3)": (9.71, 7.3e-4, 25.41),
        "IF, last layer, exact": (None, 794.71, None),
        "RPS-L2 (lambda 0.003)": (30.21, 7.0e-4, 25.41),
        "SIM-rp (all layers, 128)": (269.35, 2.7e-3, 645.78),
        "SIM, last layer": (None, 545.74, None),
    },
    "cifar10": {
        "DualView, the paper's (z-scored, K = 1e-3)": (42.12, 3.0e-3, 21.17),
        "IF, last layer, exact": (None, 784.88, None),
        "RPS-L2 (lambda 0.003)": (65.49, 3.2e-3, 21.17),
        "SIM-rp (all layers, 128)": (1066.96, 1.6e-2, 5480.44),
    },
}
"""Table 1 of the paper: seconds of pre-training, seconds a query, MB of additional memory."""
Values = dict[str, dict[str, dict[str, float]]]
"""By row, metric and seed."""
COSTS = (
    "setup_seconds",
    "seconds_per_query",
    "additional_memory_bytes",
    "setup_cpu_seconds",
    "cpu_seconds_per_query",
)


def values_of(found: Benchmark, training: str | None = None) -> Values:
    """Return every value by row, metric and seed (with the name of the training, if it has one)."""
    values: Values = {}
    for cell in found.cells:
        seed = f"{cell.identity.seed} {training}" if training else str(cell.identity.seed)
        for name, measured in cell.metrics.items():
            if name in COLUMNS and measured["value"] is not None:
                row = values.setdefault(cell.identity.method, {}).setdefault(name, {})
                row[seed] = round(float(str(measured["value"])), 4)
    return values


def added(values: Values, others: Values) -> Values:
    """Return the values of both; of a seed that both have, the others."""
    return {
        row: {
            metric: values.get(row, {}).get(metric, {}) | others.get(row, {}).get(metric, {})
            for metric in COLUMNS
            if metric in values.get(row, {}) or metric in others.get(row, {})
        }
        for row in ROWS
        if row in values or row in others
    }


def run_of(found: Benchmark, training: str | None, context: dict) -> dict:
    """Return what is told of one run: its models' mean test accuracy by question, versions and machine."""
    accuracy: dict[str, set[float]] = {}
    for cell in found.cells:
        accuracy.setdefault(cell.identity.protocol, set()).add(cell.model["test_accuracy"])
    means = {name: round(sum(of) / len(of), 4) for name, of in sorted(accuracy.items())}
    return {"training": training, "test_accuracy": means, "context": context}


def mean_of(values: Values, row: str, metric: str) -> float | None:
    """Return the mean over the seeds."""
    found = list(values.get(row, {}).get(metric, {}).values())
    return sum(found) / len(found) if found else None


def table2(payload: dict) -> str:
    """Return Table 2: ours, and the paper's in brackets."""
    values, data = payload["values"], payload["data"]
    lines = [f"# Table 2, {data}", ""]
    lines += [
        f"{payload['num_test']:,} test examples, means over the seeds; in brackets the DualView paper's cell. The "
        "paper's identical class is the share of the true label (it equals the accuracy of its model), so it stands "
        "there.",
        "",
        "| row | seeds | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for row in values:
        seeds = sorted({seed for metric in values[row].values() for seed in metric})
        cells = [row, ", ".join(seeds)]
        paper = dict(zip(PAPER_COLUMNS, PAPER.get(data, {}).get(row, ()), strict=False))
        for metric in COLUMNS:
            mean = mean_of(values, row, metric)
            told = "–" if mean is None else f"{mean:.3f}"
            cells.append(told + (f" ({paper[metric]:.3f})" if paper.get(metric) is not None else ""))
        lines.append(f"| {' | '.join(cells)} |")
    for run in payload["runs"]:
        accuracy = ", ".join(f"{name} {of:.3f}" for name, of in run["test_accuracy"].items())
        name = f" ({run['training']})" if run["training"] else ""
        lines += ["", f"Test accuracy of the models{name}: {accuracy}. {told_machine(run['context'])}"]
    return "\n".join([*lines, ""])


def table1(found: Benchmark, context: dict) -> str:
    """Return Table 1: costs of a row on the normal models, mean over the seeds, the paper's in brackets."""
    lines = [f"# Table 1, {found.data}", ""]
    lines += [
        "Set-up and a query (its top five of all training examples) in seconds, of the clock and of the processor, and "
        "memory beyond the model's in MiB; in brackets the paper's, on a GPU except for DualView's set-up.",
        "",
        "| row | set-up | a query | memory | set-up, processor | a query, processor |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in ROWS if row in found.methods):
        paper = (*PAPER_COSTS.get(found.data, {}).get(row, (None, None, None)), None, None)
        cells = []
        for name, theirs in zip(COSTS, paper, strict=True):
            ours = found.cost(row, name)
            ours = None if ours is None else ours / 2**20 if name.endswith("bytes") else ours
            told = "–" if ours is None else f"{ours:,.0f}" if name.endswith("bytes") else f"{ours:.3g}"
            cells.append(told + ("" if theirs is None else f" ({theirs:.3g})"))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", told_machine(context), ""])


def context_of(found: Benchmark, command: str) -> dict:
    """Return the context of the newest result, and the command that made them all."""
    newest = max(found.cells, key=lambda cell: cell.context.get("created", ""))
    return {**newest.context, "command": command}


def told_machine(context: dict) -> str:
    """Return where the results are from."""
    machine = context.get("machine", {})
    return (
        f"Command: `python benchmarks/reproduce_table2.py`, then this script; {machine.get('processor')}, "
        f"{machine.get('cores')} cores; {context.get('created')}."
    )


def main() -> None:
    """Write the files of one dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", required=True)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--num-test", type=int)
    parser.add_argument("--costs", help="folder of the results whose costs are told")
    parser.add_argument(
        "--training", help="name of a training of other models than those in the output folder"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = read_benchmark(options.results, options.data, options.num_test)
    place = options.output / f"table2-{found.data}.json"
    context = context_of(found, "python benchmarks/reproduce_table2.py")
    values, run = values_of(found, options.training), run_of(found, options.training, context)
    if options.training:
        before = json.loads(place.read_text())
        require(
            before["num_test"] == found.num_test,
            "Results of as many test examples are needed.",
            {"num_test": found.num_test, str(place): before["num_test"]},
        )
        values, costs = added(before["values"], values), before["costs"]
        runs = [one for one in before["runs"] if one["training"] != options.training] + [run]
    else:
        values, runs = added({}, values), [run]
        timed = found
        if options.costs is not None:
            timed = read_benchmark(options.costs, options.data, options.num_test)
        costs = {row: {name: timed.cost(row, name) for name in COSTS} for row in timed.methods}
        told = table1(timed, context_of(timed, context["command"]))
        (options.output / f"table1-{found.data}.md").write_text(told)
    payload = {
        "data": found.data,
        "num_test": found.num_test,
        "settings": {row: ROWS[row] for row in values},
        "values": values,
        "costs": costs,
        "runs": runs,
    }
    place.write_text(json.dumps(payload, indent=1) + "\n")
    place.with_suffix(".md").write_text(table2(payload))


if __name__ == "__main__":
    main()
