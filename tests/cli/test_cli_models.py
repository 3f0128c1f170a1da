"""`--model` and `--import`: what is loaded in which order, and what is said of files that are no whole model."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import pytest
import tensorflow as tf
from cli_cases import DATA, refused, run, save_model
from click.testing import CliRunner

from deel_dualview import InfluenceModel, SquaredError
from deel_dualview.cli import demo, main, subject
from deel_dualview.cli.model_files import check_model_file, load_model

LAYER = """
import keras

@keras.saving.register_keras_serializable("mine")
class Squash(keras.layers.Layer):
    def call(self, inputs):
        return inputs / (1 + keras.ops.abs(inputs))
"""
SCRIPT = """
import sys
from cli_cases import save_model
from model_layers import Squash
save_model("custom.keras", Squash())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a layer of another module, made by another process, and data with and without that module."""
    path = tmp_path_factory.mktemp("models")
    (path / "model_layers.py").write_text(LAYER)
    (path / "model_data.py").write_text(DATA)
    (path / "model_data_with_layer.py").write_text("from model_layers import *\n" + DATA)
    (path / "broken_layers.py").write_text("1 / 0\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=path, env=environment, check=True, capture_output=True)
    save_model(path / "model.keras")
    save_model(path / "model.h5")
    return path


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield folder
    for name in ("model_layers", "model_data", "model_data_with_layer", "broken_layers"):
        sys.modules.pop(name, None)
    keras.saving.get_custom_objects().pop("mine>Squash", None)


def audit(directory, *options, model="custom.keras", data="model_data", command="audit"):
    own = ["--model", model, "--train", f"{data}:train", "--test", f"{data}:test", "--output", directory]
    quick = (
        ["--method", "graddot", "--relevance", "off"]
        if command == "audit"
        else ["--methods", "graddot,gradcos"]
    )
    return run(*own, *quick, *options, command=command)


@pytest.mark.parametrize("command", ["audit", "compare"])
def test_layers_of_the_data_module_are_known_when_the_model_is_loaded(command, here, tmp_path):
    result = audit(tmp_path / "report", data="model_data_with_layer", command=command)
    assert result.exit_code == 0, result.output


def test_layers_of_an_imported_module_are_known_when_the_model_is_loaded(here, tmp_path):
    result = audit(tmp_path / "report", "--import", "json", "--import", "model_layers")
    assert result.exit_code == 0, result.output


def test_a_layer_that_no_module_registers_is_named_with_how_to_import_it(here, tmp_path):
    assert refused(audit(tmp_path / "report"), "Could not locate class 'Squash'", "--import MODULE")


@pytest.mark.parametrize(
    "name, words",
    [
        ("no_layers", ["no module 'no_layers'"]),
        ("model_layers.py", ["no module 'model_layers.py'", "Without its ending: model_layers."]),
        ("./model_layers", ["as in `import my_layers`"]),
        ("", ["as in `import my_layers`"]),
        ("broken_layers", ["importing broken_layers raised ZeroDivisionError"]),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(name, words, here, tmp_path):
    assert refused(audit(tmp_path / "report", "--import", name), "--import", *words)


@pytest.mark.parametrize(("options", "expected"), [([], ["Training"]), (["--no-progress"], [])])
def test_the_training_of_the_demo_shows_that_time_passes(monkeypatch, options, expected):
    shown = []

    @contextlib.contextmanager
    def recorded(text, stream):
        shown.append(text)
        yield

    def stopped(**settings):
        raise ValueError(f"shown: {shown}")

    monkeypatch.setattr(subject, "seconds_shown", recorded)
    monkeypatch.setattr(demo, "make_demo", stopped)
    assert f"shown: {expected}" in CliRunner().invoke(main, ["audit", *options]).output


def test_the_demo_imports_nothing():
    assert refused(run("--import", "json"), "--import needs --model")


def test_a_missing_model_is_refused_before_tensorflow_is_imported(tmp_path):
    code = "import sys, deel_dualview.cli as cli\ntry: cli.main()\nfinally: sys.exit(7 * ('keras' in sys.modules))"
    own = ["audit", "--model", "missing.keras", "--train", "a:b", "--test", "a:b"]
    found = subprocess.run(
        [sys.executable, "-c", code, *own], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert found.returncode == 0 and "There is no such file" in found.stderr, found.stderr


def rewritten(folder, path, change):
    with zipfile.ZipFile(folder / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def damaged(folder, path, how):
    content = (folder / "model.keras").read_bytes()
    if how == "flipped":
        with zipfile.ZipFile(folder / "model.keras") as archive:
            place = archive.getinfo("config.json").header_offset + 60
        content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.write_bytes(
        {"empty": b"", "truncated": content[: len(content) // 2], "text": b"text"}.get(how, content)
    )
    return path


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "flipped"])
def test_a_damaged_keras_file_is_called_damaged(how, folder, tmp_path):
    with pytest.raises(ValueError, match="damaged"):
        load_model(damaged(folder, tmp_path / "model.keras", how))


def test_every_flipped_byte_of_the_directory_of_a_keras_file_is_an_error_of_the_users(folder, tmp_path):
    """An error that is not a ValueError would be one that nothing explains."""
    content = (folder / "model.keras").read_bytes()
    path = tmp_path / "model.keras"
    for place in [*range(0, 40), *range(len(content) - 120, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            load_model(path)
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda name, content: None if "weights" in name else content, "model.weights.h5"),
        (lambda name, content: None if "config" in name else content, "config.json"),
        (lambda name, content: content[: len(content) // 2] if "weights" in name else content, "damaged"),
        (lambda name, content: content.replace(b'"units"', b'"newer": 1, "units"'), "newer"),
        (lambda name, content: content.replace(b'"Dense"', b'"Denser"'), "Denser"),
        (lambda name, content: b"{" if "config" in name else content, "JSONDecodeError"),
    ],
)
def test_a_load_error_keeps_the_cause_of_keras(change, words, folder, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        load_model(rewritten(folder, tmp_path / "model.keras", change))
    assert "GlorotUniform" not in str(caught.value), "no whole configurations"


def test_a_load_error_names_another_version_of_keras(folder, tmp_path):
    def change(name, content):
        if name == "metadata.json":
            return json.dumps({**json.loads(content), "keras_version": "9.1.0"})
        return content.replace(b'"Dense"', b'"Denser"')

    with pytest.raises(ValueError, match=r"Saved by Keras 9\.1\.0"):
        load_model(rewritten(folder, tmp_path / "model.keras", change))


def test_files_of_the_other_format_say_which_they_are(folder, tmp_path):
    (tmp_path / "model.keras").write_bytes((folder / "model.h5").read_bytes())
    (tmp_path / "model.h5").write_bytes((folder / "model.keras").read_bytes())
    with pytest.raises(ValueError, match="HDF5 file under the name of a .keras"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="a .keras file under another name"):
        load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("size", [0, 1000])
def test_half_an_hdf5_file_is_called_damaged(size, folder, tmp_path):
    (tmp_path / "model.h5").write_bytes((folder / "model.h5").read_bytes()[:size])
    with pytest.raises(ValueError, match="damaged"):
        load_model(tmp_path / "model.h5")


def test_a_model_that_is_not_zipped_is_read(folder, tmp_path):
    with zipfile.ZipFile(folder / "model.keras") as archive:
        archive.extractall(tmp_path / "model")
    assert load_model(tmp_path / "model").output_shape == (None, 3)


@pytest.mark.parametrize(
    "name, words",
    [
        ("nul\0.keras", "NUL"),
        ("loop.keras", "symbolic links"),
        ("n" * 300, "too long"),
        ("file/model.keras", "Not a directory"),
        ("directory.keras", "this is a directory"),
        ("pipe.keras", "no regular file"),
        ("missing.keras", "no such file"),
    ],
)
def test_a_path_that_cannot_be_read_has_the_reason_of_the_system(name, words, tmp_path):
    (tmp_path / "loop.keras").symlink_to(tmp_path / "loop.keras")
    (tmp_path / "file").write_text("")
    (tmp_path / "directory.keras").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(ValueError, match=words) as caught:
        check_model_file(f"{tmp_path}/{name}")
    assert "damaged" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_says_so(folder, tmp_path):
    path = damaged(folder, tmp_path / "model.keras", "whole")
    path.chmod(0)
    with pytest.raises(ValueError, match="Permission denied"):
        check_model_file(path)


def regression(path, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    model.compile(**compiled)
    model.save(path)
    return path


def test_a_model_keeps_the_loss_that_it_was_compiled_with(tmp_path):
    model = load_model(regression(tmp_path / "model.keras", loss="mse"))
    assert isinstance(InfluenceModel(model).objective, SquaredError)


def test_a_loss_that_cannot_be_loaded_is_reported(tmp_path):
    def own_loss(labels, outputs):
        return tf.abs(labels - outputs)

    path = regression(tmp_path / "model.keras", loss=own_loss)
    with pytest.warns(UserWarning, match="(?s)without what it was compiled with.*own_loss"):
        load_model(path)


def test_a_regression_is_audited_in_the_unit_of_its_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    regression("model.keras", loss="mse")
    data = DATA.replace("labels = np.arange(n) % 3", "labels = np.arange(n) % 3 * 1.5").replace(
        "np.eye(3)[labels]", "np.eye(3)[np.arange(n) % 3]"
    )
    pathlib.Path("regression_data.py").write_text(data)
    pathlib.Path("names.txt").write_text("length\n")
    sets = ["--train", "regression_data:train", "--test", "regression_data:test"]
    result = run("--model", "model.keras", *sets, "--label-unit", "mm", "--output-names", "names.txt")
    assert result.exit_code == 0, result.output
    assert " mm" in pathlib.Path("audit/index.html").read_text()


def test_a_model_with_several_outputs_needs_the_name_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(3, "softmax", name=name)(inputs) for name in ("kind", "other")]
    keras.Model(inputs, outputs).save("model.keras")
    pathlib.Path("several_data.py").write_text(DATA)
    sets = ["--model", "model.keras", "--train", "several_data:train", "--test", "several_data:test"]
    result = run(*sets)
    assert result.exit_code == 2
    assert "--model-output: kind, other" in result.output
    assert run(*sets, "--model-output", "kind").exit_code == 0
