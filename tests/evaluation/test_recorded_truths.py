"""The shipped ground truth of recorded trainings, and whether it is made again to the bit."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.stats

from deel_dualview.evaluation import ground_truth, load_ground_truth
from deel_dualview.evaluation.ground_truth import GROUND_TRUTHS, RECORDED_TRUTHS
from deel_dualview.evaluation.recorded_models import draw_left_out

RECORDED = [name for name in GROUND_TRUTHS if "-without-" in name]
ELSEWHERE = 1e-4
"""How near outputs come on another machine; without 1 % of the examples they change by 2e-3 (median)."""
NUM_REPEATED = 2
MAKE = pathlib.Path(__file__).parents[2] / "benchmarks" / "make_ground_truth.py"


@pytest.fixture(scope="module")
def truth():
    return load_ground_truth("digits-mlp-without-1")


@pytest.fixture(scope="module")
def recorded(truth):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return truth.record()


@pytest.mark.parametrize("name", RECORDED)
def test_the_sets_left_out_have_their_size_and_are_drawn_again(name):
    found = load_ground_truth(name)
    num_train, share = len(found.train_indices), int(name[-1]) / 100
    num_sets = RECORDED_TRUTHS[name.rpartition("-without-")[0]]
    assert found.subsets.shape == (num_sets, num_train)
    for number in (0, num_sets - 1):
        left_out = np.flatnonzero(~found.subsets[number])
        np.testing.assert_array_equal(left_out, draw_left_out(num_train, share, 0, number))
        assert len(left_out) == share * num_train
    assert found.outputs.shape == (128, num_sets) and len(np.unique(found.test_indices)) == 128
    assert np.isfinite(found.outputs).all() and (found.outputs <= 0).all()
    assert found.noise_ceiling() == 1.0


@pytest.mark.parametrize("name", RECORDED)
def test_leaving_examples_out_changes_outputs_a_little_and_more_with_more_of_them(name):
    one, five = (load_ground_truth(f"{name[:-1]}{percent}") for percent in (1, 5))
    np.testing.assert_array_equal(one.full_outputs, five.full_outputs)
    changes = [np.median(np.abs(found.outputs - found.full_outputs[:, None])) for found in (one, five)]
    assert 0 < changes[0] < changes[1] < 0.1


def test_the_training_and_its_repetitions_are_nearly_those_of_the_file(truth, recorded):
    for number in range(NUM_REPEATED):
        found = truth.repeat(recorded, number)
        np.testing.assert_allclose(found, truth.outputs[:, number], atol=ELSEWHERE)
        changes = found - truth.full_outputs
        assert scipy.stats.spearmanr(changes, truth.outputs[:, number] - truth.full_outputs).statistic > 0.99


def test_the_command_makes_the_shipped_files_again(truth, tmp_path):
    """In a process of its own, with the shipped number of threads; to the bit where all else is the same."""
    command = [sys.executable, MAKE, "--models", "digits-mlp", "--num-left-out", "2", "--output", tmp_path]
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=os.environ | threads, check=True, capture_output=True)
    for percent in (1, 5):
        shipped = load_ground_truth(f"digits-mlp-without-{percent}")
        found = load_ground_truth(shipped.name, tmp_path)
        np.testing.assert_array_equal(found.subsets, shipped.subsets[:NUM_REPEATED])
        np.testing.assert_array_equal(found.test_indices, shipped.test_indices)
        outputs = (
            (found.full_outputs, shipped.full_outputs),
            (found.outputs, shipped.outputs[:, :NUM_REPEATED]),
        )
        for here, there in outputs:
            np.testing.assert_allclose(here, there, atol=ELSEWHERE)
            if found.made_on == shipped.made_on:
                np.testing.assert_array_equal(here, there)


def test_another_training_than_the_shipped_one_is_warned_of(truth, recorded, monkeypatch):
    monkeypatch.setattr(ground_truth, "recorded_subject", lambda *_, **__: recorded)
    other = dataclasses.replace(truth, full_outputs=truth.full_outputs - np.float32(0.01))
    with pytest.warns(UserWarning, match=r"differs from the one.*difference=0\.0100.*change="):
        other.record()


def test_halves_are_of_no_single_training():
    with pytest.raises(ValueError, match=r"digits-mlp-adam.*are recorded trainings.*mnist-logistic"):
        load_ground_truth("mnist-logistic").record()
