"""The search that leaves out vectors by their norms gives the k-th values of the whole matrix."""

import numpy as np
import pytest
import tensorflow as tf
from test_first_order import all_values, convex, first_order

from deel_dualview import ORDER
from deel_dualview.linalg import blocks
from deel_dualview.search.bounded import Bounded

__all__ = ["convex", "first_order"]


class Plain:
    """The search alone, over vectors (n, 2) and a query that are given; one vector is scored before any bound."""

    def __init__(self, vectors):
        self._vectors = np.array(vectors, np.float32)
        self._search = Bounded(lambda: np.linalg.norm(self._vectors, axis=1), blocks.norms, num_first=1)
        self.num_scored = 0

    def first(self, query, k=1, order=ORDER.DESCENDING):
        queries = (tf.constant([query], tf.float32),)

        def scored(is_wanted):
            indices = np.arange(len(self._vectors))
            indices = indices if is_wanted is None else indices[is_wanted]
            self.num_scored += len(indices)
            yield indices, blocks.inner_products(queries, (tf.constant(self._vectors[indices]),))

        return self._search.top_k(scored, queries, k, order)[1][0].tolist()


def test_a_vector_whose_bound_just_reaches_the_kth_value_is_scored():
    assert Plain([[1, 2], [1.00001, 0]]).first([1, 0]) == [1]


def test_a_vector_that_ties_with_a_longer_one_comes_first_by_its_index():
    assert Plain([[1, 0], [1, 2]]).first([1, 0]) == [0]


def test_at_least_k_vectors_are_scored_before_the_bound_is_taken():
    assert Plain([[3, 0], [2, 0], [1, 0]]).first([1, 0], k=2) == [0, 1]


def test_for_a_zero_query_all_vectors_tie():
    assert Plain([[1, 0], [2, 0], [3, 0]]).first([0, 0], k=2) == [0, 1]


@pytest.mark.parametrize(("sign", "order"), [(1, ORDER.DESCENDING), (-1, ORDER.ASCENDING)])
def test_vectors_below_the_bound_are_left_out_at_both_ends(sign, order):
    calculator = Plain([[3, 0], [2, 0], [2, 0], [1, 0]])
    assert calculator.first([sign, 0], order=order) == [0]
    assert calculator.num_scored == 1


def test_the_norms_are_those_of_all_vectors_however_many(first_order, monkeypatch):
    monkeypatch.setattr("deel_dualview.calculators.inverse_hessian._NUM_NORMS", 7)
    vectors = np.concatenate([blocks.to_dense(part) for part in first_order.compute_influence_vector()])
    vars(first_order).pop("_norms", None)
    np.testing.assert_allclose(first_order._norms, np.linalg.norm(vectors, axis=1), rtol=1e-5)


@pytest.mark.parametrize("num_first", [1, 5, 40])
@pytest.mark.parametrize("order", ORDER)
@pytest.mark.parametrize("k", [1, 6, 90])
def test_the_result_is_that_of_sorting_everything(num_first, order, k, convex, first_order, monkeypatch):
    monkeypatch.setattr(first_order.search, "_num_first", num_first)
    values = all_values(first_order, convex.test)
    expected = np.argsort(values if order is ORDER.ASCENDING else -values, axis=1, kind="stable")[:, :k]
    found = list(first_order.top_k_indices(convex.test, k=k, order=order))
    indices = np.concatenate([indices for _, indices in found])
    np.testing.assert_allclose(
        np.take_along_axis(values, indices, 1), np.take_along_axis(values, expected, 1), rtol=1e-4, atol=1e-7
    )
    assert all(len(set(row)) == k for row in indices.tolist())


def test_small_vectors_are_left_out(convex, first_order, monkeypatch):
    monkeypatch.setattr(first_order.search, "_num_first", 30)
    seen = []
    scores = first_order._scores
    monkeypatch.setattr(
        first_order,
        "_scores",
        lambda queries, vectors: seen.append(len(vectors[0].left)) or scores(queries, vectors),
    )
    list(first_order.top_k_indices(convex.test.take(1), k=1))
    assert sum(seen) < 90
