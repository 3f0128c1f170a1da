"""What importing the package adds to importing TensorFlow, and how soon the command line answers.

    python benchmarks/bench_import.py [--repeats 5]

Every figure is the least of several fresh processes, which take turns. The targets: importing the package
adds at most 0.3 s to TensorFlow and Keras, and `--help` needs neither.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

TENSORFLOW = "import tensorflow, keras"
STATEMENTS = {
    "python": "pass",
    "deel-dualview audit --help": ("from deel_dualview.cli import main; main(['audit', '--help'])"),
    "import tensorflow, keras": TENSORFLOW,
    "and deel_dualview": f"{TENSORFLOW}, deel_dualview",
    "and all its public names": f"{TENSORFLOW}\nfrom deel_dualview import *",
}


def seconds_of(statement: str) -> float:
    """Run a statement in a fresh interpreter and return its wall-clock time."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="processes for each figure")
    repeats = parser.parse_args().repeats
    rounds = [{name: seconds_of(code) for name, code in STATEMENTS.items()} for _ in range(repeats + 1)]
    best = {name: min(measured[name] for measured in rounds[1:]) for name in STATEMENTS}
    for name, seconds in best.items():
        print(f"{name:30}{seconds:8.3f} s")
    added = best["and all its public names"] - best["import tensorflow, keras"]
    print(f"{'added to TensorFlow':30}{added:8.3f} s")


if __name__ == "__main__":
    main()
