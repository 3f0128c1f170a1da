"""Copies and look-alikes: planted ones are found whatever was done to them, clean sets have none."""

import numpy as np
import pytest
import scipy.ndimage

from deel_dualview.auditing import duplicates, leaks
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.reading import SplitContents
from deel_dualview.report import Severity

NONE = np.empty(0, np.int64)
NUM_TRAIN, NUM_TEST = 300, 60


def smooth_images(number, seed=0):
    """Return images of 16 x 16 with 25 degrees of freedom, as smooth as photographs are."""
    coarse = np.random.default_rng(seed).normal(size=(number, 5, 5, 1))
    return scipy.ndimage.zoom(coarse, (1, 16 / 5, 16 / 5, 1), order=1)


@pytest.fixture(scope="module")
def images():
    return smooth_images(NUM_TRAIN + NUM_TEST)


def find(train, test):
    sketcher = duplicates.Sketcher()
    hashes = np.unique([image.tobytes() for image in [*train, *test]], return_inverse=True)[1]
    return duplicates.look_alikes(
        sketcher.sketch(train), hashes[: len(train)], sketcher.sketch(test), hashes[len(train) :]
    )


COPIES = {
    "noisy": lambda image: image + 0.05 * np.random.default_rng(5).normal(size=image.shape),
    "brighter": lambda image: 0.7 * image + 1.0000001,
    "mirrored": lambda image: image[:, ::-1],
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_among_the_test_images_is_found(images, kind):
    train, test = images[:NUM_TRAIN], images[NUM_TRAIN:].copy()
    test[7] = COPIES[kind](train[31])
    across, within = find(train, test)
    assert (across.first.tolist(), across.second.tolist(), len(within.first)) == ([7], [31], 0)
    assert across.mirrored.tolist() == [kind == "mirrored"] and across.similarity[0] > 0.9


def test_copies_within_the_training_set_are_found_once_each(images):
    train = images[:NUM_TRAIN].copy()
    train[250], train[40] = COPIES["noisy"](train[3]), COPIES["mirrored"](train[100])
    across, within = find(train, images[NUM_TRAIN:])
    assert len(across.first) == 0
    assert sorted(zip(within.first.tolist(), within.second.tolist(), strict=True)) == [(3, 250), (40, 100)]


def test_three_copies_of_one_image_are_all_paired(images):
    train = images[:NUM_TRAIN].copy()
    for place, seed in ((20, 1), (200, 2)):
        train[place] = train[3] + 0.02 * np.random.default_rng(seed).normal(size=train[3].shape)
    _, within = find(train, images[NUM_TRAIN:])
    assert set(zip(within.first.tolist(), within.second.tolist(), strict=True)) == {
        (3, 20),
        (3, 200),
        (20, 200),
    }


def test_clean_sets_have_a_look_alike_in_one_of_ten_at_most():
    found = 0
    for seed in range(10):
        images = smooth_images(NUM_TRAIN + NUM_TEST, seed)
        found += sum(len(pairs.first) for pairs in find(images[:NUM_TRAIN], images[NUM_TRAIN:]))
    assert found <= 1


def test_images_that_all_resemble_each_other_are_no_look_alikes(rng):
    alike = rng.random((16, 16, 1)) + 0.02 * rng.normal(size=(NUM_TRAIN + 20, 16, 16, 1))
    assert [len(pairs.first) for pairs in find(alike[:NUM_TRAIN], alike[NUM_TRAIN:])] == [0, 0]


def test_identical_images_are_no_look_alikes(images):
    train, test = images[:NUM_TRAIN].copy(), images[NUM_TRAIN:].copy()
    train[9], test[0] = train[8], train[5]
    assert [len(pairs.first) for pairs in find(train, test)] == [0, 0]


def test_the_dimension_of_a_normal_cloud_is_about_its_own(rng):
    rows = rng.normal(size=(2000, 6)).astype(np.float32)
    within = duplicates.find_neighbours(rows, rows, is_own=True)
    assert 3 < duplicates.estimate_dimension(within) < 9


def test_copies_are_neighbours_where_not_all_examples_are_looked_through(rng, monkeypatch):
    monkeypatch.setattr(duplicates, "_CELL", 50)  # 22 cells, of which eight are looked through
    rows = rng.normal(size=(1000, 6))
    rows = np.concatenate([rows, rows[:100] + 0.01 * rng.normal(size=(100, 6))]).astype(np.float32)
    found = duplicates.find_neighbours(rows, rows, is_own=True)
    np.testing.assert_array_equal(found.indices[1000:, 0], np.arange(100))


def test_equal_sketches_for_equal_inputs_whatever_their_scale(rng):
    images = rng.random((6, 8, 8))
    sketcher = duplicates.Sketcher()
    first, second = sketcher.sketch(images).plain, sketcher.sketch(3 * images + 7).plain
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)


def test_the_similarity_of_sketches_estimates_the_correlation_of_inputs(rng):
    signals = rng.random((50, 100, 3))
    noisy = signals + 0.05 * rng.normal(size=signals.shape)
    sketcher = duplicates.Sketcher()
    estimated = (sketcher.sketch(signals).plain * sketcher.sketch(noisy).plain).sum(axis=1)
    exact = [
        np.corrcoef(first.ravel(), second.ravel())[0, 1] for first, second in zip(signals, noisy, strict=True)
    ]
    np.testing.assert_allclose(estimated, exact, atol=0.02)


@pytest.mark.parametrize(
    "inputs", [np.zeros((3, 8, 8)), np.full((3, 8, 8), np.nan), np.ones((3, 40)), np.array(["a"] * 3)]
)
def test_what_cannot_be_compared_is_not_sketched(inputs):
    for sketches in duplicates.Sketcher().sketch(inputs):
        np.testing.assert_array_equal(sketches, 0)


def test_identical_contents_of_several_labels_are_all_counted():
    hashes = np.array([7, 8, 7, 9, 7, 9], np.uint64)
    pairs, mask = duplicates.identical_of_other_label(hashes, np.array([0, 1, 0, 2, 1, 2]))
    np.testing.assert_array_equal(mask, [True, False, True, False, True, False])
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [4])


def test_every_test_example_of_equal_content_is_paired_with_the_first_in_training():
    train, test = np.array([5, 3, 5, 1], np.uint64), np.array([5, 9, 1, 0], np.uint64)
    pairs = duplicates.identical_across(train, test)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 2], [0, 3])


def findings(train, test, labels):
    sketcher = duplicates.Sketcher()
    hashes = np.unique([image.tobytes() for image in [*train, *test]], return_inverse=True)[1]
    contents = [
        SplitContents(own_hashes, sketcher.sketch(own), None, None, NONE, [])
        for own, own_hashes in ((train, hashes[: len(train)]), (test, hashes[len(train) :]))
    ]
    predictions = np.zeros(len(test), np.int64)
    evidence = Evidence(
        2,
        1,
        NONE,
        NONE,
        labels,
        None,
        np.zeros(len(labels)),
        None,
        None,
        predictions,
        predictions,
        None,
        None,
    )
    return {finding.name: finding for finding in leaks.find_duplicates(evidence, *contents)}


def test_copies_of_one_label_count_twice_and_of_two_labels_conflict(images):
    train, labels = images[:NUM_TRAIN].copy(), np.arange(NUM_TRAIN) // 100 % 2
    train[11] = train[13] = train[10]  # three of label 0
    train[150] = train[10]  # one of label 1
    train[21], train[151] = COPIES["noisy"](train[20]), COPIES["noisy"](train[30])
    found = findings(train, images[NUM_TRAIN:], labels)
    copies, conflicts = found["duplicates"], found["duplicates-conflicting"]
    assert (copies.num_identical, copies.count) == (2, 4)
    assert [(pair.first.index, pair.second.index) for pair in copies.pairs] == [(10, 11), (10, 13), (20, 21)]
    assert (conflicts.num_identical, conflicts.count) == (4, 6)
    assert [(pair.first.index, pair.second.index) for pair in conflicts.pairs] == [(10, 150), (30, 151)]
    assert copies.severity is Severity.KNOW and conflicts.severity is Severity.ACT


def test_many_copies_are_worth_a_look(images):
    train, labels = images[:NUM_TRAIN].copy(), np.zeros(NUM_TRAIN, np.int64)
    train[200:204] = train[:4]
    assert findings(train, images[NUM_TRAIN:], labels)["duplicates"].severity is Severity.LOOK


def test_clean_sets_have_no_finding_about_copies(images):
    found = findings(images[:NUM_TRAIN], images[NUM_TRAIN:], np.zeros(NUM_TRAIN, np.int64))
    assert {finding.severity for finding in found.values()} == {Severity.FINE}


ALIKE = "No test example is in the training set; 1 example looks like one there"


@pytest.mark.parametrize(
    ("is_identical", "is_near", "severity", "title"),
    [
        (True, False, Severity.ACT, "1 test example is in the training set"),
        (False, True, Severity.KNOW, ALIKE),
        (
            True,
            True,
            Severity.ACT,
            "1 test example is in the training set, 1 more looks like an example there",
        ),
        (False, False, Severity.FINE, "No test example is in the training set"),
    ],
)
def test_test_images_that_only_look_alike_are_no_leaks(images, is_identical, is_near, severity, title):
    test = images[NUM_TRAIN:].copy()
    if is_identical:
        test[0] = images[5]
    if is_near:
        test[4] = COPIES["mirrored"](images[9])
    leak = findings(images[:NUM_TRAIN], test, np.zeros(NUM_TRAIN, np.int64))["leaks"]
    assert (leak.severity, leak.title, leak.num_identical) == (severity, title, is_identical)
    assert [pair.mirrored for pair in leak.pairs] == [False] * is_identical + [True] * is_near


def test_training_images_that_only_look_like_one_of_another_label_are_to_look_at(images):
    train, labels = images[:NUM_TRAIN].copy(), np.zeros(NUM_TRAIN, np.int64)
    train[20], labels[20] = COPIES["noisy"](train[3]), 1
    conflicts = findings(train, images[NUM_TRAIN:], labels)["duplicates-conflicting"]
    assert conflicts.severity is Severity.LOOK
    assert conflicts.title == "2 training examples look like one of another label; none is identical"
