"""Two workers on this machine fill a store together and search together: two processes do the work for all tests."""

import json
import shutil

import numpy as np
import pytest
import worker_cases

from deel_dualview import DiskStore, InfluenceModel

SCRIPT = str(worker_cases.FOLDER / "worker_cases.py")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def alone(folder):
    """What a single process finds."""
    network, counter = worker_cases.make_model()
    model = InfluenceModel(network)
    examples = worker_cases.examples_of_pass(folder / "alone", model, counter)
    features = worker_cases.open_store(folder / "alone", model, 4).array("features")
    return {"model": model, "examples": examples, "features": features}


@pytest.fixture(scope="module")
def found(folder):
    ended = worker_cases.run_workers(SCRIPT, "all", str(folder))
    assert [code for *_, code in ended] == [0, 0], [error[-2000:] for _, error, _ in ended]
    return [json.loads(output) for output, *_ in ended]


def test_two_workers_write_the_files_of_one_process(folder, found, alone):
    assert files_of(folder / "aligned") == files_of(folder / "alone")


def test_shards_that_cut_batches_hold_the_same_features(found, alone):
    for worker in found:
        np.testing.assert_allclose(worker["features"], alone["features"], atol=1e-6)


def test_each_example_goes_through_the_network_of_one_worker(found, alone):
    assert alone["examples"] == len(worker_cases.INPUTS)
    assert sum(worker["examples"] for worker in found) == len(worker_cases.INPUTS)
    assert min(worker["examples"] for worker in found) >= len(worker_cases.INPUTS) // 3


def test_workers_find_the_same_training_examples_first(found):
    assert found[0]["top"] == found[1]["top"]


def assert_same_top(found, expected):
    for (indices, values), (expected_indices, expected_values) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(indices, expected_indices)
        np.testing.assert_allclose(values, expected_values, atol=1e-6)


def test_workers_find_what_one_process_finds_with_ties_by_the_lower_index(found, alone):
    assert_same_top(found[0]["top"], worker_cases.top_by_similarity(alone["model"]))


@pytest.mark.reproduction
def test_a_killed_worker_ends_the_other_within_a_minute_and_the_next_run_goes_on(tmp_path, alone, folder):
    (_, message, code), (_, _, killed) = worker_cases.run_workers(SCRIPT, "die", str(tmp_path))
    assert (code, killed) == (1, -9)
    assert "connection to worker 1 is lost" in message
    assert "start all workers again" in message
    DiskStore(tmp_path / "aligned").clean()
    kept = len(list((tmp_path / "aligned").glob("*-hashes.npy"))) * worker_cases.SHARD_SIZE
    assert kept >= 2 * worker_cases.SHARD_SIZE
    shutil.copytree(tmp_path / "aligned", tmp_path / "by one process")
    worker_cases.open_store(tmp_path / "by one process", alone["model"], 4)
    ended = worker_cases.run_workers(SCRIPT, "resume", str(tmp_path))
    resumed = [json.loads(output) for output, *_ in ended]
    assert sum(worker["examples"] for worker in resumed) == len(worker_cases.INPUTS) - kept
    for worker in resumed:
        assert_same_top(worker["top"], worker_cases.top_by_dualview(alone["model"]))
    assert files_of(tmp_path / "aligned") == files_of(folder / "alone")
    assert files_of(tmp_path / "by one process") == files_of(folder / "alone")
