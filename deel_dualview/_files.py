"""Files that are seen whole or not at all, and JSON that carries a checksum of its own."""

import errno
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

_OWN = re.compile(r"\.dualview-(unfinished|rehearsed|replaced)-(\d+)-(.+)", re.DOTALL)
_READ_SIZE = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DamagedFileError(ValueError):
    """A file is not what was written: damaged, edited by hand, or of another version or program."""


class FileRecord(NamedTuple):
    """Size in bytes and checksum (CRC-32) of the content of a file."""

    num_bytes: int
    crc32: int


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield where to write a file, which takes the name `path` when the block ends without an error.

    The file is seen either as before (or not at all) or whole, even after a power cut. The yielded name ends
    as `path` does; a killed process leaves it behind, for `remove_unfinished`.
    """
    aside = _beside(path, "unfinished")
    try:
        with _naming_where_room_ends(path):
            yield aside
        _sync(aside)
        os.replace(aside, path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_file(path: Path, *content: bytes | memoryview) -> FileRecord:
    """Write a file, whole or not at all, and return its size and checksum.

    Raises:
        OSError: the disk is full or cannot be written to; an earlier file is as it was.
    """
    num_bytes = crc32 = 0
    with written_aside(path) as aside, aside.open("wb") as file:
        for part in content:
            file.write(part)
            num_bytes, crc32 = num_bytes + len(part), zlib.crc32(part, crc32)
    return FileRecord(num_bytes, crc32)


def record_of(path: Path) -> FileRecord:
    """Read a file and return its size and checksum.

    Raises:
        OSError: it cannot be read.
    """
    num_bytes = crc32 = 0
    with path.open("rb") as file:
        while part := file.read(_READ_SIZE):
            num_bytes, crc32 = num_bytes + len(part), zlib.crc32(part, crc32)
    return FileRecord(num_bytes, crc32)


def write_checked_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object that is not empty, with a first entry `sha256`, whole or not at all.

    The checksum is that of all bytes after its line: `tail -n +3 FILE | sha256sum`.

    Raises:
        OSError: the disk is full or cannot be written to; an earlier file is as it was.
        ValueError: a number that is not finite.
    """
    body = json.dumps(content, indent=1, allow_nan=False).removeprefix("{\n").encode("ascii") + b"\n"
    write_file(path, _head(body), body)


def read_checked_json(path: Path) -> dict[str, Any]:
    """Return what `write_checked_json` wrote.

    Raises:
        OSError: the file cannot be read, or does not exist.
        DamagedFileError: one bit differs from what was written, or no checksum was.
    """
    found = path.read_bytes()
    body = found.split(b"\n", 2)[-1]
    if found != _head(body) + body:
        written = b'"sha256"' in found
        reason = "its checksum is not that of what was written" if written else "it has no checksum"
        raise DamagedFileError(f"{path.name} is damaged, or was changed by hand: {reason}.")
    content: dict[str, Any] = json.loads(b"{\n" + body)
    return content


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory, which takes the name `path` when the block ends without an error.

    After an error, the earlier directory is as it was; after a kill, `recover_directory` brings it back.
    """
    aside = _beside(path, "unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir()
    try:
        with _naming_where_room_ends(path):
            yield aside
        _swap(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def rehearse_directory(path: Path) -> None:
    """Make, rename and remove a directory beside `path`, as `replaced_directory` does, and rename `path` to and fro.

    Raises:
        OSError: one of these cannot be done; everything is as it was.
    """
    aside, renamed = _beside(path, "unfinished"), _beside(path, "rehearsed")
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        (aside / "file").touch()
        aside.rename(renamed)
        if path.exists():
            retired = _beside(path, "replaced")
            path.rename(retired)
            retired.rename(path)
        shutil.rmtree(renamed)
    finally:
        for left in (aside, renamed):
            shutil.rmtree(left, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def locked(path: Path, when_taken: Callable[[], object]) -> Iterator[None]:
    """Hold a lock file against other processes; that of a killed one is free.

    Args:
        path: of the lock file, which may stay behind.
        when_taken: called where another process holds it; unless it raises, that process is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        when_taken()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def refusals_as(error_for: Callable[[str], Exception]) -> Iterator[None]:
    """Raise what `error_for` makes of the reason where the file system refuses something inside the block.

    A `NotADirectoryError` goes through: it is what these errors are.
    """
    try:
        yield
    except NotADirectoryError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        # Python gives a ValueError for a NUL in a path, and may give a RuntimeError for a loop of links.
        raise error_for(str(getattr(error, "strerror", None) or error)) from error


def recover_directory(path: Path) -> None:
    """Undo what a killed process left of `replaced_directory`: unfinished files go, an earlier directory comes back."""
    for left, kind, name in _left_behind(path.parent):
        if name != path.name:
            continue
        if kind == "replaced" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def is_unfinished(name: str) -> bool:
    """Return whether a file or folder has a name that this module gives while it writes."""
    return _OWN.fullmatch(name) is not None


def remove_unfinished(directory: Path) -> None:
    """Delete the files in a directory that writers left behind when their process was killed."""
    for left, kind, _ in _left_behind(directory):
        if kind == "replaced":
            continue
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def is_running(process: int) -> bool:
    """Return whether another process of that number runs on this machine (on POSIX; else False)."""
    if os.name != "posix" or process == os.getpid():
        return False  # a name with our own number is of an earlier process that had the same one
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process > 0


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".dualview-{what}-{os.getpid()}-{path.name}")


def _swap(aside: Path, path: Path) -> None:
    """Give a directory the name of another, which is deleted; or neither."""
    if not path.exists():
        aside.rename(path)
        return
    retired = _beside(path, "replaced")
    path.rename(retired)
    try:
        aside.rename(path)
    except BaseException:
        retired.rename(path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _left_behind(directory: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, kind, name) of what processes that have ended left in a directory under our names."""
    for path in list(directory.glob(".dualview-*")):
        match = _OWN.fullmatch(path.name)
        if match and not is_running(int(match[2])):
            yield path, match[1], match[3]


@contextmanager
def _naming_where_room_ends(path: Path) -> Iterator[None]:
    """Name the file or directory in an error of a full disk, which says nothing of a place."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            error.filename = str(path)
        raise


def _head(body: bytes) -> bytes:
    return f'{{\n "sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode("ascii")


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
