"""An audit within a memory budget finds what one in memory finds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DiskStore, DualView, audit, label_issues
from deel_dualview.auditing.collecting import strongest
from deel_dualview.labels import heads

NUM_TRAIN, NUM_CLASSES = 400, 4


def examples(count, seed, wrong=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count)
    inputs = 2.5 * np.eye(NUM_CLASSES, 120)[labels] + rng.normal(0, 0.6, (count, 120))
    given = np.where(rng.random(count) < wrong, (labels + 1) % NUM_CLASSES, labels)
    return inputs.astype(np.float32), given


TRAIN, TEST = examples(NUM_TRAIN, 0, 0.08), examples(150, 1)


def datasets():
    return [tf.data.Dataset.from_tensor_slices(own).batch(50) for own in (TRAIN, TEST)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(48, "relu"), keras.layers.Dense(16, "relu"), keras.layers.Dense(NUM_CLASSES)]
    model = keras.Sequential([keras.Input((120,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*TRAIN, epochs=15, batch_size=50, verbose=0)
    return model


@pytest.fixture(scope="module")
def in_memory(model):
    return audit(model, *datasets(), k=3, relevance=None, progress=False)


def within(model, memory_budget, **settings):
    return audit(
        model, *datasets(), k=3, relevance=None, progress=False, memory_budget=memory_budget, **settings
    )


@pytest.fixture(scope="module")
def on_disk(model):
    return within(model, 40_000)


def of_kind(report, kind):
    return next(finding for finding in report.findings if type(finding).__name__ == kind)


def test_label_issues_are_the_same(in_memory, on_disk):
    found, expected = on_disk.label_issues, in_memory.label_issues
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-3)
    assert found.count == expected.count and expected.count.status == "counted"
    np.testing.assert_array_equal(found.suggested_labels, expected.suggested_labels)


def test_findings_are_the_same_but_for_other_values_of_k(in_memory, on_disk):
    kinds = [type(finding).__name__ for finding in in_memory.findings]
    assert [type(finding).__name__ for finding in on_disk.findings] == [
        kind for kind in kinds if kind != "SparsityPath"
    ]
    # Numbers of proponents move with the tolerance of the fit.
    for kind in set(kinds) - {"SparsityPath", "Faithfulness", "InfluentialExamples"}:
        assert of_kind(on_disk, kind).title == of_kind(in_memory, kind).title
    assert "beyond the memory budget" in of_kind(on_disk, "Faithfulness").summary


def test_the_strongest_values_are_kept_and_equal(in_memory, on_disk):
    assert in_memory.holds_all_values and not on_disk.holds_all_values
    found, expected = on_disk.attributions.toarray(), in_memory.attributions.toarray()
    assert (np.diff(on_disk.attributions.indptr) <= 6).all()
    for row, whole in zip(found, expected, strict=True):
        # To the tolerance of the fit: rows from the disk are visited in another order.
        np.testing.assert_allclose(np.sort(row)[-3:], np.sort(whole)[-3:], rtol=0.05, atol=1e-3)
    mean = in_memory.overview.mean_nonzero_attributions
    assert on_disk.overview.mean_nonzero_attributions == pytest.approx(mean, rel=0.05)


def test_no_share_is_given_where_not_all_values_are_kept(in_memory, on_disk):
    shares = [
        [
            example.mean_share
            for group in of_kind(report, "InfluentialExamples").classes
            for example in group.examples
        ]
        for report in (in_memory, on_disk)
    ]
    assert None not in shares[0] and set(shares[1]) == {None}


def test_rows_are_read_from_the_disk_alone(model, monkeypatch, tmp_path):
    """Neither inputs nor features nor scores of all training examples are made an array of."""
    from deel_dualview.stores.base import StoredVectors
    from deel_dualview.stores.growing import GrowingRows

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    largest = []
    for owner in (StoredVectors, GrowingRows):
        name = "rows" if owner is StoredVectors else "__getitem__"
        read = getattr(owner, name)

        def watch(self, *arguments, read=read):
            found = read(self, *arguments)
            largest.append(len(found))
            return found

        monkeypatch.setattr(owner, name, watch)
    monkeypatch.setattr("deel_dualview.linalg.rows._MOST_ROWS", 100)
    monkeypatch.setattr("deel_dualview.labels.leaking._MOST_FITTED", 200)
    for name, number in {"_ROWS_AT_ONCE": 100, "_MAX_ROWS": 200, "MOST_COMPARED": 250}.items():
        monkeypatch.setattr(heads, name, number)
    found = label_issues(model, *datasets(), memory_budget=40_000, progress=False)
    assert largest and max(largest) <= 320, "the landmarks are 300 of 550 rows"
    assert found.count.status == "counted"


def test_label_issues_alone_are_the_same_within_a_budget(model):
    expected = label_issues(model, *datasets(), progress=False)
    found = label_issues(model, *datasets(), memory_budget=40_000, progress=False)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-3)
    assert found.count == expected.count


def test_a_count_of_some_examples_is_scaled_to_all(model, monkeypatch):
    whole = label_issues(model, *datasets(), progress=False).count
    monkeypatch.setattr(heads, "MOST_COMPARED", NUM_TRAIN // 2)
    found = label_issues(model, *datasets(), progress=False).count
    assert found.status == "counted" and found.estimate != whole.estimate
    assert found.low <= whole.estimate <= found.high, "half of the labels would count half as many"
    assert found.estimate > 0.6 * whole.estimate


def test_a_store_on_disk_takes_its_share_of_the_budget(model, tmp_path, on_disk):
    report = within(model, 40_000, store=DiskStore(tmp_path / "store", shard_size=64, progress=False))
    np.testing.assert_allclose(report.label_issues.scores, on_disk.label_issues.scores, rtol=1e-3, atol=1e-3)
    assert not report.holds_all_values


def test_ids_that_are_texts_fit_any_budget(model):
    train, test = (*TRAIN, np.array([f"image-{number:05}" for number in range(NUM_TRAIN)])), TEST
    report = audit(model, train, test, memory_budget=40_000, relevance=None, progress=False)
    np.testing.assert_array_equal(report.label_issues.ids[:2], [b"image-00000", b"image-00001"])


def test_values_of_0_are_no_strongest_ones(model):
    train, test = datasets()
    calculator = DualView(model, train, kernel="cosine", K=10.0)
    evaluated, k = calculator.represent(test), NUM_TRAIN // 2
    found, expected = strongest(calculator, evaluated, k), calculator.sparse_influence_values(evaluated)
    assert found.nnz == np.count_nonzero(found.toarray()) < 2 * k * 150
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=1e-5)


def test_a_bad_budget_is_refused_before_any_work(model):
    with pytest.raises(TypeError, match="such as 2e9"):
        audit(model, None, None, memory_budget="2GB")
    with pytest.raises(ValueError, match="memory_budget"):
        label_issues(model, None, memory_budget=0)
