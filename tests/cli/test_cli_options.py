"""Options of the command line that name classes, known errors and what is done to the inputs of TFDS."""

import csv
import json

import keras
import numpy as np
import pytest
from cli_cases import DATA, refused, run, save_model
from click.testing import CliRunner

from deel_dualview.cli import main
from deel_dualview.cli.running import Size

MAPPING = """
import tensorflow as tf
def tenth(image): return tf.cast(image, tf.float32) / 10 + 100
def broken(image): raise RuntimeError("no such pixel")
"""
NAMES = ["red", "green", "blue"]


def prepare(folder):
    (folder / "data_of_options.py").write_text(DATA)
    (folder / "mapping_of_options.py").write_text(MAPPING)
    (folder / "names.txt").write_text("\n".join(NAMES))
    save_model(folder / "model.keras")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """The folder of an audit with names and a title."""
    folder = prepare(tmp_path_factory.mktemp("named"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = own("--class-names", "names.txt", "--title", "Colours <1>")
    assert result.exit_code == 0, result.output
    return folder / "audit"


def own(*options):
    data = ["--train", "data_of_options:train", "--test", "data_of_options:test"]
    return run("--model", "model.keras", *data, "--relevance", "off", *options)


def test_classes_have_the_names_of_the_file(named):
    overview = json.loads((named / "audit.json").read_text())["overview"]
    assert overview["class_names"] == NAMES


def test_the_page_has_the_title_that_was_given(named):
    assert "<title>Colours &lt;1&gt;</title>" in (named / "index.html").read_text()


def test_known_errors_are_looked_for_and_explanations_checked(folder):
    (folder / "known.txt").write_text("3\n7\n\n20\n")
    result = own("--known-errors", "known.txt", "--verify", "5")
    assert result.exit_code == 0, result.output
    assert "with the last layer trained again" in result.stdout
    findings = json.loads((folder / "audit" / "audit.json").read_text())["findings"]
    (labels,) = [finding for finding in findings if finding["name"] == "label-errors"]
    assert labels["detection"]["points"][0]["known"] == 3


@pytest.mark.parametrize(
    ("text", "option", "words"),
    [
        ("3\nseven", "--known-errors", ["positions from 0", "'seven'"]),
        ("3\n60", "--known-errors", ["known_label_errors"]),
        ("red\ngreen", "--class-names", ["class_names"]),
        ("red\0green", "--class-names", ["--class-names", "UTF-8"]),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, text, option, words):
    (folder / "file.txt").write_text(text)
    assert refused(own(option, "file.txt"), *words)


@pytest.mark.parametrize("options", [["--map", "a:b"], ["--class-names", "names.txt"]])
def test_the_demo_takes_no_options_about_data(folder, options):
    assert refused(run(*options), "needs --model")


def of_tfds(tmp_path, tfds_directory, *options):
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(tmp_path / "model28.keras")
    data = ["--train", "mnist:train[:100]", "--test", "mnist:test[:10]", "--data-dir", tfds_directory]
    return run("--model", "model28.keras", *data, "--relevance", "off", *options)


def test_inputs_of_tfds_are_mapped(folder, tfds_directory, monkeypatch):
    seen = {}

    def audit(model, train, test, **settings):
        seen["train"] = np.concatenate([inputs for inputs, *_ in train.as_numpy_iterator()])
        raise ValueError("enough seen")

    monkeypatch.setattr("deel_dualview.audit", audit, raising=False)
    of_tfds(folder, tfds_directory, "--map", "mapping_of_options:tenth")
    assert seen["train"].dtype == np.float32 and len(seen["train"]) == 100
    assert 100 <= seen["train"].min() < seen["train"].max() <= 125.5


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("mapping_of_options:broken", ["--map: mapping_of_options:broken", "no such pixel"]),
        ("mapping_of_options:absent", ["--map", "no function 'absent'"]),
        ("nonsense", ["package.module:function"]),
    ],
)
def test_functions_that_cannot_map_are_refused(folder, tfds_directory, function, words):
    assert refused(of_tfds(folder, tfds_directory, "--map", function), *words)


def test_functions_of_data_are_not_mapped(folder):
    assert refused(own("--map", "mapping_of_options:tenth"), "--map is for datasets of TFDS")


def test_every_command_is_listed():
    assert {"apply", "audit", "benchmark", "compare", "store"} == set(main.commands)


def test_a_second_audit_says_what_has_changed(folder):
    data = ["--train", "data_of_options:train", "--test", "data_of_options:test"]
    first_run = CliRunner().invoke(main, ["audit", "--model", "model.keras", *data, "--relevance", "off"])
    assert first_run.exit_code == 0
    lines = first_run.stderr.splitlines()
    assert lines[0] == "TensorFlow, model and data ..."
    assert {"Features of both sets ...", "Label issues ..."} <= set(lines) and len(lines) == len(set(lines))
    with (folder / "audit" / "label_issues.csv").open(encoding="utf-8") as file:
        first, *others = csv.DictReader(file)
    rows = ["position,given_label,verdict", f"{first['position']},{first['given_label']},right"]
    (folder / "corrections.csv").write_text("\n".join(rows))
    again = own("--output", "second", "--since", "audit/audit.json", "--reviewed", "corrections.csv")
    assert again.exit_code == 0 and "Since the audit of" in again.output, again.output
    assert "of the test labels, as before" in again.output and again.stderr == ""
    with (folder / "second" / "label_issues.csv").open(encoding="utf-8") as file:
        assert [row["position"] for row in csv.DictReader(file)] == [
            row["position"] for row in (*others, first)
        ]
    findings = json.loads((folder / "second" / "audit.json").read_text(encoding="utf-8"))["findings"]
    (labels,) = [finding for finding in findings if finding["name"] == "label-errors"]
    assert "1 label that was reviewed as right is not listed again" in labels["summary"]
    assert int(first["position"]) not in [item["example"]["index"] for item in labels["issues"]]


def test_another_file_than_an_audit_is_refused_before_the_audit(folder):
    assert refused(own("--since", "names.txt"), "audit.json of an earlier audit")
    assert not (folder / "audit").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 5e8),
        ("2 GB", 2e9),
        ("1.5GiB", 1.5 * 2**30),
        ("2e9", 2e9),
        ("64kib", 65536),
        ("2G", 2e9),
        ("50k", 5e4),
    ],
)
def test_a_size_is_a_number_of_bytes_with_a_unit(text, size):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "much", "-1GB", "0", "2", "1.5", "0GB", "2 TBs", "1.2.3GB", "1e999", "nan"]
)
def test_a_size_that_is_none_is_refused(text):
    result = run("--memory-budget", text)
    assert result.exit_code == 2 and "is no size, such as 500MB or 2GB" in result.output
