"""Markdown tables of the benchmark of label issues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from label_issue_bars import (
    OURS,
    Results,
    bars,
    counts_of,
    gives_up_too_early,
    is_covered,
    is_near,
    is_poorly_flagged,
    with_right_test,
    with_wrong_labels,
)
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

BEST = "best baseline of each setting"
CLEANLABS = {
    "cleanlab out of fold": "count",
    "cleanlab out of fold, calibrated": "calibrated",
    "cleanlab in sample": "count",
}


def to_markdown(results: Results, context: Mapping[str, Any]) -> str:
    """Return all tables as one page."""
    wrong, is_complete = with_wrong_labels(results), all(OURS in result for result in results)
    names = [*([OURS] if is_complete else []), *BASELINES]
    clean = [result for result in with_right_test(results) if not result["num_wrong"]]
    parts = ["# Label issues: scores and counts", ""]
    parts += [
        f"{len(wrong)} settings with wrong labels, {len(clean)} without; every one is a network of its own."
    ]
    parts += [f"Baselines that set the bars: {', '.join(REFERENCES)}; the best of them in each setting.", ""]
    if is_complete and wrong:
        parts += ["## Demands", "", *_bar_lines(results), ""]
    if wrong:
        parts += ["## ROC-AUC by data set", "", *_by_data(wrong, names), ""]
        parts += ["## Scores over all settings", "", *_over_all(wrong, names), ""]
        parts += ["## Counts", "", *_count_lines(results, is_complete), ""]
    parts += ["## Settings", "", *_setting_lines(results, is_complete), ""]
    parts += [f"Command: `{context['command']}`; {context['created']}.", ""]
    return "\n".join(parts)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _bar_lines(results: Results) -> list[str]:
    found = bars(results)
    lines = table(
        ["demand", "measured", ""],
        [[bar.demand, bar.figure, "met" if bar.is_met else "**missed**"] for bar in found],
    )
    missed = [bar for bar in found if bar.misses]
    if missed:
        lines += ["", "Settings that fell short:", ""]
        lines += [f"- {bar.demand}: {'; '.join(bar.misses)}." for bar in missed]
    return lines


def _by_data(wrong: Results, names: Sequence[str]) -> list[str]:
    data = list(dict.fromkeys(result["setting"]["data"] for result in wrong))

    def row(name: str, area: Callable[[dict[str, Any]], float]) -> list[str]:
        means = [
            np.mean([area(result) for result in wrong if result["setting"]["data"] == chosen])
            for chosen in data
        ]
        return [name, *(_share(mean) for mean in means)]

    rows = [row(name, lambda result, name=name: result["scores"][name]["area"]) for name in names]
    rows.append(row(BEST, lambda result: best_of(result["scores"], REFERENCES, "area")))
    return table(["score", *data], rows)


def _over_all(wrong: Results, names: Sequence[str]) -> list[str]:
    ranks = mean_ranks(wrong, names, "area")
    rows = []
    for name in names:
        area, precision = (shortfalls(wrong, name, REFERENCES, metric) for metric in ("area", "precision"))
        means = [np.mean([result["scores"][name][metric] for result in wrong]) for metric in METRICS]
        rows.append(
            [
                name,
                *(_share(mean) for mean in means),
                f"{ranks[name]:.2f}",
                f"{area.min():+.3f}",
                str(num_missed(area, AREA_MARGIN)),
                str(num_missed(area, WORST_AREA_MARGIN)),
                str(num_missed(precision, PRECISION_MARGIN)),
            ]
        )
    best = [
        np.mean([best_of(result["scores"], REFERENCES, metric) for result in wrong]) for metric in METRICS
    ]
    rows.append([BEST, *(_share(mean) for mean in best), *["-"] * 5])
    heads = ["score", "mean AUC", "mean AP", "mean P@wrong", "mean rank", "worst AUC - best baseline"]
    return table([*heads, "AUC missed by > .01", "by > .03", "P@ missed by > .02"], rows)


def _count_lines(results: Results, is_complete: bool) -> list[str]:
    trusted = with_right_test(results)
    wrong, clean = with_wrong_labels(trusted), [result for result in trusted if not result["num_wrong"]]
    text = f"In the {len(wrong)} settings with wrong labels and the {len(clean)} without whose test labels are right."
    heads = [
        "count",
        "given",
        "within 1/2 .. 2",
        "below",
        "above",
        "interval covers",
        "clean sets with a count",
    ]
    rows = []
    if is_complete:
        given, false = counts_of(results).given, [r for r in clean if r[OURS]["status"] == "counted"]
        estimates = [(result[OURS]["estimate"], result["num_wrong"]) for result in given]
        covered = _share_of([is_covered(result) for result in given])
        rows.append([OURS, str(len(given)), *_near(estimates), covered, str(len(false))])
        for name in CLEANLABS:
            rows.append(
                [f"{name}, where {OURS} gives one", str(len(given)), *_near(_cleanlab(given, name)), "-", "-"]
            )
    for name in CLEANLABS:
        false = [count for count, _ in _cleanlab(clean, name) if count]
        rows.append([name, str(len(wrong)), *_near(_cleanlab(wrong, name)), "-", str(len(false))])
    lines = [text, "", *table(heads, rows)]
    return [*lines, "", *_said(results, wrong)] if is_complete else lines


def _said(results: Results, wrong: Results) -> list[str]:
    """Return sentences about bounds, settings without a count, and flags."""
    counts = counts_of(results)
    bounds = [result[OURS]["at_most"] >= result["num_wrong"] for result in counts.at_most]
    early = [result["name"] for result in counts.cannot_tell if gives_up_too_early(result)]
    flags = [result for result in wrong if result[OURS]["flagged"]]
    poor = [result["name"] for result in flags if is_poorly_flagged(result)]
    lines = [
        f'- "At most" in {len(bounds)} settings with wrong labels, the bound right in {sum(bounds)}.',
        f'- "Cannot tell" in {len(counts.cannot_tell)}; in {len(early)} a baseline has a precision of .5 or more.',
        f"- No issues, or nothing, said in {len(counts.none)}: {', '.join(r['name'] for r in counts.none) or '-'}.",
        f"- Counts within 1/2 .. 2: {sum(is_near(result) for result in counts.given)} of {counts.settings} settings.",
    ]
    if flags:
        precision, recall = (
            np.mean([result[OURS][key] for result in flags]) for key in ("precision", "recall")
        )
        below = sum(result[OURS]["precision"] < 0.5 for result in flags)
        lines.append(
            f"- Flagged in {len(flags)}: mean precision {precision:.2f}, recall {recall:.2f}; precision below .5 in "
            f"{below}, where some score reaches it in {len(poor)}."
        )
    return lines


def _setting_lines(results: Results, is_complete: bool) -> list[str]:
    heads = [
        "setting",
        "train / test",
        "wrong",
        "accuracy train / test",
        "AUC of loss",
        "margin",
        "cleanlab out of fold",
    ]
    heads += ["kNN(10)", "best P@", "cleanlab's count"]
    if is_complete:
        heads += ["our AUC", "our P@", "our count", "interval", "flagged", "precision", "seconds"]
    rows = []
    for result in results:
        if result["setting"]["is_timed_only"] and not is_complete:
            continue
        scores, training = result["scores"], result["training"]
        shown = ("loss", "margin", "cleanlab out of fold", "kNN(10)")
        has_ranks = bool(scores.get("loss"))
        row = [
            result["name"],
            f"{result['num_train']:,} / {result['num_test']:,}",
            f"{result['num_wrong']:,}",
        ]
        row.append(f"{training['train_accuracy']:.3f} / {training['test_accuracy']:.3f}")
        row += [_share(scores[name]["area"]) if has_ranks else "-" for name in shown]
        row.append(_share(best_of(scores, REFERENCES, "precision")) if has_ranks else "-")
        row.append(str(result["counts"]["cleanlab out of fold"]["count"]) if "counts" in result else "-")
        rows.append(row + (_our_cells(result) if is_complete else []))
    return table(heads, rows)


def _our_cells(result: dict[str, Any]) -> list[str]:
    ours, metrics = result[OURS], result["scores"][OURS]
    said = {"counted": _number(ours["estimate"]), "at most": f"at most {_number(ours['at_most'])}"}
    interval = "-" if ours["low"] is None else f"{_number(ours['low'])} .. {_number(ours['high'])}"
    return [
        _share(metrics.get("area")),
        _share(metrics.get("precision")),
        said.get(ours["status"], ours["status"]),
        interval,
        str(ours["flagged"]),
        _share(ours["precision"]),
        f"{ours['seconds']:.1f}",
    ]


def _near(estimates: Sequence[tuple[float, int]]) -> list[str]:
    """Return the shares of estimates near the truth, below and above."""
    near = [within_factor(estimate, truth) for estimate, truth in estimates]
    below = [estimate < truth / 2 for estimate, truth in estimates]
    above = [estimate > truth * 2 for estimate, truth in estimates]
    return [_share_of(near), _share_of(below), _share_of(above)]


def _cleanlab(results: Results, name: str) -> list[tuple[int, int]]:
    source, key = name.removesuffix(", calibrated"), CLEANLABS[name]
    return [(result["counts"][source][key], result["num_wrong"]) for result in results]


def _share_of(values: Sequence[bool]) -> str:
    return _share(np.mean(values)) if len(values) else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
