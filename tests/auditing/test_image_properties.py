"""Properties of images: what is measured, and from which inputs."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.auditing.image_properties import PROPERTIES, ImageProperties, is_images, measure


def naive(image):
    """Properties of one colour image by loops."""
    height, width, _ = image.shape
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    laplacian = [
        grey[row - 1, column]
        + grey[row + 1, column]
        + grey[row, column - 1]
        + grey[row, column + 1]
        - 4 * grey[row, column]
        for row in range(1, height - 1)
        for column in range(1, width - 1)
    ]
    colour = (image.max(axis=2).astype(float) - image.min(axis=2)).mean()
    return [grey.mean(), grey.std(), np.std(laplacian) / grey.std(), colour]


def test_properties_are_those_of_a_naive_twin(rng):
    images = rng.integers(0, 256, (3, 16, 18, 3), np.uint8)
    np.testing.assert_allclose(measure(images), [naive(image) for image in images], rtol=1e-4)


def test_images_of_one_channel_have_no_colour_and_small_ones_no_sharpness(rng):
    found = dict(zip(PROPERTIES, measure(rng.random((2, 8, 8, 1))).T, strict=True))
    assert np.isnan(found["colour"]).all() and np.isnan(found["sharpness"]).all()
    assert np.isfinite(found["brightness"]).all() and np.isfinite(found["contrast"]).all()


def test_an_image_of_one_colour_has_no_contrast_at_all():
    found = measure(np.full((1, 20, 20, 3), 0.1, np.float32))
    assert found[0, 1] == 0 and np.isnan(found[0, 2])


def test_of_a_large_image_fewer_pixels_are_read_to_about_the_same_result(rng):
    image = np.kron(rng.random((1, 60, 60, 1)), np.ones((1, 8, 8, 1)))
    found = measure(image)
    np.testing.assert_allclose(found[0, :2], [image.mean(), image.std()], rtol=1e-4)
    assert np.isfinite(found[0, 2])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 28, 28, 1), True),
        ((5, 28, 28), True),
        ((5, 28, 30), False),
        ((5, 28), False),
        ((5, 9, 9, 7), False),
    ],
)
def test_images_are_known_by_their_shape(shape, expected):
    assert is_images(shape) is expected


def test_properties_are_shares_of_the_range_of_both_sets_whatever_the_batches(rng):
    images = rng.uniform(-3, 5, (10, 9, 9, 1)).astype(np.float32)
    images[0, 0, 0], images[9, 0, 0] = -3, 5
    whole, parts = ImageProperties(), ImageProperties()
    whole.add(tf.constant(images[:8]), "train")
    whole.add(tf.constant(images[8:]), "test")
    parts.add((tf.constant([1, 2, 3]), tf.constant(images[:3])), "train")
    parts.add((tf.constant([4, 5, 6]), tf.constant(images[3:8])), "train")
    parts.add((tf.constant([4]), tf.constant(images[8:])), "test")
    np.testing.assert_array_equal(whole.of("train"), parts.of("train"))
    np.testing.assert_allclose(whole.of("test")[:, 0], (images[8:].mean(axis=(1, 2, 3)) + 3) / 8, rtol=1e-4)
    np.testing.assert_allclose(whole.of("test")[:, 1], images[8:].std(axis=(1, 2, 3)) / 8, rtol=1e-4)


@pytest.mark.parametrize("inputs", [np.zeros((3, 5)), np.zeros((3, 9, 9, 1))])
def test_there_are_no_properties_without_images_or_anything_in_them(inputs):
    properties = ImageProperties()
    properties.add(tf.constant(inputs), "train")
    assert properties.of("train") is None
