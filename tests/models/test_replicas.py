"""Models on several devices of a process: one process with two logical devices does the work for all tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def found():
    paths = [FOLDER.parents[1], FOLDER.parent, FOLDER]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(FOLDER / "two_devices.py")]
    finished = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "what",
    ["features of 1", "features of 2", "features of 5", "features of 8", "features in order", "hidden layers"]
    + ["gradients of 5", "gradients of 1", "gradients of 0", "a model of steps"],
)
def test_two_devices_give_what_one_gives(found, what):
    assert found["differences"][what] <= 1e-6


def test_both_devices_compute(found):
    assert found["facts"]["devices"] == ["CPU:0", "CPU:1"]


def test_the_solver_computes_on_the_device_of_its_scope(found):
    assert found["facts"]["devices of the solver"] == ["CPU:1"]


def test_each_example_goes_through_the_network_as_often_as_on_one_device(found):
    one, two = found["facts"]["examples through the network"]
    assert one == two


@pytest.mark.parametrize("what", ["fingerprints are equal", "scope counts"])
def test_a_model_is_the_same_on_any_number_of_devices(found, what):
    assert found["facts"][what]
