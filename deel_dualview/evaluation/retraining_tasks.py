"""Questions whose answers come from training the last layer again, to convergence, on parts of the training set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from deel_dualview import metrics
from deel_dualview.evaluation.method_run import Trial
from deel_dualview.evaluation.perturbations import Subset, stack_subsets
from deel_dualview.evaluation.retraining import PENALTY
from deel_dualview.evaluation.tasks import Answer, Measure, Protocol, told

NUM_SUBSETS = 100
NUM_REMOVED = 50
NUM_BRITTLE = 50
_SHARE_OF_PROPONENTS = 0.01
_SUBSET_SEEDS = 1_000_000


def _ask_subsets(trial: Trial) -> Answer:
    queries, rows = trial.queries(), trial.tests[: trial.num_test]
    drawn = [
        Subset.draw(
            trial.num_train, trial.num_train // 2, seed=_SUBSET_SEEDS * (trial.subject.seed + 1) + number
        )
        for number in range(NUM_SUBSETS)
    ]
    outputs = np.stack(
        [
            trial.kept_outputs.get(subset.indices, trial.retrainer)[rows, queries.predictions]
            for subset in trial.shown(drawn, "training on subsets")
        ],
        axis=1,
    )
    metric = metrics.LinearDatamodelingScore(stack_subsets(drawn, trial.num_train))
    for block, values in trial.values(queries):
        metric.update_state(values, outputs[block])
    return Answer({"lds": told(metric)}, {})


def _ask_removals(trial: Trial) -> Answer:
    queries, rows = trial.queries(), trial.tests[: trial.num_test]
    removed = _removed(trial)
    everything = np.arange(trial.num_train)
    before = _losses(trial, everything, rows, queries.predictions)
    changes = np.stack(
        [
            _losses(trial, np.delete(everything, index), rows, queries.predictions) - before
            for index in trial.shown(removed.tolist(), "leaving one out")
        ],
        axis=1,
    )
    metric = metrics.LeaveOneOut()
    for block, values in trial.values(queries):
        metric.update_state(values[:, removed], changes[block])
    return Answer({"leave-one-out": told(metric)}, {"removed": removed.tolist()})


def _removed(trial: Trial) -> np.ndarray:
    """Return which examples to leave out: half of them at random, half those of the greatest loss."""
    batches = [trial.model.losses(inputs, labels).numpy() for inputs, labels in trial.subject.train]
    num_removed = min(NUM_REMOVED, trial.num_train // 2)
    greatest = np.argsort(-np.concatenate(batches), kind="stable")[: num_removed // 2]
    others = np.setdiff1d(np.arange(trial.num_train), greatest)
    drawn = np.random.default_rng(trial.subject.seed).choice(
        others, num_removed - len(greatest), replace=False
    )
    return np.sort(np.concatenate([greatest, drawn]))


def _ask_parts(trial: Trial) -> Answer:
    queries, rows = trial.queries(), trial.tests[: trial.num_test]

    def retrain(kept: np.ndarray) -> np.ndarray:
        return _losses(trial, kept, rows, queries.labels)

    best, others = metrics.CoreSet(retrain), metrics.Pruning(retrain)
    for _, values in trial.values(queries):
        best.update_state(values)
        others.update_state(values)
    curves = {
        "shares": list(best.shares),
        "core_set_losses": best.losses.mean(axis=1).tolist(),
        "pruning_losses": others.losses.mean(axis=1).tolist(),
    }
    tenth = best.shares[0]
    measured = {"core-set": told(best, at_10=best.at(tenth)), "pruning": told(others, at_10=others.at(tenth))}
    return Answer(measured, curves)


def _ask_flips(trial: Trial) -> Answer:
    queries = trial.queries(trial.tests[: min(NUM_BRITTLE, trial.num_test)])
    rows = trial.tests[: queries.size]
    k = max(1, round(_SHARE_OF_PROPONENTS * trial.num_train))

    def retrain(kept: np.ndarray) -> np.ndarray:
        return trial.retrainer.log_probabilities(kept)[rows].argmax(axis=1)

    metric = metrics.Brittleness(retrain, k)
    predictions = retrain(np.arange(trial.num_train))
    for block, values in trial.values(queries):
        metric.update_state(values, predictions[block])
    return Answer({"brittleness": told(metric)}, {"k": k})


def _losses(trial: Trial, kept: np.ndarray, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the loss of test examples in some classes after training on the kept examples, shape (m,)."""
    return -trial.retrainer.log_probabilities(kept)[rows, classes]


def _protocol(
    measures: Mapping[str, Measure],
    ask: Callable[[Trial], Answer],
    settings: Mapping[str, float] | None = None,
) -> Protocol:
    """Return a question on the model whose last layer is at its optimum, which trains that layer again."""
    return Protocol(
        "converged", measures, ask, retrains=True, settings={**(settings or {}), "penalty": PENALTY}
    )


RETRAINING: Mapping[str, Protocol] = MappingProxyType(
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
            _ask_subsets,
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
            _ask_removals,
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
            _ask_parts,
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
            _ask_flips,
            {"num_examples": NUM_BRITTLE, "share": _SHARE_OF_PROPONENTS},
        ),
    }
)
"""The questions that train again, by name."""
