"""DualView's default kernel and K on images, texts and tables, against feature similarity and other choices.

    python benchmarks/bench_kernels.py --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

Trains the networks of `kernel_cases.py` unless their features are in MODELS, and resumes where it was interrupted.
RESULTS then holds `kernels.json` and `kernels.md`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from kernel_cases import SPECS, Case, load_case
from reproducing import Results, make_parser
from sklearn.metrics import roc_auc_score

from deel_dualview import DualSVMSolver
from deel_dualview.calculators.feature_maps import FeatureMap, fit_feature_map
from deel_dualview.calculators.support_vectors import SupportVectors
from deel_dualview.calculators.tempering import fit_tempering

DEFAULT, FORMER, SIMILARITY = "default", "power 0.1, K n = 30", "feature similarity"
METRICS = {"superclass": "identical subclass", "poisoned": "label errors by slack", "marked": "marked first"}


class Setting(NamedTuple):
    """A map of the features, and K n."""

    feature_map: FeatureMap
    total_penalty: float


def _default(case: Case) -> Setting:
    power, total = fit_tempering(case.features, case.labels, case.logits.shape[1])
    return Setting(fit_feature_map(case.features, "tempered", bias=False, power=power), total)


def _fixed(
    total: Callable[[int], float], power: float, is_centred: bool = False
) -> Callable[[Case], Setting]:
    def make(case: Case) -> Setting:
        mapped = fit_feature_map(case.features, "tempered", bias=False, power=power)
        if is_centred:
            mapped = mapped._replace(shift=case.features.mean(axis=0))
        return Setting(mapped, total(case.logits.shape[1]))

    return make


SETTINGS: dict[str, Callable[[Case], Setting]] = {
    DEFAULT: _default,
    FORMER: _fixed(lambda c: 30, 0.1),
    "cosine, K n = 30": _fixed(lambda c: 30, 0.0),
    "cosine, K n = 3 c": _fixed(lambda c: 3 * c, 0.0),
    "centred cosine, K n = 3 c": _fixed(lambda c: 3 * c, 0.0, is_centred=True),
}


def measure(case: Case, kind: str, setting: Setting) -> dict[str, float]:
    """Fit the surrogate and return its figures on one case."""
    phi, psi = (setting.feature_map(part).numpy() for part in (case.features, case.queries))
    num_classes = case.logits.shape[1]
    K = setting.total_penalty / len(phi) / float(np.mean(np.sum(phi.astype(np.float64) ** 2, axis=1)))
    solution = DualSVMSolver().solve(phi, case.labels, num_classes, K)
    vectors = SupportVectors(solution.coefficients, phi)
    predictions = case.logits.argmax(axis=1)
    first, shares = np.empty(len(psi), np.int64), np.zeros(len(phi))
    for rows in np.array_split(np.arange(len(psi)), -(-len(psi) // 256)):
        values = vectors.values(psi[rows], predictions[rows]).toarray()
        first[rows] = values.argmax(axis=1)
        sizes = np.abs(values)
        shares += (sizes / np.maximum(sizes.max(axis=1, keepdims=True), 1e-30)).sum(axis=0)
    found = _figures(case, kind, first)
    if kind == "poisoned":
        found["metric"] = float(roc_auc_score(case.is_changed, solution.slack))
        found["label poisoning"] = float(roc_auc_score(case.is_changed, shares))
    agreement = ((psi.astype(np.float64) @ solution.weights).argmax(axis=1) == predictions).mean()
    return found | {
        "agreement": float(agreement),
        "power": setting.feature_map.power,
        "K n": setting.total_penalty,
        "support vectors": solution.num_support_vectors / len(phi),
    }


def measure_similarity(case: Case, kind: str) -> dict[str, float]:
    """Return the figures of the training example at the least angle, of whatever class."""
    to_unit = fit_feature_map(case.features, "cosine", bias=False)
    similarity = to_unit(case.queries).numpy() @ to_unit(case.features).numpy().T
    return _figures(case, kind, similarity.argmax(axis=1))


def _figures(case: Case, kind: str, first: np.ndarray) -> dict[str, float]:
    """Return the figures that follow from the first proponent of every query, (m,)."""
    found = {
        "identical class": float((case.labels[first] == case.logits.argmax(axis=1)).mean()),
        "different first": len(np.unique(first)),
        "queries": len(first),
    }
    if kind == "superclass":
        found["metric"] = float((case.classes[first] == case.truth).mean())
    if kind == "marked":
        found["metric"] = float(case.is_changed[first].mean())
    return found


def to_markdown(found: dict) -> str:
    """Return a table of the cases, and one of the default's settings."""
    rows = [SIMILARITY, *SETTINGS]
    lines = [
        "# Kernels of DualView",
        "",
        "The metric, and in brackets the number of different first proponents.",
        "",
        f"| case | metric | {' | '.join(rows)} |",
        "|---" * (len(rows) + 2) + "|",
    ]
    more = [
        "",
        "| case | power | K n | agreement: default | before | identical class: default | before |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in found["cases"].items():
        case = name.rsplit(", seed", 1)[0]
        cells = [
            f"{figures[row]['metric']:.3f} ({figures[row]['different first']})"
            if "metric" in figures[row]
            else "–"
            for row in rows
        ]
        lines.append(f"| {name} | {METRICS[SPECS[case].kind]} | {' | '.join(cells)} |")
        default, former = figures[DEFAULT], figures[FORMER]
        settings = f"{default['power']:.5f} | {default['K n']:.2f}"
        pairs = [f"{row[key]:.3f}" for key in ("agreement", "identical class") for row in (default, former)]
        more.append(f"| {name} | {settings} | {' | '.join(pairs)} |")
    return "\n".join([*lines, *more]) + "\n"


def main() -> None:
    """Measure what is not there yet."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", type=pathlib.Path, required=True, help="folder of the features")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cases", nargs="+", choices=list(SPECS), default=list(SPECS))
    options = parser.parse_args()
    command = f"python benchmarks/bench_kernels.py --seeds {' '.join(map(str, options.seeds))}"
    results = Results(options.output / "kernels.json", {"cases": {}}, command, to_markdown)
    for seed in options.seeds:
        for name in options.cases:
            key = f"{name}, seed {seed}"
            if key in results.found["cases"]:
                continue
            case, kind = load_case(name, seed, options.data_dir, options.models), SPECS[name].kind
            figures = {row: measure(case, kind, make(case)) for row, make in SETTINGS.items()}
            results.found["cases"][key] = {SIMILARITY: measure_similarity(case, kind), **figures}
            results.write()
            print(f"{key}: {figures[DEFAULT]['metric']:.3f}, before {figures[FORMER]['metric']:.3f}")


if __name__ == "__main__":
    main()
