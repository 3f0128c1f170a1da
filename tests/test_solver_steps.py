"""The solver's steps as they are exported for a GPU: counts of a tiny problem, and the same results under JAX."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("export_solver_steps")


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("steps")
    script.main(["--problems", "tiny", "--output", str(path)])
    return path


@pytest.fixture(scope="module")
def steps(folder):
    return {step["name"]: step for step in json.loads((folder / "steps.json").read_text())}


def test_every_step_is_a_module_with_the_bytes_of_its_arrays(folder, steps):
    assert len(steps) == 6
    for step in steps.values():
        assert (folder / f"{step['file']}.stablehlo").read_bytes()[:4] == b"ML\xefR"  # MLIR's bytecode
        with np.load(folder / f"{step['file']}.npz") as saved:
            assert sum(saved[name].nbytes for name in saved) == step["bytes"]


@pytest.mark.parametrize("width", [1, 8, 64])
def test_the_flops_of_a_visit_are_those_of_its_products_one_by_one(script, width):
    form, c, d = script.Form(128, 64, width, 3), 5, 7
    count = 0
    for _ in range(form.num_rows // form.block):
        count += 2 * c * d * form.block + 2 * form.block * d * form.block + 2 * c * form.block * d  # Z, G, W
        for _ in range(form.sweeps * form.block // width):
            count += 2 * c * form.block * width + (2 * c * width * width if width > 1 else 0)  # z, bound
    assert script.visit_flops(form, c, d) == count


@pytest.mark.parametrize("problem", ["cifar", "classes", "imagenet"])
def test_calls_of_a_step_cover_all_rows_of_a_problem(script, problem):
    n, d, c = script.PROBLEMS[problem]
    for step in script.steps_of(n, d, c).values():
        assert 0 < step.num_rows <= min(n, step.arguments[0][0][0])
        assert all(np.prod(shape) * 4 < 2**32 for shape, *_ in step.arguments)  # fit a GPU many times


def test_jax_gives_the_results_that_were_saved(folder):
    pytest.importorskip("jax", reason="JAX is no dependency: it runs where the GPU is")
    command = [sys.executable, str(FOLDER / "time_on_gpu.py"), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("difference:") == 6


def test_steps_beyond_the_budget_are_skipped_and_said_to_be(folder, tmp_path):
    pytest.importorskip("jax", reason="JAX is no dependency: it runs where the GPU is")
    times = tmp_path / "times.json"
    command = [
        sys.executable,
        str(FOLDER / "time_on_gpu.py"),
        str(folder),
        "--budget",
        "0",
        "--output",
        str(times),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.count("skipped: 0 seconds are over") == 6
    assert all("skipped" in line for line in json.loads(times.read_text())["steps"])
