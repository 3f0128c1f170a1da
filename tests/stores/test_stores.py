"""What every store of computed vectors keeps to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DiskStore, MemoryStore, NoStore, data
from deel_dualview.stores import Store

KEY = {"model": "abc", "layer": "dense"}
NUM_EXAMPLES = 23


def make_dataset(batch_size: int = 4, num_examples: int = NUM_EXAMPLES) -> tf.data.Dataset:
    inputs = np.arange(num_examples * 3, dtype=np.float32).reshape(num_examples, 3)
    return tf.data.Dataset.from_tensor_slices((inputs, np.arange(num_examples) % 3)).batch(batch_size)


class Compute:
    """Vectors of an example, and a record of which examples were asked for."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, element: Any) -> dict[str, Any]:
        inputs, labels = element
        self.seen += [int(number) // 3 for number in inputs[:, 0]]
        return {
            "features": inputs * 2,
            "labels": labels,
            "ids": tf.strings.as_string(tf.cast(inputs[:, 0], tf.int32)),
        }


def disk_store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", shard_size=5)


STORES = {"memory": lambda path: MemoryStore(), "none": lambda path: NoStore(), "disk": disk_store}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path)


@pytest.fixture
def keeping_store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    return STORES[request.param](tmp_path)


keeping = pytest.mark.parametrize("keeping_store", ["memory", "disk"], indirect=True)


class TestEveryStore:
    @pytest.mark.parametrize("positions", [[0], [4, 5, 22], [], list(range(NUM_EXAMPLES))])
    def test_rows_are_those_of_the_array_at_their_positions(self, store, positions):
        stored = store.open(KEY, make_dataset(), Compute())
        rows = np.array(positions, np.int64)
        for name in ("features", "ids"):
            np.testing.assert_array_equal(stored.rows(name, rows), stored.array(name)[rows])

    def test_an_array_holds_all_examples_in_order(self, store):
        stored = store.open(KEY, make_dataset(), Compute())
        np.testing.assert_array_equal(
            stored.array("features"), 2.0 * np.arange(NUM_EXAMPLES * 3).reshape(-1, 3)
        )

    def test_dtypes_stay(self, store):
        stored = store.open(KEY, make_dataset(), Compute())
        assert [stored.array(name).dtype.kind for name in ("features", "labels", "ids")] == ["f", "i", "O"]
        assert stored.array("features").dtype == np.float32

    def test_text_stays(self, store):
        ids = store.open(KEY, make_dataset(), Compute()).array("ids")
        assert ids.tolist() == [str(3 * place).encode() for place in range(NUM_EXAMPLES)]

    def test_it_knows_its_length(self, store):
        assert len(store.open(KEY, make_dataset(), Compute())) == NUM_EXAMPLES

    def test_it_names_its_arrays(self, store):
        assert set(store.open(KEY, make_dataset(), Compute()).names) == {
            "features",
            "labels",
            "ids",
            "hashes",
        }

    def test_blocks_can_be_iterated_again_and_add_up_to_the_array(self, store):
        stored = store.open(KEY, make_dataset(), Compute())
        for _ in range(2):
            blocks = np.concatenate([block["features"] for block in stored])
            np.testing.assert_array_equal(blocks, stored.array("features"))

    def test_several_iterations_can_be_under_way(self, store):
        stored = store.open(KEY, make_dataset(), Compute())
        for one, other in zip(stored, stored, strict=True):
            np.testing.assert_array_equal(one["features"], other["features"])

    def test_it_holds_the_hashes_of_the_examples(self, store):
        hashes = store.open(KEY, make_dataset(), Compute()).array("hashes")
        np.testing.assert_array_equal(hashes, np.concatenate([data.hash_examples(e) for e in make_dataset()]))

    def test_an_unknown_cardinality_is_no_obstacle(self, store):
        dataset = make_dataset().filter(lambda x, y: True)
        assert len(store.open(KEY, dataset, Compute()).array("features")) == NUM_EXAMPLES

    def test_batches_of_growing_and_vanishing_size_are_no_obstacle(self, store):
        dataset = make_dataset(8).map(lambda x, y: (x[x[:, 0] > 20], y[x[:, 0] > 20]))
        stored = store.open(KEY, dataset, Compute())
        assert len(stored.array("features")) == NUM_EXAMPLES - 7

    def test_an_unknown_name_is_refused(self, store):
        with pytest.raises(ValueError, match="name='weights'"):
            store.open(KEY, make_dataset(), Compute()).array("weights")

    def test_an_empty_dataset_is_refused(self, store):
        with pytest.raises(ValueError, match="dataset is empty"):
            store.open(KEY, make_dataset().filter(lambda x, y: False), Compute())

    def test_an_endless_dataset_is_refused(self, store):
        with pytest.raises(ValueError, match=r"remove `.repeat\(\)`"):
            store.open(KEY, make_dataset().repeat(), Compute())

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_numbers_that_are_not_finite_are_refused_by_example(self, store, wrong):
        def compute(element):
            inputs = element[0].numpy()
            return {"features": np.where(inputs == 18, wrong, inputs)}

        with pytest.raises(ValueError, match=r"infinite features .*indices=\[6\]"):
            store.open(KEY, make_dataset(), compute).array("features")

    def test_a_row_too_many_is_refused(self, store):
        with pytest.raises(ValueError, match="One row per example"):
            store.open(KEY, make_dataset(), lambda element: {"features": np.ones((9, 2))}).array("features")

    def test_rows_of_changing_width_are_refused(self, store):
        def compute(element):
            return {"features": np.ones((len(element[0]), int(element[0][0, 0]) + 1))}

        with pytest.raises(ValueError, match="same names, shapes and dtypes"):
            store.open(KEY, make_dataset(), compute).array("features")

    @pytest.mark.parametrize("name", ["hashes", "../features"])
    def test_names_that_cannot_be_stored_are_refused(self, store, name):
        with pytest.raises(ValueError, match="must be a word"):
            list(store.open(KEY, make_dataset(), lambda element: {name: element[0]}))

    def test_an_error_of_the_dataset_comes_through(self, store):
        dataset = make_dataset().map(lambda x, y: (tf.debugging.check_numerics(x / (x - 30), "broken"), y))
        with pytest.raises(tf.errors.InvalidArgumentError, match="broken"):
            store.open(KEY, dataset, Compute()).array("features")

    def test_arrays_are_not_to_be_written_to(self, store):
        block = next(iter(MemoryStore().open(KEY, make_dataset(), Compute())))
        with pytest.raises(ValueError, match="read-only"):
            block["features"][0] = 1


@keeping
class TestStoresThatKeep:
    @pytest.mark.parametrize("batch_size", [4, 7, 50])
    def test_nothing_is_computed_again(self, keeping_store, batch_size):
        first = keeping_store.open(KEY, make_dataset(), Compute()).array("features")
        compute = Compute()
        again = keeping_store.open(KEY, make_dataset(batch_size), compute).array("features")
        np.testing.assert_array_equal(again, first)
        assert not compute.seen

    def test_every_example_is_computed_once(self, keeping_store):
        compute = Compute()
        keeping_store.open(KEY, make_dataset(), compute)
        assert compute.seen == list(range(NUM_EXAMPLES))


class TestMemoryStore:
    def test_another_key_has_other_vectors(self):
        store, compute = MemoryStore(), Compute()
        store.open(KEY, make_dataset(), compute)
        store.open(KEY | {"model": "other"}, make_dataset(), compute)
        assert len(compute.seen) == 2 * NUM_EXAMPLES

    @pytest.mark.parametrize("num_examples", [NUM_EXAMPLES - 1, NUM_EXAMPLES + 1, NUM_EXAMPLES + 9])
    def test_changed_data_are_computed_again(self, num_examples):
        store = MemoryStore()
        store.open(KEY, make_dataset(), Compute())
        assert (
            len(store.open(KEY, make_dataset(4, num_examples), Compute()).array("features")) == num_examples
        )


def test_a_store_of_nothing_refuses_data_that_change_between_passes():
    dataset = make_dataset(1).shuffle(NUM_EXAMPLES)
    stored = NoStore().open(KEY, dataset, Compute())
    with pytest.raises(ValueError, match="changes between two passes"):
        stored.array("features")


def test_a_store_of_nothing_computes_at_each_iteration():
    compute = Compute()
    stored = NoStore().open(KEY, make_dataset(), compute)
    for _ in range(2):
        list(stored)
    assert len(compute.seen) == 2 * NUM_EXAMPLES
