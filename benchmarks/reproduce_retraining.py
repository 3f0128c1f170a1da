"""Do influence values predict what a training without some of its examples does, all else being as it was?

    python benchmarks/reproduce_retraining.py --data-dir TFDS_DIRECTORY --output RESULTS [--cases digits-mlp ...]

Runs `benchmark` on the recorded trainings of `deel_dualview.evaluation`: random 1 and 5 % of the examples left out,
and in small cases the strongest proponents of each prediction without, and with half, their weight. Results that are
there already are not computed again. RESULTS then holds `recorded-training.json` and `recorded-training.md`.
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from reproducing import Results, make_parser

from deel_dualview import UnrolledInfluenceCalculator
from deel_dualview.evaluation import Benchmark, benchmark
from deel_dualview.evaluation.recorded_models import CASES

METHODS = {
    "Unrolled differentiation": UnrolledInfluenceCalculator,
    "IF, EK-FAC, all layers": "ekfac?ihvp.weights=all",
    "IF, EK-FAC + CG, all layers": "ekfac-cg",
    "IF, last layer, exact": "first-order",
    "TracIn, last layer": "tracin",
    "TracIn, all layers": "tracin?weights=all",
    "GradDot, last layer": "graddot",
    "GradDot, all layers": "graddot?weights=all",
    "TRAK, last layer": "trak",
    "DualView": "dualview",
    "Feature similarity": "feature-similarity",
    "random": "random",
}
"""TracIn and TRAK take a checkpoint after every epoch."""
LARGE = {"IF, EK-FAC + CG, all layers": "ekfac-cg?ihvp.num_curvature_examples=1000&ihvp.max_iterations=15"}
"""Settings for networks of a million weights; gradients of all layers would keep several of every example."""
LEFT_OUT = {"TracIn, all layers", "GradDot, all layers"}
TASKS = ("leave-few-out", "remove-proponents", "weight-steps")


class Asked(NamedTuple):
    """What is asked about a case: how many test examples, and which tasks."""

    num_test: int
    tasks: tuple[str, ...] = TASKS
    is_large: bool = False


ASKED = {
    "digits-mlp": Asked(100),
    "digits-mlp-adam": Asked(100),
    "mnist-cnn": Asked(24, TASKS[:1], is_large=True),
    "mnist-cnn-smooth": Asked(8, TASKS[:1], is_large=True),
}


def run(name: str, output: pathlib.Path, data_dir: str | None) -> Benchmark:
    """Run what lacks of one case."""
    case, asked = CASES[name], ASKED[name]
    methods = {
        title: LARGE.get(title, method) if asked.is_large else method
        for title, method in METHODS.items()
        if not (asked.is_large and title in LEFT_OUT)
    }
    return benchmark(
        case.data,
        methods,
        asked.tasks,
        output=output / name,
        num_test=asked.num_test,
        data_dir=data_dir,
        recipe=case.recipe,
        title=name,
    )


def summarise(found: Benchmark) -> dict[str, object]:
    """Return the results of a case, by method."""
    methods = {}
    for method in found.methods:
        cells = [cell for cell in found.cells if cell.identity.method == method]
        methods[method] = {
            "metrics": {name: dict(one) for cell in cells for name, one in cell.metrics.items()},
            "cost": dict(next((cell.cost for cell in cells if cell.cost), {})),
            "errors": [dict(cell.error) for cell in cells if cell.error is not None],
        }
    return {"model": dict(found.cells[0].model), "methods": methods, "references": found.references}


def to_markdown(results: dict) -> str:
    """Return two tables for each case, methods by their score at 1 % and by the rise of the loss."""
    lines = ["# Recorded trainings without some of their examples", "", __doc__.strip().splitlines()[0], ""]
    for name, found in results["cases"].items():
        lines += [f"## {name}", "", *_left_out_table(found), "", *_proponents_table(found), ""]
    context = results["context"]
    machine = context["machine"]
    return "\n".join(
        [*lines, f"Command: `{context['command']}` on {machine['processor']}; {context['created']}.", ""]
    )


def _left_out_table(found: dict) -> list[str]:
    """Return the lines of the table of random examples left out; seconds are of the CPU."""
    lines = [
        "| method | LDS, 1 % left out | LDS, 5 % left out | set-up, s | a query, s | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for method, row in _in_order(found, "lds-without-1"):
        scores = " | ".join(_interval(row["metrics"][f"lds-without-{percent}"]) for percent in (1, 5))
        cost = row["cost"]
        seconds = f"{cost['setup_cpu_seconds']:.1f} | {cost['cpu_seconds_per_row_of_values']:.3f}"
        lines.append(f"| {method} | {scores} | {seconds} | {cost['additional_memory_bytes'] / 1e6:,.0f} |")
    ceilings = found["references"]["ceiling"]
    scores = " | ".join(f"{ceilings[f'lds-without-{percent}']:.3f}" for percent in (1, 5))
    return [*lines, f"| *ceiling* | {scores} |  |  |  |"]


def _proponents_table(found: dict) -> list[str]:
    """Return the lines of the table of strongest proponents removed and halved; none if they were not."""
    rows = _in_order(found, "rise-removed")
    if not rows:
        return []
    columns = [
        f"{name}-{state}" for state in ("removed", "halved") for name in ("rise", "flips", "predicted")
    ]
    columns = [name for name in columns if name in rows[0][1]["metrics"]]
    words = {"rise": "rise of the loss", "flips": "flips", "predicted": "rank correlation with predicted"}
    heads = [f"{words[name]}, {state}" for name, state in (one.split("-") for one in columns)]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (1 + len(columns)) + "|"]
    for method, row in rows:
        cells = [_value(name, row["metrics"][name]["value"]) for name in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    for title, key in (
        ("ceiling", "ceiling"),
        ("random examples", "at_random"),
        ("most similar examples", "most_similar"),
    ):
        known = found["references"].get(key, {})
        cells = [_value(name, known[name]) if name in known else "" for name in columns]
        lines.append(f"| *{title}* | {' | '.join(cells)} |")
    return lines


def _in_order(found: dict, metric: str) -> list[tuple[str, dict]]:
    """Return the methods that have a metric, the best first."""
    rows = [(method, row) for method, row in found["methods"].items() if metric in row["metrics"]]
    return sorted(rows, key=lambda pair: -pair[1]["metrics"][metric]["value"])


def _interval(measured: dict) -> str:
    low, high = measured["interval"]
    return f"{measured['value']:.3f} ({low:.3f} .. {high:.3f})"


def _value(name: str, value: float) -> str:
    if name.startswith("flips"):
        return f"{value:.0%}"
    return f"{value:.2f}" if name.startswith("predicted") else f"{value:.3f}"


def main() -> None:
    """Run the cases that are asked for."""
    parser = make_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(ASKED), default=list(ASKED))
    options = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    command = "python benchmarks/reproduce_retraining.py"
    results = Results(options.output / "recorded-training.json", {"cases": {}}, command, to_markdown)
    for name in options.cases:
        found = run(name, options.output, options.data_dir)
        print(found.to_text(), flush=True)
        results.found["cases"][name] = summarise(found)
        results.write()


if __name__ == "__main__":
    main()
