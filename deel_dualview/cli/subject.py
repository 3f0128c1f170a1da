"""What the commands work on: options that name a model, its data and its checkpoints, and what they load."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from deel_dualview._user_code import import_registering
from deel_dualview.calculators.methods import METHODS, check_checkpoints, method_of
from deel_dualview.cli.model_files import check_model_file
from deel_dualview.cli.running import say
from deel_dualview.quiet import seconds_shown

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from deel_dualview.cli.demo import Demo
    from deel_dualview.models import InfluenceModel
    from deel_dualview.models.checkpoints import Checkpoints

LARGEST_SEED = 2**32 - 1  # of `keras.utils.set_random_seed`
_SWAPS_A_LINE = 5
_DEMO_EPOCHS_A_CHECKPOINT = 3
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Subject(NamedTuple):
    """A model, its data, and what is known of them; `planted` tells, in lines, what the demo did to its labels."""

    model: InfluenceModel
    train: tf.data.Dataset
    test: tf.data.Dataset
    class_names: list[str] | None
    known_label_errors: np.ndarray | None
    checkpoints: Checkpoints | None
    planted: list[str]


class SubjectOptions(NamedTuple):
    """The values of the options that both commands share."""

    model_path: str | None
    train_spec: str | None
    test_spec: str | None
    data_dir: str | None
    download: bool
    modules: tuple[str, ...]
    mapped: str | None
    class_names: str | None
    checkpoints: str | None
    feature_layer: str | None
    model_output: str | None
    batch_size: int
    seed: int


_META = "deel_dualview"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep the value of an option for `given_subject`, in place of an argument of the command."""
    context.meta[f"{_META}.{parameter.name}"] = value


def given_subject() -> SubjectOptions:
    """Return the values of the options that `subject_options` added to the current command."""
    meta = click.get_current_context().meta
    return SubjectOptions(*(meta[f"{_META}.{name}"] for name in SubjectOptions._fields))


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name what a command works on; `given_subject` returns their values."""
    kept = functools.partial(click.option, expose_value=False, callback=_keep)
    options: list[Decorator] = [
        kept("--model", "model_path", metavar="FILE", help="A Keras model. Without it: a demo on digits."),
        kept("--train", "train_spec", metavar="SPEC", help="The data that the model was trained on."),
        kept("--test", "test_spec", metavar="SPEC", help="The data whose predictions are explained."),
        kept("--data-dir", metavar="DIR", help="Where TFDS keeps datasets.  [default: its own]"),
        kept("--download", is_flag=True, help="Let TFDS fetch a dataset that is not there."),
        kept(
            "--import",
            "modules",
            metavar="MODULE",
            multiple=True,
            help="A module that registers layers of the model; repeatable. Those of SPEC are imported too.",
        ),
        kept(
            "--map",
            "mapped",
            metavar="FUNCTION",
            help="package.module:function, of the inputs of one TFDS example: what the model takes.",
        ),
        kept(
            "--class-names",
            "class_names",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="Names of the classes, one a line.  [default: those of TFDS]",
        ),
        kept("--checkpoints", metavar="DIR", help="What SaveCheckpoints wrote in training (tracin, trak)."),
        kept("--feature-layer", metavar="NAME", help="The layer that gives the features.  [default: found]"),
        kept("--model-output", metavar="NAME", help="Of a model with several outputs the one to explain."),
        kept(
            "--batch-size", default=256, show_default=True, type=click.IntRange(1), help="For TFDS datasets."
        ),
        kept(
            "--seed", default=0, show_default=True, type=click.IntRange(0, LARGEST_SEED), help="For the demo."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class _Renamed(click.Option):
    """An option whose last name is an earlier one, which is taken but not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return None if record is None else (record[0].replace(f", {self.opts[-1]}", ""), record[1])


def top_k_option(text: str) -> Decorator:
    """Return a decorator that adds the number of examples; its earlier name `--k` differs from `--K` by case alone."""
    kind = click.IntRange(1)
    return click.option(
        "--top-k", "--k", "k", default=5, show_default=True, type=kind, cls=_Renamed, help=text
    )


def title_option(default: str) -> Decorator:
    """Return a decorator that adds the title of the page; `default` is what names it otherwise."""
    return click.option(
        "--title", metavar="TEXT", help=f"What the page is called.  [default: by the {default}]"
    )


def output_options(default: str) -> Decorator:
    """Return a decorator that adds the options of where a report goes, and how the command tells of itself."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        options: list[Decorator] = [
            click.option(
                "--output", default=default, show_default=True, metavar="DIR", help="Where the report goes."
            ),
            click.option(
                "--overwrite", is_flag=True, help="Replace an earlier report in the output directory."
            ),
            title_option("model"),
            click.option("--no-progress", is_flag=True, help="Show no progress bars."),
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        ]
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_subject(options: SubjectOptions, methods: list[str]) -> None:
    """Refuse, before TensorFlow is imported, a model without its data and checkpoints that do not fit.

    Raises:
        click.UsageError: some of model and data are missing, or checkpoints that no method takes.
        ValueError: an unknown method, or one that needs checkpoints and has none.
    """
    given = {"--model": options.model_path, "--train": options.train_spec, "--test": options.test_spec}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise click.UsageError(
            f"Your own model needs --model, --train and --test. Missing: {', '.join(missing)}."
        )
    takers = [name for name in METHODS if METHODS[name].checkpoints != "unused"]
    if options.checkpoints is not None and not set(takers) & set(methods):
        raise click.UsageError(f"--checkpoints is for the methods {', '.join(takers)} only.")
    if options.checkpoints is not None and options.model_path is None:
        raise click.UsageError("--checkpoints needs --model; the demo makes its own checkpoints.")
    if options.modules and options.model_path is None:
        raise click.UsageError("--import needs --model; the demo has no layers of its own.")
    for name, value in (("--map", options.mapped), ("--class-names", options.class_names)):
        if value is not None and options.model_path is None:
            raise click.UsageError(f"{name} needs --model; the demo has data of its own.")
    # The demo makes its own.
    check_checkpoints(methods, has_checkpoints=bool(options.checkpoints) or options.model_path is None)


def check_files(options: SubjectOptions) -> None:
    """Check, once all options are, that the model's file can be read.

    Raises:
        ValueError: it is missing, cannot be read or is damaged.
    """
    if options.model_path is not None:
        check_model_file(options.model_path)


def load_subject(options: SubjectOptions, methods: list[str]) -> Subject:
    """Load what the options name, or train the demo's model."""
    if options.model_path is None:
        return _demo(options, methods)
    from deel_dualview.cli.model_files import load_model
    from deel_dualview.data.sources import find_mapping, find_source, read_dataset
    from deel_dualview.models import InfluenceModel
    from deel_dualview.models.checkpoints import load_checkpoints

    specs = {"train": str(options.train_spec), "test": str(options.test_spec)}
    # The user's modules come first: they register the layers and functions that the model is made of.
    import_registering(options.modules)
    for name, spec in specs.items():
        find_source(spec, name=name, data_dir=options.data_dir)
    if options.mapped is not None:
        find_mapping(options.mapped)
    model = load_model(options.model_path)
    layer, folder = options.feature_layer, options.checkpoints
    output = options.model_output
    _check_output(model, output)
    own = InfluenceModel(model, layer, output=output)
    checkpoints = (
        None if folder is None else load_checkpoints(folder, model, feature_layer=layer, output=output)
    )
    train, test = (
        read_dataset(
            spec,
            name=name,
            batch_size=options.batch_size,
            data_dir=options.data_dir,
            download=options.download,
            function=options.mapped,
        )
        for name, spec in specs.items()
    )
    say(f"Model {options.model_path}. Trained on {train.description}. Explained: {test.description}.")
    names = (
        train.class_names if options.class_names is None else read_lines(options.class_names, "--class-names")
    )
    return Subject(own, train.dataset, test.dataset, names, None, checkpoints, [])


def _check_output(model: keras.Model, output: str | None) -> None:
    """Refuse a model with several outputs of which none is named.

    Raises:
        click.UsageError: the names are in the message.
    """
    from deel_dualview.models.named_outputs import output_names

    names = output_names(model) or []
    if len(names) > 1 and output not in names:
        raise click.UsageError(
            f"This model has several outputs: name one by --model-output: {', '.join(names)}."
        )


def read_lines(path: str, option: str) -> list[str]:
    """Return the lines of a text file.

    Raises:
        click.UsageError: it is not a text in UTF-8.
    """
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise click.UsageError(f"{option} takes a text file in UTF-8, one name a line; {path} is none.")
    return text.splitlines()


def _demo(options: SubjectOptions, methods: list[str]) -> Subject:
    """Train the demo's model, with checkpoints if a method needs them."""
    from deel_dualview.cli.demo import make_demo
    from deel_dualview.models import InfluenceModel
    from deel_dualview.models.checkpoints import SaveCheckpoints, load_checkpoints

    say("No --model: a demo. Training a small network on the handwritten digits of the package ...")
    needed = any(method_of(name).checkpoints == "needed" for name in methods)
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary) / "checkpoints"
        callbacks = [SaveCheckpoints(directory, every=_DEMO_EPOCHS_A_CHECKPOINT)] if needed else []
        is_shown = not click.get_current_context().params.get("no_progress")
        with seconds_shown("Training", sys.stderr) if is_shown else contextlib.nullcontext():
            demo = make_demo(seed=options.seed, batch_size=options.batch_size, callbacks=callbacks)
        layer = options.feature_layer
        checkpoints = load_checkpoints(directory, demo.model, feature_layer=layer) if needed else None
    model = InfluenceModel(demo.model, layer, output=options.model_output)
    return Subject(
        model,
        demo.train,
        demo.test,
        demo.class_names,
        demo.swapped_indices,
        checkpoints,
        _tell_swaps(demo),
    )


def _tell_swaps(demo: Demo) -> list[str]:
    """Return lines that list the labels which the demo swapped on purpose."""
    true_labels = demo.original_labels[demo.swapped_indices]
    rows = zip(demo.swapped_indices, true_labels, demo.swapped_labels, strict=True)
    cells = [f"{index:>6}: {true} -> {wrong}" for index, true, wrong in rows]
    starts = range(0, len(cells), _SWAPS_A_LINE)
    return [
        f"{len(cells)} training labels were swapped on purpose, for the report to find:",
        *("".join(cells[start : start + _SWAPS_A_LINE]) for start in starts),
    ]
