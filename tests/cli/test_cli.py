"""The command line: what it writes, how soon it refuses, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import click
import keras
import numpy as np
import pytest
import scipy.sparse
from cli_cases import refused
from click.testing import CliRunner

import deel_dualview
from deel_dualview.cli import main
from deel_dualview.cli.demo import NUM_SWAPPED
from deel_dualview.cli.running import CleanCommand
from deel_dualview.data.sources import read_dataset

FILES = ["attributions.npz", "audit.json", "index.html", "label_issues.csv"]
FUNCTIONS = """
import numpy as np, tensorflow as tf

def _data(n):
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 3
    inputs = (np.eye(3)[labels] + rng.normal(0, 0.3, (n, 3))).astype("float32")
    return tf.data.Dataset.from_tensor_slices((inputs, labels))

def train(): return _data(60).batch(16)
def test(): return _data(10).batch(16)
def unbatched(): return _data(10)
def numbers(): return [1, 2, 3]
def broken(): raise RuntimeError("the disk is on fire")
"""


def run(*arguments, command="audit"):
    return CliRunner().invoke(main, [command, "--no-progress", *map(str, arguments)])


def run_compare(*arguments):
    return run(*arguments, command="compare")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory with the module `my_data`, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    (tmp_path / "my_data.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, run once, without an argument but for its place."""
    directory = tmp_path_factory.mktemp("demo") / "audit"
    return directory, run("--output", directory)


def own(model_file, train="my_data:train", test="my_data:test"):
    return ["--model", model_file, "--train", train, "--test", test]


@pytest.mark.parametrize("name", ["audit", "compare"])
def test_help_is_given_without_importing_tensorflow(name):
    code = (
        "import sys; from deel_dualview.cli import main; "
        f"main(['{name}', '--help'], standalone_mode=False); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage:" in result.stdout
    assert not {"tensorflow", "keras", "sklearn"} & set(result.stdout.split())


def test_the_version_is_that_of_the_package():
    assert deel_dualview.__version__ in CliRunner().invoke(main, ["--version"]).output


def test_the_demo_needs_no_argument_and_writes_a_report(demo):
    directory, result = demo
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in directory.iterdir()) == FILES


def test_the_demo_says_where_its_files_are(demo):
    directory, result = demo
    assert [name for name in FILES if str(directory / name) not in result.output] == []


def test_the_demo_lists_the_labels_that_it_swapped(demo):
    assert demo[1].output.count(" -> ") == NUM_SWAPPED


def test_the_demo_finds_most_of_the_labels_that_it_swapped(demo):
    findings = json.loads((demo[0] / "audit.json").read_text())["findings"]
    (label_errors,) = [finding for finding in findings if finding["name"] == "label-errors"]
    found = [point["found"] for point in label_errors["detection"]["points"] if point["share"] < 0.06]
    assert max(found) >= 0.9 * NUM_SWAPPED


def test_the_attributions_are_a_sparse_matrix(demo):
    attributions = scipy.sparse.load_npz(demo[0] / "attributions.npz")
    assert attributions.shape == (359, 1438)
    assert 0 < attributions.nnz < 0.5 * np.prod(attributions.shape)
    assert len(np.unique(attributions.indices)) < 0.5 * 1438, "an audit takes the sparse kernel"


def test_an_output_folder_that_exists_is_refused_before_training(folder):
    (folder / "audit").mkdir()
    result = run()
    assert refused(result, "--overwrite")
    assert "Training" not in result.output


def test_overwrite_replaces_a_report(folder, model_file, demo):
    shutil.copytree(demo[0], folder / "audit")
    (folder / "audit" / "index.html").write_text("old")
    assert run(*own(model_file), "--overwrite").exit_code == 0
    assert (folder / "audit" / "index.html").read_text() != "old"


def test_functions_of_the_current_directory_are_data(folder, model_file):
    result = run(*own(model_file), "--kernel", "linear", "--K", "1", "--k", "3", "--output", "here")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "here").iterdir()) == FILES


def test_tfds_datasets_are_data_with_their_names_and_ids(tmp_path, tfds_directory):
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(tmp_path / "model.keras")
    specs = own(tmp_path / "model.keras", "mnist:train[:200]", "mnist:test[:20]")
    result = run(*specs, "--data-dir", tfds_directory, "--output", tmp_path / "audit", "--batch-size", "64")
    assert result.exit_code == 0, result.output
    assert "mnist-train.tfrecord" in (tmp_path / "audit" / "audit.json").read_text()


@pytest.mark.parametrize(
    "spec, words",
    [
        ("my_data", ["NAME:SPLIT", "module:function"]),
        ("my_data:unbatched", ["batched"]),
        ("my_data:numbers", ["must return arrays (inputs, labels), or a batched tf.data.Dataset", "list"]),
        ("my_data:broken", ["RuntimeError", "the disk is on fire"]),
        ("my_data:absent", ["no function 'absent'"]),
        ("nowhere:train", ["neither", "TensorFlow Datasets knows no 'nowhere'", "no module 'nowhere'"]),
        ("needy:train", ["a module that is missing", "absent_module"]),
        ("no/where:train", ["knows no"]),
        ("mnist:validation", ["validation"]),
        ("mnist:test[400:]", ["test[400:]"]),
        ("mnist/9.9.9:test", ["9.9.9"]),
    ],
)
def test_data_that_cannot_be_read_are_refused(spec, words, folder, model_file, tfds_directory):
    (folder / "needy.py").write_text("import absent_module")
    assert refused(run(*own(model_file, train=spec), "--data-dir", tfds_directory), *words)


def test_a_function_may_return_arrays(folder, monkeypatch):
    (folder / "arrays.py").write_text(
        "import numpy as np\ndef both(): return np.ones((5, 2)), np.arange(5)\n"
    )
    monkeypatch.chdir(folder)
    dataset = read_dataset("arrays:both", name="train", batch_size=2).dataset
    assert [labels.tolist() for _, labels in dataset.as_numpy_iterator()] == [[0, 1], [2, 3], [4]]


def test_a_dataset_that_cannot_be_downloaded_says_where_it_was_looked_for(folder, model_file):
    specs = own(model_file, test="imagenet2012:train")
    assert refused(run(*specs, "--data-dir", folder, "--download"), "--data-dir", "downloading it failed")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([], "which does not exist"),
        ([""], "which is empty"),
        (["cifar10", "emnist"], "which holds 'cifar10', 'emnist'"),
    ],
    ids=["missing", "empty", "other datasets"],
)
@pytest.mark.parametrize("name", ["mnist", "a_dataset_of_mine"])
def test_a_mistyped_data_directory_is_refused_and_nothing_is_downloaded(
    made, words, name, folder, model_file
):
    directory = folder / "mistyped"
    for part in made:
        (directory / part).mkdir(parents=True, exist_ok=True)
    before = sorted(folder.rglob("*"))
    assert refused(run(*own(model_file, test=f"{name}:test"), "--data-dir", directory), str(directory), words)
    assert sorted(folder.rglob("*")) == before


def test_a_dataset_that_is_not_in_the_default_directory_is_not_downloaded(folder, model_file, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "default"))
    assert refused(run(*own(model_file, test="mnist:test")), "--download", "tfds build mnist")
    assert not (folder / "default").exists()


@pytest.mark.parametrize("missing", ["--model", "--train", "--test"])
def test_a_model_needs_its_data_and_data_a_model(missing, folder, model_file):
    pairs = zip(*[iter(own(model_file))] * 2, strict=True)
    assert refused(run(*[part for pair in pairs if pair[0] != missing for part in pair]), missing)


def test_a_model_that_is_not_there_is_refused(folder):
    assert refused(run(*own("absent.keras")), "absent.keras")


def test_a_file_that_is_not_a_model_is_refused(folder):
    (folder / "text.keras").write_text("not a model")
    assert refused(run(*own("text.keras")), "text.keras", "model.save")


def test_a_model_that_wants_to_run_code_is_refused(folder):
    layers = [keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(3)]
    keras.Sequential(layers).save("code.keras")
    assert refused(run(*own("code.keras")), "Lambda", "not run")


def test_a_model_with_an_unknown_class_is_refused(folder):
    class Unregistered(keras.layers.Dense):
        pass

    keras.Sequential([keras.Input((3,)), Unregistered(3)]).save("custom.keras")
    assert refused(run(*own("custom.keras")), "class of your own")


@pytest.mark.parametrize(
    "options",
    [["--k", "0"], ["--K", "0"], ["--kernel", "rbf"], ["--batch-size", "0"], ["--feature-layer", "no"]],
)
def test_bad_settings_are_refused(options, folder, model_file):
    assert refused(run(*own(model_file), *options))
    assert not (folder / "audit").exists()


def test_another_method_is_named_in_the_report(folder, model_file):
    result = run(*own(model_file), "--method", "graddot")
    assert result.exit_code == 0, result.output
    overview = json.loads((folder / "audit" / "audit.json").read_text())["overview"]
    assert overview["method"] == "GradDot" and overview["certificate"] is None
    assert "strongest influence values" in result.output


@pytest.mark.parametrize(
    "options, words",
    [
        (["--method", "magic"], ["'magic'", "dualview", "feature-similarity"]),
        (["--method", "graddot", "--K", "1"], ["--K", "dualview", "graddot has none"]),
        (["--method", "graddot", "--kernel", "linear"], ["--kernel"]),
        (["--method", "graddot", "--fail-on", "unfaithful=0.1"], ["--fail-on unfaithful"]),
        (["--method", "tracin"], ["tracin needs checkpoints", "SaveCheckpoints", "--checkpoints DIR"]),
        (["--method", "tracin", "--checkpoints", "nowhere"], ["No checkpoints here", "nowhere"]),
        (["--checkpoints", "nowhere"], ["--checkpoints", "tracin, trak"]),
    ],
)
def test_options_that_do_not_fit_the_method_are_refused(options, words, folder, model_file):
    assert refused(run(*own(model_file), *options), *words)
    assert not (folder / "audit").exists()


def test_the_demo_takes_no_checkpoints(folder):
    assert refused(run("--method", "tracin", "--checkpoints", "here"), "--model")


def test_checkpoints_of_a_training_run_are_read(folder):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    callbacks = [deel_dualview.SaveCheckpoints(folder / "checkpoints")]
    model.fit(inputs, np.arange(30) % 3, epochs=2, verbose=0, callbacks=callbacks)
    model.save(folder / "trained.keras")
    result = run(*own("trained.keras"), "--method", "tracin", "--checkpoints", "checkpoints")
    assert result.exit_code == 0, result.output


def test_methods_are_compared_on_data_of_your_own(folder, model_file):
    result = run_compare(*own(model_file), "--methods", "graddot, gradcos", "--queries", "6", "--k", "3")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "compare").iterdir()) == ["compare.json", "index.html"]
    payload = json.loads((folder / "compare" / "compare.json").read_text())
    assert (payload["num_queries"], payload["k"], payload["num_train"]) == (6, 3, 60)
    assert "the first 6 test examples" in result.output
    for line in ("Mean rank correlation", "Share of the 3 strongest", "Cost", "compare/index.html"):
        assert line in result.output


def test_the_demo_makes_the_checkpoints_that_a_method_needs(tmp_path):
    methods = ["--methods", "tracin,graddot", "--queries", "5"]
    result = run_compare(*methods, "--output", tmp_path / "compare")
    assert result.exit_code == 0, result.output
    assert "tracin" in result.output


@pytest.mark.parametrize(
    "options, words",
    [
        (["--methods", "graddot"], ["at least two"]),
        (["--methods", "graddot,graddot"], ["different"]),
        (["--methods", "graddot,magic"], ["'magic'", "dualview"]),
        (["--methods", "graddot,tracin"], ["tracin needs checkpoints"]),
        (["--queries", "0"], ["--queries"]),
        (["--k", "61", "--methods", "graddot,gradcos"], ["lower `k`"]),
        (["--output", "taken"], ["--overwrite"]),
        (["--checkpoints", "nowhere"], ["tracin, trak"]),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(options, words, folder, model_file):
    (folder / "taken").mkdir()
    assert refused(run_compare(*own(model_file), *options), *words)
    assert not (folder / "compare").exists()


@pytest.mark.parametrize("threshold", ["label-errors", "label-errors=2", "labels=0.1", "leaks=few"])
def test_a_threshold_that_means_nothing_is_refused_before_training(threshold, folder):
    result = run("--fail-on", threshold)
    assert refused(result, threshold.partition("=")[0])
    assert "Training" not in result.output


def test_a_share_above_its_threshold_fails_and_still_writes_the_report(folder, model_file):
    result = run(*own(model_file), "--fail-on", "leaks=1", "--fail-on", "wrong-predictions=0")
    assert result.exit_code == 1, result.output
    assert "Failed: wrong-predictions" in result.output and "Failed: leaks" not in result.output
    assert (folder / "audit" / "index.html").exists()


def test_a_share_below_its_threshold_passes(folder, model_file):
    assert run(*own(model_file), "--fail-on", "wrong-predictions=100%").exit_code == 0


def test_debug_shows_the_traceback(folder):
    assert "Traceback" in run(*own("absent.keras"), "--debug").stderr


@pytest.mark.parametrize("command", ["audit", "compare"])
def test_ctrl_c_ends_without_a_traceback_and_leaves_nothing_behind(command, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "from deel_dualview.cli import main; main()", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts its background jobs with Ctrl-C ignored, which processes inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = next(line for line in process.stdout if "..." not in line or "Training" in line)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "Training" in first
    assert process.returncode == 130, output
    assert "Interrupted" in output and "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def interrupted(body, handler=signal.default_int_handler):
    @click.command(cls=CleanCommand)
    @click.option("--debug", is_flag=True)
    def command(debug):
        body()

    hook, outer = sys.unraisablehook, signal.signal(signal.SIGINT, handler)  # ignored in a job of a shell
    try:
        result = CliRunner().invoke(command)
        assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == (handler, hook)
    finally:
        signal.signal(signal.SIGINT, outer)
    return result


def test_ctrl_c_that_comes_out_of_a_library_as_another_error_is_still_told_as_one():
    def body():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("error set without a result") from None

    result = interrupted(body)
    assert result.exit_code == 130
    assert result.stderr == "\nInterrupted. No report was written.\n"


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost():
    class Collected:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    started = time.monotonic()

    def body():
        Collected()
        time.sleep(60)

    result = interrupted(body)
    assert result.exit_code == 130 and time.monotonic() - started < 60
    assert result.stderr == "\nInterrupted. No report was written.\n"


def test_ctrl_c_stays_ignored_where_it_is():
    assert interrupted(lambda: signal.raise_signal(signal.SIGINT), handler=signal.SIG_IGN).exit_code == 0


def test_an_exception_that_python_drops_is_told_as_before(monkeypatch):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)

    class Collected:
        def __del__(self):
            raise RuntimeError("closed twice")

    assert interrupted(lambda: (Collected(), None)[1]).exit_code == 0
    assert [str(one.exc_value) for one in dropped] == ["closed twice"]
