"""The command line's options about relevance: a rule, none, colours, names."""

import json

import keras
import pytest
from click.testing import CliRunner

from deel_dualview.cli import main

FUNCTIONS = """
import numpy as np, tensorflow as tf

def _data(n):
    rng = np.random.default_rng(n)
    return tf.data.Dataset.from_tensor_slices((rng.normal(size=(n, 4)).astype("float32"), np.arange(n) % 3)).batch(16)

def train(): return _data(30)
def test(): return _data(12)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    (path / "relevance_data.py").write_text(FUNCTIONS)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3)]).save(path / "model.keras")
    return path


@pytest.fixture
def run(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    given = ["--model", "model.keras", "--train", "relevance_data:train", "--test", "relevance_data:test"]
    given += ["--method", "graddot", "--k", "2", "--no-progress", "--output", str(tmp_path / "audit")]
    return lambda *options: CliRunner().invoke(main, ["audit", *given, *options])


def overview(tmp_path):
    return json.loads((tmp_path / "audit" / "audit.json").read_text())["overview"]


def test_relevance_is_shown_by_default_with_names_and_colours(run, folder, tmp_path):
    (folder / "names.txt").write_text("age\nincome\nheight\nweight\n")
    assert run("--input-names", "names.txt", "--colours", "orange-purple").exit_code == 0
    assert overview(tmp_path)["relevance_rule"] == "epsilon-gamma"
    page = (tmp_path / "audit" / "index.html").read_text()
    assert 'class="bars"' in page and "income" in page and ">Orange</span>" in page


def test_a_rule_can_be_chosen_and_relevance_switched_off(run, tmp_path):
    assert run("--relevance", "epsilon").exit_code == 0
    assert overview(tmp_path)["relevance_rule"] == "epsilon"
    assert run("--relevance", "off", "--overwrite").exit_code == 0
    assert overview(tmp_path)["relevance_rule"] is None
    assert 'class="bars"' not in (tmp_path / "audit" / "index.html").read_text()


@pytest.mark.parametrize("model", ["model.keras", "missing.keras"])
def test_an_unknown_rule_is_refused_in_one_line_before_a_model_is_loaded(run, model):
    result = run("--relevance", "rainbow", "--model", model)
    assert result.exit_code == 2
    assert "`relevance` must be one of" in result.output.splitlines()[-1]


def test_a_file_of_names_that_is_no_text_is_refused_in_one_line(run):
    result = run("--input-names", "model.keras", "--model", "missing.keras")
    assert result.exit_code == 2
    assert "--input-names takes a text file in UTF-8" in result.output.splitlines()[-1]


def test_names_of_another_number_of_columns_are_refused(run, folder):
    (folder / "few.txt").write_text("age\nincome\n")
    result = run("--input-names", "few.txt")
    assert result.exit_code == 2
    assert "`input_names` must name each of the 4 columns" in result.output.splitlines()[-1]
