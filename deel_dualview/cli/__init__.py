"""The command `deel-dualview`: thin, and quick to answer, as TensorFlow is imported where it is needed."""

from __future__ import annotations

import click

from deel_dualview import __version__
from deel_dualview.cli.apply import apply
from deel_dualview.cli.audit import audit
from deel_dualview.cli.benchmark import benchmark
from deel_dualview.cli.compare import compare


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deel-dualview")
def main() -> None:
    """Tell which training examples made a Keras classifier decide as it did."""


main.add_command(apply)
main.add_command(audit)
main.add_command(benchmark)
main.add_command(compare)
