"""Questions whose answers come from a recorded training, repeated bit for bit without some of its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import scipy.stats

from deel_dualview import metrics
from deel_dualview.calculators.feature_similarity import FeatureSimilarity
from deel_dualview.evaluation.method_run import MethodRun, Queries
from deel_dualview.evaluation.recorded_models import NUM_RECORDED, RECORDED, draw_left_out
from deel_dualview.evaluation.tasks import Measure, Task, TaskResult, record
from deel_dualview.metrics.base import MeanMetric, Metric, MetricResult

NUM_SUBSETS = 40
"""Subsets of each size that are left out."""
SHARES = (0.01, 0.05)
NUM_REMOVALS = 100
"""Test examples whose proponents are left out: as many trainings for each method."""
_SHARE_OF_PROPONENTS = 0.01
_NUM_REPEATED = 2
"""Trainings that are repeated to see whether a repetition has the same bits."""


class _Mean(MeanMetric):
    """The mean of numbers, one a test example."""

    def update_state(self, scores: np.ndarray) -> None:
        self._append(scores)


class _RankCorrelation(Metric):
    """Spearman's rank correlation of two numbers a test example, across test examples; 0 where one is constant."""

    def reset_state(self) -> None:
        self._pairs: list[np.ndarray] = []

    def update_state(self, predicted: np.ndarray, actual: np.ndarray) -> None:
        self._pairs.append(np.stack([predicted, actual], axis=1))

    def result(self) -> MetricResult:
        pairs = np.concatenate(self._pairs)
        value, interval = self._of(pairs), self._interval(lambda rows: self._of(pairs[rows]), len(pairs))
        return MetricResult(value, len(pairs), interval)

    @staticmethod
    def _of(pairs: np.ndarray) -> float:
        if (pairs == pairs[0]).all(axis=0).any():
            return 0.0
        return float(scipy.stats.spearmanr(*pairs.T).statistic)


class _Change(NamedTuple):
    """What a training with less weight on some examples changed, shape (m,) each.

    Attributes:
        rises: of the loss of the prediction.
        flips: whether another class is predicted.
    """

    rises: np.ndarray
    flips: np.ndarray


def _run_left_out(run: MethodRun) -> TaskResult:
    queries = _queries(run, NUM_RECORDED)
    rows, seed, num_train = np.arange(queries.size), run.subject.seed, run.num_train
    measured: dict[float, metrics.LinearDatamodelingScore] = {}
    outputs, ceilings = {}, {}
    for share in SHARES:
        left_out = [draw_left_out(num_train, share, seed, number) for number in range(NUM_SUBSETS)]
        kept = [np.delete(np.arange(num_train), positions) for positions in left_out]
        shown = run.shown(kept, f"training without {share:.0%}")
        found = np.stack([run.kept_outputs.get(one, run.recorded) for one in shown], axis=1)
        members = np.ones((NUM_SUBSETS, num_train), bool)
        np.put_along_axis(members, np.stack(left_out), False, axis=1)
        measured[share] = metrics.LinearDatamodelingScore(members)
        outputs[share] = found[rows, :, queries.predictions]
        ceilings[share] = _ceiling(run, kept, outputs[share], measured[share], queries)
    for block, values in run.values(queries):
        for share, metric in measured.items():
            metric.update_state(values, outputs[share][block])
    found_scores = {
        _lds(share): record(metric, ceiling=ceilings[share]) for share, metric in measured.items()
    }
    return TaskResult(found_scores, {"num_subsets": NUM_SUBSETS})


def _ceiling(
    run: MethodRun,
    kept: Sequence[np.ndarray],
    outputs: np.ndarray,
    metric: metrics.LinearDatamodelingScore,
    queries: Queries,
) -> float:
    """Return the score of a repetition of the trainings: 1 if those that are repeated have the same bits.

    Where they have not (another number of threads, some GPUs), all are repeated.
    """
    rows = np.arange(queries.size)

    def repeat(one: np.ndarray) -> np.ndarray:
        found: np.ndarray = run.recorded.log_probabilities(one)[rows, queries.predictions].astype(np.float32)
        return found

    first = [repeat(one) for one in kept[:_NUM_REPEATED]]
    if np.array_equal(np.stack(first, axis=1), outputs[:, : len(first)]):
        return 1.0
    return metric.noise_ceiling(outputs, np.stack([*first, *map(repeat, kept[len(first) :])], axis=1))


def _run_weight(weight: float, state: str, run: MethodRun) -> TaskResult:
    """Give the strongest proponents of each query this part of their weight, and train again."""
    queries, training = _queries(run, NUM_REMOVALS), run.recorded.training
    k = max(1, round(_SHARE_OF_PROPONENTS * run.num_train))
    before = run.recorded.outputs(training.parameters)
    rises, flips, predicted = _Mean(), _Mean(), _RankCorrelation()
    for block, values in run.values(queries):
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        chosen = [first[row[first] > 0] for first, row in zip(order, values, strict=True)]
        change = _change(run, queries, block, before, chosen, weight)
        rises.update_state(change.rises)
        flips.update_state(change.flips)
        sums = [row[first].sum(dtype=np.float64) for first, row in zip(chosen, values, strict=True)]
        predicted.update_state((1 - weight) * np.array(sums), change.rises)
    references = _references(run, queries, before, weight, k)
    rise = {name: float(change.rises.mean()) for name, change in references.items()}
    flip = {name: float(change.flips.mean()) for name, change in references.items()}
    is_repeatable = np.array_equal(training.retrain(training.weights), training.parameters)
    measured = {
        f"rise-{state}": record(rises, **rise),
        f"flips-{state}": record(flips, **flip),
        f"predicted-{state}": record(predicted, ceiling=1.0 if is_repeatable else None),
    }
    return TaskResult(measured, {"k": k})


def _change(
    run: MethodRun,
    queries: Queries,
    block: slice,
    before: np.ndarray,
    chosen: Sequence[np.ndarray],
    weight: float,
) -> _Change:
    """Return what less weight on the examples chosen for each query of a block changes."""
    training, rises, flips = run.recorded.training, [], []
    rows = range(block.start, block.stop)
    for row, positions in zip(run.shown(rows, "training again"), chosen, strict=True):
        weights = training.weights.copy()
        weights[positions] *= weight
        after = run.recorded.outputs(training.retrain(weights), slice(row, row + 1))[0]
        rises.append(before[row, queries.predictions[row]] - after[queries.predictions[row]])
        flips.append(after.argmax() != queries.predictions[row])
    return _Change(np.array(rises), np.array(flips))


def _references(
    run: MethodRun, queries: Queries, before: np.ndarray, weight: float, k: int
) -> dict[str, _Change]:
    """Return the change by random examples and by the most similar ones of the predicted class, of all queries."""
    random = [
        np.random.default_rng([run.subject.seed, row]).choice(run.num_train, k, replace=False)
        for row in range(queries.size)
    ]
    similar = FeatureSimilarity(run.model, run.subject.train)
    lists = similar.top_k_indices(run.batches(queries.images), k)
    nearest = np.concatenate([indices.numpy() for _, indices in lists])

    def change(name: str, chosen: Sequence[np.ndarray] | np.ndarray) -> _Change:
        key = np.frombuffer(f"{name} {weight} {k} {queries.size}".encode(), np.uint8)
        found = run.kept_outputs.get_by(
            key,
            lambda: np.stack(_change(run, queries, slice(0, queries.size), before, list(chosen), weight)),
        )
        return _Change(*found)

    return {"at_random": change("random", random), "most_similar": change("similar", nearest)}


def _queries(run: MethodRun, most: int) -> Queries:
    return run.queries(run.tests[: min(most, NUM_RECORDED, run.num_test)])


def _lds(share: float) -> str:
    return f"lds-without-{share:.0%}".rstrip("%")


def _weight_task(weight: float, state: str, words: str) -> Task:
    """Return the question what less weight on the strongest proponents, which are then in some state, does."""
    done = f"after the recorded training {words} the strongest 1 % of proponents"
    return Task(
        RECORDED,
        {
            f"rise-{state}": Measure(
                f"Rise, {state}", "higher", f"mean rise of the loss of a prediction {done}", True
            ),
            f"flips-{state}": Measure(f"Flips, {state}", "higher", f"predictions that flip {done}"),
            f"predicted-{state}": Measure(
                f"Predicted, {state}",
                "higher",
                f"rank correlation, across predictions, of the predicted and the actual rise {done}",
            ),
        },
        partial(_run_weight, weight, state),
        retrains=True,
        settings={"num_examples": NUM_REMOVALS, "share": _SHARE_OF_PROPONENTS, "weight": weight},
    )


RECORDED_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "leave-few-out": Task(
            RECORDED,
            {
                _lds(share): Measure(
                    f"LDS, {share:.0%} out".replace("%", " %"),
                    "higher",
                    "rank correlation of summed influence with the log-probability after the recorded training "
                    f"without random {share:.0%}".replace("%", " %"),
                    True,
                )
                for share in SHARES
            },
            _run_left_out,
            retrains=True,
            settings={"num_subsets": NUM_SUBSETS, "num_examples": NUM_RECORDED},
        ),
        "remove-proponents": _weight_task(0.0, "removed", "without"),
        "weight-steps": _weight_task(0.5, "halved", "with half the weight of"),
    }
)
"""The questions that repeat a recorded training, by name."""
