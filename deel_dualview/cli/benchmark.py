"""`deel-dualview benchmark`: how good attribution methods are, on data with known answers."""

from __future__ import annotations

import os

import click

from deel_dualview.calculators.methods import METHODS
from deel_dualview.cli.running import FAILED_THRESHOLD, CleanCommand, say
from deel_dualview.cli.subject import LARGEST_SEED, title_option
from deel_dualview.quiet import silence

DATA = ("digits", "mnist", "fashion_mnist", "cifar10")
DEFAULT = "dualview,first-order,graddot,gradcos,rps-l2,feature-similarity,random"


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> int | list[int]:
    """Read how many seeds, or which: "3" is 0, 1 and 2; "3," is the third alone."""
    del context, parameter
    try:
        seeds = [int(part) for part in value.split(",") if part.strip()] if "," in value else int(value)
    except ValueError:
        raise click.BadParameter("a number, or numbers between commas, are needed.") from None
    largest = max(seeds, default=0) if isinstance(seeds, list) else seeds
    if largest > LARGEST_SEED:
        raise click.BadParameter(f"seeds go from 0 to {LARGEST_SEED:,}.")
    return seeds


class _Resumable(CleanCommand):
    interrupted = "Finished results are kept; the same command goes on with the others."


@click.command(cls=_Resumable)
@click.option(
    "--data", default="digits", show_default=True, type=click.Choice(DATA), help="What to train on."
)
@click.option(
    "--methods",
    default=DEFAULT,
    show_default=True,
    metavar="NAME,NAME",
    help=f"Of {', '.join(METHODS)}; with settings as in 'dualview?K=0.1&kernel=linear'.",
)
@click.option(
    "--metrics", default="all", show_default=True, metavar="NAME,NAME", help="Metrics or questions."
)
@click.option(
    "--seeds", default="1", show_default=True, metavar="N", callback=_seeds, help="How many, or which: 0,3."
)
@click.option("--output", default="results", show_default=True, metavar="DIR", help="Where results go.")
@click.option("--num-test", type=click.IntRange(1), help="Test examples.  [default: at most 4,000]")
@click.option("--data-dir", metavar="DIR", help="Where TFDS keeps datasets.  [default: its own]")
@click.option("--models", metavar="DIR", help="Where trained models are kept.  [default: OUTPUT/models]")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Methods at a time.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each process.  [default: all cores]")
@click.option("--overwrite", is_flag=True, help="Replace results of other settings or other models.")
@title_option("dataset")
@click.option("--no-progress", is_flag=True, help="Show no progress bars.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def benchmark(
    data: str,
    methods: str,
    metrics: str,
    seeds: int | list[int],
    output: str,
    num_test: int | None,
    data_dir: str | None,
    models: str | None,
    jobs: int,
    threads: int | None,
    overwrite: bool,
    title: str | None,
    no_progress: bool,
    debug: bool,
) -> int:
    """Measure how good attribution methods are, on questions whose answers are known.

    Trains a model for each question: as usual, on pairs of classes, on labels of which some are wrong, and on
    images of which some bear a mark. Then it asks every method, writes one file a result, a table and a page.
    The same command again resumes where it was interrupted and computes nothing twice.

    Exit code 1: a method failed (the others have their results).
    """
    _limit_threads(threads)
    silence(debug, progress=not no_progress)
    from deel_dualview.calculators.method_specs import split_names
    from deel_dualview.evaluation import benchmark as run

    names = split_names(methods)
    found = run(
        data,
        names,
        split_names(metrics),
        seeds,
        output,
        num_test=num_test,
        data_dir=data_dir,
        models=models,
        jobs=jobs,
        overwrite=overwrite,
        title=title,
        progress=not no_progress,
    )
    say(found.to_text())
    say(f"\n{found.folder / 'index.html'}  (table and figures, for a browser)")
    say(f"{found.folder / 'table.md'}  (the table as Markdown)")
    failed = [cell for cell in found.failed if cell.identity.method in names]
    for cell in failed:
        error = cell.error or {}
        result = f"{cell.identity.method}, {cell.identity.protocol}, seed {cell.identity.seed}"
        say(f"Failed: {result}: {error.get('type')}: {error.get('message')}", err=True)
    return FAILED_THRESHOLD if failed else 0


def _limit_threads(threads: int | None) -> None:
    """Set what TensorFlow and NumPy read when they are imported, in this process and in those that it starts."""
    if threads is not None:
        names = (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
        )
        os.environ.update(dict.fromkeys(names, str(threads)))
