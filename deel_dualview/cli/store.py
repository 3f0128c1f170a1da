"""`deel-dualview store`: what a directory of stored vectors holds, whether it is whole, and what can be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deel_dualview.cli.running import CleanCommand, say
from deel_dualview.quiet import silence

if TYPE_CHECKING:
    from deel_dualview.stores import DiskStore


class _StoreCommand(CleanCommand):
    interrupted = "Nothing was changed but files that were deleted already."


_directory = click.argument("directory", type=click.Path(exists=True, file_okay=False))
_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@click.group()
def store() -> None:
    """Look at, check and clean the directory of a DiskStore."""


@store.command(cls=_StoreCommand)
@_directory
@_debug
def info(directory: str, debug: bool) -> None:
    """Say what DIRECTORY holds: of which model, how many examples, which arrays, whether it is complete."""
    described = _open(directory, debug).describe()
    state = "complete" if described.is_complete else "not complete: opening it computes the rest"
    say(
        f"{described.num_examples:,} examples in {described.num_shards:,} shards, "
        f"{described.num_bytes / 2**20:,.1f} MiB, {state}"
    )
    for name, (*shape, dtype) in described.arrays.items():
        say(f"  {name:16}{dtype:10}{' x '.join(map(str, shape))}")
    if described.num_waiting:
        say(
            f"  {described.num_waiting:,} shards of workers of a cluster are not listed yet: opening it does that"
        )
    if described.num_fits:
        say(f"  {described.num_fits:,} fits to them, {described.fit_bytes / 2**20:,.1f} MiB (folder fits)")
    for name, value in described.key.items():
        say(f"  {name}: {value}")


@store.command(cls=_StoreCommand)
@_directory
@_debug
def verify(directory: str, debug: bool) -> None:
    """Read every byte in DIRECTORY and compare it with the checksums; the exit code is 2 where one differs."""
    opened = _open(directory, debug)
    opened.verify()
    described = opened.describe()
    rest = "" if described.is_complete else " Not complete: opening it computes the rest."
    say(f"Whole: {described.num_examples:,} examples in {described.num_shards:,} shards.{rest}")


@store.command(cls=_StoreCommand)
@_directory
@_debug
def clean(directory: str, debug: bool) -> None:
    """Delete what killed processes left in DIRECTORY; what is stored, and files of yours, stay."""
    deleted = _open(directory, debug).clean()
    for path in deleted:
        say(f"  {path.name}")
    say(f"{len(deleted):,} files deleted.")


def _open(directory: str, debug: bool) -> DiskStore:
    silence(debug, progress=True)
    from deel_dualview.stores import DiskStore

    return DiskStore(directory)
