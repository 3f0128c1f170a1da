"""A store on disk: what it refuses, and what survives when things go wrong."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_stores import KEY, NUM_EXAMPLES, Compute, disk_store, make_dataset

from deel_dualview.stores import DiskStore, MemoryStore, StoreError


def fail_after(num_batches: int, error: BaseException) -> Callable[[Any], dict[str, Any]]:
    compute, calls = Compute(), iter(range(num_batches))

    def compute_or_fail(element: Any) -> dict[str, Any]:
        if next(calls, None) is None:
            raise error
        return compute(element)

    return compute_or_fail


def reorder(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.unbatch().shuffle(NUM_EXAMPLES, seed=1, reshuffle_each_iteration=False).batch(4)


OTHER_DATA = {
    "other contents": (lambda: make_dataset().map(lambda x, y: (x + 1, y)), "another example.*index=0"),
    "other labels": (lambda: make_dataset().map(lambda x, y: (x, y + 1)), "another example.*index=0"),
    "another order": (lambda: reorder(make_dataset()), "another example"),
    "one fewer": (lambda: make_dataset(4, NUM_EXAMPLES - 1), "fewer examples"),
    "one more": (lambda: make_dataset(4, NUM_EXAMPLES + 1), "more examples"),
    "a batch more": (lambda: make_dataset(NUM_EXAMPLES, NUM_EXAMPLES * 2), "more examples"),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A complete store of five shards."""
    disk_store(tmp_path).open(KEY, make_dataset(), Compute())
    return tmp_path / "store"


def reopen(directory: Path, *, key: dict[str, str] = KEY, dataset: tf.data.Dataset | None = None) -> Any:
    return DiskStore(directory).open(key, make_dataset() if dataset is None else dataset, Compute())


class TestDiskStoreRefuses:
    @pytest.mark.parametrize("kind", OTHER_DATA)
    def test_other_data(self, directory, kind):
        make, found = OTHER_DATA[kind]
        with pytest.raises(StoreError, match=f"(?s)other data.*delete.*{found}"):
            reopen(directory, dataset=make())

    def test_another_model(self, directory):
        with pytest.raises(StoreError, match="another model.*model='def', stored model='abc'"):
            reopen(directory, key=KEY | {"model": "def"})

    def test_a_key_with_less_in_it(self, directory):
        with pytest.raises(StoreError, match="another layer"):
            reopen(directory, key={"model": "abc"})

    def test_another_format_version(self, directory):
        manifest = json.loads((directory / "manifest.json").read_text())
        (directory / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
        with pytest.raises(StoreError, match="another version.*format_version=99"):
            reopen(directory)

    @pytest.mark.parametrize("contents", ["", "{", "[]", "{}", '{"format_version": 1}', "\x00\xff"])
    def test_a_manifest_that_cannot_be_read(self, directory, contents):
        (directory / "manifest.json").write_text(contents)
        with pytest.raises(StoreError, match=r"damaged: its manifest.json.*delete"):
            reopen(directory)

    def test_a_truncated_shard(self, directory):
        shard = directory / "00002-features.npy"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(StoreError, match=r"damaged: 00002-features.npy has \d+ bytes where"):
            reopen(directory)

    @pytest.mark.parametrize("place", [7, 30, -1], ids=["header", "header's text", "data"])
    def test_a_flipped_bit(self, directory, place):
        shard = directory / "00001-features.npy"
        contents = bytearray(shard.read_bytes())
        contents[place] ^= 1
        shard.write_bytes(contents)
        with pytest.raises(StoreError, match=r"damaged: the checksum of 00001-features.npy"):
            reopen(directory)

    def test_a_missing_shard(self, directory):
        (directory / "00001-hashes.npy").unlink()
        with pytest.raises(StoreError, match="damaged: 00001-hashes.npy cannot be read"):
            reopen(directory)

    def test_a_shard_that_goes_missing_later(self, directory):
        stored = reopen(directory)
        (directory / "00001-features.npy").unlink()
        with pytest.raises(StoreError, match="damaged"):
            stored.array("features")

    def test_a_directory_with_other_files(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(StoreError, match="directory of its own.*thesis.tex"):
            reopen(tmp_path)

    def test_a_file_in_the_place_of_the_directory(self, tmp_path):
        (tmp_path / "store").write_text("")
        with pytest.raises(StoreError, match="not a file"):
            disk_store(tmp_path).open(KEY, make_dataset(), Compute())

    def test_a_shard_size_below_one(self, tmp_path):
        with pytest.raises(ValueError, match="shard_size=0"):
            DiskStore(tmp_path, shard_size=0)

    def test_a_second_writer(self, tmp_path):
        def compute(element):
            disk_store(tmp_path).open(KEY, make_dataset(), Compute())
            raise AssertionError("two writers")

        with pytest.raises(StoreError, match="Another process is writing"):
            disk_store(tmp_path).open(KEY, make_dataset(), compute)


class TestDiskStore:
    def test_shards_are_mapped_not_read(self, directory):
        block = next(iter(reopen(directory)))
        assert isinstance(block["features"], np.memmap) and not block["features"].flags.writeable

    def test_shards_have_the_size_asked_for(self, directory):
        assert [len(block["features"]) for block in reopen(directory)] == [5, 5, 5, 5, 3]

    def test_a_complete_store_is_read_where_nothing_can_be_written(self, directory):
        before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
        reopen(directory)
        assert before == {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}

    def test_nothing_is_made_before_it_is_opened(self, tmp_path):
        disk_store(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_refusing_leaves_the_store_as_it_was(self, directory):
        expected = reopen(directory).array("features")
        with pytest.raises(StoreError):
            reopen(directory, key=KEY | {"model": "def"})
        np.testing.assert_array_equal(reopen(directory).array("features"), expected)

    @pytest.mark.parametrize(
        "error",
        [ValueError("bad"), OSError(errno.EIO, "bad"), KeyboardInterrupt()],
        ids=["value", "os", "ctrl-c"],
    )
    def test_an_interruption_comes_through_and_the_work_resumes(self, tmp_path, error):
        with pytest.raises(type(error)) as caught:
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(3, error))
        assert caught.value is error
        compute = Compute()
        stored = disk_store(tmp_path).open(KEY, make_dataset(), compute)
        assert compute.seen == list(range(10, NUM_EXAMPLES))
        expected = MemoryStore().open(KEY, make_dataset(), Compute())
        np.testing.assert_array_equal(stored.array("features"), expected.array("features"))

    @pytest.mark.parametrize("batch_size", [1, 7, 50])
    def test_the_work_resumes_in_other_batches(self, tmp_path, batch_size):
        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(3, ValueError("bad")))
        compute = Compute()
        disk_store(tmp_path).open(KEY, make_dataset(batch_size), compute)
        assert compute.seen == list(range(10, NUM_EXAMPLES))

    def test_what_a_killed_process_left_behind_is_cleaned_away(self, tmp_path):
        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(3, ValueError("bad")))
        for name in ("00009-features.npy", "00009-features.npy.partial"):
            (tmp_path / "store" / name).write_text("")
        disk_store(tmp_path).open(KEY, make_dataset(), Compute())
        assert not list((tmp_path / "store").glob("00009*"))

    def test_an_error_of_the_dataset_does_not_hang_and_the_work_resumes(self, tmp_path):
        faults = [OSError("disk unplugged")]

        def generate():
            for number, element in enumerate(make_dataset()):
                if number == 3 and faults:
                    raise faults.pop()
                yield element

        dataset = tf.data.Dataset.from_generator(generate, output_signature=make_dataset().element_spec)
        with pytest.raises(tf.errors.UnknownError, match="disk unplugged"):
            disk_store(tmp_path).open(KEY, dataset, Compute())
        compute = Compute()
        disk_store(tmp_path).open(KEY, dataset, compute)
        assert compute.seen == list(range(10, NUM_EXAMPLES))

    @pytest.mark.parametrize("kind", ["other contents", "another order"])
    def test_the_work_does_not_resume_on_other_data(self, tmp_path, kind):
        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(3, ValueError("bad")))
        with pytest.raises(StoreError, match="other data"):
            disk_store(tmp_path).open(KEY, OTHER_DATA[kind][0](), Compute())

    def test_the_work_does_not_resume_on_fewer_examples_than_are_stored(self, tmp_path):
        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(4, ValueError("bad")))
        with pytest.raises(StoreError, match="fewer examples"):
            disk_store(tmp_path).open(KEY, make_dataset(4, 7), Compute())

    def test_a_directory_that_cannot_be_made_is_reported(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="cannot be written"):
            DiskStore(tmp_path / "file" / "store").open(KEY, make_dataset(), Compute())
