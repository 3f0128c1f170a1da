"""`deel-dualview store`: what is said of stores that are whole, unfinished, damaged or none, and what is deleted."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from deel_dualview import DiskStore
from deel_dualview.cli import main
from deel_dualview.stores.shards import Manifest, part_name, read_manifest, write_manifest

KEY = {"model": "abc", "layer": "dense"}


def run(*arguments):
    return CliRunner().invoke(main, ["store", *map(str, arguments)])


@pytest.fixture
def directory(tmp_path):
    inputs = np.arange(69, dtype=np.float32).reshape(23, 3)
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    path = tmp_path / "a störe"
    DiskStore(path, shard_size=5, progress=False).open(KEY, dataset, lambda inputs: {"features": 2 * inputs})
    return path


def test_info_lists_examples_arrays_and_what_they_depend_on(directory):
    said = run("info", directory)
    assert said.exit_code == 0, said.output
    for part in ("23 examples in 5 shards", "complete", "features", "float32", "hashes", "model: abc"):
        assert part in said.output
    assert "not complete" not in said.output


def test_info_names_fits_and_shards_of_workers(directory):
    assert "fits" not in run("info", directory).output
    (directory / "fits").mkdir()
    (directory / "fits" / "fit-0123.npz").write_bytes(bytes(2**20))
    assert "1 fits to them, 1.0 MiB" in run("info", directory).output
    # As a cluster leaves it that was killed before its first worker listed the shards.
    manifest = read_manifest(directory)
    write_manifest(directory, dataclasses.replace(manifest, complete=False), part_name(1))
    write_manifest(directory, Manifest(manifest.key))
    assert "5 shards of workers of a cluster" in run("info", directory).output


def test_a_store_without_its_end_is_not_complete(tmp_path):
    def fails(inputs):
        if inputs[0, 0] >= 36:
            raise RuntimeError("stop")
        return {"features": inputs}

    inputs = np.arange(69, dtype=np.float32).reshape(23, 3)
    store = DiskStore(tmp_path / "store", shard_size=4, progress=False)
    with pytest.raises(RuntimeError, match="stop"):
        store.open(KEY, tf.data.Dataset.from_tensor_slices(inputs).batch(4), fails)
    described = store.describe()
    assert not described.is_complete
    assert described.num_examples == 12
    assert "not complete" in run("info", store.directory).output
    assert "Not complete" in run("verify", store.directory).output


@pytest.mark.parametrize("number", [0, 2, 4])
def test_verify_finds_one_flipped_bit(directory, number):
    assert run("verify", directory).exit_code == 0
    file = directory / f"{number:05d}-features.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    said = run("verify", directory)
    assert said.exit_code == 2
    assert file.name in said.output


def test_clean_deletes_what_a_killed_writer_left_and_nothing_else(directory):
    (directory / "00007-features.npy").write_bytes(b"of a killed process")
    (directory / "notes.txt").write_text("mine")
    before = {path.name for path in directory.iterdir()}
    said = run("clean", directory)
    assert said.exit_code == 0, said.output
    assert before - {path.name for path in directory.iterdir()} == {"00007-features.npy"}
    assert "00007-features.npy" in said.output
    assert run("verify", directory).exit_code == 0


@pytest.mark.parametrize("command", ["info", "verify", "clean"])
def test_a_directory_without_a_store_is_bad_input_and_stays_as_it_is(tmp_path, command):
    (tmp_path / "mine.npy").write_bytes(b"mine")
    said = run(command, tmp_path)
    assert said.exit_code == 2
    assert "holds no store" in said.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npy"]
