"""Streaming top-k."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import ORDER, search

ORDERS = pytest.mark.parametrize("order", list(ORDER))


def naive_top_k(
    values: np.ndarray, indices: np.ndarray, k: int, order: ORDER
) -> tuple[np.ndarray, np.ndarray]:
    """Sort by value, then by index."""
    sign = 1 if order is ORDER.ASCENDING else -1
    ranks = np.stack([np.lexsort((indices, sign * row))[:k] for row in values])
    return np.take_along_axis(values, ranks, axis=1), indices[ranks]


def assert_same(found: search.Best, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[1].dtype == tf.int64


def cut(
    values: np.ndarray, indices: np.ndarray, widths: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    stop = 0
    for width in widths:
        start, stop = stop, stop + width
        yield indices[start:stop], values[:, start:stop]


def tied_values(rng: np.random.Generator, num_columns: int, dtype: str = "float32") -> np.ndarray:
    """Few distinct values, so that nearly everything is a tie; both zeros among them."""
    return (rng.integers(-2, 3, (4, num_columns)) * rng.choice([-1.0, 1.0], (4, num_columns))).astype(dtype)


@ORDERS
class TestStreamingTopK:
    @pytest.mark.parametrize("widths", [[30], [1] * 30, [4, 4, 22], [29, 1], [0, 30, 0]], ids=str)
    @pytest.mark.parametrize("k", [1, 5, 30])
    def test_it_agrees_with_sorting_whatever_the_blocks(self, rng, order, widths, k):
        values, indices = rng.standard_normal((4, 30)).astype(np.float32), np.arange(30)
        found = search.streaming_top_k(cut(values, indices, widths), k, order)
        assert_same(found, naive_top_k(values, indices, k, order))

    @pytest.mark.parametrize("num_columns", [30, 256, 500, 1021, 2048])
    @pytest.mark.parametrize("k", [1, 7])
    def test_ties_break_by_the_lower_index(self, rng, order, num_columns, k):
        values, indices = tied_values(rng, num_columns), np.arange(num_columns)
        found = search.streaming_top_k([(indices, values)], k, order)
        assert_same(found, naive_top_k(values, indices, k, order))

    def test_ties_break_by_the_lower_index_below_untied_extremes(self, rng, order):
        values, indices = rng.integers(-300, 300, (9, 2048)).astype(np.float32), np.arange(2048)
        found = search.streaming_top_k([(indices, values)], 20, order)
        assert_same(found, naive_top_k(values, indices, 20, order))

    def test_ties_break_by_the_lower_index_across_blocks_in_any_order(self, rng, order):
        values, indices = tied_values(rng, 600), rng.permutation(1000)[:600]
        found = search.streaming_top_k(cut(values, indices, [256, 7, 337]), 9, order)
        assert_same(found, naive_top_k(values, indices, 9, order))

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("num_columns", [30, 512])
    def test_the_dtype_of_values_stays(self, rng, order, dtype, num_columns):
        values, indices = tied_values(rng, num_columns, dtype), np.arange(num_columns)
        found = search.streaming_top_k([(indices, values)], 3, order)
        assert found[0].dtype == dtype
        assert_same(found, naive_top_k(values, indices, 3, order))

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("num_columns", [30, 512])
    def test_values_that_are_not_finite_are_refused_by_index(self, rng, order, wrong, num_columns):
        values = rng.standard_normal((4, num_columns)).astype(np.float32)
        values[1, 3] = values[2, 3] = wrong
        with pytest.raises(ValueError, match=r"training_indices=\[103\]"):
            search.streaming_top_k([(100 + np.arange(num_columns), values)], 2, order)

    def test_finite_values_whose_sum_overflows_are_accepted(self, order):
        values = np.full((1, 40), 3e38, np.float32)
        found = search.streaming_top_k([(np.arange(40), values)], 2, order)
        np.testing.assert_array_equal(found[1], [[0, 1]])

    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one_is_refused(self, order, k):
        with pytest.raises(ValueError, match=f"k={k}"):
            search.streaming_top_k([(np.arange(3), np.ones((1, 3)))], k, order)

    def test_k_above_the_number_of_columns_is_refused(self, order):
        with pytest.raises(ValueError, match="k=4, num_examples=3"):
            search.streaming_top_k(cut(np.ones((1, 3)), np.arange(3), [2, 1]), 4, order)

    @pytest.mark.parametrize("k", [1.0, True, None])
    def test_k_that_is_no_integer_is_refused(self, order, k):
        with pytest.raises(TypeError, match="`k` must be an integer"):
            search.streaming_top_k([(np.arange(3), np.ones((1, 3)))], k, order)

    def test_no_block_is_refused(self, order):
        with pytest.raises(ValueError, match="num_examples=0"):
            search.streaming_top_k([], 1, order)


def test_equal_values_take_no_more_memory_than_others():
    """Dead features make whole blocks zero; sorting all ties would take fifty times their size."""
    values, indices = np.zeros((16, 65536), np.float32), np.arange(65536)
    tracemalloc.start()
    search.block_top_k(values, indices, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * values.nbytes


def test_the_smallest_values_are_the_greatest_of_the_negated(rng):
    values, indices = tied_values(rng, 512), np.arange(512)
    ascending = search.streaming_top_k([(indices, values)], 5, ORDER.ASCENDING)
    descending = search.streaming_top_k([(indices, -values)], 5, ORDER.DESCENDING)
    assert_same((-ascending[0], ascending[1]), descending)


@pytest.mark.parametrize("kind", [tf.constant, np.array])
def test_blocks_of_inner_products_meet_without_a_gap(monkeypatch, kind):
    monkeypatch.setattr("deel_dualview.search.top_k._COLUMNS_PER_BLOCK", 4)
    blocks = search.inner_product_blocks(
        kind([[1.0]]), kind([[float(row)] for row in range(9)]), np.arange(9)
    )
    found = [(indices.tolist(), np.asarray(values).tolist()) for indices, values in blocks]
    assert found == [
        ([0, 1, 2, 3], [[0, 1, 2, 3]]),
        ([4, 5, 6, 7], [[4, 5, 6, 7]]),
        ([8], [[8]]),
    ]


@pytest.mark.parametrize("num_vectors", [1, 63, 64, 200, 8192 + 70])
def test_blocks_of_inner_products_cover_every_vector_once(rng, num_vectors):
    queries = tf.constant(rng.standard_normal((3, 2)), tf.float32)
    vectors = tf.constant(rng.standard_normal((num_vectors, 2)), tf.float32)
    blocks = list(search.inner_product_blocks(queries, vectors, np.arange(num_vectors) * 2))
    np.testing.assert_array_equal(
        np.concatenate([indices for indices, _ in blocks]), np.arange(num_vectors) * 2
    )
    products = np.concatenate([values for _, values in blocks], axis=1)
    np.testing.assert_allclose(products, queries.numpy() @ vectors.numpy().T, rtol=1e-5, atol=1e-6)
