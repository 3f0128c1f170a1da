"""Content hashes of rows."""

import time

import numpy as np
import pytest

from deel_dualview.data.hashing import hash_rows

DTYPES = ["uint8", "int32", "int64", "float16", "float32", "float64", "bool", "S3", "U3"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (0,), (4100, 2)], ids=str)
def test_a_row_alone_has_the_hash_it_has_in_a_batch(rng, dtype, shape):
    rows = rng.integers(0, 9, (5, *shape)).astype(dtype)
    alone = np.concatenate([hash_rows(rows[row : row + 1]) for row in range(5)])
    np.testing.assert_array_equal(alone, hash_rows(rows))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 784, 40_000])
def test_every_byte_counts(rng, width):
    row = rng.integers(0, 255, width, dtype=np.uint8)
    places = np.unique(np.linspace(0, width - 1, 50).astype(int))
    changed = np.repeat(row[None], len(places) + 1, axis=0)
    changed[np.arange(len(places)), places] += 1
    assert len(np.unique(hash_rows(changed))) == len(places) + 1


def test_positions_count():
    rows = np.eye(300, dtype=np.float32)
    assert len(np.unique(hash_rows(rows))) == 300


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_even_number_of_flipped_signs_counts(rng, dtype):
    row = rng.standard_normal(64).astype(dtype)
    flips = np.ones((64, 64), dtype)
    for count in range(64):
        flips[count, :count] = -1
    assert len(np.unique(hash_rows(row * flips))) == 64


def test_similar_images_do_not_collide():
    """All images of at most two bright pixels: what a weak hash confuses first."""
    first, second = np.triu_indices(200)
    rows = np.zeros((len(first), 200), np.uint8)
    rows[np.arange(len(first)), first] = 255
    rows[np.arange(len(first)), second] = 255
    assert len(np.unique(hash_rows(rows))) == len(rows)


def test_dtype_and_shape_count():
    zeros = [np.zeros((1, 4), np.float32), np.zeros((1, 2, 2), np.float32), np.zeros((1, 4), np.int32)]
    assert len({int(hash_rows(array)[0]) for array in zeros}) == 3


def test_text_is_told_apart_by_contents_and_by_cuts():
    texts = np.array([[b"ab", b"c"], [b"a", b"bc"], [b"ab", b"d"]], object)
    assert len(np.unique(hash_rows(texts))) == 3


def test_text_hashes_alike_in_every_representation():
    hashes = [hash_rows(np.array(["ab", "c"], dtype)) for dtype in ("U2", "U9", "S2", object)]
    assert all(np.array_equal(hashes[0], other) for other in hashes[1:])


def test_arrays_that_are_not_contiguous_hash_by_their_values(rng):
    rows = rng.standard_normal((6, 8)).astype(np.float32)
    np.testing.assert_array_equal(hash_rows(rows[::2, ::2]), hash_rows(rows[::2, ::2].copy()))


def test_hashes_do_not_change_between_versions():
    """Stores on disk hold them: a change needs a new format version."""
    hashes = hash_rows(np.arange(6, dtype=np.int32).reshape(2, 3))
    np.testing.assert_array_equal(hashes, np.array([16355347001618363769, 8582746353148721237], np.uint64))


def test_a_gigabyte_takes_a_few_seconds_at_most(rng):
    """Measured: 3 GB/s; the bound leaves room for a busy machine."""
    rows = rng.integers(0, 255, (60_000, 784), dtype=np.uint8)
    start = time.process_time()
    hash_rows(rows)
    assert rows.nbytes / (time.process_time() - start) > 2e8
