"""DualXDA's comparison: average rank over the metrics against run time, for 2,000 test points.

    python benchmarks/reproduce_dualxda.py --data mnist --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

DualDA is DualView on raw features with a constant one, at the paper's C = 1e-5, 1e-3, 1e-1. RESULTS/DATA gets one
JSON a result, the table with average ranks, and the figure of rank against run time; `dualxda-DATA.md` is the table
alone, `dualxda-DATA.json` its numbers. Methods of whole networks are rows of their own, asked for by --slow: they need
minutes a model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from reproducing import ask, make_table_parser
from summarise_results import COSTS, context_of, values_of

from deel_dualview import DualView, InfluenceModel
from deel_dualview.data import unpack
from deel_dualview.stores import Store

NUM_TEST = 2000


def dualda(
    model: InfluenceModel, train_set: tf.data.Dataset, *, C: float, store: Store | None = None
) -> DualView:
    """Make DualView as the second paper has it: raw features, a constant one, an absolute C."""
    features = (model.features(unpack(element).inputs).numpy() for element in train_set)
    squared_norms = np.concatenate([np.sum(np.square(block), axis=1) + 1 for block in features])
    K = C * float(squared_norms.mean(dtype=np.float64))
    return DualView(model, train_set, K=K, kernel="linear", bias=True, store=store)


ROWS: dict[str, str | Callable] = {
    "DualView": "dualview",
    "DualDA, C = 1e-5": functools.partial(dualda, C=1e-5),
    "DualDA, C = 1e-3": functools.partial(dualda, C=1e-3),
    "DualDA, C = 1e-1": functools.partial(dualda, C=1e-1),
    "LiSSA": "first-order-lissa",
    "Arnoldi": "arnoldi",
    "EK-FAC": "ekfac",
    "TracIn": "tracin",
    "GradDot": "graddot",
    "GradCos": "gradcos",
    "TRAK": "trak",
    "RPS": "rps-l2",
    "random": "random",
}
SLOW = {
    "GradDot, all layers": "graddot?weights=all&projection=FactoredProjection(128)",
    "GradCos, all layers": "gradcos?weights=all&projection=FactoredProjection(128)",
    "TRAK, all layers": "trak?weights=all&projection=FactoredProjection(2048)",
    "EK-FAC, all layers": "ekfac?ihvp.weights=all",
}


def main() -> None:
    """Ask what is not there yet."""
    parser = make_table_parser(__doc__, [*ROWS, *SLOW], seeds=(0,), num_test=NUM_TEST)
    parser.add_argument("--slow", action="store_true", help="methods of whole networks too")
    options = parser.parse_args()
    rows = {**ROWS, **(SLOW if options.slow or options.rows else {})}
    found = ask(options, {name: rows[name] for name in options.rows or rows})
    context = context_of(found, f"python benchmarks/reproduce_dualxda.py --data {options.data}")
    payload = {
        "data": found.data,
        "num_test": found.num_test,
        "values": values_of(found),
        "ranks": found.average_ranks,
        "costs": {row: {name: found.cost(row, name) for name in COSTS} for row in found.methods},
        "context": context,
    }
    machine = "{processor}, {threads} threads".format_map(context["machine"])
    told = f"Command: `{context['command']}`; {machine}, shared with other work, which the times include; "
    place = options.output / f"dualxda-{options.data}"
    place.with_suffix(".json").write_text(json.dumps(payload, indent=1) + "\n")
    place.with_suffix(".md").write_text(f"{found.to_markdown()}\n{told}{context['created']}.\n")


if __name__ == "__main__":
    main()
