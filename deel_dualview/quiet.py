"""TensorFlow without its start-up messages, in this process and in workers; light until it is called."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator


def silence(debug: bool) -> None:
    """Import TensorFlow as Keras' back end, without its start-up messages unless `debug` is given."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if debug:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_native_messages():
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
