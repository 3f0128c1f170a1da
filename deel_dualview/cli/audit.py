"""`deel-dualview audit`: a report on a trained model and its data."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from deel_dualview.calculators.methods import METHODS
from deel_dualview.cli.cluster import find_worker
from deel_dualview.cli.running import FAILED_THRESHOLD, CleanCommand, Size, say, say_step, steps_in_lines
from deel_dualview.cli.subject import (
    Subject,
    check_files,
    check_subject,
    given_subject,
    load_subject,
    output_options,
    read_lines,
    subject_options,
    top_k_option,
)
from deel_dualview.plots.formatting import visible
from deel_dualview.quiet import silence

if TYPE_CHECKING:
    from deel_dualview.report import AuditReport
    from deel_dualview.stores import DiskStore

_SURROGATE = "dualview"


def _number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse "nan", which lies in no range and outside of none."""
    del context, parameter
    if value is not None and math.isnan(value):
        raise click.BadParameter("a number is needed.")
    return value


@click.command(cls=CleanCommand)
@subject_options
@click.option(
    "--method",
    default=_SURROGATE,
    show_default=True,
    type=click.Choice(list(METHODS)),
    metavar="NAME",
    help=f"The attribution method: {', '.join(METHODS)}.",
)
@top_k_option("Examples a prediction.")
@click.option(
    "--K",
    "penalty",
    type=click.FloatRange(0, math.inf, min_open=True, max_open=True),
    callback=_number,
    help="Penalty of misfits, free of scale (dualview; default: 600 / n, tempered at most 30 / n).",
)
@click.option(
    "--kernel",
    type=click.Choice(["tempered", "cosine", "linear", "standardized"]),
    help="How features compare (dualview; default: cosine).",
)
@click.option(
    "--relevance",
    metavar="RULE",
    help="Rule of the heatmaps of what carries an influence; off for none.  [default: epsilon-gamma]",
)
@click.option(
    "--colours",
    default="orange-blue",
    show_default=True,
    type=click.Choice(["orange-blue", "red-blue", "orange-purple"]),
    help="Of the heatmaps.",
)
@click.option(
    "--input-names",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Names of columns, or words of tokens by their number, one a line.",
)
@click.option(
    "--output-names",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Names of the numbers or labels of a model that is no classifier, one a line.",
)
@click.option("--label-unit", default="", metavar="TEXT", help="Unit of the numbers of a regression.")
@click.option(
    "--known-errors",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Positions of training labels known to be wrong, one a line: how many are found?",
)
@click.option(
    "--since",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The audit.json of an earlier audit: say what has changed.",
)
@click.option(
    "--reviewed",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The corrections.csv of an earlier audit: labels reviewed as right are not listed again.",
)
@click.option(
    "--verify",
    type=click.IntRange(min=0),
    metavar="N",
    help="Check N predictions: train the last layer again without the examples named.",
)
@click.option(
    "--store",
    "store_path",
    metavar="DIR",
    help="Keep the features of the training set there: the next audit does not compute them again.",
)
@click.option(
    "--memory-budget",
    type=Size(),
    help="Memory beside TensorFlow, such as 2GB: beyond it features are read from the disk in blocks.",
)
@click.option(
    "--fail-on", metavar="NAME=SHARE", multiple=True, help="Exit with 1 above this share; repeatable."
)
@click.option(
    "--allow-cannot-tell",
    is_flag=True,
    help="Do not fail where a share of --fail-on is unknown.",
)
@output_options("audit")
def audit(
    method: str,
    k: int,
    penalty: float | None,
    kernel: str | None,
    relevance: str | None,
    colours: Literal["orange-blue", "red-blue", "orange-purple"],
    input_names: str | None,
    output_names: str | None,
    label_unit: str,
    known_errors: str | None,
    since: str | None,
    reviewed: str | None,
    verify: int | None,
    store_path: str | None,
    memory_budget: int | None,
    fail_on: tuple[str, ...],
    allow_cannot_tell: bool,
    output: str,
    overwrite: bool,
    title: str | None,
    no_progress: bool,
    debug: bool,
) -> int:
    """Write a report on a trained model and its data.

    It shows wrong predictions, or large errors, with the training examples behind them, labels that are likely wrong,
    and test examples that leaked into training. Without --model it audits a demo on handwritten digits.

    SPEC is NAME:SPLIT of TensorFlow Datasets, such as "mnist:test[:1000]", or package.module:function, a
    function without arguments that returns a batched tf.data.Dataset of (inputs, labels), or arrays of them.

    Shares for --fail-on: label-errors, wrong-predictions, leaks, duplicates-conflicting, not-finite,
    unfaithful (of dualview).

    Workers of a cluster (TF_CONFIG) share the pass over the training set in the directory of --store, and the first
    one writes the report.
    """
    from deel_dualview.report.thresholds import exceeded_thresholds, parse_thresholds
    from deel_dualview.report.writing import check_output_directory

    thresholds = parse_thresholds(fail_on)
    options = given_subject()
    settings = {name: value for name, value in {"K": penalty, "kernel": kernel}.items() if value is not None}
    check_subject(options, [method])
    _check_surrogate(method, settings, thresholds)
    worker = find_worker()
    if not worker.is_alone and (store_path is None or options.model_path is None):
        raise click.UsageError(
            "Workers of a cluster (TF_CONFIG) need --model, and --store: a directory that all of them see."
        )
    directory = check_output_directory(output, overwrite=overwrite) if worker.is_chief else None
    names = None if input_names is None else read_lines(input_names, "--input-names")
    outputs = None if output_names is None else read_lines(output_names, "--output-names")
    known = _read_positions(known_errors)
    silenced = functools.partial(silence, debug, progress=not no_progress)
    rule = _chosen_rule(relevance, silenced)
    check_files(options)
    say_step("TensorFlow, model and data", progress=not no_progress)
    silenced()
    import numpy as np

    with worker.scope():
        loaded = load_subject(options, [method])
    _check_labels(thresholds, loaded)
    for line in loaded.planted:
        say(line)
    shown = {
        "input_names": names,
        "output_names": outputs,
        "label_unit": label_unit,
        "since": since,
        "reviewed": reviewed,
        "verify": verify or 0,
        "store": _open_store(store_path, progress=not no_progress),
        "memory_budget": memory_budget,
        **rule,
    }
    if known is not None:
        loaded = loaded._replace(known_label_errors=np.array(known, np.int64))
    with steps_in_lines(not no_progress):
        report = _audit(loaded, method, settings, shown, k=k, progress=not no_progress)
    if directory is None:
        say(f"{worker.name.capitalize()} has done its part; the first worker writes the report.")
        return 0
    report.to_html(directory, overwrite=overwrite, colours=colours, title=title)
    failures = exceeded_thresholds(report.rates, thresholds, allow_cannot_tell=allow_cannot_tell)
    _tell(report, directory)
    for failure in failures:
        say(f"Failed: {failure}", err=True)
    return FAILED_THRESHOLD if failures else 0


def _check_surrogate(method: str, settings: dict[str, Any], thresholds: dict[str, float]) -> None:
    """Refuse settings and thresholds of the surrogate for a method that has none."""
    if method == _SURROGATE:
        return
    given = [f"--{name}" for name in settings] + ["--fail-on unfaithful"] * ("unfaithful" in thresholds)
    if given:
        raise click.UsageError(
            f"Only --method {_SURROGATE} has a surrogate, and so {' and '.join(given)}; {method} has none."
        )


def _check_labels(thresholds: dict[str, float], subject: Subject) -> None:
    """Refuse, before the audit, a threshold on wrong predictions of a test set without labels."""
    from deel_dualview.data import unpack

    if "wrong-predictions" in thresholds and unpack(subject.test.element_spec).labels is None:
        raise click.UsageError(
            "--fail-on wrong-predictions needs a test set with labels, and --test gives none."
        )


def _chosen_rule(relevance: str | None, silenced: Callable[[], None]) -> dict[str, str | None]:
    """Return the argument of the rule that was given, checked; the library's default stands where none was."""
    if relevance in (None, "off"):
        return {} if relevance is None else {"relevance": None}
    silenced()
    from deel_dualview.auditing.pairs import check_rule

    check_rule(relevance)
    return {"relevance": relevance}


def _open_store(path: str | None, *, progress: bool) -> DiskStore | None:
    from deel_dualview.stores import DiskStore

    return None if path is None else DiskStore(path, progress=progress)


def _read_positions(path: str | None) -> list[int] | None:
    """Read one position a line; empty lines count for nothing."""
    if path is None:
        return None
    lines = [line.strip() for line in read_lines(path, "--known-errors")]
    wrong = [line for line in lines if line and not line.isdecimal()]
    if wrong:
        raise click.UsageError(f"--known-errors takes positions from 0, one a line. Received: {wrong[0]!r}.")
    return [int(line) for line in lines if line]


def _audit(
    subject: Subject,
    method: str,
    settings: dict[str, Any],
    shown: dict[str, Any],
    *,
    k: int,
    progress: bool,
) -> AuditReport:
    """Audit with the settings that were given; the others keep the library's defaults."""
    from deel_dualview import NamedMethod
    from deel_dualview import audit as audit_model

    return audit_model(
        subject.model,
        subject.train,
        subject.test,
        k=k,
        method=NamedMethod(method, subject.checkpoints, settings),
        class_names=subject.class_names,
        known_label_errors=subject.known_label_errors,
        progress=progress,
        **shown,
    )


def _tell(report: AuditReport, directory: pathlib.Path) -> None:
    """Say what was found and where it was written."""
    for finding in report.findings:
        say(f"- {finding.title}")
    if report.changes is not None:
        say(str(report.changes))
    values = "all influence values" if report.holds_all_values else "the strongest influence values"
    for name, meaning in (
        ("index.html", "the report, for a browser"),
        ("audit.json", "the same as data"),
        ("label_issues.csv", "every training label with its score, for a spreadsheet"),
        ("attributions.npz", f"{values}, sparse"),
    ):
        say(f"{visible(str(directory / name))}  ({meaning})")
