"""Files are whole or not there, and JSON with a checksum is what was written or an error."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from deel_dualview import _files

CONTENT = {"format": 1, "shape": [3, 2], "key": {"a": "ä", "b": None}, "rate": 0.1}


def test_checked_json_comes_back_as_it_was_and_is_json_for_any_reader(tmp_path):
    _files.write_checked_json(tmp_path / "a.json", CONTENT)
    assert _files.read_checked_json(tmp_path / "a.json") == CONTENT
    plain = json.loads((tmp_path / "a.json").read_text())
    assert len(plain.pop("sha256")) == 64
    assert plain == CONTENT


def test_every_flipped_bit_of_checked_json_is_an_error_of_one_class(tmp_path):
    path = tmp_path / "a.json"
    _files.write_checked_json(path, CONTENT)
    whole = path.read_bytes()
    accepted = []
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            _files.read_checked_json(path)
            accepted.append(bit)
        except _files.DamagedFileError:
            pass
    assert not accepted


@pytest.mark.parametrize(
    "found", [b"", b"{}", b"[]", b"\x00\xff", b"{\n" * 9, b'{"format": 1}', b'{"sha256": 7}']
)
def test_a_file_that_was_not_written_here_is_an_error(tmp_path, found):
    (tmp_path / "a.json").write_bytes(found)
    with pytest.raises(_files.DamagedFileError, match=r"a\.json"):
        _files.read_checked_json(tmp_path / "a.json")


def test_a_truncated_or_longer_file_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    _files.write_checked_json(path, CONTENT)
    whole = path.read_bytes()
    for found in [*(whole[:end] for end in range(len(whole))), whole + b"\n", whole + b" ", whole + whole]:
        path.write_bytes(found)
        with pytest.raises(_files.DamagedFileError):
            _files.read_checked_json(path)


def test_a_checksum_of_a_written_file_is_that_of_the_file_read(tmp_path):
    parts = [b"head", memoryview(np.arange(999, dtype=np.uint8)), b""]
    written = _files.write_file(tmp_path / "a", *parts)
    assert written == _files.record_of(tmp_path / "a")
    assert written.num_bytes == 4 + (tmp_path / "a").stat().st_size - 4 == 4 + 999
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    _files.write_file(tmp_path / "a", b"earlier")
    with pytest.raises(OSError, match="full"), _files.written_aside(tmp_path / "a") as aside:
        aside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")
    assert (tmp_path / "a").read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no largest file of a process")
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk_is_named_and_what_was_there_before_stays(tmp_path, kind):
    import resource

    path = tmp_path / "a"
    write = _files.written_aside if kind == "file" else _files.replaced_directory
    with write(path) as aside:
        (aside if kind == "file" else aside / "page").write_bytes(b"earlier")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(OSError, match=re.escape(f"File too large: {str(path)!r}")), write(path) as aside:
            (aside if kind == "file" else aside / "page").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert (path if kind == "file" else path / "page").read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["a"]


def test_only_files_of_killed_writers_are_removed(tmp_path):
    code = "import os, pathlib, sys, deel_dualview._files as f\nwith f.written_aside(pathlib.Path(sys.argv[1])) as a:"
    code += "\n a.write_bytes(b'half')\n os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], check=False)
    (left,) = os.listdir(tmp_path)
    assert _files.is_unfinished(left)
    kept = [
        "a.npy",
        ".dualview-unfinished-a.npy",
        ".dualview-unfinished--a.npy",
        "unfinished-1-a.npy",
        f".dualview-unfinished-{os.getppid()}-b",
    ]
    for name in kept:
        (tmp_path / name).write_text("of the user, or of a process that runs")
    _files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
