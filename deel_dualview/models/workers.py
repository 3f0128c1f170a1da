"""The processes of a cluster that do one piece of work together, and end together where one of them fails."""

import functools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

_WORKING, _DONE, _FAILED = range(3)
_MESSAGE_BYTES = 1000
_SECONDS_BETWEEN_ROUNDS = 1.0
_SECONDS_TO_TELL = 30.0
# A collective operation that one worker never comes to would wait for ever; slower parts than this are not expected.
_SECONDS_TO_WAIT = 600.0
_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")


class WorkerError(ConnectionError):
    """Another worker of the cluster failed, or cannot be reached."""


class Workers:
    """The processes of a `MultiWorkerMirroredStrategy`; all of them must call the same methods in the same order.

    Messages go by TensorFlow's own collective operations. Where a process dies, its connections break, or the
    coordination service misses its heartbeats for ten seconds, and these fail.

    Attributes:
        number: how many there are.
        index: which this one is, from 0; the first is the chief.
    """

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy) -> None:
        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec()
        jobs = [job for job in ("chief", "worker") if job in cluster.jobs]
        self._tasks = [(job, task) for job in jobs for task in range(cluster.num_tasks(job))]
        self.number = len(self._tasks)
        self.index = self._tasks.index((resolver.task_type, resolver.task_id)) if self._tasks else 0
        self._num_devices = len(strategy.extended.worker_devices)
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_SECONDS_TO_WAIT)

        def gathered(row: tf.Tensor) -> tf.Tensor:
            def of_replica() -> tf.Tensor:
                # A tensor that comes from outside of the function may be on a device that collectives do not know.
                own = tf.identity(row)
                return tf.distribute.get_replica_context().all_gather(own, axis=0, options=options)

            return strategy.experimental_local_results(strategy.run(of_replica))[0]

        spec = [tf.TensorSpec([1, None], tf.int32)]
        self._gathered = tf.function(gathered, autograph=False, input_signature=spec)

    @property
    def is_chief(self) -> bool:
        """Whether this is the first one."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Return what the cluster calls a worker, such as "worker 1"."""
        return "{} {}".format(*self._tasks[index])

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Return the arrays of all workers in their order, shape (number, ...).

        Args:
            values: of one shape and dtype everywhere, of four or eight bytes.

        Raises:
            WorkerError: a worker is lost, or did not come here within ten minutes.
        """
        if values.size == 0:
            return np.stack([values] * self.number)
        row = np.ascontiguousarray(values).reshape(1, -1).view(np.int32)
        try:
            found = self._gathered(tf.constant(row)).numpy()
        except tf.errors.OpError as error:
            raise self._lost(error) from error
        rows = np.ascontiguousarray(found[:: self._num_devices])
        return rows.view(values.dtype).reshape(self.number, *values.shape)

    @contextmanager
    def together(self) -> Iterator[Callable[[], None]]:
        """Do a part of some work: the block ends when all workers have come to the end of theirs.

        Yields:
            A function to call between steps, which raises an error where another worker has failed.

        Raises:
            WorkerError: another worker failed (the message says by which error), or is lost.
        """
        rounds = _Rounds(self)
        try:
            yield rounds.check
        except BaseException as error:
            rounds.end(_FAILED, f"{type(error).__name__}: {error}", timeout=_SECONDS_TO_TELL)
            raise
        rounds.end(_DONE, "", timeout=None)
        rounds.check()

    def _lost(self, error: tf.errors.OpError) -> WorkerError:
        if isinstance(error, tf.errors.DeadlineExceededError):
            message = f"Another worker did not come to the same point within {_SECONDS_TO_WAIT:.0f} seconds"
            return WorkerError(f"{message}: all of them must run the same program.")
        tasks = [(job, int(task)) for job, task in _TASK.findall(str(error))]
        others = [task for task in tasks if task in self._tasks and task != self._tasks[self.index]]
        lost = "{} {}".format(*others[0]) if others else "another worker"
        reason = str(error).split("Collective ops is aborted by: ")[-1].splitlines()[0]
        return WorkerError(f"The connection to {lost} is lost: it ended, or cannot be reached ({reason}).")


class _Rounds:
    """Exchanges the state of the workers every second, in a thread of its own."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._state = _encoded(_WORKING, "")
        self._ended = threading.Event()
        self._error: WorkerError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self, state: int, message: str, *, timeout: float | None) -> None:
        self._state = _encoded(state, message)
        self._ended.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while True:
                states = self._workers.gather(self._state)
                for index in np.flatnonzero(states[:, 0] == _FAILED):
                    message = (
                        states[index, 1:].astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace")
                    )
                    raise WorkerError(
                        f"An error in {self._workers.name(int(index))} ended the work: {message}"
                    )
                if (states[:, 0] == _DONE).all():
                    return
                self._ended.wait(_SECONDS_BETWEEN_ROUNDS)
        except WorkerError as error:
            self._error = error


def _encoded(state: int, message: str) -> np.ndarray:
    octets = message.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
    return np.array([state, *octets], np.int32)


@functools.cache
def workers_of(strategy: tf.distribute.Strategy | None) -> Workers | None:
    """Return the processes of a strategy, None where there is only this one."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    workers = Workers(strategy)
    return workers if workers.number > 1 else None
