"""The search that leaves out vectors by their norms gives the k-th values of the whole matrix."""

import numpy as np
import pytest
import tensorflow as tf
from test_first_order import all_values, convex, first_order

from deel_dualview import ORDER
from deel_dualview.calculators.bounded import BoundedSearchCalculator

__all__ = ["convex", "first_order"]


class Plain(BoundedSearchCalculator):
    """The search alone, over vectors (n, 2) and queries (m, 2) that are given."""

    _num_first = 1

    def __init__(self, vectors):
        self._vectors = np.array(vectors, np.float32)
        self.num_scored = 0

    def _queries_of(self, batch):
        return (tf.constant(batch, tf.float32),)

    def _vector_blocks(self, is_wanted=None):
        indices = np.arange(len(self._vectors))
        indices = indices if is_wanted is None else indices[is_wanted]
        yield indices, (tf.constant(self._vectors[indices]),)

    def _scores(self, queries, vectors):
        self.num_scored += len(vectors[0])
        return super()._scores(queries, vectors)

    def _influence_vectors(self, batch):
        raise NotImplementedError

    _queries = _settings = _influence_vectors

    def first(self, query, k=1, order=ORDER.DESCENDING):
        return self._top_k([query], k, order)[1][0].tolist()


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


def test_the_norms_are_those_of_all_vectors_however_many(monkeypatch):
    monkeypatch.setattr("deel_dualview.calculators.bounded._NUM_NORMS", 3)
    calculator = Plain([[row, 0] for row in range(8)])
    np.testing.assert_array_equal(calculator._norms, np.arange(8))


@pytest.mark.parametrize("num_first", [1, 5, 40])
@pytest.mark.parametrize("order", ORDER)
@pytest.mark.parametrize("k", [1, 6, 90])
def test_the_result_is_that_of_sorting_everything(num_first, order, k, convex, first_order, monkeypatch):
    monkeypatch.setattr("deel_dualview.calculators.bounded._NUM_FIRST", num_first)
    values = all_values(first_order, convex.test)
    expected = np.argsort(values if order is ORDER.ASCENDING else -values, axis=1, kind="stable")[:, :k]
    found = list(first_order.top_k_indices(convex.test, k=k, order=order))
    indices = np.concatenate([indices for _, indices in found])
    np.testing.assert_allclose(
        np.take_along_axis(values, indices, 1), np.take_along_axis(values, expected, 1), rtol=1e-4, atol=1e-7
    )
    assert all(len(set(row)) == k for row in indices.tolist())


def test_small_vectors_are_left_out(convex, first_order, monkeypatch):
    monkeypatch.setattr("deel_dualview.calculators.bounded._NUM_FIRST", 30)
    seen = []
    scores = first_order._scores
    monkeypatch.setattr(
        first_order,
        "_scores",
        lambda queries, vectors: seen.append(len(vectors[0].left)) or scores(queries, vectors),
    )
    list(first_order.top_k_indices(convex.test.take(1), k=1))
    assert sum(seen) < 90
