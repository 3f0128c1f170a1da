"""Results of a benchmark that nobody ran, for tests of what is made of them."""

import os
import pathlib
import signal

import numpy as np

from deel_dualview import GradCos
from deel_dualview.evaluation import Benchmark
from deel_dualview.evaluation.attribution_tasks import TASKS
from deel_dualview.evaluation.results import Result, ResultKey

CURVE = {
    "inspected": [0.0, 0.5, 1.0],
    "found": [0.0, 0.8, 1.0],
    "best": [0.0, 1.0, 1.0],
    "worst": [0.0, 0.0, 1.0],
}


class EndsItsProcess(GradCos):
    """A method whose process the operating system kills, as it does for want of memory."""

    SWITCH = "DEEL_DUALVIEW_TEST_KILL"

    def top_k_indices(self, *arguments, **settings):
        if os.environ.get(self.SWITCH):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().top_k_indices(*arguments, **settings)


def cell(method, protocol, seed=0, error=None, num_test=100, seconds=1.0, **values):
    """One result; values by the names of metrics, '_' for '-'."""
    metrics = {
        name.replace("_", "-"): {"value": value, "num_examples": 9, "interval": [value - 0.1, value + 0.1]}
        for name, value in values.items()
    }
    assert set(metrics) <= set(TASKS[protocol].measures)
    return Result(
        ResultKey("digits", method, f"{method}()", protocol, seed, {"num_test": num_test}),
        model={"fingerprint": f"model {seed}", "test_accuracy": 0.9, "training_seconds": 2.0},
        metrics=metrics,
        details={"curves": dict.fromkeys(metrics, CURVE)} if protocol == "poisoned" else {},
        cost={} if error else {"setup_seconds": seconds, "seconds_per_query": seconds / 100},
        error=error and {"type": "ValueError", "message": error},
        context={"created": "2026-01-01 00:00 UTC", "machine": {"cores": 2}, "versions": {"Python": "3"}},
    )


def made(*cells):
    return Benchmark("digits", 100, tuple(cells), pathlib.Path("nowhere"))


def two_seeds():
    """Three methods, two questions, two seeds; one method fails at one question."""
    values = {"dualview": (1.0, 0.9), "random": (0.1, 0.5), "gradcos": (1.0, None)}
    cells = []
    for method, (own, errors) in values.items():
        for seed in (0, 1):
            cells.append(cell(method, "normal", seed, identical_class=own - 0.05 * seed))
            failed = {"error": "no <b>labels</b>"} if errors is None else {"label_errors": errors}
            cells.append(cell(method, "poisoned", seed, **failed))
    return made(*cells)


def mean_of(values):
    return float(np.mean(values))
