"""A store on disk: what it refuses, and what survives when things go wrong."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_stores import KEY, NUM_EXAMPLES, Compute, disk_store, make_dataset

from deel_dualview import DiskStore, MemoryStore, StoreError, _files


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


def with_ids(ids: list[str], dataset: tf.data.Dataset | None = None) -> tf.data.Dataset:
    """A dataset whose elements have ids, which `compute_ids` keeps."""
    examples = (make_dataset() if dataset is None else dataset).unbatch()
    return (
        tf.data.Dataset.zip((examples, tf.data.Dataset.from_tensor_slices(ids)))
        .map(lambda example, name: (*example, name))
        .batch(4)
    )


def compute_ids(element: Any) -> dict[str, Any]:
    return {"features": element[0], "ids": element[2]}


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

    @pytest.mark.parametrize("contents", ["", "{", "[]", "{}", '{"format_version": 2}', "\x00\xff"])
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

    @pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 300, "loop/store"])
    def test_a_path_that_leads_nowhere(self, tmp_path, name):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with pytest.raises(StoreError, match="directory cannot be used.*Give another"):
            reopen(tmp_path / name)

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


class TestEveryByteOfAStore:
    """A store with ids of two shards of one number each: small enough to change every byte of every file."""

    @pytest.fixture
    def open_store(self, tmp_path):
        examples = tf.data.Dataset.from_tensor_slices(
            (np.ones((3, 1), np.float32), [0, 1, 0], ["a", "", "c\0"])
        )
        dataset = examples.batch(3).cache()

        def open_store():
            store = DiskStore(tmp_path / "store", shard_size=2, progress=False)
            stored = store.open(KEY, dataset, compute_ids)
            return {name: stored.array(name).tolist() for name in stored.names}

        open_store()
        return open_store

    def outcomes(self, path, versions, open_store):
        """Return what happened for each version of a file's bytes: "StoreError", another error, or what was read."""
        whole, found = path.read_bytes(), []
        for version in versions(whole):
            path.write_bytes(version)
            try:
                found.append(str(open_store()))
            except Exception as error:  # whatever is raised is to be seen
                found.append(type(error).__name__)
        path.write_bytes(whole)
        return found

    def test_a_changed_byte_anywhere_is_a_store_error(self, tmp_path, open_store):
        def flipped(whole):
            for place in range(len(whole)):
                yield whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]

        files = [path for path in (tmp_path / "store").iterdir() if path.name != ".lock"]
        assert len(files) == 1 + 2 * 5
        found = [outcome for path in files for outcome in self.outcomes(path, flipped, open_store)]
        assert len(found) > 2000 and set(found) == {"StoreError"}
        assert open_store()["ids"] == [b"a", b"", b"c\0"]

    def test_a_file_cut_short_anywhere_is_a_store_error(self, tmp_path, open_store):
        files = [path for path in (tmp_path / "store").iterdir() if path.name != ".lock"]
        found = [
            outcome
            for path in files
            for outcome in self.outcomes(
                path, lambda whole: [whole[:size] for size in range(0, len(whole), 7)], open_store
            )
        ]
        assert set(found) == {"StoreError"}

    def test_a_manifest_changed_by_hand_is_a_store_error_although_it_is_json(self, tmp_path, open_store):
        path = tmp_path / "store" / "manifest.json"
        changes = [(b'"shape": [', b'"shape": [5000000000000,'), (b'"abc"', b'"abd"'), (b"true", b"false")]
        changes += [(b"}", b"}" + b"[" * 10**5), (b'"num_bytes": ', b'"num_bytes": -'), (b'"<f4"', b'"|O"')]
        versions = [path.read_bytes().replace(*change, 1) for change in changes]
        assert path.read_bytes() not in versions
        found = self.outcomes(
            path, lambda whole: [*versions, b"[" * 10**5, b'{"format_version": ' + b"9" * 5000], open_store
        )
        assert set(found) == {"StoreError"}

    @pytest.mark.parametrize("listed", ["../manifest.json", "/dev/zero", "00000-features.npy.partial"])
    def test_a_manifest_with_a_right_checksum_may_not_list_a_file_that_no_store_writes(
        self, tmp_path, open_store, listed
    ):
        path = tmp_path / "store" / "manifest.json"
        fields = _files.read_checked_json(path)
        fields["shards"][0]["features"]["file"] = listed
        _files.write_checked_json(path, fields)
        with pytest.raises(StoreError, match="damaged: its manifest"):
            open_store()

    @pytest.mark.parametrize(
        "kind", ["symlink to itself", "symlink to nothing", "directory", "device", "pipe"]
    )
    def test_something_else_in_the_place_of_a_shard_is_a_store_error(self, tmp_path, open_store, kind):
        shard = tmp_path / "store" / "00001-ids.npy"
        shard.unlink()
        {
            "symlink to itself": lambda: shard.symlink_to(shard.name),
            "symlink to nothing": lambda: shard.symlink_to("nothing"),
            "directory": shard.mkdir,
            "device": lambda: shard.symlink_to("/dev/zero"),
            "pipe": lambda: os.mkfifo(shard),
        }[kind]()
        with pytest.raises(StoreError, match="damaged: 00001-ids.npy cannot be read"):
            open_store()

    def test_a_shard_that_becomes_pickled_objects_later_is_never_unpickled(self, tmp_path):
        directory = tmp_path / "store"
        stored = disk_store(tmp_path).open(KEY, make_dataset(), Compute())
        np.save(directory / "00000-features.npy", np.array([print], object), allow_pickle=True)
        with pytest.raises(StoreError, match="damaged: 00000-features.npy"):
            stored.array("features")

    def test_a_shard_that_claims_terabytes_later_is_not_allocated(self, tmp_path):
        stored = disk_store(tmp_path).open(KEY, make_dataset(), Compute())
        path = tmp_path / "store" / "00000-features.npy"
        path.write_bytes(path.read_bytes().replace(b"(5, 3), }" + b" " * 12, b"(5000000000000, 3), }"))
        with pytest.raises(StoreError, match="damaged: 00000-features.npy"):
            stored.array("features")


class TestIds:
    NAMES = [f"image {place}" for place in range(NUM_EXAMPLES)]

    @pytest.mark.parametrize("place", [0, 13, NUM_EXAMPLES - 1])
    def test_other_ids_of_the_same_examples_are_refused_by_position(self, tmp_path, place):
        disk_store(tmp_path).open(KEY, with_ids(self.NAMES), compute_ids)
        others = [*self.NAMES[:place], "another", *self.NAMES[place + 1 :]]
        with pytest.raises(StoreError, match=f"(?s)other data.*another id.*index={place}"):
            disk_store(tmp_path).open(KEY, with_ids(others), compute_ids)

    @pytest.mark.parametrize("first", [True, False])
    def test_ids_in_one_of_two_passes_are_refused(self, tmp_path, first):
        datasets = [with_ids(self.NAMES), make_dataset()]
        datasets = datasets if first else datasets[::-1]
        disk_store(tmp_path).open(KEY, datasets[0], lambda element: {"features": element[0]})
        with pytest.raises(StoreError, match="ids in one pass alone"):
            disk_store(tmp_path).open(KEY, datasets[1], lambda element: {"features": element[0]})

    def test_the_work_does_not_resume_with_other_ids(self, tmp_path):
        calls = iter(range(3))

        def fail_fourth(element):
            if next(calls, None) is None:
                raise ValueError("bad")
            return compute_ids(element)

        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, with_ids(self.NAMES), fail_fourth)
        with pytest.raises(StoreError, match="another id.*index=0"):
            disk_store(tmp_path).open(KEY, with_ids(self.NAMES[::-1]), compute_ids)

    def test_memory_computes_again_with_other_ids(self):
        store = MemoryStore()
        store.open(KEY, with_ids(self.NAMES), compute_ids)
        again = store.open(KEY, with_ids(self.NAMES[::-1]), compute_ids)
        assert again.array("ids").tolist() == [name.encode() for name in self.NAMES[::-1]]

    @pytest.mark.parametrize("make_store", [disk_store, lambda path: MemoryStore()], ids=["disk", "memory"])
    def test_ids_that_differ_in_trailing_zeros_stay_apart(self, tmp_path, make_store):
        names = ["a", "a\0", *self.NAMES[2:]]
        stored = make_store(tmp_path).open(KEY, with_ids(names), compute_ids)
        assert stored.array("ids").tolist() == [name.encode() for name in names]

    def test_one_long_id_costs_its_length_once(self, tmp_path):
        names = ["x" * 100_000, *self.NAMES[1:]]
        stored = disk_store(tmp_path).open(KEY, with_ids(names), compute_ids)
        size = sum(path.stat().st_size for path in (tmp_path / "store").iterdir())
        in_memory = MemoryStore().open(KEY, with_ids(names), compute_ids)
        assert 100_000 < size < 120_000 and 100_000 < stored.num_bytes < 120_000
        assert 100_000 < in_memory.num_bytes < 110_000

    def test_a_lone_surrogate_in_a_text_is_kept(self):
        texts = np.array(["\ud800", "b"])
        dataset = tf.data.Dataset.from_tensor_slices(np.ones((2, 1))).batch(2)
        stored = MemoryStore().open(KEY, dataset, lambda element: {"names": texts})
        assert stored.array("names")[0].decode(errors="surrogatepass") == "\ud800"


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

    def test_a_shard_is_written_once_it_is_full(self, tmp_path):
        with pytest.raises(ValueError, match="bad"):
            DiskStore(tmp_path, shard_size=8).open(KEY, make_dataset(), fail_after(2, ValueError("bad")))
        assert (tmp_path / "00000-features.npy").exists()

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
        for name in (
            "00009-features.npy",
            "00009-ids.lengths.npy",
            ".dualview-unfinished-4194305-00009-features.npy",
        ):
            (tmp_path / "store" / name).write_text("")
        disk_store(tmp_path).open(KEY, make_dataset(), Compute())
        assert not list((tmp_path / "store").glob("*00009*"))

    @pytest.mark.parametrize(
        "name", ["thesis.npy", "00002-thesis.npy", "2-features.npy", ".unfinished.npy", "a.partial"]
    )
    def test_a_file_of_the_user_in_an_unfinished_store_stays(self, tmp_path, name):
        with pytest.raises(ValueError, match="bad"):
            disk_store(tmp_path).open(KEY, make_dataset(), fail_after(3, ValueError("bad")))
        (tmp_path / "store" / name).write_text("years of work")
        disk_store(tmp_path).open(KEY, make_dataset(), Compute())
        assert (tmp_path / "store" / name).read_text() == "years of work"

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
