"""The README keeps its word: its Python blocks run, and what it names exists."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest
from click.testing import CliRunner

from deel_dualview.cli import main
from deel_dualview.report import RATES

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_every_python_block_runs(tmp_path, tfds_directory):
    """Verbatim, in one fresh process; TFDS's `mnist` is a small one, by TFDS's own environment variable."""
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(8), keras.layers.Dense(10)]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    environment = {**os.environ, "TFDS_DATA_DIR": tfds_directory, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))], cwd=tmp_path, env=environment, check=True
    )
    assert (tmp_path / "audit" / "index.html").exists()


def test_the_two_commands_are_there_once_each():
    commands = [line for block in blocks("bash") for line in block.splitlines() if "venv" in line]
    assert len(commands) == 2
    assert commands[0].endswith("deel-dualview audit") and commands[1].endswith("python -m pytest")


def test_every_option_that_it_names_exists():
    help_text = "".join(CliRunner().invoke(main, [name, "--help"]).output for name in ("audit", "compare"))
    options = set(re.findall(r"--[A-Za-z][\w-]*", README))
    assert options and not {option for option in options if option not in help_text}


def test_every_threshold_is_in_its_table_and_in_the_help():
    help_text = CliRunner().invoke(main, ["audit", "--help"], terminal_width=200).output
    assert not [name for name in RATES if f"`{name}`" not in README or name not in help_text]


@pytest.mark.parametrize("page", PAGES)
def test_every_local_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]
