"""What importing the package adds to importing TensorFlow, and how soon the command line answers.

    python benchmarks/bench_import.py [--repeats 5]

Every figure is the least of several fresh processes. What the package adds is timed inside a process that has
imported TensorFlow and Keras: their own seconds vary by more. The targets: at most 0.3 s added, and `--help` needs
neither.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

HELP = "from deel_dualview.cli import main; main(['audit', '--help'])"
IMPORTS = {
    "import tensorflow, keras": "import tensorflow, keras",
    "and deel_dualview": "import deel_dualview",
    "and all its public names": "from deel_dualview import *",
}


def seconds_of_process(statement: str) -> float:
    """Run a statement in a fresh interpreter and return its wall-clock time."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return time.perf_counter() - start


def seconds_of_imports() -> list[float]:
    """Return the seconds of every import, one after the other in one fresh interpreter."""
    lines = ["import time", "start = time.perf_counter()"]
    for statement in IMPORTS.values():
        lines += [statement, "print(time.perf_counter() - start)", "start = time.perf_counter()"]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(line) for line in result.stdout.split()]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="processes for each figure")
    repeats = parser.parse_args().repeats
    for name, statement in (("python", "pass"), ("deel-dualview audit --help", HELP)):
        print(f"{name:30}{min(seconds_of_process(statement) for _ in range(repeats)):8.3f} s")
    best = [min(times) for times in zip(*(seconds_of_imports() for _ in range(repeats)), strict=True)]
    for name, seconds in zip(IMPORTS, best, strict=True):
        print(f"{name:30}{seconds:8.3f} s")
    print(f"{'added to TensorFlow':30}{sum(best[1:]):8.3f} s")


if __name__ == "__main__":
    main()
