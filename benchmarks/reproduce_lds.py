"""Linear datamodelling score of every method against the shipped ground truth: no subset model is trained.

    python benchmarks/reproduce_lds.py --data-dir TFDS_DIRECTORY --output RESULTS

Trains one model of each kind on all 10,000 examples that the subsets were drawn from (logistic regression on
pixels, the CNN of the DualView paper), asks every method about the labels of the 256 test examples, and writes
`lds.json` and `lds.md`. Methods that are there already are not asked again.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from ground_truth_models import KINDS, PENALTY
from reproducing import Results, make_parser

from deel_dualview import ExactIHVP, InfluenceModel, LeverageCorrectedInfluenceCalculator
from deel_dualview.calculators.method_specs import resolve_all
from deel_dualview.evaluation import GroundTruth, ImageData, load_ground_truth, load_images
from deel_dualview.evaluation.ground_truth import GROUND_TRUTHS


def make_corrected(
    model: InfluenceModel, train: tf.data.Dataset, **settings: object
) -> LeverageCorrectedInfluenceCalculator:
    """Return leverage-corrected influence under the penalty of the logistic regression."""
    ihvp = ExactIHVP(model, train, regularisation=2 * PENALTY)
    return LeverageCorrectedInfluenceCalculator(model, train, ihvp, **settings)


SHARED = {
    "DualView (tempered, 30 / n)": "dualview",
    "DualView (cosine, 600 / n)": "dualview?kernel=cosine&K=0.06",
    "DualView, cosine, K n = 60": "dualview?kernel=cosine&K=0.006",
    "DualView, linear, K n = 60": "dualview?kernel=linear&K=0.006",
    "DualView, the paper's (z-scored, K = 1e-3)": "dualview?kernel=standardized&K=0.1",
    "RPS-LJE": "rps-lje",
    "GradDot": "graddot",
    "GradCos": "gradcos",
    "SIM": "sim",
    "TRAK": "trak",
    "Feature similarity": "feature-similarity",
    "random": "random",
}
OWN = {
    "mnist-logistic": {
        "IF, exact": f"first-order?ihvp.regularisation={2 * PENALTY}",
        "RPS-L2 (the model's own lambda)": f"rps-l2?lambda_regularization={PENALTY}",
        "IF, leverage corrected": make_corrected,
    },
    "mnist-cnn": {
        "IF, last layer, exact": "first-order",
        "IF, last layer, leverage corrected": "leverage-corrected",
        "RPS-L2 (lambda 0.003)": "rps-l2?lambda_regularization=0.003",
        "GradDot, all layers": "graddot?weights=all&projection=FactoredProjection(2048)",
        "GradCos, all layers": "gradcos?weights=all&projection=FactoredProjection(2048)",
        "TRAK, all layers": "trak?weights=all&projection=FactoredProjection(2048)",
        "IF, EK-FAC, all layers": "ekfac?ihvp.weights=all",
    },
}
SLOW = ("IF, leverage corrected",)
BATCH_SIZE = 500


def score(
    method: str | Callable,
    model: InfluenceModel,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    truth: GroundTruth,
) -> dict[str, object]:
    """Return a method's score with its interval and seconds."""
    start = time.perf_counter()
    (spec,) = resolve_all({"method": method})
    if isinstance(spec.method, str):
        spec = dataclasses.replace(spec, settings={**spec.settings, "target": "label"})
    else:
        spec = dataclasses.replace(spec, method=functools.partial(spec.method, target="label"))
    calculator = spec.build(model, train, None)
    metric, row = truth.metric(), 0
    for values in calculator.estimate_influence_values_in_batches(test):
        metric.update_state(values, truth.outputs[row : row + len(values)])
        row += len(values)
    result = metric.result()
    return {
        "method": spec.described,
        "value": round(result.value, 4),
        "interval": [round(float(end), 4) for end in result.interval],
        "seconds": round(time.perf_counter() - start, 2),
    }


def measure(truth: GroundTruth, images: ImageData, results: Results) -> None:
    """Score all methods on one ground truth that are not found already."""
    name = truth.name
    found = results.found["ground_truths"].setdefault(name, {})
    train_images, train_labels = (
        array[truth.train_indices] for array in (images.train_images, images.train_labels)
    )
    model: keras.Model = KINDS[name]().train(train_images, train_labels, seed=0)
    train = tf.data.Dataset.from_tensor_slices((train_images, train_labels)).batch(BATCH_SIZE)
    tests = truth.test_indices
    test_arrays = images.test_images[tests], images.test_labels[tests]
    test = tf.data.Dataset.from_tensor_slices(test_arrays).batch(64)
    logits = model.predict(images.test_images, batch_size=500, verbose=0)
    found["test_accuracy"] = round(float((logits.argmax(axis=1) == images.test_labels).mean()), 4)
    found["noise_ceiling"] = round(truth.noise_ceiling(), 4)
    found.setdefault("scores", {})
    for title, method in sorted({**OWN[name], **SHARED}.items(), key=lambda pair: pair[0] in SLOW):
        if "value" not in found["scores"].get(title, {}):
            try:
                found["scores"][title] = score(method, InfluenceModel(model), train, test, truth)
            except Exception as error:
                found["scores"][title] = {"error": f"{type(error).__name__}: {error}"}
            print(name, title, found["scores"][title], flush=True)
            results.write()


def to_markdown(results: dict) -> str:
    """Return the table: methods by their score on the logistic regression, then on the CNN."""
    lines = ["# Linear datamodelling score", "", __doc__.strip().splitlines()[0], ""]
    for name, found in results["ground_truths"].items():
        lines += [f"## {name}", ""]
        lines += [
            f"Test accuracy of the explained model {found['test_accuracy']:.3f}; noise ceiling "
            f"{found['noise_ceiling']:.3f}.",
            "",
            "| method | LDS | 95 % interval | seconds |",
            "|---|---|---|---|",
        ]
        scored = [(title, row) for title, row in found["scores"].items() if "value" in row]
        for title, row in sorted(scored, key=lambda pair: -pair[1]["value"]):
            low, high = row["interval"]
            lines.append(f"| {title} | {row['value']:.3f} | {low:.3f} .. {high:.3f} | {row['seconds']:.1f} |")
        failed = [(title, row["error"]) for title, row in found["scores"].items() if "error" in row]
        lines += [f"| {title} | failed: {error} | | |" for title, error in failed]
        lines.append("")
    context, machine = results["context"], results["context"]["machine"]
    told = f"{machine['processor']}, {machine['threads']} thread(s), shared with other work"
    return "\n".join([*lines, f"Command: `{context['command']}` on {told}; {context['created']}.", ""])


def main() -> None:
    """Score what is not scored yet and write the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--ground-truths", nargs="+", choices=list(GROUND_TRUTHS), default=list(GROUND_TRUTHS)
    )
    options = parser.parse_args()
    command = "python benchmarks/reproduce_lds.py"
    results = Results(options.output / "lds.json", {"ground_truths": {}}, command, to_markdown)
    for name in options.ground_truths:
        truth = load_ground_truth(name)
        measure(truth, load_images(truth.data, options.data_dir), results)
    results.write()


if __name__ == "__main__":
    main()
