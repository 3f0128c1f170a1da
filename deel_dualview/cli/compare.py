"""`deel-dualview compare`: several attribution methods on the same predictions."""

from __future__ import annotations

import click

from deel_dualview.calculators.methods import DEFAULT_METHODS, METHODS, method_of
from deel_dualview.cli.running import CleanCommand, say
from deel_dualview.cli.subject import (
    check_files,
    check_subject,
    given_subject,
    load_subject,
    output_options,
    subject_options,
    top_k_option,
)
from deel_dualview.quiet import silence


def _split(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Read names between commas; at least two, each once."""
    del context, parameter
    names = [name.strip() for name in value.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise click.BadParameter("at least two different names, between commas, are needed.")
    try:
        for name in names:
            method_of(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return names


@click.command(cls=CleanCommand)
@subject_options
@click.option(
    "--methods",
    default=",".join(DEFAULT_METHODS),
    show_default=True,
    metavar="NAME,NAME",
    callback=_split,
    help=f"At least two of {', '.join(METHODS)}.",
)
@top_k_option("Proponents compared.")
@click.option(
    "--queries",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="At most so many test examples, the first ones.",
)
@output_options("compare")
def compare(
    methods: list[str],
    k: int,
    queries: int,
    output: str,
    overwrite: bool,
    title: str | None,
    no_progress: bool,
    debug: bool,
) -> None:
    """Explain the same predictions by several methods: how far they agree, and what each costs.

    It shows the rank correlation of influence values, the overlap of the strongest proponents, seconds, and
    the predictions on which the methods agree least. Without --model it takes a demo on handwritten digits.

    SPEC is NAME:SPLIT of TensorFlow Datasets, such as "mnist:test[:1000]", or package.module:function, a
    function without arguments that returns a batched tf.data.Dataset of (inputs, labels), or arrays of them.
    """
    from deel_dualview.report.comparison import COMPARISON_FILES
    from deel_dualview.report.writing import check_output_directory

    options = given_subject()
    check_subject(options, methods)
    directory = check_output_directory(output, overwrite=overwrite, names=COMPARISON_FILES)
    check_files(options)
    silence(debug, progress=not no_progress)
    loaded = load_subject(options, methods)
    from deel_dualview import compare as compare_methods

    comparison = compare_methods(
        loaded.model,
        loaded.train,
        loaded.test,
        methods=methods,
        k=k,
        num_queries=queries,
        checkpoints=loaded.checkpoints,
        class_names=loaded.class_names,
        progress=not no_progress,
    )
    say(f"Explained: the first {comparison.num_queries:,} test examples (--queries takes more).\n")
    comparison.to_html(directory, overwrite=overwrite, title=title)
    say(f"{comparison}\n")
    say(f"{directory / 'index.html'}  (the comparison, for a browser)")
    say(f"{directory / 'compare.json'}  (the same as data)")
