"""The embedded digits and the label errors made on purpose."""

import keras
import numpy as np
import pytest
import sklearn.datasets

from deel_dualview import load_digits, swap_labels
from deel_dualview.cli.demo import NUM_SWAPPED, Demo, make_demo


@pytest.fixture(scope="module")
def demo() -> Demo:
    return make_demo(seed=0)


def test_the_embedded_digits_are_those_of_scikit_learn():
    (train_images, train_labels), (test_images, test_labels) = load_digits()
    ours = np.concatenate([train_images, test_images]).reshape(-1, 64) * 16
    ours = np.column_stack([ours, np.concatenate([train_labels, test_labels])])
    theirs = np.column_stack(sklearn.datasets.load_digits(return_X_y=True))
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs)


def test_no_image_is_in_both_splits():
    (train_images, _), (test_images, _) = load_digits()
    in_train = {image.tobytes() for image in train_images}
    assert not any(image.tobytes() in in_train for image in test_images)


def test_every_class_keeps_a_fifth_for_testing():
    (_, train_labels), (_, test_labels) = load_digits()
    share = np.bincount(test_labels) / (np.bincount(test_labels) + np.bincount(train_labels))
    np.testing.assert_allclose(share, 0.2, atol=0.005)


def test_the_split_is_the_same_every_time():
    np.testing.assert_array_equal(load_digits()[1][0], load_digits()[1][0])


def test_swapped_labels_are_all_wrong_and_the_others_stay(rng):
    labels = rng.integers(0, 3, 50)
    swapped = swap_labels(labels, 20, num_classes=3, seed=1)
    np.testing.assert_array_equal(np.flatnonzero(swapped.labels != labels), swapped.indices)
    assert len(swapped.indices) == 20
    assert set(swapped.labels) <= {0, 1, 2}


def test_swapping_leaves_the_given_labels_alone():
    labels = np.zeros(10, np.int64)
    swap_labels(labels, 5, num_classes=2, seed=0)
    assert not labels.any()


def test_the_same_seed_swaps_the_same_labels():
    labels = np.zeros(100, np.int64)
    first, second = (swap_labels(labels, 10, num_classes=10, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (first.indices != swap_labels(labels, 10, num_classes=10, seed=4).indices).any()


@pytest.mark.parametrize("num_swapped, num_classes", [(-1, 2), (4, 2), (1, 1)])
def test_impossible_swaps_are_refused(num_swapped, num_classes):
    with pytest.raises(ValueError, match="Received: num_"):
        swap_labels(np.zeros(3, np.int64), num_swapped, num_classes=num_classes, seed=0)


def test_the_demo_model_is_a_good_classifier(demo):
    images, labels = next(iter(demo.test.unbatch().batch(1000)))
    predictions = keras.ops.convert_to_numpy(demo.model(images, training=False)).argmax(1)
    assert (predictions == labels.numpy()).mean() >= 0.95


def test_the_demo_trains_on_the_swapped_labels(demo):
    labels = np.concatenate([labels.numpy() for _, labels in demo.train])
    np.testing.assert_array_equal(np.flatnonzero(labels != demo.original_labels), demo.swapped_indices)
    np.testing.assert_array_equal(labels[demo.swapped_indices], demo.swapped_labels)
    assert len(demo.swapped_indices) == NUM_SWAPPED
