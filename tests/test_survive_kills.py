"""Killed runs lose nothing and leave nothing: a few of the kills of `benchmarks/survive_kills.py`."""

import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "survive_kills.py"


def test_a_few_kills_lose_nothing_and_leave_nothing():
    """In a process of its own: a process that has started TensorFlow must not fork."""
    command = [sys.executable, str(SCRIPT), "--kills", "2", "store", "report", "checkpoints"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    rows = [line.split() for line in finished.stdout.splitlines()[1:]]
    assert [row[:5] for row in rows] == [[name, "2", "0", "0", "0"] for name in command[4:]], finished.stderr[
        -2000:
    ]
    assert finished.returncode == 0
