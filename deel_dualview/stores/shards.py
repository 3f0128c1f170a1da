"""Files of a store on disk: checksummed `.npy` shards, written aside and renamed, and their manifest."""

import dataclasses
import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deel_dualview._checks import describe
from deel_dualview.stores.base import Block, StoreError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PARTIAL = ".partial"
_READ_SIZE = 1 << 20


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """One array of one shard, as it must be found on disk."""

    file: str
    num_bytes: int
    crc32: int
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a store holds: written last, so that what it lists is whole.

    Attributes:
        key: what the vectors depend on besides the examples.
        shards: by name of array, for each shard in order.
        complete: whether the whole dataset is stored.
    """

    key: dict[str, str]
    shards: tuple[dict[str, ShardFile], ...] = ()
    complete: bool = False

    def with_shard(self, shard: dict[str, ShardFile]) -> "Manifest":
        """Return this manifest with one more shard."""
        return dataclasses.replace(self, shards=(*self.shards, shard))


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest in a directory; None if there is none.

    Raises:
        StoreError: it cannot be read, or is of another format.
    """
    try:
        fields = json.loads((directory / MANIFEST).read_bytes())
        if fields["format_version"] == FORMAT_VERSION:
            shards = tuple(_to_shard(shard) for shard in fields["shards"])
            return Manifest(dict(fields["key"]), shards, bool(fields["complete"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(directory, f"its {MANIFEST} cannot be read") from error
    raise StoreError(
        describe(
            f"The store was written by another version of this library. {remedy(directory)}",
            {"format_version": fields["format_version"], "expected": FORMAT_VERSION},
        )
    )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest in a directory, all at once.

    Raises:
        StoreError: the disk is full or cannot be written to; the previous manifest is whole.
    """
    fields = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    _write_aside(directory / MANIFEST, json.dumps(fields, indent=1).encode())


def write_shard(directory: Path, number: int, block: Block) -> dict[str, ShardFile]:
    """Write the arrays of a shard and return what a manifest lists about them.

    Raises:
        StoreError: the disk is full or cannot be written to; what a manifest lists is whole.
    """
    return {name: _write_array(directory, f"{number:05d}-{name}.npy", array) for name, array in block.items()}


def check_shards(directory: Path, manifest: Manifest) -> None:
    """Read every byte that a manifest lists.

    Raises:
        StoreError: a file is missing, truncated or changed.
    """
    for file in (file for shard in manifest.shards for file in shard.values()):
        path = directory / file.file
        try:
            size, crc32 = path.stat().st_size, _crc32_of_file(path)
        except OSError as error:
            raise damaged(directory, f"{file.file} cannot be read") from error
        if size != file.num_bytes:
            raise damaged(directory, f"{file.file} has {size} bytes where {file.num_bytes} were written")
        if crc32 != file.crc32:
            raise damaged(directory, f"the checksum of {file.file} is not that of what was written")


def read_shard(directory: Path, shard: dict[str, ShardFile]) -> Block:
    """Return the arrays of a shard, mapped into memory read-only.

    Raises:
        StoreError: a file is missing or not an array.
    """
    try:
        return {name: np.load(directory / file.file, mmap_mode="r") for name, file in shard.items()}
    except (OSError, ValueError) as error:
        raise damaged(directory, "a shard cannot be read") from error


def damaged(directory: Path, how: str) -> StoreError:
    """Return the error for a store that is not what was written."""
    return StoreError(
        describe(f"The store is damaged: {how}. {remedy(directory)}", {"directory": str(directory)})
    )


def remedy(directory: Path) -> str:
    """Return how to mend a store that cannot be used."""
    return f"Use another directory, or delete {str(directory)!r} to compute its vectors again."


@contextmanager
def reporting_failed_writes(directory: Path) -> Iterator[None]:
    """Turn errors of the file system into a `StoreError` that says what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        message = (
            f"The store cannot be written: {error.strerror or error}. What it held before is whole. Make "
            "room or allow writing there, and the work goes on from the last complete shard; or use another "
            "directory."
        )
        raise StoreError(describe(message, {"directory": str(directory)})) from error


def _to_shard(files: dict[str, dict[str, Any]]) -> dict[str, ShardFile]:
    return {
        name: ShardFile(file["file"], file["num_bytes"], file["crc32"], tuple(file["shape"]))
        for name, file in files.items()
    }


def _write_array(directory: Path, name: str, array: np.ndarray) -> ShardFile:
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    content = (header.getvalue(), array.reshape(-1).view(np.uint8).data)
    num_bytes, crc32 = _write_aside(directory / name, *content)
    return ShardFile(name, num_bytes, crc32, array.shape)


def _write_aside(path: Path, *content: bytes | memoryview) -> tuple[int, int]:
    """Write a file that is seen either as before (or not at all) or whole, even after a power cut."""
    aside = path.with_name(path.name + PARTIAL)
    num_bytes = crc32 = 0
    with reporting_failed_writes(path.parent):
        try:
            with aside.open("wb") as file:
                for part in content:
                    file.write(part)
                    num_bytes, crc32 = num_bytes + len(part), zlib.crc32(part, crc32)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync_directory(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    return num_bytes, crc32


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _crc32_of_file(path: Path) -> int:
    crc32 = 0
    with path.open("rb") as file:
        while part := file.read(_READ_SIZE):
            crc32 = zlib.crc32(part, crc32)
    return crc32
