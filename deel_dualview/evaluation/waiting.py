"""One process at a time: what several benchmarks need is made once, and the others wait for it."""

from __future__ import annotations

import functools
import pathlib
import sys
from contextlib import AbstractContextManager

from tqdm import tqdm

from deel_dualview import _files


def made_once(place: pathlib.Path, made: str) -> AbstractContextManager[None]:
    """Wait while another process makes the same place, and say so.

    Args:
        place: file or folder that only one process may make; its lock lies beside it.
        made: what is made there, for the message.
    """
    text = f"Waiting for another process, which makes {made} in {place.parent}."
    return _files.locked(place.with_name(f".{place.name}.lock"), functools.partial(_tell, text))


@functools.cache
def _tell(text: str) -> None:
    """Write a line once in a process: of a hundred subsets it need not be read a hundred times."""
    tqdm.write(text, file=sys.stderr)
