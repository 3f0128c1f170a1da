"""`deel-dualview benchmark`: what it says, what it refuses, how it ends."""

import errno
import importlib

import click
import pytest
from click.testing import CliRunner

from deel_dualview import METHODS, evaluation
from deel_dualview.cli import main
from deel_dualview.cli.running import CleanCommand
from deel_dualview.evaluation import Recipe, runner

command = importlib.import_module("deel_dualview.cli.benchmark")


def run(*arguments):
    return CliRunner().invoke(main, ["benchmark", "--no-progress", *map(str, arguments)])


@pytest.fixture
def quick(monkeypatch):
    """Digits that are learned in one pass."""
    own = evaluation.benchmark

    def with_recipe(*arguments, **settings):
        return own(*arguments, **settings, recipe=Recipe("digits-cnn", epochs=1, batch_size=64))

    monkeypatch.setattr(evaluation, "benchmark", with_recipe)


def refused(result, *words):
    """Whether the run ended as bad input: exit code 2, one line that holds all words, and no traceback."""
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == 2 and last.startswith("Error: ") and "Traceback" not in result.stderr
    assert [word for word in words if word not in last] == [], last
    return True


def test_a_run_tells_the_table_and_where_it_lies(quick, tmp_path):
    given = ["--methods", "gradcos,random", "--metrics", "superclass", "--num-test", 20, "--output", tmp_path]
    result = run(*given)
    assert result.exit_code == 0, result.output
    assert "gradcos" in result.output and str(tmp_path / "digits" / "index.html") in result.output
    assert (tmp_path / "digits" / "table.md").exists()
    again = run(*given)
    assert again.exit_code == 0 and again.output == result.output


def test_a_failed_method_ends_with_one_and_says_why(quick, tmp_path):
    method = "arnoldi?ihvp.num_curvature_examples=5000"  # there are 1,438
    result = run("--methods", f"random,{method}", "--metrics", "superclass", "--output", tmp_path)
    assert result.exit_code == 1
    assert f"Failed: {method}, superclass, seed 0: TooFewExamplesError: Only as many" in result.stderr
    assert "random" in result.stdout and "failed" in result.stdout
    assert run("--methods", "random", "--metrics", "superclass", "--output", tmp_path).exit_code == 0


def test_ctrl_c_says_that_results_are_kept(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "load_images", interrupted)
    result = run("--output", tmp_path)
    assert result.exit_code == 130 and "Finished results are kept" in result.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--data", "minst"], ["minst", "digits", "mnist"]),
        (["--methods", "dualveiw"], ["dualveiw", "rps-l2", "random"]),
        (["--methods", "dualview?L=2"], ["has the settings", "kernel"]),
        (["--metrics", "accuracy"], ["identical-class", "lds", "accuracy"]),
        (["--seeds", "many"], ["a number"]),
        (["--seeds", "0"], ["at least 1"]),
        (["--seeds", "4294967296,"], ["4,294,967,295"]),
        (["--num-test", "1000"], ["288 may be asked"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, given, words):
    assert refused(run("--output", tmp_path / "results", *given), *words)


def test_the_command_knows_the_data_and_the_methods():
    assert set(command.DATA) == set(evaluation.RECIPES)
    assert set(command.DEFAULT.split(",")) <= {*METHODS, "random"}


@pytest.mark.parametrize(("text", "seeds"), [("3", 3), ("3,", [3]), ("0,2", [0, 2])])
def test_seeds_are_how_many_or_which(text, seeds):
    assert command._seeds(None, None, text) == seeds


def test_a_reader_that_has_gone_is_no_error():
    @click.command(cls=CleanCommand)
    @click.option("--debug", is_flag=True)
    def command(debug):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    result = CliRunner().invoke(command)
    assert result.exit_code == 1 and result.output == ""
