"""Peak memory of the process that measures, since a moment of its choice."""

import contextlib
import resource
from pathlib import Path


def peak() -> float:
    """Return the peak memory of this process since `reset_peak`, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> float:
    """Have the peak start from the memory in use now, where the system allows it, and return it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()
