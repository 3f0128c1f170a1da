"""TensorFlow without its start-up messages, in this process and in workers; light until it is called."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

_SECONDS_A_TICK = 0.2


def silence(debug: bool, *, progress: bool = False) -> None:
    """Import TensorFlow as Keras' back end, without its start-up messages unless `debug` is given.

    Args:
        debug: leave the messages, and show nothing else.
        progress: whether a line shows the seconds that the import takes (on a terminal only).
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if debug:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    is_shown = progress and "tensorflow" not in sys.modules
    # The line goes to a copy of the error stream: what C++ code writes to the stream itself is dropped.
    with (
        open(os.dup(2), "w", encoding="utf-8") as terminal,
        seconds_shown("Loading TensorFlow", terminal) if is_shown else contextlib.nullcontext(),
        _without_native_messages(),
    ):
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def prepare_worker() -> None:
    """Make a worker process quiet; leave Ctrl-C to the process that started it, and end with that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    silence(debug=False)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it could not say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def seconds_shown(text: str, stream: TextIO) -> Iterator[None]:
    """Show a text with the seconds so far while the block runs, then take it away; on a terminal only."""
    from tqdm import tqdm

    ended = threading.Event()
    with tqdm(bar_format="{desc}: {elapsed}", desc=text, file=stream, leave=False, disable=None) as bar:

        def tick() -> None:
            while not ended.wait(_SECONDS_A_TICK):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            ended.set()
            ticking.join()


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
