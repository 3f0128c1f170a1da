"""Why cells of the DualView paper's Table 2 differ from ours: the same questions under other readings of the text.

    python benchmarks/explain_table2.py --data mnist --data-dir TFDS_DIRECTORY --models MODELS --output RESULTS

Asks the models of one seed about

- influence functions with the sign as it is and reversed (a positive value then means harmful), and with the inverse
  Hessian by LiSSA of one example a step, as it was published: 5,000 steps, damping 0.01, scale 10 or 25;
- representer points with alpha of the training example's own label, with the last layer fitted to the outputs of the
  network (as the authors of RPS do) and not to the labels, and as equation 2 is printed, with the loss of the
  *explained* class at every training example whatever its label;
- DualView on z-scored and on raw features over K.

Writes `explain-table2-DATA.json` and `.md`.
"""

from __future__ import annotations

import copy
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import scipy.special
from reproducing import Results, make_subject_parser
from sklearn.metrics import roc_auc_score

from deel_dualview import DualSVMSolver, InfluenceModel
from deel_dualview.calculators.feature_maps import fit_feature_map
from deel_dualview.evaluation import load_images, subject
from deel_dualview.softmax_regression import fit_softmax_regression

NUM_TEST = 4000
PENALTY = 0.003
LISSA_STEPS, LISSA_DAMPING, LISSA_QUERIES = 5000, 0.01, 500
K_VALUES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
MARKED_CLASS = 2


class Case:
    """Features, labels and queries of one kind of model."""

    def __init__(self, data: str, kind: str, seed: int, models: str, data_dir: str | None) -> None:
        images = load_images(data, data_dir)
        chosen = subject(data, kind, seed, directory=models, data_dir=data_dir)
        model = InfluenceModel(chosen.model)
        parts = [(model.features(inputs).numpy(), labels.numpy()) for inputs, labels in chosen.train]
        self.kind = kind
        self.features = np.concatenate([part[0] for part in parts])
        self.labels = np.concatenate([part[1] for part in parts]).astype(np.int64)
        self.subclasses = images.train_labels
        self.num_classes = int(self.labels.max()) + 1
        rows = np.random.default_rng(seed).permutation(len(images.test_labels))[
            len(images.test_labels) // 5 :
        ]
        tests = images.test_images[rows]
        if kind == "marked":
            tests = np.asarray(chosen.truth.mark(tests))
            self.is_marked = chosen.truth.is_marked(len(self.labels))
        if kind == "poisoned":
            self.is_poisoned = chosen.truth.is_poisoned(len(self.labels))
        blocks = [model.features_and_logits(tests[i : i + 500]) for i in range(0, len(tests), 500)]
        self.queries = np.concatenate([block[0] for block in blocks])
        self.explained = np.concatenate([block[1] for block in blocks]).argmax(axis=1)
        self.truth = images.test_labels[rows]
        kept = np.arange(len(rows)) < NUM_TEST
        if kind == "marked":
            kept = (self.truth != MARKED_CLASS) & (self.explained == MARKED_CLASS)
        self.queries, self.explained, self.truth = (
            array[kept] for array in (self.queries, self.explained, self.truth)
        )
        head = model.head
        self.kernel = head.kernel

    def first(self, size: int) -> Case:
        """Return the same case with its first queries only."""
        fewer = copy.copy(self)
        fewer.queries, fewer.explained, fewer.truth = (
            array[:size] for array in (self.queries, self.explained, self.truth)
        )
        return fewer

    def score(self, alpha: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> float | None:
        """Return the metric of this kind of model for values alpha_ic <phi_i, psi_t>, c the explained class."""
        return self.score_rows(
            lambda rows, c: (psi[rows] @ phi.T) * alpha[:, c].astype(np.float32)[np.newaxis, :]
        )

    def score_rows(self, values_of) -> float | None:
        """Return the metric, from a function of rows of one explained class and that class; None of no example."""
        hits, shares = [], np.zeros(len(self.labels))
        for c in np.unique(self.explained):
            rows = np.flatnonzero(self.explained == c)
            for start in range(0, len(rows), 256):
                block = rows[start : start + 256]
                values = values_of(block, c)
                if self.kind == "poisoned":
                    sizes = np.abs(values)
                    shares += (sizes / np.maximum(sizes.max(axis=1, keepdims=True), 1e-30)).sum(axis=0)
                    continue
                first = values.argmax(axis=1)
                hits.append(self._hits(first, block))
        if self.kind == "poisoned":
            return round(float(roc_auc_score(self.is_poisoned, shares)), 4)
        return round(float(np.concatenate(hits).mean()), 4) if hits else None

    def _hits(self, first: np.ndarray, block: np.ndarray) -> np.ndarray:
        if self.kind == "marked":
            return self.is_marked[first]
        if self.kind == "superclass":
            return self.subclasses[first] == self.truth[block]
        return self.labels[first] == self.explained[block]


def residuals(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities and p - y of the training examples (n, c), and loss gradients of the queries (m, c, d)."""
    p = scipy.special.softmax((case.features @ case.kernel).astype(np.float64), axis=1)
    q = scipy.special.softmax((case.queries @ case.kernel).astype(np.float64), axis=1)
    deltas = q - np.eye(case.num_classes)[case.explained]
    errors = (p - np.eye(case.num_classes)[case.labels]).astype(np.float32)
    return p, errors, deltas[:, :, np.newaxis] * case.queries[:, np.newaxis]


def influence_of(case: Case, errors: np.ndarray, solved: np.ndarray):
    """Return what `score_rows` takes, from p - y (n, c) and inverse Hessian times query gradients (m, c, d)."""

    def values(rows: np.ndarray, c: int) -> np.ndarray:
        del c
        return sum((solved[rows, j] @ case.features.T) * errors[:, j] for j in range(case.num_classes))

    return values


def influence_functions(case: Case) -> dict[str, float | None]:
    """Return the score of exact last-layer influence, as it is and reversed."""
    p, errors, gradients = residuals(case)
    phi = case.features.astype(np.float64)
    width = phi.shape[1]
    size = case.num_classes * width
    hessian = np.zeros((size, size))
    for a in range(case.num_classes):
        for b in range(a, case.num_classes):
            weights = p[:, a] * ((a == b) - p[:, b])
            block = phi.T @ (weights[:, np.newaxis] * phi) / len(phi)
            hessian[a * width : (a + 1) * width, b * width : (b + 1) * width] = block
            hessian[b * width : (b + 1) * width, a * width : (a + 1) * width] = block.T
    hessian += 1e-3 * np.trace(hessian) / size * np.eye(size)
    solved = gradients.reshape(len(gradients), size) @ np.linalg.inv(hessian)
    values = influence_of(case, errors, solved.reshape(gradients.shape).astype(np.float32))
    return {
        "as it is": case.score_rows(values),
        "reversed": case.score_rows(lambda rows, c: -values(rows, c)),
    }


def lissa_of_single_examples(case: Case) -> dict[str, float | None]:
    """Return the score of influence whose inverse Hessian is LiSSA's recursion with one example a step.

    An example has curvature up to half its squared feature norm. Above twice the scale a step enlarges what it
    should shrink, and the solutions of all queries end up parallel: the mean absolute cosine of them is told.
    """
    case = case.first(LISSA_QUERIES)
    p, errors, gradients = residuals(case)
    scores = {}
    for scale, seed in itertools.product((10, 25), (0, 1)):
        solved, cosine = _recursion(p, case.features, gradients, scale, seed)
        scores[f"scale {scale}, seed {seed}"] = case.score_rows(influence_of(case, errors, solved))
        scores[f"scale {scale}, seed {seed}: mean absolute cosine of two solutions"] = round(cosine, 3)
    return scores


def _recursion(
    p: np.ndarray, features: np.ndarray, gradients: np.ndarray, scale: float, seed: int
) -> tuple[np.ndarray, float]:
    """Return h = v + (1 - damping) h - H_i h / scale after all steps, of length 1, and their mean absolute cosine."""
    solved, features = gradients.copy(), features.astype(np.float64)
    for i in np.random.default_rng(seed).integers(0, len(features), LISSA_STEPS):
        logits = solved @ features[i]
        curved = p[i] * logits - p[i] * (logits @ p[i])[:, np.newaxis]
        solved = gradients + (1 - LISSA_DAMPING) * solved - curved[:, :, np.newaxis] * features[i] / scale
    flat = solved.reshape(len(solved), p.shape[1] * features.shape[1])
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-300)
    cosines = np.abs(flat[:300] @ flat[:300].T)
    return flat.reshape(solved.shape).astype(np.float32), float(cosines.mean()) if cosines.size else 0.0


def representer_points(case: Case) -> dict[str, float | None]:
    """Return the score with alpha of the own label, of a fit to the network's outputs, and as equation 2 is printed."""
    labels = np.eye(case.num_classes, dtype=np.float32)[case.labels]
    outputs = scipy.special.softmax((case.features @ case.kernel).astype(np.float64), axis=1).astype(
        np.float32
    )
    p, p_of_outputs = (
        scipy.special.softmax(
            case.features @ fit_softmax_regression(case.features, targets, penalty=PENALTY).weights, axis=1
        )
        for targets in (labels, outputs)
    )
    readings = {
        "own label": labels - p,
        "fitted to the network's outputs": outputs - p_of_outputs,
        "equation 2 as printed": 1 - p,
    }
    return {name: case.score(alpha, case.features, case.queries) for name, alpha in readings.items()}


def dualview(case: Case, kernel: str) -> dict[str, float | None]:
    """Return the score over the paper's absolute K."""
    feature_map = fit_feature_map(case.features, kernel, bias=False)
    phi, psi = (np.asarray(feature_map(rows)) for rows in (case.features, case.queries))
    scores = {}
    for K in K_VALUES:
        solution = DualSVMSolver().solve(phi, case.labels, case.num_classes, K)
        scores[f"K = {K:g}"] = case.score(solution.coefficients.toarray(), phi, psi)
    return scores


EXPERIMENTS = {
    "IF, last layer": influence_functions,
    "IF, LiSSA of single examples": lissa_of_single_examples,
    "RPS-L2": representer_points,
    "DualView, z-scored": lambda case: dualview(case, "standardized"),
    "DualView, raw features": lambda case: dualview(case, "linear"),
}
TITLES = {
    "normal": "identical class",
    "superclass": "identical subclass",
    "poisoned": "label poisoning",
    "marked": "domain mismatch",
}


def to_markdown(results: dict) -> str:
    """Return one table for each experiment."""
    lines = [f"# Readings of Table 2, {results['data']}, seed {results['seed']}", ""]
    for title in EXPERIMENTS:
        found = {kind: results["scores"].get(kind, {}).get(title, {}) for kind in TITLES}
        readings = list(dict.fromkeys(reading for scores in found.values() for reading in scores))
        if not readings:
            continue
        lines += [
            f"## {title}",
            "",
            f"| reading | {' | '.join(TITLES.values())} |",
            "|---" * (len(TITLES) + 1) + "|",
        ]
        for reading in readings:
            cells = [found[kind].get(reading) for kind in TITLES]
            told = " | ".join("–" if cell is None else f"{cell:.3f}" for cell in cells)
            lines.append(f"| {reading} | {told} |")
        lines.append("")
    return "\n".join(
        [*lines, f"Command: `{results['context']['command']}`; {results['context']['created']}.", ""]
    )


def main() -> None:
    """Run what is not there yet."""
    parser = make_subject_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--experiments", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    options = parser.parse_args()
    models = options.models or str(options.output / "models")
    command = f"python benchmarks/explain_table2.py --data {options.data}"
    path = options.output / f"explain-table2-{options.data}.json"
    results = Results(path, {"scores": {}}, command, to_markdown)
    results.found |= {"data": options.data, "seed": options.seed}
    for kind in options.kinds:
        scores = results.found["scores"].setdefault(kind, {})
        missing = [title for title in options.experiments if title not in scores]
        if not missing:
            continue
        case = Case(options.data, kind, options.seed, models, options.data_dir)
        for title in missing:
            scores[title] = EXPERIMENTS[title](case)
            print(kind, title, scores[title], flush=True)
            results.write()


if __name__ == "__main__":
    main()
