"""A command as one of several workers, as TensorFlow's variable TF_CONFIG describes them."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import click


class Worker(NamedTuple):
    """This process among those of a cluster.

    Attributes:
        name: what the cluster calls it, such as "worker 1".
        is_chief: whether it is the one that writes.
        is_alone: whether there are no others.
    """

    name: str = ""
    is_chief: bool = True
    is_alone: bool = True

    def scope(self) -> AbstractContextManager[Any]:
        """Return the scope of a strategy over all workers, which waits for them; nothing where there are no others."""
        if self.is_alone:
            return nullcontext()
        import tensorflow as tf

        return tf.distribute.MultiWorkerMirroredStrategy().scope()


def find_worker() -> Worker:
    """Return which worker this process is, by TF_CONFIG, without importing TensorFlow.

    Raises:
        click.UsageError: TF_CONFIG does not say.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        jobs = config.get("cluster", {})
        tasks = [(job, index) for job in ("chief", "worker") for index in range(len(jobs.get(job, [])))]
        if len(tasks) < 2:
            return Worker()
        task = (config["task"]["type"], int(config["task"]["index"]))
        return Worker(f"{task[0]} {task[1]}", is_chief=tasks.index(task) == 0, is_alone=False)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise click.UsageError(
            "TF_CONFIG must be JSON with a cluster of chief and workers, and the task of this process among them; "
            f"unset it to work alone. Received: TF_CONFIG={os.environ['TF_CONFIG']!r} ({error})."
        ) from None
