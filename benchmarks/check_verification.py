"""How far `verify` of a few predictions says what it says of many, by method and data set.

    python benchmarks/check_verification.py --data-dir DIR --cache FOLDER

For each data set a small network is trained, and `verify` trains its last layer again for 100 test examples (as many as
there are, if fewer), without five proponents, five opponents and five random training examples of each method. Then 8
and 20 of these predictions are drawn 1,000 times: how often does the finding of an audit with `verify=8` or `verify=20`
say "fine", and how often would it by a pooled rank correlation of .5, the rule before? The rule is a sign test, which
has no threshold to choose. Results of a data set are kept in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import label_issue_data
import label_issue_networks
import numpy as np
import scipy.stats
import tensorflow as tf

from deel_dualview import InfluenceModel, verify
from deel_dualview.auditing.verifying import CHANCE, SIGNIFICANCE
from deel_dualview.calculators.method_specs import resolve
from deel_dualview.calculators.methods import AUDIT_SETTINGS

NAMES = ("digits", "wine", "breast_cancer", "overlap", "german", "fashion_mnist", "mnist_parity", "ag_news")
METHODS = ("first-order", "graddot", "sim", "dualview", "dualview?kernel=tempered", "random")
NUM_TRAIN, NUM_QUERIES, K = 1200, 100, 5
Changes = dict[str, list[float]]
"""Predicted and actual change of one prediction, by what is removed."""
NUM_DRAWS, SIZES, OLD_BAR = 1000, (8, 20), 0.5


def measure(name: str, missing: list[str], data_dir: str, cache: pathlib.Path) -> dict[str, list[Changes]]:
    """Return predicted and actual changes by method, prediction and group."""
    data = label_issue_data.load(name, data_dir, cache)
    inputs, labels = data.train_inputs[:NUM_TRAIN], data.train_labels[:NUM_TRAIN]
    model = label_issue_networks.build(name, inputs, data.num_classes, cache, seed=0)
    label_issue_networks.train(model, inputs, labels, label_issue_networks.NETWORKS[name], "usual", None)
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(256)
    chosen = np.random.default_rng(1).permutation(len(data.test_inputs))[:NUM_QUERIES]
    test = tf.data.Dataset.from_tensor_slices((data.test_inputs[chosen], data.test_labels[chosen])).batch(256)
    influence_model, found = InfluenceModel(model), {}
    for method in missing:
        calculator = resolve(method, defaults=AUDIT_SETTINGS).build(influence_model, train, None)
        checked = verify(calculator, test, k=K)
        changes: list[Changes] = [{} for _ in chosen]
        for own in checked.removals:
            changes[own.query][own.group] = [own.predicted, own.actual]
        found[method] = changes
        print(f"{name}, {method}: {checked.rank_correlation}, {checked.above_random}", flush=True)
    return found


def is_fine(changes: list[Changes]) -> tuple[bool, bool]:
    """Return whether a finding of these predictions is fine, by the sign test and by the rank correlation."""
    above = [own["proponents"][1] > own["random"][1] for own in changes if "proponents" in own]
    pairs = np.array([pair for own in changes for pair in own.values()])
    by_sign = scipy.stats.binomtest(sum(above), len(above), CHANCE, "greater").pvalue <= SIGNIFICANCE
    return bool(by_sign), bool(scipy.stats.spearmanr(*pairs.T)[0] >= OLD_BAR)


def row_of(name: str, method: str, changes: list[Changes]) -> str:
    """Return a row of the table."""
    rng = np.random.default_rng(0)
    own = [one for one in changes if "proponents" in one]
    above = np.mean([one["proponents"][1] > one["random"][1] for one in own])
    pooled = scipy.stats.spearmanr(*np.array([pair for one in changes for pair in one.values()]).T)[0]
    cells = [name, method, f"{len(own)}", f"{above:.2f}", f"{pooled:.2f}"]
    for size in SIZES:
        drawn = [
            is_fine([changes[i] for i in rng.choice(len(changes), size, replace=False)])
            for _ in range(NUM_DRAWS)
        ]
        cells += [f"{share:.0%}" for share in np.mean(drawn, axis=0)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what is not in the folder, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="TFDS folder")
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="where results are kept")
    parsed = parser.parse_args()
    head = ["data", "method", "predictions", "above random", "rank correlation"]
    head += [f"{kind} of {size}" for size in SIZES for kind in ("fine", "old rule's fine")]
    rows = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name in NAMES:
        path = parsed.cache / f"verification-{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if missing := [method for method in METHODS if method not in found]:
            found |= measure(name, missing, parsed.data_dir, parsed.cache)
            path.write_text(json.dumps(found), encoding="utf-8")
        rows += [row_of(name, method, found[method]) for method in METHODS]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
