"""The command `deel-dualview`: thin, and quick to answer, as TensorFlow is imported where it is needed."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from deel_dualview import __version__

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from deel_dualview.report import AuditReport

FAILED_THRESHOLD, BAD_INPUT, INTERRUPTED = 1, 2, 130
_SWAPS_A_LINE = 5


class _Subject(NamedTuple):
    """What is audited: a model, its data, and what is known of them."""

    model: keras.Model
    train: tf.data.Dataset
    test: tf.data.Dataset
    class_names: list[str] | None
    known_label_errors: np.ndarray | None


class _BadInput(click.ClickException):
    """An error of the user's: one line, and an exit code that differs from a failed threshold's."""

    exit_code = BAD_INPUT


class _CleanCommand(click.Command):
    """A command whose errors are one line each, unless `--debug` is given, and that Ctrl-C ends quietly."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn exceptions into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nInterrupted. No report was written.", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise _BadInput(_one_line(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deel-dualview")
def main() -> None:
    """Tell which training examples made a Keras classifier decide as it did."""


@main.command(cls=_CleanCommand)
@click.option("--model", "model_path", metavar="FILE", help="A Keras model. Without it: a demo on digits.")
@click.option("--train", "train_spec", metavar="SPEC", help="The data that the model was trained on.")
@click.option("--test", "test_spec", metavar="SPEC", help="The data whose predictions are explained.")
@click.option("--data-dir", metavar="DIR", help="Where TFDS keeps datasets.  [default: its own]")
@click.option("--output", default="audit", show_default=True, metavar="DIR", help="Where the report goes.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report in the output directory.")
@click.option("--k", "k", default=5, show_default=True, type=click.IntRange(1), help="Examples a prediction.")
@click.option(
    "--K",
    "penalty",
    type=click.FloatRange(0, min_open=True),
    help="Penalty of misfits, free of scale (default: 600 / n).",
)
@click.option(
    "--kernel",
    type=click.Choice(["cosine", "linear", "standardized"]),
    help="How features compare (default: cosine).",
)
@click.option("--feature-layer", metavar="NAME", help="The layer that gives the features.  [default: found]")
@click.option(
    "--batch-size", default=256, show_default=True, type=click.IntRange(1), help="For TFDS datasets."
)
@click.option(
    "--fail-on", metavar="NAME=SHARE", multiple=True, help="Exit with 1 above this share; repeatable."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="For the demo.")
@click.option("--no-progress", is_flag=True, help="Show no progress bars.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def audit(
    model_path: str | None,
    train_spec: str | None,
    test_spec: str | None,
    data_dir: str | None,
    output: str,
    overwrite: bool,
    k: int,
    penalty: float | None,
    kernel: str | None,
    feature_layer: str | None,
    batch_size: int,
    fail_on: tuple[str, ...],
    seed: int,
    no_progress: bool,
    debug: bool,
) -> None:
    """Write a report on a trained classifier and its data.

    It shows wrong predictions with the training examples behind them, suspected label errors, and test
    examples that leaked into training. Without --model it audits a demo on handwritten digits.

    SPEC is NAME:SPLIT of TensorFlow Datasets, such as "mnist:test[:1000]", or package.module:function, a
    function without arguments that returns a batched tf.data.Dataset of (inputs, labels).

    Shares for --fail-on: label-errors, wrong-predictions, leaks, duplicates-conflicting, unfaithful.
    """
    from deel_dualview.report.thresholds import parse_threshold
    from deel_dualview.report.writing import check_output_directory

    thresholds = dict(parse_threshold(text) for text in fail_on)
    _check_subject(model_path, train_spec, test_spec)
    directory = check_output_directory(output, overwrite=overwrite)
    _quieten(debug)
    if model_path is None:
        subject = _demo(seed, batch_size)
    else:
        subject = _read(model_path, str(train_spec), str(test_spec), batch_size, data_dir)
    report = _audit(subject, k, {"K": penalty, "kernel": kernel}, feature_layer, not no_progress)
    report.to_html(directory, overwrite=overwrite)
    _tell(report, directory)
    _apply(thresholds, report)


def _check_subject(model_path: str | None, train_spec: str | None, test_spec: str | None) -> None:
    """Refuse a model without its data, or data without a model."""
    given = {"--model": model_path, "--train": train_spec, "--test": test_spec}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise click.UsageError(
            f"An audit of your own model needs --model, --train and --test. Missing: {', '.join(missing)}."
        )


def _quieten(debug: bool) -> None:
    """Import TensorFlow as Keras' back end, without its start-up messages."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if debug:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_native_messages():
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _without_native_messages() -> Iterator[None]:
    """Drop what C++ code writes to the error stream: TensorFlow's first messages obey no log level."""
    stream = os.dup(2)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stream, 2)
            os.close(stream)


def _read(
    model_path: str, train_spec: str, test_spec: str, batch_size: int, data_dir: str | None
) -> _Subject:
    """Load what the options name."""
    from deel_dualview.sources import load_model, read_dataset

    model = load_model(model_path)
    train = read_dataset(train_spec, name="train", batch_size=batch_size, data_dir=data_dir)
    test = read_dataset(test_spec, name="test", batch_size=batch_size, data_dir=data_dir)
    click.echo(f"Model {model_path}. Trained on {train.description}. Audited on {test.description}.")
    return _Subject(model, train.dataset, test.dataset, train.class_names, None)


def _demo(seed: int, batch_size: int) -> _Subject:
    """Train the demo's model and list the labels that were swapped on purpose."""
    from deel_dualview.demo import make_demo

    click.echo("No --model: a demo. Training a small network on the handwritten digits of the package ...")
    demo = make_demo(seed=seed, batch_size=batch_size)
    true_labels = demo.original_labels[demo.swapped_indices]
    rows = zip(demo.swapped_indices, true_labels, demo.swapped_labels, strict=True)
    cells = [f"{index:>6}: {true} -> {wrong}" for index, true, wrong in rows]
    click.echo(f"{len(cells)} training labels were swapped on purpose, for the report to find:")
    for start in range(0, len(cells), _SWAPS_A_LINE):
        click.echo("".join(cells[start : start + _SWAPS_A_LINE]))
    return _Subject(demo.model, demo.train, demo.test, demo.class_names, demo.swapped_indices)


def _audit(
    subject: _Subject, k: int, settings: dict[str, Any], feature_layer: str | None, progress: bool
) -> AuditReport:
    """Audit with the settings that were given; the others keep the library's defaults."""
    from deel_dualview import DualView, InfluenceModel
    from deel_dualview import audit as audit_model

    given = {name: value for name, value in settings.items() if value is not None}
    model = InfluenceModel(subject.model, feature_layer)
    return audit_model(
        model,
        subject.train,
        subject.test,
        k=k,
        calculator=functools.partial(DualView, **given),
        class_names=subject.class_names,
        known_label_errors=subject.known_label_errors,
        progress=progress,
    )


def _tell(report: AuditReport, directory: pathlib.Path) -> None:
    """Say what was found and where it was written."""
    for finding in report.findings:
        click.echo(f"- {finding.title}")
    for name, meaning in (
        ("index.html", "the report, for a browser"),
        ("audit.json", "the same as data"),
        ("attributions.npz", "all influence values, sparse"),
    ):
        click.echo(f"{directory / name}  ({meaning})")


def _apply(thresholds: dict[str, float], report: AuditReport) -> None:
    """End with exit code 1 where a share is above its threshold."""
    from deel_dualview.report.thresholds import exceeded_thresholds

    failures = exceeded_thresholds(report.rates, thresholds)
    for failure in failures:
        click.echo(f"Failed: {failure}", err=True)
    if failures:
        click.get_current_context().exit(FAILED_THRESHOLD)


def _one_line(error: Exception) -> str:
    """Write an error as one line; the type is named where it is not one of ours to users."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where.)"
