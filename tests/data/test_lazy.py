"""Datasets computed by a generator."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview.data import lazy_dataset


class Pair(NamedTuple):
    first: Any
    second: Any


SIGNATURE = Pair({"x": tf.TensorSpec((None,), tf.float32)}, (tf.TensorSpec((), tf.string),))


def make_pairs() -> Iterator[Pair]:
    for place in range(3):
        yield Pair({"x": np.full(place, place)}, (str(place),))


def failing() -> Iterator[Pair]:
    yield next(make_pairs())
    raise KeyError("which one")


def test_it_is_a_dataset_of_the_signature():
    lazy = lazy_dataset(make_pairs, SIGNATURE)
    assert isinstance(lazy, tf.data.Dataset) and lazy.element_spec == SIGNATURE


@pytest.mark.parametrize(
    "derive", [lambda lazy: lazy, lambda lazy: lazy.prefetch(1)], ids=["direct", "derived"]
)
def test_nested_named_tuples_arrive_as_tensors(derive):
    element = list(derive(lazy_dataset(make_pairs, SIGNATURE)))[2]
    assert isinstance(element, Pair) and element.first["x"].dtype == tf.float32
    np.testing.assert_array_equal(element.first["x"], [2, 2])
    assert element.second[0].numpy() == b"2"


def test_it_can_be_iterated_again():
    lazy = lazy_dataset(make_pairs, SIGNATURE)
    assert [len(list(lazy)) for _ in range(2)] == [3, 3]


def test_several_iterations_can_be_under_way():
    lazy = lazy_dataset(make_pairs, SIGNATURE)
    one, other, derived = iter(lazy), iter(lazy), iter(lazy.prefetch(1))
    texts = [next(iterator).second[0].numpy() for iterator in (one, other, derived, one, derived, other)]
    assert texts == [b"0", b"0", b"0", b"1", b"1", b"1"]


def test_nothing_runs_before_iteration():
    started = []

    def generate():
        started.append(1)
        yield from make_pairs()

    lazy = lazy_dataset(generate, SIGNATURE)
    iterator = iter(lazy)
    assert not started
    next(iterator)
    assert started


def test_an_abandoned_iteration_closes_its_generator():
    closed = []

    def generate():
        try:
            yield from make_pairs()
        finally:
            closed.append(1)

    for _ in lazy_dataset(generate, SIGNATURE):
        break
    assert closed


def test_errors_arrive_as_they_were_raised():
    with pytest.raises(KeyError, match="which one"):
        list(lazy_dataset(failing, SIGNATURE))


def test_errors_through_a_derived_dataset_begin_with_their_message():
    with pytest.raises(tf.errors.OpError) as caught:
        list(lazy_dataset(failing, SIGNATURE).take(5))
    assert "which one" in str(caught.value).splitlines()[0]


def test_a_known_cardinality_is_kept():
    lazy = lazy_dataset(make_pairs, SIGNATURE, cardinality=3)
    assert int(lazy.cardinality()) == 3 and int(lazy.take(2).cardinality()) == 2


def test_lazy_datasets_feed_each_other():
    source = lazy_dataset(make_pairs, SIGNATURE)
    for _ in range(4):
        source = lazy_dataset(source.prefetch(1).__iter__, SIGNATURE)
    assert len(list(tf.data.Dataset.zip((source, source)).prefetch(1))) == 3


def test_it_can_be_iterated_in_a_compiled_function():
    lazy = lazy_dataset(make_pairs, SIGNATURE)

    @tf.function(autograph=False)
    def read_two():
        iterator = iter(lazy)
        return next(iterator).second[0], next(iterator).second[0]

    assert [text.numpy() for text in read_two()] == [b"0", b"1"]


def test_one_that_a_compiled_function_has_read_first_can_be_derived_from_outside():
    lazy = lazy_dataset(make_pairs, SIGNATURE)
    tf.function(lambda: next(iter(lazy)).second[0], autograph=False)()
    assert len(list(lazy.prefetch(1))) == 3
