"""An audit by the workers of a cluster, which TF_CONFIG describes."""

import json

import pytest
import worker_cases
from cli_cases import DATA, refused, run, save_model

OWN = ["--model", "model.keras", "--train", "data_of_cluster:train", "--test", "data_of_cluster:test"]
TWO = worker_cases.environment(0, [1, 2])["TF_CONFIG"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_of_cluster.py").write_text(DATA)
    save_model(tmp_path / "model.keras")
    return tmp_path


def test_workers_need_a_directory_to_share(folder, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", TWO)
    assert refused(run(*OWN), "--store", "a directory that all of them see")


@pytest.mark.parametrize(
    "config", ["{", "[]", TWO.replace('"index": 0', '"index": 7'), '{"cluster": {"worker": ["a", "b"]}}']
)
def test_a_cluster_that_does_not_say_which_worker_this_is_is_refused(folder, monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    assert refused(run(*OWN, "--store", "store"), "TF_CONFIG must be JSON")


@pytest.mark.reproduction
def test_two_workers_write_the_report_of_one_process(folder, monkeypatch):
    assert run(*OWN, "--relevance", "off", "--output", "alone").exit_code == 0
    command = [
        "-m",
        "deel_dualview",
        "audit",
        *OWN,
        "--relevance",
        "off",
        "--no-progress",
        "--store",
        "a store",
    ]
    (told, errors, code), (second, _, other) = worker_cases.run_workers(*command, "--output", "shared")
    assert (code, other) == (0, 0), errors[-2000:]
    assert "Worker 1 has done its part" in second
    assert (folder / "shared" / "label_issues.csv").read_bytes() == (
        folder / "alone" / "label_issues.csv"
    ).read_bytes()
    findings = [
        json.loads((folder / name / "audit.json").read_text())["findings"] for name in ("alone", "shared")
    ]
    assert findings[0] == findings[1]
