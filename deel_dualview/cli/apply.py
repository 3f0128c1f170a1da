"""`deel-dualview apply`: a training set with the corrections that a report's page exported."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import click

from deel_dualview.cli.running import CleanCommand, say
from deel_dualview.cli.subject import read_lines
from deel_dualview.plots.formatting import visible
from deel_dualview.quiet import silence

if TYPE_CHECKING:
    import tensorflow as tf


class _ApplyCommand(CleanCommand):
    interrupted = "No dataset was written."
    options_of: ClassVar = {
        "train": "--train",
        "class_names": "--class-names",
        "output_names": "--output-names",
        "output": "--model-output",
    }


@click.command(cls=_ApplyCommand)
@click.argument("corrections", type=click.Path(exists=True, dir_okay=False))
@click.option("--train", "train_spec", required=True, metavar="SPEC", help="The data that were audited.")
@click.option(
    "--class-names",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Names of the classes, one a line, as the audit had them.  [default: those of TFDS]",
)
@click.option(
    "--output-names",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Names of the numbers or labels of a model that is no classifier, one a line, as the audit had them.",
)
@click.option(
    "--model-output",
    metavar="NAME",
    help="Of labels of several outputs those that were audited: their key, or their index in a tuple.",
)
@click.option("--data-dir", metavar="DIR", help="Where TFDS keeps datasets.  [default: its own]")
@click.option(
    "--batch-size", default=256, show_default=True, type=click.IntRange(1), help="For TFDS datasets."
)
@click.option(
    "--output", default="corrected", show_default=True, metavar="DIR", help="Where the dataset goes."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier dataset in the output directory.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def apply(
    corrections: str,
    train_spec: str,
    class_names: str | None,
    output_names: str | None,
    model_output: str | None,
    data_dir: str | None,
    batch_size: int,
    output: str,
    overwrite: bool,
    debug: bool,
) -> None:
    """Write the training set again with corrected labels, without the examples to be dropped.

    CORRECTIONS is the file that the page of an audit exports. What is written is read by
    tf.data.Dataset.load(DIR), in the order of the training set.

    SPEC is NAME:SPLIT of TensorFlow Datasets, such as "mnist:train", or package.module:function, a function without
    arguments that returns a batched tf.data.Dataset of (inputs, labels).
    """
    from deel_dualview import _files

    directory = pathlib.Path(output)
    _check_output(directory, overwrite=overwrite)
    silence(debug, progress=True)
    from deel_dualview.data.sources import find_source, read_dataset
    from deel_dualview.labels import corrected, read_corrections

    changes = read_corrections(corrections)
    find_source(train_spec, name="train", data_dir=data_dir)
    source = read_dataset(train_spec, name="train", batch_size=batch_size, data_dir=data_dir)
    names = source.class_names if class_names is None else read_lines(class_names, "--class-names")
    is_of_outputs = any(isinstance(change.label, Mapping) for change in changes.values())
    outputs = names if is_of_outputs else None
    if output_names is not None:
        outputs = read_lines(output_names, "--output-names")
    dataset = corrected(
        source.dataset,
        changes,
        class_names=None if is_of_outputs else names,
        output_names=outputs,
        output=int(model_output) if model_output and model_output.isdecimal() else model_output,
    )
    with _files.replaced_directory(directory) as aside:
        _save(dataset, aside)
    dropped = sum(change.label is None for change in changes.values())
    changed = len(changes) - dropped
    say(
        f"{changed:,} label{'s' * (changed != 1)} corrected, {dropped:,} example{'s' * (dropped != 1)} dropped of "
        f"{source.description}."
    )
    say(f"{visible(str(directory))}  (tf.data.Dataset.load reads it)")


def _save(dataset: tf.data.Dataset, directory: pathlib.Path) -> None:
    # Going through the examples in Python first lets an error arrive as it was raised.
    for _ in dataset:
        pass
    dataset.save(str(directory))


def _check_output(directory: pathlib.Path, *, overwrite: bool) -> None:
    """Refuse, before long work, a directory that is not an earlier dataset, or not to be replaced."""
    from deel_dualview import _files

    if directory.exists():
        is_dataset = directory.is_dir() and (directory / "dataset_spec.pb").exists()
        if not (overwrite and is_dataset):
            raise FileExistsError(
                "The corrected dataset goes into a new directory, but this one exists. Choose another by --output, or "
                f"replace an earlier dataset by --overwrite. Received: {str(directory)!r}."
            )
    with _files.refusals_as(functools.partial(_cannot_write, directory)):
        for folder in directory.parents:
            if folder.exists() and not folder.is_dir():
                raise _cannot_write(directory, f"{str(folder)!r} is a file")
        _files.rehearse_directory(directory)


def _cannot_write(directory: pathlib.Path, reason: str) -> NotADirectoryError:
    return NotADirectoryError(
        f"The corrected dataset cannot be written: {reason}. Choose a new directory by --output, in one that can be "
        f"written to. Received: {str(directory)!r}."
    )
