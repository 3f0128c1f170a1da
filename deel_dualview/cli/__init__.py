"""The command `deel-dualview`: thin, and quick to answer, as TensorFlow is imported where it is needed."""

from __future__ import annotations

import click

from deel_dualview import __version__
from deel_dualview.cli.apply import apply
from deel_dualview.cli.audit import audit
from deel_dualview.cli.benchmark import benchmark
from deel_dualview.cli.compare import compare
from deel_dualview.cli.store import store


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deel-dualview")
def main() -> None:
    """Show which training examples made a Keras model decide as it did, and which of their labels are wrong."""


main.add_command(apply)
main.add_command(audit)
main.add_command(benchmark)
main.add_command(compare)
main.add_command(store)
