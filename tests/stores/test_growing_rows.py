"""Rows that are appended, in memory or in a temporary file, and the shares of a memory budget."""

import numpy as np
import pytest

from deel_dualview import DiskStore, MemoryStore
from deel_dualview.stores import StoreError, growing
from deel_dualview.stores.budget import MemoryShares
from deel_dualview.stores.growing import GrowingRows

ROWS = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(growing, "_ROWS_OF_A_PART", 64)


def grown(most_bytes, batches):
    rows = GrowingRows(most_bytes)
    for batch in batches:
        rows.append(batch)
    return rows


@pytest.mark.parametrize("most_bytes", [None, 1, 4000, 100_000])
@pytest.mark.parametrize(
    "positions",
    [slice(None), slice(60, 70), slice(5, 250, 3), np.array([299, 0, 64, 63, 0]), np.array([], int)],
)
def test_rows_are_those_that_were_appended(most_bytes, positions):
    rows = grown(most_bytes, np.array_split(ROWS, 11))
    assert rows.shape == (300, 7)
    np.testing.assert_array_equal(rows[positions], ROWS[positions], strict=True)


@pytest.mark.parametrize(("most_bytes", "is_array"), [(None, True), (100_000, True), (4000, False)])
def test_rows_beyond_the_limit_are_no_array(most_bytes, is_array):
    found = grown(most_bytes, np.array_split(ROWS, 11)).in_memory()
    assert isinstance(found, np.ndarray) == is_array
    np.testing.assert_array_equal(found[:], ROWS)


def test_rows_can_be_read_and_appended_in_turn():
    rows = grown(1000, [ROWS[:100]])
    assert len(rows[:]) == 100
    rows.append(ROWS[100:])
    np.testing.assert_array_equal(rows[95:105], ROWS[95:105])


@pytest.mark.parametrize("most_bytes", [None, 1])
def test_shorter_rows_are_filled_up_with_zeros(most_bytes):
    rows = grown(most_bytes, [ROWS[:100, :3], ROWS[100:200], ROWS[200:, :5]])
    expected = ROWS.copy()
    expected[:100, 3:], expected[200:, 5:] = 0, 0
    np.testing.assert_array_equal(rows[:], expected)
    np.testing.assert_array_equal(rows[np.array([250, 3])], expected[[250, 3]])


def test_the_temporary_file_leaves_nothing_behind(tmp_path):
    rows = grown(1, [ROWS])
    assert len(rows[:]) == 300
    del rows
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_no_more_is_named(monkeypatch):
    def full(**_):
        return open("/dev/full", "r+b", buffering=0)  # noqa: SIM115 (it takes no byte)

    monkeypatch.setattr(growing.tempfile, "TemporaryFile", full)
    with pytest.raises(StoreError, match="set TMPDIR to a directory on a larger disk"):
        grown(1, [ROWS])


def test_a_temporary_directory_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(ValueError, match="TMPDIR names none"):
        grown(1, [ROWS])


def test_the_shares_of_a_budget_make_no_more_than_it():
    shares = MemoryShares.of(2e9)
    assert shares.store + shares.inputs + shares.block <= 2e9
    assert MemoryShares.of(None) == (None, None, None)
    assert min(MemoryShares.of(1)) == 1


def test_a_store_with_a_budget_keeps_it_and_another_one_gets_its_share(tmp_path):
    shares, own, other = MemoryShares.of(1000), MemoryStore(memory_budget=7), DiskStore(tmp_path / "a")
    assert shares.limited(own, progress=False) is own
    assert shares.limited(other, progress=False).memory_budget == shares.store
    assert other.memory_budget is None
    assert shares.limited(None, progress=False).memory_budget == shares.store


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (1.5, ValueError), ("2GB", TypeError), (True, TypeError)]
)
def test_a_budget_is_a_whole_number_of_bytes(value, error):
    for use in (MemoryShares.of, lambda budget: MemoryStore(memory_budget=budget)):
        with pytest.raises(error, match="memory_budget"):
            use(value)


def test_a_budget_may_be_written_with_an_exponent():
    assert MemoryStore(memory_budget=2e9).memory_budget == 2_000_000_000
    assert MemoryStore(memory_budget=np.float32(5e4)).memory_budget == 50_000
