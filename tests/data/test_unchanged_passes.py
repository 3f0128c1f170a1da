"""Passes over a dataset are compared with the first one, wherever they are made."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    DiskStore,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradCos,
    InfluenceModel,
    MemoryStore,
    data,
)
from deel_dualview.data import identity

NUM_BATCHES = 6


class Passes:
    """A dataset of batches of four examples that may yield another order at each pass."""

    def __init__(self, *orders):
        self.orders, self.num_passes = orders, 0
        self.dataset = tf.data.Dataset.from_generator(
            self._batches, output_signature=(tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64))
        )

    def _batches(self):
        order = self.orders[min(self.num_passes, len(self.orders) - 1)]
        self.num_passes += 1
        for batch in order:
            rows = np.random.default_rng(batch).normal(size=(4, 3)).astype(np.float32)
            yield rows, np.array([0, 1, 2, batch % 3])


IN_ORDER = tuple(range(NUM_BATCHES))
LAST_SWAPPED = (0, 1, 2, 3, 5, 4)


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(0)
    return InfluenceModel(keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)]))


def read(dataset):
    return [int(indices[0]) for indices, _, _ in data.compared_examples(dataset)]


def test_equal_passes_are_let_through():
    passes = Passes(IN_ORDER)
    assert read(passes.dataset) == read(passes.dataset) == [0, 4, 8, 12, 16, 20]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (LAST_SWAPPED, "the same examples in another order.*index=16"),
        ((0, 1, 2, 3, 4, 9), "other contents.*index=20"),
        (IN_ORDER[:-1], "fewer examples"),
        ((*IN_ORDER, 9), "more examples"),
    ],
)
def test_a_pass_that_ends_otherwise_is_refused(second, found):
    passes = Passes(IN_ORDER, second)
    read(passes.dataset)
    with pytest.raises(ValueError, match=found):
        read(passes.dataset)


def test_an_interrupted_pass_is_compared_as_far_as_it_went():
    passes = Passes(IN_ORDER, (0, 2, 1), IN_ORDER)
    batches = data.compared_examples(passes.dataset)
    for _ in range(2):
        next(batches)
    with pytest.raises(ValueError, match="index=4"):
        read(passes.dataset)


def test_a_pass_that_was_refused_does_not_count():
    passes = Passes(IN_ORDER, IN_ORDER[:1])
    batches = data.compared_examples(passes.dataset)
    for _ in range(3):
        next(batches)
    for _ in range(2):
        with pytest.raises(ValueError, match="fewer examples"):
            read(passes.dataset)
    assert not identity.is_read_twice(passes.dataset)


def test_a_pass_of_one_example_less_is_refused():
    with pytest.raises(ValueError, match="fewer examples.*before=5"):
        identity.check_end(5, 4, "dataset")


def test_examples_after_a_gap_are_not_remembered():
    dataset = tf.data.Dataset.range(4)
    identity.compare(dataset, 2, np.array([7, 8], np.uint64))
    identity.compare(dataset, 0, np.array([1, 2], np.uint64))


def test_another_dataset_is_not_compared():
    assert read(Passes(IN_ORDER).dataset) == read(Passes(LAST_SWAPPED).dataset)


def test_the_pass_of_an_inverse_is_compared_with_that_of_its_calculator(model):
    passes = Passes(IN_ORDER, IN_ORDER, LAST_SWAPPED)
    inverse = ExactIHVP(model, passes.dataset)
    with pytest.raises(ValueError, match="another order.*reshuffle_each_iteration=False"):
        FirstOrderInfluenceCalculator(model, passes.dataset, inverse)


def test_self_influence_of_another_pass_is_refused_where_it_differs(model):
    orders = [IN_ORDER] * 20
    passes = Passes(*orders, LAST_SWAPPED)
    # The norms of other layers' gradients are not stored: they are computed again.
    calculator = GradCos(model, passes.dataset, weights="all", normalize="train")
    assert passes.num_passes <= len(orders)
    passes.num_passes = len(orders)
    with pytest.raises(ValueError, match="another order.*index=16"):
        list(calculator.compute_influence_values())


@pytest.mark.parametrize("make_store", [lambda path: MemoryStore(), lambda path: DiskStore(path / "store")])
def test_a_store_reads_the_second_batch_again(make_store, tmp_path):
    passes = Passes((0, 1, 2), (0, 2, 1))
    with pytest.raises(ValueError, match="changes between two passes"):
        make_store(tmp_path).open({}, passes.dataset, lambda element: {"rows": element[0]})
