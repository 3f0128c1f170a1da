"""What tests of the command line share: data of a module, a model, a run, and how a refusal looks."""

import functools
import pathlib
import tempfile

import keras
from click.testing import CliRunner

from deel_dualview.cli import main

DATA = """
import keras, numpy as np, tensorflow as tf

def _data(n):
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 3
    inputs = (np.eye(3)[labels] + rng.normal(0, 0.3, (n, 3))).astype("float32")
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16)

def train(): return _data(60)
def test(): return _data(10)
"""


def run(*arguments, command="audit"):
    return CliRunner().invoke(main, [command, "--no-progress", *map(str, arguments)])


def save_model(path, *between):
    path = pathlib.Path(path)
    if between:
        _model(*between).save(path)
    else:
        path.write_bytes(_plain_model(path.suffix))
    return path


def _model(*between):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(8, "relu"), *between, keras.layers.Dense(3)]
    return keras.Sequential(layers)


@functools.cache
def _plain_model(suffix):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, f"model{suffix}")
        _model().save(path)
        return path.read_bytes()


def refused(result, *words):
    """Whether the run ended as bad input: exit code 2, one line that holds all words, and no traceback."""
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert lines[-1].startswith("Error: ") and "Traceback" not in result.stderr, result.output
    assert [word for word in words if word not in lines[-1]] == [], lines[-1]
    return True
