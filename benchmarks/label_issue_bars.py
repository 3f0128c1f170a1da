"""What the benchmark of label issues demands, and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from label_issue_metrics import (
    AREA_MARGIN,
    METRICS,
    PRECISION_MARGIN,
    WORST_AREA_MARGIN,
    best_of,
    mean_ranks,
    num_missed,
    shortfalls,
    within_factor,
)
from label_issue_scores import BASELINES, REFERENCES

OURS = "label_issues"
COUNTED, AT_MOST, CANNOT_TELL = "counted", "at most", "cannot tell"
LARGE_SET, LONGEST_SECONDS = 60_000, 60
"""The ranking and the count of so many examples may take so long on two cores."""
HIGH_PRECISION = 0.5
"""A ranking of this precision is worth acting on: there "cannot tell" is no answer."""

Results = Sequence[dict[str, Any]]


class Bar(NamedTuple):
    """A demand, the figure that was measured, whether that is enough, and the settings that fell short."""

    demand: str
    figure: str
    is_met: bool
    misses: list[str]


class Counts(NamedTuple):
    """What was said of the number of wrong labels, in settings with right test labels.

    Attributes:
        settings: how many have wrong labels.
        given: of them, results with a count.
        at_most: results with an upper bound alone.
        cannot_tell: results without either.
        none: results that say there are none, or say nothing.
        clean: results without wrong labels.
    """

    settings: int
    given: list[dict[str, Any]]
    at_most: list[dict[str, Any]]
    cannot_tell: list[dict[str, Any]]
    none: list[dict[str, Any]]
    clean: list[dict[str, Any]]


def with_wrong_labels(results: Results) -> list[dict[str, Any]]:
    """Return the settings in which scores are compared."""
    return [result for result in results if result["num_wrong"] and not result["setting"]["is_timed_only"]]


def with_right_test(results: Results) -> list[dict[str, Any]]:
    """Return the settings in which counts are compared: those whose test labels are right."""
    return [
        result
        for result in results
        if result["setting"]["test"] == "right" and not result["setting"]["is_timed_only"]
    ]


def counts_of(results: Results) -> Counts:
    """Sort results by what they say of the number of wrong labels."""
    trusted = [result for result in with_right_test(results) if OURS in result]
    wrong = with_wrong_labels(trusted)
    by_status = {
        status: [result for result in wrong if result[OURS]["status"] == status]
        for status in (COUNTED, AT_MOST, CANNOT_TELL)
    }
    return Counts(
        len(wrong),
        *by_status.values(),
        [result for result in wrong if result[OURS]["status"] not in by_status],
        [result for result in trusted if not result["num_wrong"]],
    )


def is_near(result: dict[str, Any]) -> bool:
    """Whether a count is within 1/2 .. 2 of the truth."""
    return within_factor(result[OURS]["estimate"], result["num_wrong"])


def is_covered(result: dict[str, Any]) -> bool:
    """Whether the interval of a count holds the truth."""
    return result[OURS]["low"] <= result["num_wrong"] <= result[OURS]["high"]


def gives_up_too_early(result: dict[str, Any]) -> bool:
    """Whether some baseline's ranking was worth acting on."""
    return best_of(result["scores"], REFERENCES, "precision") >= HIGH_PRECISION


def is_poorly_flagged(result: dict[str, Any]) -> bool:
    """Whether most of what is flagged is right, where some score would do better at that size."""
    ours = result[OURS]
    if not ours["flagged"]:
        return False
    return ours["precision"] < HIGH_PRECISION <= ours["best_precision_at_flagged"]


def bars(results: Results) -> list[Bar]:
    """Return every demand on `label_issues` with the figure that was measured."""
    wrong = [result for result in with_wrong_labels(results) if OURS in result]
    if not wrong:
        return []
    names = [result["name"] for result in wrong]
    area = shortfalls(wrong, OURS, REFERENCES, "area")
    precision = shortfalls(wrong, OURS, REFERENCES, "precision")
    return [
        _margin_bar("ROC-AUC at least the best baseline's - .01 in 95 %", area, AREA_MARGIN, 0.95, names),
        _margin_bar("ROC-AUC never below it by more than .03", area, WORST_AREA_MARGIN, 1.0, names),
        _margin_bar(
            "precision among as many as are wrong at least the best baseline's - .02 in 85 %",
            precision,
            PRECISION_MARGIN,
            0.85,
            names,
        ),
        *(_rank_bar(wrong, metric) for metric in METRICS[:1]),
        *_count_bars(counts_of(results), [result for result in with_right_test(results) if OURS in result]),
        *_time_bar(results),
    ]


def _margin_bar(demand: str, differences: np.ndarray, margin: float, share: float, names: list[str]) -> Bar:
    missed = num_missed(differences, margin)
    reached = 1 - missed / len(differences)
    worst = sorted(zip(differences, names, strict=True))[:missed]
    figure = (
        f"{reached:.0%} ({len(differences) - missed} of {len(differences)}), worst {differences.min():+.3f}"
    )
    return Bar(demand, figure, reached >= share, [f"{name} {difference:+.3f}" for difference, name in worst])


def _rank_bar(wrong: Results, metric: str) -> Bar:
    ranks = mean_ranks(wrong, (OURS, *BASELINES), metric)
    second = min(BASELINES, key=ranks.__getitem__)
    figure = f"{ranks[OURS]:.2f}; next {second}, {ranks[second]:.2f}"
    return Bar("first in mean rank", figure, ranks[OURS] < ranks[second], [])


def _count_bars(counts: Counts, trusted: Results) -> list[Bar]:
    """Judge counts; those of clean sets too, where any count is wrong."""
    given = counts.given
    far = [result for result in given if not is_near(result)]
    uncovered = [result for result in given if not is_covered(result)]
    false = [result for result in counts.clean if result[OURS]["status"] == COUNTED]
    early = [result for result in counts.cannot_tell if gives_up_too_early(result)]
    poor = [result for result in with_wrong_labels(trusted) if is_poorly_flagged(result)]

    def share(failed: list[dict[str, Any]], what: str) -> str:
        if not given:
            return "no count is given"
        return f"{1 - len(failed) / len(given):.0%} {what} ({len(given) - len(failed)} of {len(given)})"

    def described(result: dict[str, Any]) -> str:
        ours = result[OURS]
        interval = f"{_text(ours['low'])} .. {_text(ours['high'])}"
        return f"{result['name']}: {_text(ours['estimate'])} ({interval}) for {result['num_wrong']}"

    return [
        Bar(
            "90 % of the counts given within 1/2 .. 2 of the truth",
            share(far, "within"),
            bool(given) and len(far) <= 0.1 * len(given),
            [described(result) for result in far],
        ),
        Bar(
            "intervals that cover in 90 %",
            share(uncovered, "cover"),
            bool(given) and len(uncovered) <= 0.1 * len(given),
            [described(result) for result in uncovered],
        ),
        Bar(
            "no count on a clean set",
            f"{len(false)} of {len(counts.clean)}",
            not false,
            [described(result) for result in false],
        ),
        Bar(
            '"cannot tell" never where the best baseline\'s precision among as many as are wrong is .5 or more',
            f"{len(early)} of {len(counts.cannot_tell)}",
            not early,
            [result["name"] for result in early],
        ),
        Bar(
            "precision of the flagged set at least .5 wherever any score reaches .5 at that size",
            f"{len(poor)} below",
            not poor,
            [f"{result['name']} {result[OURS]['precision']:.2f}" for result in poor],
        ),
    ]


def _time_bar(results: Results) -> list[Bar]:
    timed = [result for result in results if result["num_train"] >= LARGE_SET and OURS in result]
    return [
        Bar(
            f"n = {result['num_train']:,}: under {LONGEST_SECONDS} s on two cores",
            f"{result[OURS]['seconds']:.0f} s, {result[OURS]['cpu_seconds']:.0f} s of CPU",
            result[OURS]["seconds"] < LONGEST_SECONDS,
            [],
        )
        for result in timed
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
