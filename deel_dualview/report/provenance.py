"""How a result came about: steps with their times and memory, versions, the machine."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import logging
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview.report.overview import Setting, StepTime

if sys.platform != "win32":  # Windows has no such module; memory is then reported as unknown.
    import resource


_LOGGER = logging.getLogger("deel_dualview.steps")


class Steps:
    """Shows and times the steps of an audit."""

    def __init__(self, total: int, *, progress: bool):
        """Start the clock. The bar is shown on a terminal only, and not at all with `progress` off.

        Args:
            total: the most steps that there may be.
            progress: whether they are shown.
        """
        self.times: list[StepTime] = []
        self._start = time.perf_counter()
        self._memory_before = peak_memory_bytes()
        self._bar = tqdm(total=total, unit="step", leave=False, disable=None if progress else True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show `name` while the block runs, then keep its time."""
        _LOGGER.info(name)
        self._bar.set_description(name)
        start = time.perf_counter()
        yield
        self.times.append(StepTime(name, time.perf_counter() - start))
        self._bar.update()

    def leave_out(self, num_fewer: int) -> None:
        """Take away steps that were expected at the start; the bar never goes back, so that none are added."""
        self._bar.total -= num_fewer
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def added_memory_bytes(self) -> int | None:
        """By how much the process' peak memory has grown since the start, or None where it is unknown."""
        now = peak_memory_bytes()
        return None if now is None or self._memory_before is None else now - self._memory_before


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory that this process has had, or None where that is unknown."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_Item = TypeVar("_Item")
_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")


class Stopwatch:
    """Seconds that a generator takes for its items, and how many queries these answered."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.count = 0

    def over(self, batches: Iterator[_Item], sizes: Iterator[int]) -> Iterator[_Item]:
        """Yield the items; only the time inside of `batches` counts."""
        while True:
            start, start_cpu = time.perf_counter(), time.process_time()
            item = next(batches, None)
            if item is None:
                return
            self.seconds += time.perf_counter() - start
            self.cpu_seconds += time.process_time() - start_cpu
            self.count += next(sizes)
            yield item

    @property
    def per_query(self) -> float | None:
        """Seconds a query, None before the first one."""
        return self.seconds / self.count if self.count else None

    @property
    def cpu_per_query(self) -> float | None:
        """Seconds of all processors a query, None before the first one."""
        return self.cpu_seconds / self.count if self.count else None


class PeakMemory:
    """By how much the process' resident memory has risen at its highest since this was made."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # the peak starts anew from what is in use now
        self._before = _peak()

    @property
    def added_bytes(self) -> int | None:
        """The rise, or None where the operating system does not tell."""
        now = _peak()
        return None if now is None or self._before is None else max(0, now - self._before)


def _peak() -> int | None:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return peak_memory_bytes()


def describe_context(command: str | None) -> dict[str, Any]:
    """Return what a result records of where and how it came about; no command where none computes it again."""
    return {
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {setting.name: setting.value for setting in versions()},
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": _threads(),
            "accelerators": len(tf.config.list_physical_devices("GPU")),
        },
    }


def _threads() -> int | None:
    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    of_environment = int(chosen) if chosen.isdecimal() else 0
    return tf.config.threading.get_intra_op_parallelism_threads() or of_environment or os.cpu_count()


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> tuple[Setting, ...]:
    """List what ran: the package, what it stands on, and the system."""
    return (
        Setting("deel_dualview", _version("deel-dualview")),
        Setting("Python", platform.python_version()),
        Setting("TensorFlow", tf.__version__),
        Setting("Keras", keras.__version__),
        Setting("NumPy", np.__version__),
        Setting("System", f"{platform.system()} {platform.machine()}"),
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
