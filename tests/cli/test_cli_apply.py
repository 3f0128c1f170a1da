"""`deel-dualview apply`: corrections of a page's export, written as a dataset."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from deel_dualview.cli import main

MODULE = """
import numpy as np, tensorflow as tf
def train():
    return tf.data.Dataset.from_tensor_slices((np.arange(6.0)[:, None], np.array([0, 1, 0, 1, 0, 1]))).batch(4)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data_to_apply.py").write_text(MODULE)
    (tmp_path / "corrections.csv").write_text("position,given_label,verdict,label\n1,1,wrong,0\n4,0,drop,\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("data_to_apply", None)


def run(*arguments):
    return CliRunner().invoke(
        main, ["apply", "corrections.csv", "--train", "data_to_apply:train", *arguments]
    )


def test_the_corrected_set_is_written_and_can_be_loaded(folder):
    result = run()
    assert result.exit_code == 0, result.output
    assert "1 label corrected, 1 example dropped" in result.output
    inputs, labels = zip(*tf.data.Dataset.load(str(folder / "corrected")).as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate(inputs)[:, 0], [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(np.concatenate(labels), [0, 0, 0, 1, 1])


def test_an_earlier_dataset_is_replaced_only_when_asked_and_other_folders_never(folder):
    assert run().exit_code == 0
    again = run()
    assert again.exit_code == 2 and "--overwrite" in again.output
    assert run("--overwrite").exit_code == 0
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").touch()
    assert run("--output", "mine", "--overwrite").exit_code == 2
    assert (folder / "mine" / "notes.txt").exists()


def test_corrections_of_another_set_write_nothing(folder):
    (folder / "corrections.csv").write_text("position,given_label,verdict,label\n1,0,wrong,1\n")
    result = run()
    assert result.exit_code == 2 and "another label than when it was judged" in result.output
    assert not (folder / "corrected").exists()


def test_a_file_that_is_not_there_is_refused():
    result = CliRunner().invoke(main, ["apply", "nowhere.csv", "--train", "mnist:train"])
    assert result.exit_code == 2 and "nowhere.csv" in result.output


def test_classes_have_the_names_of_the_file(folder):
    (folder / "names.txt").write_text("red\nblue\n")
    (folder / "corrections.csv").write_text("position,given_label,verdict,label\n1,blue,wrong,red\n")
    refused = run().output
    assert "--class-names" in refused and "`class_names`" not in refused
    assert run("--class-names", "names.txt").exit_code == 0


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("output", ["/dev/full/x", "/proc/x"])
def test_a_place_that_cannot_be_written_to_is_named(folder, output):
    result = run("--output", output)
    assert result.exit_code == 2
    assert "cannot be written" in result.output and f"'{output}'" in result.output
    assert "Errno" not in result.output and "unfinished" not in result.output
