"""Perturbed datasets: what changes, what stays, and where."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.evaluation import Marks, PoisonedLabels, Subset, Superclasses
from deel_dualview.evaluation.perturbations import stack_subsets

NUM_EXAMPLES = 200
LABELS = np.arange(NUM_EXAMPLES) % 4
IMAGES = np.random.default_rng(0).integers(0, 255, (NUM_EXAMPLES, 12, 14, 3)).astype(np.uint8)


def dataset(batch_size=16):
    ids = np.array([f"id {i}" for i in range(NUM_EXAMPLES)])
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, ids)).batch(batch_size)


def joined(batches):
    parts = [[tensor.numpy() for tensor in element] for element in batches]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


PERTURBATIONS = {
    "poisoned labels": PoisonedLabels.draw(LABELS, 0.3, 4, seed=1),
    "superclasses": Superclasses.pairs(4),
    "marks": Marks.draw(LABELS, 2, 0.5, seed=1),
    "subset": Subset.draw(NUM_EXAMPLES, 70, seed=1),
}
every_perturbation = pytest.mark.parametrize("perturbation", PERTURBATIONS.values(), ids=PERTURBATIONS)


@every_perturbation
def test_neither_batches_nor_a_second_pass_change_anything(perturbation):
    once = perturbation.apply(dataset(16))
    for other in (once, perturbation.apply(dataset(7))):
        for first, second in zip(joined(once), joined(other), strict=True):
            np.testing.assert_array_equal(first, second)


@every_perturbation
def test_what_was_drawn_can_be_saved_and_loaded(perturbation, tmp_path):
    perturbation.save(tmp_path / "drawn.npz")
    loaded = type(perturbation).load(tmp_path / "drawn.npz")
    for first, second in zip(
        joined(perturbation.apply(dataset())), joined(loaded.apply(dataset())), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.npz"]


@every_perturbation
def test_specs_stay_those_of_batches(perturbation):
    specs = [(spec.dtype, spec.shape.rank) for spec in perturbation.apply(dataset()).element_spec]
    assert specs == [(spec.dtype, spec.shape.rank) for spec in dataset().element_spec]


@pytest.mark.parametrize("name", ["poisoned labels", "marks", "subset"])
def test_an_unbatched_dataset_is_refused(name):
    with pytest.raises(ValueError, match="batch"):
        PERTURBATIONS[name].apply(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)))


def test_another_kind_of_file_is_refused(tmp_path):
    PERTURBATIONS["subset"].save(tmp_path / "subset.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "subset.npz").read_bytes()[:60])
    for name in ("subset.npz", "broken.npz"):
        with pytest.raises(ValueError, match=r"written by PoisonedLabels\.save"):
            PoisonedLabels.load(tmp_path / name)


def test_poisoned_labels_are_wrong_and_the_others_right():
    poisoned = PERTURBATIONS["poisoned labels"]
    images, labels, ids = joined(poisoned.apply(dataset()))
    np.testing.assert_array_equal(labels != LABELS, poisoned.is_poisoned(NUM_EXAMPLES))
    np.testing.assert_array_equal(images, IMAGES)
    assert ids[7] == b"id 7"


def test_poisoning_takes_the_share_and_every_other_class_alike():
    labels = np.zeros(40_000, int)
    poisoned = PoisonedLabels.draw(labels, 0.3, 5, seed=0)
    assert len(poisoned.indices) / 40_000 == pytest.approx(0.3, abs=0.01)
    counts = np.bincount(poisoned.labels, minlength=5) / len(poisoned.indices)
    np.testing.assert_allclose(counts, [0, 0.25, 0.25, 0.25, 0.25], atol=0.02)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
def test_labels_keep_their_type(dtype):
    numbers = tf.data.Dataset.from_tensor_slices((IMAGES, tf.cast(LABELS, dtype))).batch(8)
    for name in ("poisoned labels", "superclasses"):
        assert PERTURBATIONS[name].apply(numbers).element_spec[1].dtype == dtype


def test_superclasses_pair_neighbours():
    assert joined(Superclasses.pairs(4).apply(dataset()))[1][:8].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_only_images_of_one_class_are_marked_and_nothing_outside_the_mark():
    marks = PERTURBATIONS["marks"]
    images, labels, _ = joined(marks.apply(dataset()))
    is_marked, mask = marks.is_marked(NUM_EXAMPLES), marks.mask(12, 14)
    assert set(labels[is_marked]) == {2} and 10 < is_marked.sum() < 40
    np.testing.assert_array_equal(images[~is_marked], IMAGES[~is_marked])
    np.testing.assert_array_equal(images[:, ~mask], IMAGES[:, ~mask])
    assert (images[is_marked][:, mask] == [255, 0, 0]).all()


def test_the_mark_is_a_frame_of_two_pixels_and_a_square_of_six():
    mask = Marks(np.array([0])).mask(28, 28)
    assert mask.sum() == 28**2 - 24**2 + 36
    assert mask[11:17, 11:17].all() and not mask[10, 11:17].any() and not mask[2:11, 2:26].any()


def test_a_subset_keeps_order_and_size():
    subset = PERTURBATIONS["subset"]
    ids = joined(subset.apply(dataset()))[2]
    assert ids.tolist() == [f"id {i}".encode() for i in subset.indices]
    assert len(ids) == 70 and stack_subsets([subset], NUM_EXAMPLES).sum() == 70


def test_batches_that_a_subset_leaves_empty_are_dropped():
    assert len(list(Subset(np.array([0, 199])).apply(dataset(10)))) == 2


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: PoisonedLabels.draw(LABELS, 1.5, 4, seed=0), "between 0 and 1"),
        (lambda: PoisonedLabels.draw(LABELS, 0.5, 3, seed=0), r"0\.\.2"),
        (lambda: PoisonedLabels.draw(LABELS.astype(float), 0.5, 4, seed=0), "integers"),
        (lambda: Marks.draw(LABELS, 9, 0.5, seed=0), "no example of the class"),
        (lambda: Subset.draw(5, 6, seed=0), "as there are"),
        (lambda: Subset(np.array([7])).is_member(5), "larger dataset"),
    ],
)
def test_bad_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
