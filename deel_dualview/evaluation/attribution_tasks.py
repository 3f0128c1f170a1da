"""What a method can be asked, on which kind of model, and which metrics answer it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from deel_dualview import metrics
from deel_dualview._checks import require
from deel_dualview.calculators.dualview import DualView
from deel_dualview.evaluation.method_run import Queries, Trial
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels
from deel_dualview.evaluation.retraining_tasks import RETRAINING
from deel_dualview.evaluation.tasks import Answer, Measure, Protocol, told

K = 5
"""How many of the first proponents metrics of top-k lists look at."""
NUM_SPARSITY = 500
"""Sparsity is a mean over so many test examples: it is nearly the same for all, and costs a sort of n values."""
CURVE_POINTS = 101
RECALL_SHARES = (0.05, 0.1, 0.2)


def _ask_classes(trial: Trial) -> Answer:
    queries, labels = trial.queries(), trial.train_labels
    k = min(K, trial.num_train)
    first = trial.top_k(queries, k)
    identical, of_label = metrics.IdenticalClass(), metrics.IdenticalClass()
    several, distinct = metrics.TopKClass(k), metrics.TopKCardinality(k, num_resamples=0)
    identical.update_top_k(first, labels, queries.predictions)
    of_label.update_top_k(first, labels, queries.labels)
    several.update_top_k(first, labels, queries.predictions)
    distinct.update_top_k(first)
    measured = {
        "identical-class": told(identical),
        "identical-class-label": told(of_label),
        "top-5-class": told(several),
        "top-5-cardinality": told(distinct),
        **_sparsity(trial, queries.take(slice(0, NUM_SPARSITY))),
    }
    fidelity, details = _fidelity(trial, queries)
    return Answer(measured | fidelity, details)


def _sparsity(trial: Trial, queries: Queries) -> dict[str, dict[str, Any]]:
    metric = metrics.Sparsity()
    for _, values in trial.values(queries):
        metric.update_state(values)
    more = {"effective_number": metric.effective_number, "num_for_90_percent": metric.num_for_mass}
    return {"nonzero": told(metric, **more)}


def _fidelity(trial: Trial, queries: Queries) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what only a surrogate has: its agreement with the model, and who supports each class."""
    calculator = trial.calculator
    if not isinstance(calculator, DualView):
        return {}, {}
    metric = metrics.SurrogateFidelity()
    batches = trial.batches(queries.images)
    for evaluation in calculator.evaluate(batches):
        metric.update_state(evaluation.surrogate_logits, evaluation.model_logits)
    found = calculator.surrogate_fidelity(batches)
    more = {
        "matthews_correlation": metric.matthews_correlation,
        "logit_cosine": metric.logit_cosine,
        "kendall_tau": metric.kendall_tau,
        "weight_cosine": found.weight_cosine,
        "completeness_error": found.completeness_error,
        "relative_gap": calculator.surrogate.relative_gap,
    }
    support = np.diff(calculator.surrogate.coefficients.tocsc().indptr)
    details = {
        "support_vectors_per_class": support.tolist(),
        "num_support_vectors": calculator.surrogate.num_support_vectors,
        "K": calculator.K,
    }
    return {"surrogate-agreement": told(metric, **more)}, details


def _ask_subclasses(trial: Trial) -> Answer:
    queries, metric = trial.queries(), metrics.IdenticalSubclass()
    metric.update_top_k(trial.top_k(queries, 1), trial.images.train_labels, queries.labels)
    return Answer({"identical-subclass": told(metric)}, {})


def _ask_poisoned(trial: Trial) -> Answer:
    truth = trial.subject.truth
    require(isinstance(truth, PoisonedLabels), "A model trained on poisoned labels is needed.", {})
    is_poisoned = truth.is_poisoned(trial.num_train)
    aggregate = metrics.LabelPoisoning(is_poisoned)
    for _, values in trial.values(trial.queries()):
        aggregate.update_state(values)
    scores = {"label-errors-self": trial.self_influence()}
    calculator = trial.calculator
    own = calculator.surrogate.slack if isinstance(calculator, DualView) else scores["label-errors-self"]
    detectors: dict[str, metrics.LabelErrorDetection] = {"label-poisoning": aggregate}
    for name, values in {**scores, "label-errors": own}.items():
        detectors[name] = metrics.LabelErrorDetection(is_poisoned)
        detectors[name].update_state(values)
    return Answer(
        {name: _told_detection(detector) for name, detector in detectors.items()},
        {"curves": {name: _curve(detector) for name, detector in detectors.items()}},
    )


def _told_detection(metric: metrics.LabelErrorDetection) -> dict[str, Any]:
    recalls = {f"recall_at_{share:.0%}".replace("%", ""): metric.recall_at(share) for share in RECALL_SHARES}
    return told(metric, average_precision=metric.average_precision, **recalls)


def _curve(metric: metrics.LabelErrorDetection) -> dict[str, list[float]]:
    """Return the detection curve at evenly spaced shares of the training set."""
    curve = metric.curve()
    places = np.unique(np.linspace(0, len(curve.inspected) - 1, CURVE_POINTS).astype(int))
    return {name: np.round(values[places], 5).tolist() for name, values in curve._asdict().items()}


def _ask_marked(trial: Trial) -> Answer:
    marks = trial.subject.truth
    require(isinstance(marks, Marks), "A model trained on marked images is needed.", {})
    marked_class = int(trial.images.train_labels[marks.indices[0]])
    rows = trial.tests
    all_marked = trial.queries(rows, np.asarray(marks.mark(trial.images.test_images[rows])))
    is_misled = (all_marked.labels != marked_class) & (all_marked.predictions == marked_class)
    require(
        bool(is_misled.any()),
        f"No test example was misled by the mark of class {marked_class}, so that domain mismatch has none to ask "
        "about: train longer, or mark more training examples.",
        {
            "seen": all_marked.size,
            "of that class": int((all_marked.labels == marked_class).sum()),
            "of another class, predicted otherwise": int(
                ((all_marked.labels != marked_class) & (all_marked.predictions != marked_class)).sum()
            ),
        },
    )
    metric = metrics.DomainMismatch(marks.is_marked(trial.num_train), marked_class)
    queries = all_marked.take(is_misled)
    for block, values in trial.values(queries):
        metric.update_state(values, queries.labels[block], queries.predictions[block])
    measured = told(metric)
    precision = {**measured, "value": metric.average_precision, "interval": [float("nan")] * 2}
    details = {"num_seen": all_marked.size, "marked_class": marked_class, "num_marked": len(marks.indices)}
    return Answer({"domain-mismatch": measured, "domain-mismatch-auprc": precision}, details)


_NUM_RANDOMISED = 100


def _ask_randomised(trial: Trial) -> Answer:
    queries = trial.queries(trial.tests[: min(_NUM_RANDOMISED, trial.num_test)])
    keras.utils.set_random_seed(trial.subject.seed)
    untrained = trial.with_untrained(keras.models.clone_model(trial.subject.model))
    metric = metrics.ModelRandomisation()
    for (_, values), (_, others) in zip(trial.values(queries), untrained.values(queries), strict=True):
        metric.update_state(values, others)
    return Answer({"randomisation": told(metric)}, {})


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "normal": Protocol(
            "normal",
            {
                "identical-class": Measure(
                    "Identical class", "higher", "first proponents of the predicted class", True
                ),
                "identical-class-label": Measure(
                    "Identical class (label)", "higher", "first proponents of the true class"
                ),
                "top-5-class": Measure(
                    "Top-5 class", "higher", "five first proponents of the predicted class"
                ),
                "top-5-cardinality": Measure(
                    "Distinct top-5", "higher", "distinct examples among all top-5 lists, over their length"
                ),
                "nonzero": Measure("Non-zero", None, "training examples of any influence"),
                "surrogate-agreement": Measure(
                    "Surrogate agrees", None, "predictions of the surrogate that are the model's"
                ),
            },
            _ask_classes,
        ),
        "superclass": Protocol(
            "superclass",
            {
                "identical-subclass": Measure(
                    "Identical subclass", "higher", "first proponents of the hidden subclass", True
                )
            },
            _ask_subclasses,
        ),
        "poisoned": Protocol(
            "poisoned",
            {
                "label-poisoning": Measure(
                    "Label poisoning",
                    "higher",
                    "area under the ROC curve of summed influence (the paper's score)",
                ),
                "label-errors-self": Measure(
                    "Label errors, self", "higher", "area under the ROC curve of self-influence"
                ),
                "label-errors": Measure(
                    "Label errors, own",
                    "higher",
                    "the same of the score that the method recommends for label errors",
                    True,
                ),
            },
            _ask_poisoned,
        ),
        "marked": Protocol(
            "marked",
            {
                "domain-mismatch": Measure(
                    "Domain mismatch",
                    "higher",
                    "first proponents that bear the mark which misled the model",
                    True,
                ),
                "domain-mismatch-auprc": Measure(
                    "Mismatch AUPRC",
                    "higher",
                    "area under the precision-recall curve of finding all marked examples",
                ),
            },
            _ask_marked,
        ),
        "randomised": Protocol(
            "normal",
            {
                "randomisation": Measure(
                    "Randomisation",
                    "lower",
                    "rank correlation with the values of the same network with random weights; near 0 is good",
                )
            },
            _ask_randomised,
            settings={"num_examples": _NUM_RANDOMISED},
        ),
        **RETRAINING,
    }
)
"""Every question by its name."""


def protocols_of(metrics: str | Iterable[str]) -> list[str]:
    """Return the questions that measure some metrics, in the order of `PROTOCOLS`.

    Args:
        metrics: "all", or names of metrics or of questions; "all" among them stands for those without retraining.

    Raises:
        ValueError: an unknown name; the message lists the names.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    homes = {measure: name for name, protocol in PROTOCOLS.items() for measure in protocol.measures}
    known = list(dict.fromkeys(["all", *PROTOCOLS, *homes]))
    unknown = [name for name in names if name not in known]
    require(
        bool(names) and not unknown, f"A metric is one of {', '.join(known)}.", {"metrics": unknown or names}
    )
    chosen = {homes.get(name, name) for name in names}
    if "all" in chosen:
        chosen |= {name for name, protocol in PROTOCOLS.items() if not protocol.retrains}
    return [name for name in PROTOCOLS if name in chosen]
