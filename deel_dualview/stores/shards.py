"""Files of a store on disk: checksummed `.npy` shards, and a manifest with a checksum of its own."""

import dataclasses
import io
import json
import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deel_dualview import _files
from deel_dualview._checks import describe
from deel_dualview.stores.base import HASHES, Block, StoreError
from deel_dualview.stores.text import LENGTHS, pack_texts, unpack_texts

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_PART_NAME = re.compile(r"manifest-worker-\d+\.json")
_SHARD_NAME = re.compile(r"\d{5,}-([^\W\d]\w*(?:\.lengths)?)\.npy")


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """One array of one shard, as it must be found on disk."""

    file: str
    num_bytes: int
    crc32: int
    shape: tuple[int, ...]
    dtype: str


Shard = dict[str, ShardFile]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a store holds: written last, so that what it lists is whole.

    Attributes:
        key: what the vectors depend on besides the examples.
        shards: by name of array, for each shard in order.
        complete: whether the whole dataset is stored.
    """

    key: dict[str, str]
    shards: tuple[Shard, ...] = ()
    complete: bool = False

    def with_shard(self, shard: Shard) -> "Manifest":
        """Return this manifest with one more shard."""
        return dataclasses.replace(self, shards=(*self.shards, shard))


def read_manifest(directory: Path, name: str = MANIFEST) -> Manifest | None:
    """Return the manifest in a directory; None if there is none.

    Raises:
        StoreError: it cannot be read, one bit of it differs from what was written, or it is of another format.
    """
    path = directory / name
    try:
        fields = _files.read_checked_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damaged(directory, f"its {name} cannot be read") from error
    except _files.DamagedFileError as error:
        _refuse_other_version(directory, _version_of(path))
        raise damaged(directory, f"its {name} cannot be read, or was changed") from error
    _refuse_other_version(directory, fields.get("format_version"))
    try:
        shards = tuple(_to_shard(shard) for shard in fields["shards"])
        return Manifest(dict(fields["key"]), shards, bool(fields["complete"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(directory, f"its {name} cannot be read") from error


def write_manifest(directory: Path, manifest: Manifest, name: str = MANIFEST) -> None:
    """Replace the manifest in a directory atomically.

    Raises:
        StoreError: the disk is full or cannot be written to; the previous manifest is whole.
    """
    fields = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    with reporting_failed_writes(directory):
        _files.write_checked_json(directory / name, fields)


def write_shard(directory: Path, number: int, block: Block) -> Shard:
    """Write the arrays of a shard and return what a manifest lists about them.

    Raises:
        StoreError: the disk is full or cannot be written to; what a manifest lists is whole.
    """
    return {
        name: _write_array(directory, f"{number:05d}-{name}.npy", array)
        for name, array in pack_texts(block).items()
    }


def check_shards(directory: Path, manifest: Manifest) -> None:
    """Read every byte that a manifest lists.

    Raises:
        StoreError: a file is missing, truncated, changed, or not the array that it is listed as.
    """
    for file in (file for shard in manifest.shards for file in shard.values()):
        path = directory / file.file
        try:
            # Sizes first: reading a device or a pipe in the place of a file would never end.
            size = path.stat().st_size if path.is_file() else None
            crc32 = _files.record_of(path).crc32 if size == file.num_bytes else None
        except OSError as error:
            raise damaged(directory, f"{file.file} cannot be read") from error
        if size is None:
            raise damaged(directory, f"{file.file} cannot be read: it is missing, or no file")
        if size != file.num_bytes:
            raise damaged(directory, f"{file.file} has {size} bytes where {file.num_bytes} were written")
        if crc32 != file.crc32:
            raise damaged(directory, f"the checksum of {file.file} is not that of what was written")
        _read_array(directory, file)


class StoredShard(Mapping[str, np.ndarray]):
    """The arrays of a shard by name, read when they are looked up: numbers mapped into memory, read-only."""

    def __init__(self, directory: Path, files: Shard):
        self._directory = directory
        self._files = files

    def __getitem__(self, name: str) -> np.ndarray:
        array = _read_array(self._directory, self._files[name])
        lengths = self._files.get(name + LENGTHS)
        if lengths is None:
            return array
        try:
            return unpack_texts(array, _read_array(self._directory, lengths))
        except ValueError as error:
            raise damaged(self._directory, f"{lengths.file}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._files if not name.endswith(LENGTHS))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def map_array(directory: Path, file: ShardFile) -> np.ndarray:
    """Map an array of a store that was checked: quick, without another look at its header.

    Raises:
        StoreError: it is missing, or of another size.
    """
    dtype, count = np.dtype(file.dtype), int(np.prod(file.shape, dtype=np.int64))
    offset = file.num_bytes - dtype.itemsize * count
    try:
        with (directory / file.file).open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        if len(mapped) != file.num_bytes:
            raise ValueError("another size")
        return np.frombuffer(mapped, dtype, count, offset).reshape(file.shape)
    except (OSError, ValueError) as error:
        raise damaged(directory, f"{file.file} changed while it was in use") from error


def part_name(worker: int) -> str:
    """Return the name of the manifest of the shards that a worker of a cluster has written."""
    return f"manifest-worker-{worker}.json"


def part_paths(directory: Path) -> list[Path]:
    """Return the manifests of workers, of which the chief has not yet made one."""
    return sorted(path for path in directory.iterdir() if _PART_NAME.fullmatch(path.name))


def read_parts(directory: Path, key: Mapping[str, str] | None = None) -> dict[int, Shard]:
    """Return the shards that workers have written, by their number.

    Args:
        directory: of the store.
        key: of the manifests that count; all do where it is None.

    Raises:
        StoreError: see `read_manifest`.
    """
    found = [read_manifest(directory, path.name) for path in part_paths(directory)]
    parts = [part.shards for part in found if part is not None and key in (None, part.key)]
    return {int(shard[HASHES].file.partition("-")[0]): shard for shards in parts for shard in shards}


def leftovers(directory: Path, manifest: Manifest) -> list[Path]:
    """Return the files that a killed process left here: of a name that it writes, but not listed.

    A user's own file, of another name or of an array that this store does not have, is none. Nor is what workers of a
    cluster have written, as long as the store is not complete.
    """
    if manifest.complete:
        listed, parts = (
            {file.file for shard in manifest.shards for file in shard.values()},
            part_paths(directory),
        )
    else:
        shards = (*manifest.shards, *read_parts(directory).values())
        listed, parts = {file.file for shard in shards for file in shard.values()}, []
    names = {name for shard in manifest.shards for name in shard}
    return parts + [
        path
        for path in directory.iterdir()
        if (match := _SHARD_NAME.fullmatch(path.name)) and match[1] in names and path.name not in listed
    ]


def damaged(directory: Path, how: str) -> StoreError:
    """Return the error for a store that is not what was written."""
    return StoreError(
        describe(f"The store is damaged: {how}. {remedy(directory)}", {"directory": str(directory)})
    )


def remedy(directory: Path) -> str:
    """Return what to do about a store that cannot be used."""
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


def _version_of(path: Path) -> object:
    """Return the format of a manifest whose checksum is not right; None where that cannot be read."""
    try:
        return json.loads(path.read_bytes())["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        return None


def _refuse_other_version(directory: Path, version: object) -> None:
    if isinstance(version, int) and version != FORMAT_VERSION:
        message = f"The store was written by another version of this library. {remedy(directory)}"
        raise StoreError(describe(message, {"format_version": version, "expected": FORMAT_VERSION}))


def _to_shard(files: dict[str, dict[str, Any]]) -> Shard:
    shard = {
        name: ShardFile(
            str(file["file"]), int(file["num_bytes"]), int(file["crc32"]), tuple(file["shape"]), file["dtype"]
        )
        for name, file in files.items()
    }
    if HASHES not in shard or any(not _SHARD_NAME.fullmatch(file.file) for file in shard.values()):
        raise ValueError("it lists files that no store writes")
    return shard


def _write_array(directory: Path, name: str, array: np.ndarray) -> ShardFile:
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    with reporting_failed_writes(directory):
        content = (header.getvalue(), array.reshape(-1).view(np.uint8).data)
        num_bytes, crc32 = _files.write_file(directory / name, *content)
    return ShardFile(name, num_bytes, crc32, array.shape, array.dtype.str)


def _read_array(directory: Path, file: ShardFile) -> np.ndarray:
    """Map an array, of numbers alone, after its header was compared with the manifest and the file's size."""
    path = directory / file.file
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except Exception as error:  # NumPy's parser of headers raises errors of many classes
        raise damaged(directory, f"{file.file} cannot be read") from error
    found = (array.shape, array.dtype.str, array.offset + array.nbytes)
    if found != (file.shape, file.dtype, size) or size != file.num_bytes:
        raise damaged(directory, f"{file.file} is not the array that was written")
    return array
