"""The search that leaves out vectors by their norms gives the k-th values of the whole matrix."""

import numpy as np
import pytest
from test_first_order import all_values, convex, first_order

from deel_dualview import ORDER

__all__ = ["convex", "first_order"]


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
