"""Checks of what images look like: planted odd images, shortcuts and shifts are found, and digits raise no alarm."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter
from test_data_checks import evidence_of

from deel_dualview import load_digits
from deel_dualview.auditing.image_checks import (
    Properties,
    class_areas,
    find_image_problems,
    find_shifts,
    find_shortcuts,
    tree_skill,
)
from deel_dualview.auditing.image_properties import ImageProperties
from deel_dualview.report import Severity

NAMES = [str(label) for label in range(10)]
(IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS) = load_digits()
# Digits of 16 x 16 pixels: of smaller images no sharpness is measured.
IMAGES, TEST_IMAGES = (np.kron(part[:400], np.ones((1, 2, 2, 1))) for part in (IMAGES, TEST_IMAGES))
LABELS, TEST_LABELS = LABELS[:400], TEST_LABELS[:400]


def properties_of(train, test=TEST_IMAGES):
    found = ImageProperties()
    for split, images in (("train", train), ("test", test)):
        found.add(tf.constant(images, tf.float32), split)
    return Properties(found.of("train"), found.of("test"))


def problems_of(train, test=TEST_IMAGES):
    evidence = evidence_of(LABELS, TEST_LABELS, TEST_LABELS, num_classes=10)
    return list(find_image_problems(evidence, properties_of(train, test), NAMES))


def with_odd(index, change):
    images = IMAGES.copy()
    images[index] = change(images[index])
    return images


def test_digits_raise_no_alarm():
    assert problems_of(IMAGES) == []


@pytest.mark.parametrize(
    ("title", "change"),
    [
        ("1 image is of one colour", lambda image: 0 * image),
        ("1 image is much darker than the rest", lambda image: 0.02 * image),
        ("1 image is much brighter than the rest", lambda image: 1 - 0.02 * image),
        ("1 image is of much less contrast than the rest", lambda image: 0.3 + 0.02 * image),
        ("1 image is blurred", lambda image: gaussian_filter(image, (3, 3, 0))),
    ],
)
def test_an_odd_image_is_found_and_shown(title, change):
    (problem,) = [own for own in problems_of(with_odd(7, change)) if own.title == title]
    assert problem.severity is Severity.LOOK and problem.count == 1
    (odd,) = problem.examples
    assert (odd.example.split, odd.example.index, odd.example.label) == ("train", 7, LABELS[7])


def test_noise_among_smooth_images_is_found(rng):
    smooth, test = (gaussian_filter(part, (0, 1, 1, 0)) for part in (IMAGES, TEST_IMAGES))
    smooth[9] = rng.random(smooth[9].shape)
    assert [own.title for own in problems_of(smooth, test)] == ["1 image is much sharper than the rest"]


def test_odd_images_of_the_test_set_are_found_too():
    test = TEST_IMAGES.copy()
    test[[3, 5]] = 0
    (problem,) = problems_of(IMAGES, test)
    assert problem.title == "2 images are of one colour"
    assert [(odd.example.split, odd.example.index) for odd in problem.examples] == [("test", 3), ("test", 5)]


def test_images_that_are_not_to_be_judged_are_not():
    properties = properties_of(with_odd(7, lambda image: 0 * image))
    properties.train[7] = np.nan
    assert (
        list(find_image_problems(evidence_of(LABELS, TEST_LABELS, TEST_LABELS, 10), properties, NAMES)) == []
    )


def darker(images, labels, label=3):
    return np.where((labels == label)[:, np.newaxis, np.newaxis, np.newaxis], 0.3 * images, images)


def test_a_class_that_is_darker_is_a_shortcut():
    properties = properties_of(darker(IMAGES, LABELS), darker(TEST_IMAGES, TEST_LABELS))
    (problem,) = find_shortcuts(properties.train, LABELS, NAMES)
    assert problem.title == "Training images of class 3 can be recognised by how they look as a whole"
    assert "lower brightness" in problem.advice and problem.severity is Severity.KNOW


def test_brightness_that_gives_all_classes_away_is_a_shortcut():
    brighter = (1 + LABELS[:, np.newaxis, np.newaxis, np.newaxis]) / 10 * IMAGES
    (problem,) = [
        own for own in find_shortcuts(properties_of(brighter).train, LABELS % 9, NAMES) if own.count > 1
    ]
    assert problem.title == "How a training image looks as a whole tells much of its class"


def test_a_class_that_is_darker_in_training_alone_is_a_shift():
    (problem,) = find_shifts(properties_of(darker(IMAGES, LABELS)), LABELS, TEST_LABELS, NAMES)
    assert problem.title == "Images of class 3 look other in training than in test" and problem.count == 1
    assert "brightness" in problem.advice and problem.severity is Severity.LOOK


@pytest.mark.parametrize("labels", [TEST_LABELS, None])
def test_test_images_that_are_all_darker_are_one_shift(labels):
    (problem,) = find_shifts(properties_of(IMAGES, 0.5 * TEST_IMAGES), LABELS, labels, NAMES)
    assert problem.title == "Test images look other than training images as a whole"


@pytest.mark.parametrize("seed", range(10))
def test_random_halves_of_one_set_have_no_shift(seed):
    found = properties_of(IMAGES)
    rows, labels = np.concatenate(found), np.concatenate([LABELS, TEST_LABELS])
    order = np.random.default_rng(seed).permutation(len(rows))
    halves = Properties(rows[order[::2]], rows[order[1::2]])
    assert list(find_shifts(halves, labels[order[::2]], labels[order[1::2]], NAMES)) == []


def test_the_area_of_a_class_is_the_share_of_pairs_in_which_it_is_higher(rng):
    values, labels = rng.integers(0, 9, 90).astype(float), np.arange(90) % 3
    own, others = values[labels == 1], values[labels != 1]
    above = (own[:, np.newaxis] > others).mean() + (own[:, np.newaxis] == others).mean() / 2
    assert class_areas(values, labels)[1] == pytest.approx(above)


def test_the_skill_of_a_property_is_about_0_without_relation_and_1_with_a_perfect_one(rng):
    labels = rng.integers(0, 4, 800)
    assert abs(tree_skill(rng.random(800), labels)) < 0.1
    assert tree_skill(labels + 0.1 * rng.random(800), labels) == 1
