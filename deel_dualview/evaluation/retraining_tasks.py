"""Questions whose answers come from training the last layer again, to convergence, on parts of the training set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from deel_dualview import metrics
from deel_dualview.evaluation.method_run import MethodRun
from deel_dualview.evaluation.perturbations import Subset, stack_subsets
from deel_dualview.evaluation.retraining import PENALTY
from deel_dualview.evaluation.tasks import Measure, Task, TaskResult, record

NUM_SUBSETS = 100
NUM_REMOVED = 50
NUM_BRITTLE = 50
_SHARE_OF_PROPONENTS = 0.01
_SUBSET_SEEDS = 1_000_000
_CEILING = 1.0
"""Another training of the last layer ends in the same optimum, which is unique."""


def _run_subsets(run: MethodRun) -> TaskResult:
    queries, rows = run.queries(), run.tests[: run.num_test]
    drawn = [
        Subset.draw(run.num_train, run.num_train // 2, seed=_SUBSET_SEEDS * (run.subject.seed + 1) + number)
        for number in range(NUM_SUBSETS)
    ]
    outputs = np.stack(
        [
            run.kept_outputs.get(subset.indices, run.retrainer)[rows, queries.predictions]
            for subset in run.shown(drawn, "training on subsets")
        ],
        axis=1,
    )
    metric = metrics.LinearDatamodelingScore(stack_subsets(drawn, run.num_train))
    for block, values in run.values(queries):
        metric.update_state(values, outputs[block])
    return TaskResult({"lds": record(metric, ceiling=_CEILING)}, {})


def _run_removals(run: MethodRun) -> TaskResult:
    queries, rows = run.queries(), run.tests[: run.num_test]
    removed = _removed(run)
    everything = np.arange(run.num_train)
    before = _losses(run, everything, rows, queries.predictions)
    changes = np.stack(
        [
            _losses(run, np.delete(everything, index), rows, queries.predictions) - before
            for index in run.shown(removed.tolist(), "leaving one out")
        ],
        axis=1,
    )
    metric = metrics.LeaveOneOut()
    for block, values in run.values(queries):
        metric.update_state(values[:, removed], changes[block])
    return TaskResult({"leave-one-out": record(metric, ceiling=_CEILING)}, {"removed": removed.tolist()})


def _removed(run: MethodRun) -> np.ndarray:
    """Return which examples to leave out: half of them at random, half those of the greatest loss."""
    batches = [run.model.losses(inputs, labels).numpy() for inputs, labels in run.subject.train]
    num_removed = min(NUM_REMOVED, run.num_train // 2)
    greatest = np.argsort(-np.concatenate(batches), kind="stable")[: num_removed // 2]
    others = np.setdiff1d(np.arange(run.num_train), greatest)
    drawn = np.random.default_rng(run.subject.seed).choice(others, num_removed - len(greatest), replace=False)
    return np.sort(np.concatenate([greatest, drawn]))


def _run_parts(run: MethodRun) -> TaskResult:
    queries, rows = run.queries(), run.tests[: run.num_test]

    def retrain(kept: np.ndarray) -> np.ndarray:
        return _losses(run, kept, rows, queries.labels)

    best, others = metrics.CoreSet(retrain), metrics.Pruning(retrain)
    for _, values in run.values(queries):
        best.update_state(values)
        others.update_state(values)
    curves = {
        "shares": list(best.shares),
        "core_set_losses": best.losses.mean(axis=1).tolist(),
        "pruning_losses": others.losses.mean(axis=1).tolist(),
    }
    tenth = best.shares[0]
    measured = {
        "core-set": record(best, at_10=best.at(tenth)),
        "pruning": record(others, at_10=others.at(tenth)),
    }
    return TaskResult(measured, curves)


def _run_flips(run: MethodRun) -> TaskResult:
    queries = run.queries(run.tests[: min(NUM_BRITTLE, run.num_test)])
    rows = run.tests[: queries.size]
    k = max(1, round(_SHARE_OF_PROPONENTS * run.num_train))

    def retrain(kept: np.ndarray) -> np.ndarray:
        return run.retrainer.log_probabilities(kept)[rows].argmax(axis=1)

    metric = metrics.Brittleness(retrain, k)
    predictions = retrain(np.arange(run.num_train))
    for block, values in run.values(queries):
        metric.update_state(values, predictions[block])
    return TaskResult({"brittleness": record(metric)}, {"k": k})


def _losses(run: MethodRun, kept: np.ndarray, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the loss of test examples in some classes after training on the kept examples, shape (m,)."""
    return -run.retrainer.log_probabilities(kept)[rows, classes]


def _protocol(
    measures: Mapping[str, Measure],
    run: Callable[[MethodRun], TaskResult],
    settings: Mapping[str, float] | None = None,
) -> Task:
    """Return a question on the model whose last layer is at its optimum, which trains that layer again."""
    return Task("converged", measures, run, retrains=True, settings={**(settings or {}), "penalty": PENALTY})


RETRAINING: Mapping[str, Task] = MappingProxyType(
    {
        "lds": _protocol(
            {
                "lds": Measure(
                    "LDS",
                    "higher",
                    "rank correlation of summed influence with the log-probability after training on random halves",
                    True,
                )
            },
            _run_subsets,
            {"num_subsets": NUM_SUBSETS},
        ),
        "leave-one-out": _protocol(
            {
                "leave-one-out": Measure(
                    "Leave-one-out",
                    "higher",
                    "correlation of influence with the change of the loss without a training example",
                    True,
                )
            },
            _run_removals,
            {"num_removed": NUM_REMOVED},
        ),
        "core-set": _protocol(
            {
                "core-set": Measure(
                    "Core set",
                    "lower",
                    "test loss after training on the most influential examples, weighted mean of 10..90 %",
                    True,
                ),
                "pruning": Measure(
                    "Pruning",
                    "higher",
                    "test loss after training without the most influential examples, weighted mean of 10..90 %",
                    True,
                ),
            },
            _run_parts,
        ),
        "brittleness": _protocol(
            {
                "brittleness": Measure(
                    "Brittleness",
                    "higher",
                    "predictions that flip after training without their strongest proponents (1 % of all examples)",
                    True,
                )
            },
            _run_flips,
            {"num_examples": NUM_BRITTLE, "share": _SHARE_OF_PROPONENTS},
        ),
    }
)
"""The questions that train again, by name."""
