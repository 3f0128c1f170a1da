"""Named steps of a long job: shown while they run, timed for the report, memory measured."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from deel_dualview.report.overview import StepTime

try:
    import resource
except ImportError:  # Windows has no such module; memory is then reported as unknown.
    resource = None  # type: ignore[assignment]


class Steps:
    """Shows and times the steps of an audit."""

    def __init__(self, total: int, *, progress: bool):
        """Start the clock. The bar is shown on a terminal only, and not at all with `progress` off."""
        self.times: list[StepTime] = []
        self._start = time.perf_counter()
        self._memory_before = peak_memory_bytes()
        self._bar = tqdm(total=total, unit="step", leave=False, disable=None if progress else True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show `name` while the block runs, then keep its time."""
        self._bar.set_description(name)
        start = time.perf_counter()
        yield
        self.times.append(StepTime(name, time.perf_counter() - start))
        self._bar.update()

    def expect(self, num_more: int) -> None:
        """Add steps that were not known at the start."""
        self._bar.total += num_more
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
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
