"""One process at a time: what several benchmarks need is trained once."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sys
from collections.abc import Iterator

from filelock import FileLock, Timeout
from tqdm import tqdm


@contextlib.contextmanager
def locked(place: pathlib.Path, made: str) -> Iterator[None]:
    """Wait, and say so, while another process is in here for the same place; the lock of a killed one is free.

    Args:
        place: file or folder that only one process may make; its lock lies beside it.
        made: what is made there, for the message.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _tell(f"Waiting for another process, which makes {made} in {place.parent}.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _tell(text: str) -> None:
    """Write a line once in a process: of a hundred subsets it need not be read a hundred times."""
    tqdm.write(text, file=sys.stderr)
