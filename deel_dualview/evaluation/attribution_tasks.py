"""What a method can be asked, on which kind of model, and which metrics answer it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import keras
import numpy as np

from deel_dualview import metrics
from deel_dualview._checks import require
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.fidelity import SurrogateFidelity
from deel_dualview.evaluation.method_run import MethodRun, Queries
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels
from deel_dualview.evaluation.recorded_tasks import RECORDED_TASKS
from deel_dualview.evaluation.retraining_tasks import RETRAINING
from deel_dualview.evaluation.tasks import Measure, Task, TaskResult, record

K = 5
"""How many of the first proponents metrics of top-k lists look at."""
NUM_SPARSITY = 500
"""Sparsity is a mean over so many test examples: it is nearly the same for all, and costs a sort of n values."""
CURVE_POINTS = 101
RECALL_SHARES = (0.05, 0.1, 0.2)


def _run_classes(run: MethodRun) -> TaskResult:
    queries, labels = run.queries(), run.train_labels
    k = min(K, run.num_train)
    first = run.top_k(queries, k)
    identical, of_label = metrics.IdenticalClass(), metrics.IdenticalClass()
    several, distinct = metrics.TopKClass(k), metrics.TopKCardinality(k, num_resamples=0)
    identical.update_top_k(first, labels, queries.predictions)
    of_label.update_top_k(first, labels, queries.labels)
    several.update_top_k(first, labels, queries.predictions)
    distinct.update_top_k(first)
    measured = {
        "identical-class": record(identical),
        "identical-class-label": record(of_label),
        "top-5-class": record(several),
        "top-5-cardinality": record(distinct),
        **_sparsity(run, queries.take(slice(0, NUM_SPARSITY))),
    }
    fidelity, details = _fidelity(run, queries)
    return TaskResult(measured | fidelity, details)


def _sparsity(run: MethodRun, queries: Queries) -> dict[str, dict[str, Any]]:
    metric = metrics.Sparsity()
    for _, values in run.values(queries):
        metric.update_state(values)
    more = {"effective_number": metric.effective_number, "num_for_90_percent": metric.num_for_mass}
    return {"nonzero": record(metric, **more)}


def _fidelity(run: MethodRun, queries: Queries) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what only a surrogate has: its agreement with the model, and who supports each class."""
    calculator = run.calculator
    if not isinstance(calculator, DualView):
        return {}, {}
    metric = metrics.SurrogateFidelity()
    batches = run.batches(queries.images)
    for evaluation in calculator.evaluate(batches):
        metric.update_state(evaluation.surrogate_logits, evaluation.model_logits)
    found = cast(SurrogateFidelity, calculator.surrogate_fidelity(batches))
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
    return {"surrogate-agreement": record(metric, **more)}, details


def _run_subclasses(run: MethodRun) -> TaskResult:
    queries, metric = run.queries(), metrics.IdenticalSubclass()
    metric.update_top_k(run.top_k(queries, 1), run.images.train_labels, queries.labels)
    return TaskResult({"identical-subclass": record(metric)}, {})


def _run_poisoned(run: MethodRun) -> TaskResult:
    truth = run.subject.truth
    require(isinstance(truth, PoisonedLabels), "A model trained on poisoned labels is needed.", {})
    is_poisoned = truth.is_poisoned(run.num_train)
    aggregate = metrics.LabelPoisoning(is_poisoned)
    for _, values in run.values(run.queries()):
        aggregate.update_state(values)
    scores = {"label-errors-self": run.self_influence()}
    calculator = run.calculator
    own = calculator.surrogate.slack if isinstance(calculator, DualView) else scores["label-errors-self"]
    detectors: dict[str, metrics.LabelErrorDetection] = {"label-poisoning": aggregate}
    for name, values in {**scores, "label-errors": own}.items():
        detectors[name] = metrics.LabelErrorDetection(is_poisoned)
        detectors[name].update_state(values)
    return TaskResult(
        {name: _told_detection(detector) for name, detector in detectors.items()},
        {"curves": {name: _curve(detector) for name, detector in detectors.items()}},
    )


def _told_detection(metric: metrics.LabelErrorDetection) -> dict[str, Any]:
    recalls = {f"recall_at_{share:.0%}".replace("%", ""): metric.recall_at(share) for share in RECALL_SHARES}
    return record(metric, average_precision=metric.average_precision, **recalls)


def _curve(metric: metrics.LabelErrorDetection) -> dict[str, list[float]]:
    """Return the detection curve at evenly spaced shares of the training set."""
    curve = metric.curve()
    places = np.unique(np.linspace(0, len(curve.inspected) - 1, CURVE_POINTS).astype(int))
    return {name: np.round(values[places], 5).tolist() for name, values in curve._asdict().items()}


def _run_marked(run: MethodRun) -> TaskResult:
    marks = run.subject.truth
    require(isinstance(marks, Marks), "A model trained on marked images is needed.", {})
    marked_class = int(run.images.train_labels[marks.indices[0]])
    rows = run.tests
    all_marked = run.queries(rows, np.asarray(marks.mark(run.images.test_images[rows])))
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
    metric = metrics.DomainMismatch(marks.is_marked(run.num_train), marked_class)
    queries = all_marked.take(is_misled)
    for block, values in run.values(queries):
        metric.update_state(values, queries.labels[block], queries.predictions[block])
    measured = record(metric)
    precision = {**measured, "value": metric.average_precision, "interval": [float("nan")] * 2}
    details = {"num_seen": all_marked.size, "marked_class": marked_class, "num_marked": len(marks.indices)}
    return TaskResult({"domain-mismatch": measured, "domain-mismatch-auprc": precision}, details)


_NUM_RANDOMISED = 100


def _run_randomised(run: MethodRun) -> TaskResult:
    queries = run.queries(run.tests[: min(_NUM_RANDOMISED, run.num_test)])
    keras.utils.set_random_seed(run.subject.seed)
    untrained = run.with_untrained(keras.models.clone_model(run.subject.model))
    metric = metrics.ModelRandomisation()
    for (_, values), (_, others) in zip(run.values(queries), untrained.values(queries), strict=True):
        metric.update_state(values, others)
    return TaskResult({"randomisation": record(metric)}, {})


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "normal": Task(
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
            _run_classes,
        ),
        "superclass": Task(
            "superclass",
            {
                "identical-subclass": Measure(
                    "Identical subclass", "higher", "first proponents of the hidden subclass", True
                )
            },
            _run_subclasses,
        ),
        "poisoned": Task(
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
            _run_poisoned,
        ),
        "marked": Task(
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
            _run_marked,
        ),
        "randomised": Task(
            "normal",
            {
                "randomisation": Measure(
                    "Randomisation",
                    "lower",
                    "rank correlation with the values of the same network with random weights; near 0 is good",
                )
            },
            _run_randomised,
            settings={"num_examples": _NUM_RANDOMISED},
        ),
        **RETRAINING,
        **RECORDED_TASKS,
    }
)
"""Every task by its name."""


def tasks_of(metrics: str | Iterable[str]) -> list[str]:
    """Return the tasks that measure some metrics, in the order of `TASKS`.

    Args:
        metrics: "all", or names of metrics or of questions; "all" among them stands for those without retraining.

    Raises:
        ValueError: an unknown name; the message lists the names.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    homes = {measure: name for name, protocol in TASKS.items() for measure in protocol.measures}
    known = list(dict.fromkeys(["all", *TASKS, *homes]))
    unknown = [name for name in names if name not in known]
    require(
        bool(names) and not unknown, f"A metric is one of {', '.join(known)}.", {"metrics": unknown or names}
    )
    chosen = {homes.get(name, name) for name in names}
    if "all" in chosen:
        chosen |= {name for name, protocol in TASKS.items() if not protocol.retrains}
    return [name for name in TASKS if name in chosen]
