"""`--fail-on` fails closed: only an audit whose shares were computed and compared ends with 0."""

import os
import subprocess
import sys

import click
import pytest
from cli_cases import DATA, refused, run, save_model
from click.testing import CliRunner

from deel_dualview.cli.running import CleanCommand

ENDS = (
    DATA
    + """
import sys, click

@keras.saving.register_keras_serializable("gate")
class Ending(keras.layers.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        if "make" not in sys.argv: sys.exit(0)

def leaves(): sys.exit(0)
def leaves_softly(): click.get_current_context().exit(0)
def leaves_without_code(): sys.exit()
def lazily(): return train().map(lambda x, y: (x, tf.py_function(sys.exit, [], tf.int64)))
def unlabelled(): return train().map(lambda x, y: x)
def unlabelled_test(): return test().map(lambda x, y: x)
"""
)


class OfTheUser(click.ClickException):
    exit_code = 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("gate_data", "gate_ends"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "gate_data.py").write_text(ENDS)
    (tmp_path / "gate_ends.py").write_text("import sys\nsys.exit(0)\n")
    save_model(tmp_path / "model.keras")
    return tmp_path


def gate(*options, train="gate_data:train", test="gate_data:test", fail_on=("leaks=1",)):
    own = [
        "--model",
        "model.keras",
        "--train",
        train,
        "--test",
        test,
        "--method",
        "graddot",
        "--relevance",
        "off",
    ]
    return run(*own, *(part for text in fail_on for part in ("--fail-on", text)), *options)


@pytest.mark.parametrize(
    "spec, words",
    [
        ("gate_data:leaves", ["--train: gate_data:leaves called sys.exit(0)"]),
        ("gate_data:leaves_without_code", ["sys.exit(None)"]),
        ("gate_data:leaves_softly", ["gate_data:leaves_softly raised Exit"]),
        ("gate_ends:train", ["importing gate_ends called sys.exit(0)"]),
        ("gate_data:lazily", ["SystemExit"]),
    ],
)
def test_an_exit_of_the_users_code_is_bad_input(spec, words, folder):
    assert refused(gate(train=spec), *words)
    assert not (folder / "audit").exists()


def test_an_exit_of_an_imported_module_is_bad_input(folder):
    assert refused(gate("--import", "gate_ends"), "--import: importing gate_ends called sys.exit(0)")


def test_an_exit_while_the_model_is_loaded_is_bad_input(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make"])
    import gate_data

    save_model(folder / "model.keras", gate_data.Ending())
    monkeypatch.setattr(sys, "argv", [])
    assert refused(gate(), "ended the command: sys.exit(0)")


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(0),
        SystemExit(),
        SystemExit("text"),
        click.exceptions.Exit(0),
        OfTheUser("no"),
        GeneratorExit(),
    ],
    ids=repr,
)
def test_no_exception_ends_a_command_with_success(error):
    @click.command(cls=CleanCommand)
    @click.option("--debug", is_flag=True)
    def command(debug):
        raise error

    assert CliRunner().invoke(command).exit_code == 2


@pytest.mark.parametrize(
    "fail_on, words",
    [
        (["leaks=0.5", "leaks=0.9"], ["two for leaks"]),
        (["leaks=0.5", "leaks=50%"], ["two for leaks"]),
        (["leaks=nan"], ["leaks='nan'"]),
        (["leaks=-0.1"], ["leaks='-0.1'"]),
        (["leaks=inf%"], ["leaks='inf%'"]),
        (["Leaks=0.1"], ["NAME among"]),
        (["sparsity-path=0.1"], ["NAME among"]),
        ([""], ["NAME among"]),
    ],
)
def test_thresholds_without_a_clear_meaning_are_refused(fail_on, words, folder):
    assert refused(gate("--model", "missing.keras", fail_on=fail_on), *words)


@pytest.mark.parametrize(
    "options",
    [
        ["--K", "nan"], ["--K", "inf"], ["--K", "-1"], ["--top-k", "0"], ["--seed", str(2**32)], ["--seed", "-1"],
        ["--kernel", "rbf"], ["--colours", "grey"], ["--batch-size", "0"], ["--relevance", "rainbow"],
        ["--output", "gate_data.py"], ["--input-names", "nowhere"], ["--train", "gate_data"],
        ["--test", "nowhere:test"], ["--test", "gate_data:nothing"], ["--test", "no/where:x"], ["--method", "magic"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_values_are_refused_before_the_model_and_the_data_are_read(options, folder, monkeypatch):
    def read(*arguments, **settings):
        raise AssertionError("read before the options were checked")

    monkeypatch.setattr("deel_dualview.cli.model_files.load_model", read)
    monkeypatch.setattr("deel_dualview.data.sources.read_dataset", read)
    own = ["--model", "model.keras", "--train", "gate_data:train", "--test", "gate_data:test"]
    assert refused(run(*own, *options), "Error: ")


def test_a_layer_that_the_model_has_not_is_refused_before_the_data_are_read(folder, monkeypatch):
    def read(*arguments, **settings):
        raise AssertionError("read before the options were checked")

    monkeypatch.setattr("deel_dualview.data.sources.read_dataset", read)
    assert refused(gate("--feature-layer", "nowhere"), "nowhere")


def test_a_threshold_on_wrong_predictions_of_unlabelled_examples_is_refused_before_the_audit(folder):
    result = gate(test="gate_data:unlabelled", fail_on=["wrong-predictions=0.5"])
    assert refused(result, "wrong-predictions needs a test set with labels")
    assert not (folder / "audit").exists()


def test_a_share_of_wrong_labels_that_cannot_be_told_fails_the_check(folder):
    result = gate(test="gate_data:unlabelled", fail_on=["label-errors=100%"])
    assert result.exit_code == 1, result.output
    assert "Failed: label-errors is unknown" in result.output
    assert (folder / "audit" / "label_issues.csv").exists()


def test_a_share_of_wrong_labels_that_cannot_be_told_passes_where_that_is_allowed(folder):
    options = ["--allow-cannot-tell"]
    result = gate(*options, test="gate_data:unlabelled", fail_on=["label-errors=0", "leaks=1"])
    assert result.exit_code == 0, result.output


def test_what_cannot_be_told_excuses_no_other_share(folder):
    fail_on = ["label-errors=0", "not-finite=0", "leaks=0"]
    result = gate(
        "--allow-cannot-tell", train="gate_data:test", test="gate_data:unlabelled_test", fail_on=fail_on
    )
    assert result.exit_code == 1, result.output
    assert "Failed: leaks" in result.output and "Failed: label-errors" not in result.output


def test_a_reader_that_has_gone_does_not_make_a_failed_check_pass(folder):
    """The pipe is closed before the first line; the code is not 0, whichever line finds it closed."""
    reader, writer = os.pipe()
    os.close(reader)
    own = ["--model", "model.keras", "--train", "gate_data:train", "--test", "gate_data:test"]
    command = [sys.executable, "-m", "deel_dualview", "audit", *own, "--fail-on", "leaks=0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = subprocess.run(command, stdout=writer, stderr=subprocess.DEVNULL, env=environment, check=False)
    os.close(writer)
    assert code.returncode != 0
