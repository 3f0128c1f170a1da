"""Fetching training examples by index."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import data
from deel_dualview.search import gather_examples
from deel_dualview.search.gathering import ExampleCache, draw_examples, gathered_spec


def count_passes(dataset: tf.data.Dataset) -> tuple[tf.data.Dataset, list[list[int]]]:
    """Return the dataset, and for every pass over it the sizes of batches that were read."""
    passes: list[list[int]] = []

    def generate() -> Iterator[Any]:
        sizes: list[int] = []
        passes.append(sizes)
        for element in dataset:
            sizes.append(data.num_examples(element))
            yield element

    return tf.data.Dataset.from_generator(generate, output_signature=dataset.element_spec), passes


def make_train_set(num_examples: int = 40, batch_size: int = 7) -> tf.data.Dataset:
    images = np.arange(num_examples * 6).reshape(num_examples, 2, 3).astype(np.uint8)
    texts = [f"text {place}" for place in range(num_examples)]
    elements = (
        {"image": images, "text": texts, "flag": images[:, 0, 0] > 50},
        np.arange(num_examples),
        texts,
    )
    return tf.data.Dataset.from_tensor_slices(elements).batch(batch_size)


def hash_all(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([data.hash_examples(element) for element in dataset])


def make_queries(
    rng: np.random.Generator, num_batches: int, *, num_examples: int = 40
) -> list[tuple[Any, ...]]:
    return [(number, rng.integers(0, num_examples, (3, 2))) for number in range(num_batches)]


def _ragged(parts: list[tf.data.Dataset]) -> tf.data.Dataset:
    """Join batches of different shapes."""
    elements = [element for part in parts for element in part]
    spec = tf.TensorSpec((None, None), tf.float32)
    return tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=spec)


class TestGatherExamples:
    @pytest.mark.parametrize("num_batches", [1, 2, 5, 40])
    @pytest.mark.parametrize("cache_bytes", [0, 1000, 2**28])
    def test_every_item_comes_with_its_examples(self, rng, num_batches, cache_bytes):
        train_set = make_train_set()
        queries = make_queries(rng, num_batches)
        found = list(gather_examples(train_set, hash_all(train_set), queries, cache_bytes=cache_bytes))
        assert [item[0] for item, _ in found] == list(range(num_batches))
        for (_, indices), (_, labels, _) in found:
            np.testing.assert_array_equal(labels, indices)

    def test_examples_keep_structure_dtypes_and_contents(self, rng):
        train_set = make_train_set()
        indices = np.array([[39, 0], [5, 5]])
        ((_, (inputs, _, ids)),) = gather_examples(train_set, hash_all(train_set), [(indices,)])
        expected = np.arange(240).reshape(40, 2, 3).astype(np.uint8)[indices]
        np.testing.assert_array_equal(inputs["image"], expected)
        assert (inputs["image"].dtype, inputs["flag"].dtype) == (tf.uint8, tf.bool)
        assert inputs["text"].numpy().tolist() == [[b"text 39", b"text 0"], [b"text 5", b"text 5"]]
        assert ids.shape == (2, 2)

    def test_examples_have_the_announced_specs(self, rng):
        train_set = make_train_set()
        ((_, element),) = gather_examples(train_set, hash_all(train_set), make_queries(rng, 1))
        specs = gathered_spec(train_set.element_spec)
        tf.nest.assert_same_structure(specs, element)
        assert all(
            spec.is_compatible_with(tensor)
            for spec, tensor in zip(tf.nest.flatten(specs), tf.nest.flatten(element), strict=True)
        )

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.complex64])
    def test_unusual_dtypes_are_gathered(self, dtype):
        train_set = tf.data.Dataset.from_tensor_slices(tf.cast(tf.range(9), dtype)).batch(4)
        ((_, element),) = gather_examples(train_set, hash_all(train_set), [(np.array([[8, 3]]),)])
        np.testing.assert_array_equal(element, tf.cast([[8, 3]], dtype))

    def test_indices_may_be_tensors(self):
        train_set = make_train_set()
        ((_, (_, labels, _)),) = gather_examples(train_set, hash_all(train_set), [(tf.constant([[3, 1]]),)])
        np.testing.assert_array_equal(labels, [[3, 1]])

    def test_passes_are_shared_by_growing_windows(self, rng):
        """31 = 1 + 2 + 4 + 8 + 16 query batches: five passes at most, even when nothing is kept between."""
        train_set, passes = count_passes(make_train_set(400))
        queries = make_queries(rng, 31, num_examples=400)
        hashes = hash_all(make_train_set(400))
        windows = [1, 2, 4, 8, 16]
        list(gather_examples(train_set, hashes, queries, cache_bytes=200_000))
        assert len(passes) == len(windows)

    def test_a_training_set_that_fits_as_a_whole_is_read_twice_at_most(self, rng):
        train_set, passes = count_passes(make_train_set(400))
        queries = make_queries(rng, 31, num_examples=400)
        gathered = list(gather_examples(train_set, hash_all(make_train_set(400)), queries))
        assert len(passes) == 2
        for (_, indices), (_, labels, _) in gathered:
            np.testing.assert_array_equal(labels, indices)

    def test_a_training_set_of_more_than_half_the_memory_is_not_read_as_a_whole(self):
        train_set, passes = count_passes(make_train_set(400))
        hashes, items = hash_all(make_train_set(400)), [(np.array([[0]]),), (np.array([[1]]),)]
        list(gather_examples(train_set, hashes, items, cache_bytes=800 * 400))
        list(gather_examples(train_set, hashes, items, cache_bytes=2000 * 400))
        assert len(passes[1]) < 20 and len(passes[3]) == 58

    def test_windows_have_sixteen_items_at_most(self):
        train_set, asked = make_train_set(), []
        queries = (asked.append(1) or (np.array([[0]]),) for _ in range(100))
        for number, _ in enumerate(gather_examples(train_set, hash_all(train_set), queries)):
            assert len(asked) <= number + 16

    def test_the_second_pass_refuses_a_training_set_that_became_shorter(self):
        items = [(np.array([[0]]),), (np.array([[1]]),)]
        found = gather_examples(make_train_set(30), hash_all(make_train_set(40)), items)
        next(found)
        with pytest.raises(ValueError, match="fewer examples.*index=30"):
            next(found)

    def test_the_second_pass_refuses_any_example_that_changed(self):
        train_set = make_train_set(40)
        hashes = hash_all(train_set)
        hashes[30] += 1
        items = gather_examples(train_set, hashes, [(np.array([[0]]),), (np.array([[1]]),)])
        next(items)
        with pytest.raises(ValueError, match="index=30"):
            next(items)

    def test_examples_of_several_shapes_are_gathered_one_by_one(self):
        parts = [tf.data.Dataset.from_tensors(tf.zeros((2, size))) for size in (1, 2)]
        train_set = _ragged(parts)
        queries = [(np.array([[index]]),) for index in (0, 2, 1, 3)]
        gathered = list(gather_examples(train_set, hash_all(_ragged(parts)), queries))
        assert [rows.shape[-1] for _, rows in gathered] == [1, 2, 1, 2]

    def test_the_first_result_needs_one_query_batch_and_one_pass(self, rng):
        train_set, passes = count_passes(make_train_set())
        asked: list[int] = []
        queries = (asked.append(query[0]) or query for query in make_queries(rng, 9))
        next(gather_examples(train_set, hash_all(make_train_set()), queries))
        assert asked == [0] and len(passes) == 1

    def test_examples_seen_before_need_no_pass(self):
        train_set, passes = count_passes(make_train_set())
        list(gather_examples(train_set, hash_all(make_train_set()), [(np.array([[1, 2]]),)] * 9))
        assert len(passes) == 1

    def test_a_pass_ends_at_the_last_example_needed(self):
        train_set, passes = count_passes(make_train_set(40, 1))
        list(gather_examples(train_set, hash_all(make_train_set()), [(np.array([[2, 0]]),)]))
        assert len(passes[0]) <= 3 + 3, "3 are needed, 2 may be read ahead"

    def test_windows_shrink_to_the_memory_allowed(self, rng):
        """Items of 1 kB where 2 kB are allowed: the window of 16 would hold 16 kB."""
        train_set = make_train_set()
        held: list[int] = []
        queries = (
            (held.append(1) or np.zeros(1000, np.uint8), indices) for _, indices in make_queries(rng, 60)
        )
        for _ in gather_examples(train_set, hash_all(train_set), queries, cache_bytes=5000):
            assert len(held) <= 5
            held.pop()

    def test_two_gatherings_can_be_under_way(self, rng):
        train_set = make_train_set()
        queries = make_queries(rng, 7)
        one, other = (gather_examples(train_set, hash_all(train_set), queries) for _ in range(2))
        for (_, (_, labels, _)), (_, (_, other_labels, _)) in zip(one, other, strict=True):
            np.testing.assert_array_equal(labels, other_labels)

    def test_other_batches_of_the_same_examples_are_accepted(self):
        hashes = hash_all(make_train_set())
        ((_, (_, labels, _)),) = gather_examples(make_train_set(40, 11), hashes, [(np.array([[30, 2]]),)])
        np.testing.assert_array_equal(labels, [[30, 2]])

    def test_empty_batches_are_no_obstacle(self):
        train_set = make_train_set().map(lambda x, y, ids: (y[y > 20],))
        ((_, (inputs,)),) = gather_examples(train_set, hash_all(train_set), [(np.array([[0, 18]]),)])
        np.testing.assert_array_equal(inputs, [[21, 39]])

    def test_a_training_set_that_reshuffles_is_refused(self):
        train_set = make_train_set().unbatch().shuffle(40).batch(7)
        with pytest.raises(ValueError, match=r"(?s)another example.*`shuffle\(\)` \(remove it"):
            list(gather_examples(train_set, hash_all(train_set), [(np.arange(40).reshape(20, 2),)]))

    def test_a_training_set_that_augments_is_refused(self):
        train_set = tf.data.Dataset.from_tensor_slices(np.ones((9, 2))).batch(3)
        hashes = hash_all(train_set)
        augmented = train_set.map(lambda x: x + tf.random.uniform((), 1, 2, tf.float64))
        with pytest.raises(ValueError, match=r"(?s)another example.*augmentation.*index=4"):
            list(gather_examples(augmented, hashes, [(np.array([[4]]),)]))

    def test_a_training_set_that_became_shorter_is_refused(self):
        with pytest.raises(ValueError, match="fewer examples.*index=30"):
            list(gather_examples(make_train_set(30), hash_all(make_train_set()), [(np.array([[3, 30]]),)]))

    @pytest.mark.parametrize("index", [-1, 40])
    def test_an_index_out_of_range_is_refused(self, index):
        train_set = make_train_set()
        with pytest.raises(ValueError, match="num_examples=40"):
            list(gather_examples(train_set, hash_all(train_set), [(np.array([[3, index]]),)]))

    @pytest.mark.parametrize(("rows", "fill"), [([[1], [2], [3, 4]], 0), ([["a"], ["b"], ["c", "d"]], b"")])
    def test_sequences_of_several_lengths_are_filled_up_as_padded_batches_are(self, rows, fill):
        train_set = _padded(rows)
        ((_, found),) = gather_examples(train_set, hash_all(train_set), [(np.array([[2, 0]]),)])
        (longest,) = train_set.skip(1)
        assert found.numpy()[0].tolist() == [longest[0].numpy().tolist(), [next(iter(train_set))[0, 0], fill]]

    def test_images_of_several_sizes_are_refused(self):
        elements = [np.zeros((1, 2, 3)), np.zeros((1, 3, 2))]
        spec = tf.TensorSpec((None, None, None), tf.float64)
        train_set = tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=spec)
        with pytest.raises(ValueError, match="one shape, but for the length.*pad or resize"):
            list(gather_examples(train_set, hash_all(train_set), [(np.array([[0, 1]]),)]))


def _padded(rows: list[list[Any]]) -> tf.data.Dataset:
    """Return sequences in batches of two, each as long as its longest."""
    return tf.data.Dataset.from_tensor_slices(tf.ragged.constant(rows)).map(tf.identity).padded_batch(2)


def test_sequences_are_drawn_at_the_length_that_they_have_in_the_dataset():
    drawn = draw_examples(_padded([[1], [2], [3, 4], [5]]), 3, seed=0, batch_size=8)
    assert [part.shape[1] for part in drawn] == [1, 2]


def test_examples_are_drawn_once_each():
    numbers = tf.data.Dataset.range(20).batch(6)
    drawn = np.concatenate(list(draw_examples(numbers, 20, seed=0, batch_size=8).as_numpy_iterator()))
    np.testing.assert_array_equal(drawn, np.arange(20))


def make_example(num_bytes: int) -> tuple[np.ndarray, ...]:
    return (np.zeros(num_bytes, np.uint8),)


class TestExampleCache:
    def test_it_never_exceeds_its_size(self, rng):
        cache = ExampleCache(5000)
        for index in rng.integers(0, 50, 300):
            cache.put(int(index), make_example(int(rng.integers(0, 2000))))
            assert cache.currsize <= 5000
        assert len(cache) > 0

    def test_the_example_not_used_for_longest_makes_room(self):
        cache = ExampleCache(2500)
        for index in (0, 1):
            cache.put(index, make_example(1000))
        cache.get(0)
        cache.put(2, make_example(1000))
        assert [cache.get(index) is not None for index in range(3)] == [True, False, True]

    def test_an_example_larger_than_the_cache_is_not_kept(self):
        cache = ExampleCache(500)
        cache.put(0, make_example(1000))
        assert len(cache) == 0 and cache.currsize == 0

    def test_putting_an_example_again_counts_once(self):
        cache = ExampleCache(5000)
        cache.put(0, make_example(1000))
        size = cache.currsize
        cache.put(0, make_example(1000))
        assert cache.currsize == size

    def test_the_bytes_of_text_count(self):
        cache = ExampleCache(5000)
        cache.put(0, (np.array([b"x" * 4000], object),))
        assert cache.currsize >= 4000
