"""Table 3 and figures 5 and 6 of the DualView paper: the surrogate over K = 1e-6 .. 1e2.

    python benchmarks/reproduce_table3.py --data mnist --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

For each K a surrogate is fitted from nothing to the penultimate features (z-scored, the paper's, and at unit
length, where K is free of scale): support vectors of every class, its accuracy on training and test labels,
agreement with the model, and seconds. Writes `table3-DATA.json` and `table3-DATA.md`; values of K that are there
already are not fitted again. The files are written after each.
"""

from __future__ import annotations

import os
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from reproducing import Results, make_subject_parser

from deel_dualview import DualSVMSolver, InfluenceModel
from deel_dualview.calculators.feature_maps import fit_feature_map
from deel_dualview.evaluation import subject

EXPONENTS = range(-6, 3)
PAPER = {
    "mnist": {
        "minutes": [0.68, 0.52, 0.68, 2.33, 8.81, 30.73, 148.48, 950.24, 1113.66],
        "train": [0.955, 0.980, 0.990, 0.995, 0.996, 0.997, 0.998, 0.999, 0.999],
        "test": [0.951, 0.971, 0.980, 0.982, 0.982, 0.980, 0.978, 0.976, 0.975],
    },
    "cifar10": {
        "minutes": [1.11, 1.07, 0.94, 0.81, 1.34, 9.31, 70.28, 832.49, 3667.93],
        "train": [0.872, 0.873, 0.878, 0.882, 0.886, 0.900, 0.908, 0.912, 0.915],
        "test": [0.835, 0.835, 0.839, 0.842, 0.846, 0.858, 0.860, 0.863, 0.862],
    },
}
"""Table 3 of the paper, by K = 1e-6 .. 1e2."""


def read(model: InfluenceModel, dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels and the model's predictions."""
    parts = [(*model.features_and_logits(inputs), labels) for inputs, labels in dataset]
    features, logits, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return features, labels.astype(np.int64), logits.argmax(axis=1)


def fit(train, test, num_classes: int, kernel: str, exponent: int) -> dict[str, object]:
    """Return what one surrogate is like."""
    feature_map = fit_feature_map(train[0], kernel, bias=False)
    phi, psi = (np.asarray(feature_map(part[0])) for part in (train, test))
    cpu, wall = time.process_time(), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = DualSVMSolver().solve(phi, train[1], num_classes, 10.0**exponent)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    of_train, of_test = ((rows @ solution.weights).argmax(axis=1) for rows in (phi, psi))
    counts = np.bincount(train[1][solution.support_vectors], minlength=num_classes)
    return {
        "num_support_vectors": solution.num_support_vectors,
        "per_class": counts.tolist(),
        "train_accuracy": round(float((of_train == train[1]).mean()), 4),
        "test_accuracy": round(float((of_test == test[1]).mean()), 4),
        "agreement": round(float((of_test == test[2]).mean()), 4),
        "relative_gap": float(f"{solution.relative_gap:.2e}"),
        "scale_free_K": float(f"{10.0**exponent * solution.mean_squared_norm:.4g}"),
        "cpu_seconds": round(cpu, 2),
        "seconds": round(wall, 2),
        "warnings": [str(one.message) for one in caught],
    }


def to_markdown(results: dict) -> str:
    """Return one table for each kernel, the paper's figures beside ours."""
    paper = PAPER.get(results["data"])
    lines = [f"# Table 3, {results['data']}", ""]
    lines += [f"{results['model']}, {results['num_train']:,} training examples.", ""]
    head = ["K", "support vectors", "fewest and most of a class", "train", "test", "agreement", "CPU s"]
    for kernel, found in results["kernels"].items():
        is_papers = kernel == "standardized" and paper is not None
        columns = head + (["paper: train", "paper: test", "paper: s"] if is_papers else [])
        lines += [f"## {kernel}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for place, exponent in enumerate(EXPONENTS):
            if (row := found.get(str(exponent))) is None:
                continue
            cells = [f"1e{exponent}", f"{row['num_support_vectors']:,}"]
            cells += [f"{min(row['per_class']):,} .. {max(row['per_class']):,}"]
            cells += [f"{row[name]:.3f}" for name in ("train_accuracy", "test_accuracy", "agreement")]
            cells += [f"{row['cpu_seconds']:.1f}"]
            if is_papers:
                cells += [f"{paper[part][place]:.3f}" for part in ("train", "test")]
                cells += [f"{60 * paper['minutes'][place]:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    context = results["context"]
    machine = (
        f"{context['machine']['processor']}, {context['machine']['threads']} threads, shared with other work"
    )
    return "\n".join([*lines, f"Command: `{context['command']}` on {machine}; {context['created']}.", ""])


def main() -> None:
    """Fit what is not there yet."""
    parser = make_subject_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernels", nargs="+", default=["standardized", "cosine"])
    options = parser.parse_args()
    models = options.models or options.output / "models"
    chosen = subject(options.data, "normal", options.seed, directory=models, data_dir=options.data_dir)
    model = InfluenceModel(chosen.model)
    train, test = read(model, chosen.train), read(model, chosen.test)
    command = f"python benchmarks/reproduce_table3.py --data {options.data}"
    path = options.output / f"table3-{options.data}.json"
    results = Results(path, {"kernels": {}}, command, to_markdown)
    results.found |= {"data": options.data, "seed": options.seed, "num_train": len(train[1])}
    results.found["model"] = (
        f"Model of seed {options.seed}: test accuracy {chosen.test_accuracy:.4f}, {train[0].shape[1]} features"
    )
    for exponent in EXPONENTS:
        for kernel in options.kernels:
            found = results.found["kernels"].setdefault(kernel, {})
            if str(exponent) in found:
                continue
            found[str(exponent)] = fit(train, test, int(train[1].max()) + 1, kernel, exponent)
            print(kernel, exponent, found[str(exponent)], flush=True)
            results.write()


if __name__ == "__main__":
    main()
