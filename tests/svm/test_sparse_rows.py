"""Sparse rows that are rewritten, beside a dense array."""

import numpy as np
import pytest
import scipy.sparse

from deel_dualview.svm.sparse_rows import SparseRows


def _draw(generator, rows, density):
    return generator.random((rows, 6)).astype(np.float32) * (generator.random((rows, 6)) < density)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_rows_read_in_any_order_are_those_last_written(density):
    generator = np.random.default_rng(0)
    dense = _draw(generator, 20, density)
    rows = SparseRows(scipy.sparse.csr_array(dense))
    for size in (0, 1, 20, 7, 20, 13) * 3:
        order = generator.permutation(20)[:size]
        dense[order] = _draw(generator, size, density)
        rows[order] = scipy.sparse.csr_array(dense[order])
        read = generator.permutation(20)[:9]
        np.testing.assert_array_equal(rows[read].toarray(), dense[read])
    assert rows.nnz == np.count_nonzero(dense)


def test_rewriting_rows_does_not_take_more_and_more_room():
    rows = SparseRows(scipy.sparse.csr_array(np.ones((50, 6), np.float32)))
    for _ in range(20):
        rows[np.arange(50)] = scipy.sparse.csr_array(np.ones((50, 6), np.float32))
    assert len(rows._values) <= 3 * rows.nnz
