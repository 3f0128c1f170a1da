"""Names with what is unseen (terminal escapes, marks of direction, lone surrogates), wherever they are written."""

import csv
import io
import json

import click
import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from matplotlib.text import Text
from pair_cases import both_orders

from deel_dualview import audit, plots
from deel_dualview.cli import main
from deel_dualview.cli.running import CleanCommand, say
from deel_dualview.plots import fonts
from deel_dualview.plots.formatting import escaped_json, visible

BAD = "cat\x1b[31m\x00\u202e\ud800\x85\n\x7f"
WRITTEN = r"cat\x1b[31m\x00\u202e\ud800\x85\n\x7f"
UNSEEN = "\x1b\x00\u202e\ud800\x85\x7f"


def test_what_is_unseen_is_written_out():
    assert visible(BAD) == WRITTEN


@pytest.mark.parametrize(
    "name", ["plain", "Käse", "漢字", "עברית", "می‌خواهم", "👩‍🔬", "🇪🇺", "x ² µ", "a\\x1b"]
)
def test_names_of_every_script_stay(name):
    assert visible(name) == name


@pytest.mark.parametrize("name", ["\u2066a", "\u200b", "\ufeff", "\U000e0041", "\u2028", "\r", "\x9b31m"])
def test_siblings_are_written_out(name):
    assert visible(name).isascii() and visible(name).isprintable()


def test_json_holds_the_same_and_shows_nothing_unseen():
    text = json.dumps({"name": BAD, "tag": "\U000e0041"}, ensure_ascii=False, indent=1)
    escaped = escaped_json(text)
    assert json.loads(escaped) == {"name": BAD, "tag": "\U000e0041"}
    assert not set(escaped) & set(UNSEEN) and escaped.encode()


@pytest.fixture(scope="module")
def report():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)]
    inputs = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    ids = np.array([f"{number}{BAD}".encode("utf-8", "surrogatepass") for number in range(30)])
    data = tf.data.Dataset.from_tensor_slices((inputs, np.arange(30) % 3, tf.constant(ids))).batch(10)
    names = {"class_names": [BAD, f"2{BAD}", "漢字"], "input_names": [BAD, f"b{BAD}", "c"]}
    return audit(keras.Sequential(layers, name="model"), data, data, k=2, progress=False, **names)


def test_a_page_shows_bad_names_as_escapes(report, tmp_path):
    page = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    assert not set(page) & set(UNSEEN)
    assert r"cat\x1b[31m" in page and "漢字" in page


def test_the_json_of_a_report_keeps_bad_names(report, tmp_path):
    report.to_html(tmp_path / "audit")
    text = (tmp_path / "audit" / "audit.json").read_text(encoding="utf-8")
    assert json.loads(text)["overview"]["class_names"] == [BAD, f"2{BAD}", "漢字"]
    assert not set(text) & set(UNSEEN)


def test_the_table_of_label_issues_keeps_bad_names_but_for_lone_surrogates(report, tmp_path):
    report.to_html(tmp_path / "audit")
    with (tmp_path / "audit" / "label_issues.csv").open(encoding="utf-8", newline="") as file:
        names = {row["given_label"] for row in csv.DictReader(file)}
    written = BAD.replace("\ud800", r"\ud800")
    assert names == {written, f"2{written}", "漢字"}


@pytest.mark.parametrize("charset", ["utf-8", "ascii", "latin-1"])
def test_a_terminal_gets_no_control_characters_whatever_it_can_encode(charset):
    @click.command()
    def command():
        say(f"{BAD} 漢字")

    result = CliRunner(charset=charset).invoke(command)
    assert result.exit_code == 0
    assert not set(result.output) & set(UNSEEN)


def test_an_error_of_a_command_shows_bad_names_as_escapes():
    @click.command(cls=CleanCommand)
    @click.option("--debug", is_flag=True)
    def command(debug):
        raise ValueError(f"no file {BAD}")

    assert r"no file cat\x1b[31m\x00\u202e\ud800" in CliRunner().invoke(command).stderr


@pytest.fixture(scope="module")
def pair():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)])
    return both_orders(model, np.random.default_rng(0).normal(size=(30, 3)).astype("float32"))[0]


def texts_drawn(pair, names):
    """Draw, which warns of missing glyphs, and such a warning is an error; return all texts."""
    figure = plots.column_relevance(pair, 0, class_names=names, column_names=names)
    figure.savefig(io.BytesIO())
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_names_without_a_glyph_are_drawn_as_escapes_and_without_warnings(pair, monkeypatch):
    monkeypatch.setattr(fonts, "_FAMILIES", ())
    written = texts_drawn(pair, ["漢字", "한국", f"é{BAD}"])
    assert r"\u6f22\u5b57" in written and "é" in written and r"cat\x1b" in written


def test_an_installed_font_that_has_the_glyph_takes_over(pair, monkeypatch):
    family = "Last Resort High-Efficiency"  # comes with Matplotlib, and has a glyph for everything
    monkeypatch.setattr(fonts, "_FAMILIES", (family, "No Such Font"))
    if not fonts._installed(fonts._FAMILIES):
        pytest.skip("an older Matplotlib")
    assert "漢字" in texts_drawn(pair, ["漢字", "한국", "é"])


@pytest.mark.parametrize("command", ["audit", "compare"])
def test_the_earlier_name_of_the_number_of_examples_is_taken_and_not_shown(command):
    shown = CliRunner().invoke(main, [command, "--help"]).output
    assert "--top-k INTEGER" in shown and "--k " not in shown
    for name in ("--top-k", "--k"):
        result = CliRunner().invoke(main, [command, name, "0"])
        assert result.exit_code == 2 and "--top-k" in result.stderr
