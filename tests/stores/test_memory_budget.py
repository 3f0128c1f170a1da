"""Vectors beyond a memory budget, and features in half precision."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DiskStore, DualView, FeatureSimilarity, GradDot, MemoryStore, RepresenterPointL2
from deel_dualview.calculators.feature_maps import fit_feature_map
from deel_dualview.stores.features import FeatureStore
from deel_dualview.stores.rows import StoredRows

KEY = {"model": "abc"}
LABELS = np.arange(300) % 3
INPUTS = (np.random.default_rng(0).normal(size=(300, 40)) + 2 * np.eye(3, 40)[LABELS]).astype(np.float32)
DATASET = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(32)


def compute(element):
    return {
        "features": element[0] * 2,
        "labels": element[1],
        "ids": tf.strings.as_string(tf.cast(element[0][:, 0] * 1e6, tf.int64)),
    }


@pytest.fixture(autouse=True)
def _temporary(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("deel_dualview.stores.disk.SHARD_SIZE", 64)
    monkeypatch.setattr("deel_dualview.stores.memory.SHARD_SIZE", 64)


@pytest.mark.parametrize("memory_budget", [1, 30_000, 99_000])
def test_vectors_beyond_half_of_the_budget_go_to_a_temporary_directory(memory_budget, tmp_path):
    stored = MemoryStore(memory_budget=memory_budget).open(KEY, DATASET, compute)
    expected = MemoryStore().open(KEY, DATASET, compute)
    assert list(tmp_path.glob("deel-dualview-*/*.npy")) and len(stored) == 300
    for name in expected.names:
        np.testing.assert_array_equal(
            np.concatenate([block[name] for block in stored]), expected.array(name), strict=True
        )
    del stored
    gc.collect()
    assert not list(tmp_path.glob("deel-dualview-*"))


def test_vectors_within_half_of_the_budget_stay_in_memory(tmp_path):
    store = MemoryStore(memory_budget=2**20)
    store.open(KEY, DATASET, compute)
    assert not list(tmp_path.iterdir())


def test_the_budget_is_shared_by_all_that_a_store_keeps(tmp_path):
    store = MemoryStore(memory_budget=200_000)
    kept = [store.open(KEY | {"layer": str(layer)}, DATASET, compute) for layer in range(2)]
    assert len(list(tmp_path.glob("deel-dualview-*"))) == 1
    np.testing.assert_array_equal(kept[0].array("labels"), kept[1].array("labels"))


@pytest.mark.parametrize(
    "positions", [slice(60, 70), slice(None), np.array([299, 0, 64, 63, 0]), np.array([], int)]
)
def test_rows_in_any_order_are_those_of_the_array(positions, tmp_path):
    stored = DiskStore(tmp_path / "store", shard_size=64, memory_budget=1).open(KEY, DATASET, compute)
    rows = StoredRows(stored, "features", 41, lambda part: np.pad(part, ((0, 0), (0, 1)), constant_values=1))
    expected = np.pad(INPUTS * 2, ((0, 0), (0, 1)), constant_values=1)[positions]
    np.testing.assert_array_equal(rows[positions], expected, strict=True)


def test_an_array_beyond_the_budget_is_refused_with_the_way_out(tmp_path):
    stored = DiskStore(tmp_path / "store", memory_budget=90_000).open(KEY, DATASET, compute)
    with pytest.raises(ValueError, match="memory budget: raise it, or take a method"):
        stored.array("features")
    assert stored.array("labels").shape == (300,)


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(0)
    network = tf.keras.Sequential(
        [tf.keras.Input((40,)), tf.keras.layers.Dense(24, "relu"), tf.keras.layers.Dense(3)]
    )
    network.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(INPUTS, LABELS, epochs=5, verbose=0)
    return network


TEST = DATASET.take(2)


@pytest.mark.parametrize("kernel", ["tempered", "cosine", "linear", "standardized"])
def test_dualview_beyond_the_budget_is_that_in_memory(kernel, model):
    found = DualView(model, DATASET, kernel=kernel, store=MemoryStore(memory_budget=1))
    expected = DualView(model, DATASET, kernel=kernel)
    bound = found.surrogate.weight_error_bound + expected.surrogate.weight_error_bound
    np.testing.assert_allclose(found.K, expected.K, rtol=1e-5)
    assert np.linalg.norm(found.surrogate.weights - expected.surrogate.weights) <= 1.01 * bound
    logits = found.surrogate_logits(TEST)
    explained = model.predict(TEST, verbose=0).argmax(axis=1)
    values = np.concatenate(list(found.estimate_influence_values_in_batches(TEST)))
    np.testing.assert_allclose(values.sum(axis=1), logits[np.arange(64), explained], atol=1e-3)


@pytest.mark.parametrize("method", [FeatureSimilarity, GradDot])
def test_other_methods_beyond_the_budget_have_the_same_first_examples(method, model):
    found, expected = (
        method(model, DATASET, store=store) for store in (MemoryStore(memory_budget=1), MemoryStore())
    )
    for one, another in zip(found.top_k_indices(TEST, 3), expected.top_k_indices(TEST, 3), strict=True):
        np.testing.assert_array_equal(one, another)


def test_a_method_that_holds_all_features_says_so(model):
    with pytest.raises(ValueError, match="memory budget"):
        RepresenterPointL2(model, DATASET, store=MemoryStore(memory_budget=100))


def test_a_fit_on_a_disk_store_is_found_by_the_next_process(model, tmp_path):
    def fit():
        return DualView(model, DATASET, store=DiskStore(tmp_path / "store", memory_budget=1000))

    first, (file,) = fit(), (tmp_path / "store" / "fits").iterdir()
    written = file.stat().st_mtime_ns
    assert fit().surrogate.weights.tobytes() == first.surrogate.weights.tobytes()
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("make", ["memory", "disk"])
def test_half_precision_halves_the_features_and_hardly_changes_values(make, model, tmp_path):
    store = (
        MemoryStore(half_precision=True)
        if make == "memory"
        else DiskStore(tmp_path / "half", half_precision=True)
    )
    found, expected = FeatureSimilarity(model, DATASET, store=store), FeatureSimilarity(model, DATASET)
    assert expected.stored_bytes - found.stored_bytes > 0.9 * 300 * 24 * 2
    for one, another in zip(
        found.estimate_influence_values_in_batches(TEST),
        expected.estimate_influence_values_in_batches(TEST),
        strict=True,
    ):
        np.testing.assert_allclose(one, another, atol=1e-3 * np.abs(another).max())


def test_features_in_half_precision_are_not_taken_for_whole_ones(model, tmp_path):
    FeatureSimilarity(model, DATASET, store=DiskStore(tmp_path / "store", half_precision=True))
    with pytest.raises(ValueError, match="precision"):
        FeatureSimilarity(model, DATASET, store=DiskStore(tmp_path / "store"))


def test_features_too_large_for_half_precision_are_refused(model):
    large = DATASET.map(lambda x, y: (x * 1e6, y))
    with pytest.raises(ValueError, match="half precision"):
        FeatureSimilarity(model, large, store=MemoryStore(half_precision=True))


@pytest.mark.parametrize("budget", [0, -1, 1.5, "2 GB"])
def test_a_budget_is_a_number_of_bytes(budget):
    with pytest.raises((TypeError, ValueError), match="memory_budget"):
        MemoryStore(memory_budget=budget)


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e-3, 1.0, 1e25])
@pytest.mark.parametrize("kernel", ["tempered", "cosine", "standardized", "linear"])
def test_an_array_is_mapped_as_a_tensor_is(kernel, scale):
    rows = INPUTS * np.float32(scale)
    mapping = fit_feature_map(rows, kernel, bias=kernel == "linear")
    found, expected = mapping.of_array(rows), mapping(rows).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7 * np.abs(expected).max())


def test_fits_go_on_in_the_folder_of_the_store_that_holds_the_features(tmp_path):
    store = DiskStore(tmp_path / "store")
    assert store.fits == FeatureStore(store).fits == tmp_path / "store" / "fits"
    assert MemoryStore().fits is None


def test_a_temporary_directory_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/no/such/directory")
    with pytest.raises(ValueError, match="TMPDIR names none"):
        MemoryStore(memory_budget=1).open(KEY, DATASET, compute)
