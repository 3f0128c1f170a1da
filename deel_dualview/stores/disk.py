"""Vectors kept on disk: atomic, checked against model and data, resumed after an interruption."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import _files
from deel_dualview._checks import check_count, describe, require
from deel_dualview.data import ChangedError
from deel_dualview.stores.base import (
    HASHES,
    Block,
    Compute,
    Store,
    StoredVectors,
    StoreError,
    checked_arrays,
)
from deel_dualview.stores.passes import check_examples, compute_blocks, read_again
from deel_dualview.stores.shards import (
    Manifest,
    StoredShard,
    check_shards,
    leftovers,
    map_array,
    part_paths,
    read_manifest,
    read_parts,
    remedy,
    reporting_failed_writes,
    write_manifest,
    write_shard,
)
from deel_dualview.stores.text import LENGTHS

_LOCK, _NOT_SET = ".lock", "(as usual)"
SHARD_SIZE = 8192


class StoreDescription(NamedTuple):
    """What a store on disk holds.

    Attributes:
        key: what its vectors depend on besides the examples.
        arrays: for each name the shape of an example's entry, and the dtype: (512, "float32").
        num_examples: n, so far.
        num_shards: files of each array.
        num_bytes: of all arrays.
        is_complete: whether the whole dataset is stored; else opening it computes the rest.
        num_waiting: shards that workers of a cluster have written, which opening it lists.
        num_fits: fits to the vectors, ended or interrupted, that the next one of the same settings goes on from.
        fit_bytes: of their files.
    """

    key: dict[str, str]
    arrays: dict[str, tuple[int | str, ...]]
    num_examples: int
    num_shards: int
    num_bytes: int
    is_complete: bool
    num_waiting: int
    num_fits: int
    fit_bytes: int


class DiskStore(Store):
    """Keeps the vectors of one model and dataset in a directory, in shards read by memory mapping.

    An interrupted computation (Ctrl-C, a killed process, a full disk, an error of the dataset) goes on from
    the last complete shard when opened again. What is stored is never taken for something else: key,
    examples, their ids and the checksums of all files are compared, and differences refused.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        shard_size: int = SHARD_SIZE,
        progress: bool = True,
        memory_budget: int | None = None,
        half_precision: bool = False,
    ):
        """Create a store; nothing is read or written until it is opened.

        Args:
            directory: made if missing; if not empty it must hold a store.
            shard_size: examples per shard: at most so many are computed again after an interruption.
            progress: see `Store`.
            memory_budget: see `Store`.
            half_precision: see `Store`.
        """
        super().__init__(progress=progress, memory_budget=memory_budget, half_precision=half_precision)
        self.directory = Path(directory)
        self.shard_size = check_count("shard_size", shard_size)

    @property
    def fits(self) -> Path:
        return self.directory / "fits"

    def describe(self) -> "StoreDescription":
        """Return what the store holds, by its manifest: no array is read.

        Raises:
            FileNotFoundError: the directory holds no store.
            StoreError: its manifest is damaged, or of another version.
        """
        manifest = self._manifest()
        arrays = {
            name: (*array.shape[1:], array.dtype.name)
            for name, array in (
                StoredShard(self.directory, manifest.shards[0]) if manifest.shards else {}
            ).items()
        }
        stored, fits = _OnDisk(self.directory, manifest), list(self.fits.glob("fit-*.npz"))
        return StoreDescription(
            key=dict(manifest.key),
            arrays=arrays,
            num_examples=len(stored),
            num_shards=len(manifest.shards),
            num_bytes=stored.num_bytes,
            is_complete=manifest.complete,
            num_waiting=0 if manifest.complete else len(read_parts(self.directory, manifest.key)),
            num_fits=len(fits),
            fit_bytes=sum(path.stat().st_size for path in fits),
        )

    def verify(self) -> None:
        """Read every byte of the store and compare it with the checksums that were written.

        Raises:
            FileNotFoundError: the directory holds no store.
            StoreError: a file is missing or damaged.
        """
        check_shards(self.directory, self._manifest())

    def clean(self) -> list[Path]:
        """Delete what killed writers left in the directory, and nothing else; return the deleted files.

        Raises:
            FileNotFoundError: the directory holds no store.
            StoreError: another process is writing to it, or files cannot be deleted.
        """
        self._manifest()
        with self._locked():
            return self._clean(self._manifest())

    def _manifest(self) -> Manifest:
        self._check_directory()
        manifest = read_manifest(self.directory)
        if manifest is None:
            raise FileNotFoundError(
                describe("This directory holds no store.", {"directory": str(self.directory)})
            )
        return manifest

    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        """Return the vectors of every example of `dataset`; see `Store.open`."""
        manifest = self._read(key)
        if manifest is None or not manifest.complete:
            with self._locked():
                manifest = self._read(key)  # another process may have completed it meanwhile
                if manifest is None or not manifest.complete:
                    return self._complete(manifest or self._start(key), dataset, compute)
        vectors = self._vectors(manifest)
        with self._naming_directory():
            check_examples(dataset, checked_arrays(vectors), self.bar(dataset, "Checking stored vectors"))
        return vectors

    def _read(self, key: Mapping[str, str]) -> Manifest | None:
        self._check_directory()
        manifest = read_manifest(self.directory)
        if manifest is None:
            self._refuse_other_files()
            return None
        if manifest.key != dict(key):
            raise self._foreign(manifest.key, key)
        check_shards(self.directory, manifest)
        return manifest

    def _check_directory(self) -> None:
        """Refuse a path that leads nowhere: one with a NUL, a loop of links, a name too long, no right to enter."""
        try:
            self.directory.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError) as error:
            message = f"This directory cannot be used: {getattr(error, 'strerror', None) or error}. Give another one."
            raise StoreError(describe(message, {"directory": str(self.directory)})) from error

    def _foreign(self, stored: Mapping[str, str], key: Mapping[str, str]) -> StoreError:
        names = sorted(name for name in {*stored, *key} if stored.get(name) != key.get(name))
        received = {name: key.get(name, _NOT_SET) for name in names}
        received |= {f"stored {name}": stored.get(name, _NOT_SET) for name in names}
        others = ", ".join("other examples" if name == "examples" else f"another {name}" for name in names)
        message = f"The store holds vectors of {others}. {remedy(self.directory)}"
        return StoreError(describe(message, received))

    def _refuse_other_files(self) -> None:
        if self.directory.exists() and not self.directory.is_dir():
            message = "A store is a directory, not a file: give another one."
            raise StoreError(describe(message, {"directory": str(self.directory)}))
        names = [path.name for path in self.directory.glob("*")]
        others = [name for name in names if name != _LOCK and not _files.is_unfinished(name)]
        if others:
            message = "A store needs a directory of its own: give an empty or new one."
            raise StoreError(describe(message, {"directory": str(self.directory), "files": sorted(others)}))

    def _start(self, key: Mapping[str, str]) -> Manifest:
        manifest = Manifest(dict(key))
        write_manifest(self.directory, manifest)
        return manifest

    def _complete(self, manifest: Manifest, dataset: tf.data.Dataset, compute: Compute) -> "_OnDisk":
        """Compute and write the shards that are missing."""
        self._forget_workers()
        self._clean(manifest)
        stored = _OnDisk(self.directory, manifest)
        known = checked_arrays(stored) if manifest.shards else {}
        with self._naming_directory():
            blocks = compute_blocks(dataset, compute, known, self.bar(dataset, "Computing vectors"))
            for block in _resize(blocks, self.shard_size):
                manifest = manifest.with_shard(write_shard(self.directory, len(manifest.shards), block))
                write_manifest(self.directory, manifest)
            read_again(dataset, len(_OnDisk(self.directory, manifest)))
        manifest = Manifest(manifest.key, manifest.shards, complete=True)
        write_manifest(self.directory, manifest)
        return self._vectors(manifest)

    def _vectors(self, manifest: Manifest) -> "_OnDisk":
        """Return the vectors of a complete store."""
        return _OnDisk(self.directory, manifest, self.memory_budget)

    def _forget_workers(self) -> None:
        """Delete the manifests of a cluster that was interrupted: a single process numbers its shards otherwise."""
        with reporting_failed_writes(self.directory):
            for path in part_paths(self.directory):
                path.unlink()

    def _clean(self, manifest: Manifest) -> list[Path]:
        """Delete what a killed process left behind, and nothing else; return what was deleted."""
        with reporting_failed_writes(self.directory):
            before = set(self.directory.iterdir())
            _files.remove_unfinished(self.directory)
            for path in leftovers(self.directory, manifest):
                path.unlink()
            return sorted(before - set(self.directory.iterdir()))

    @contextmanager
    def _naming_directory(self) -> Iterator[None]:
        """Say which store it is that the examples disagree with."""
        try:
            yield
        except ChangedError as error:
            message = f"The store holds vectors of other data. {remedy(self.directory)} {error}"
            raise StoreError(message) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory against other writers."""
        with ExitStack() as stack:
            with reporting_failed_writes(self.directory):
                stack.enter_context(_files.locked(self.directory / _LOCK, self._refuse_two_writers))
            yield

    def _refuse_two_writers(self) -> None:
        message = "Another process is writing this store: wait until it ends, or use another one."
        raise StoreError(describe(message, {"directory": str(self.directory)}))


class _OnDisk(StoredVectors):
    def __init__(self, directory: Path, manifest: Manifest, memory_budget: int | None = None):
        self._directory = directory
        self._shards = manifest.shards
        self.memory_budget = memory_budget

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> np.ndarray:
        """Number of examples before each shard, and of all."""
        return np.cumsum([0, *(shard[HASHES].shape[0] for shard in self._shards)])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(StoredShard(self._directory, self._shards[0]))

    def __iter__(self) -> Iterator[Block]:
        return (StoredShard(self._directory, shard) for shard in self._shards)

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for shard in self._shards for file in shard.values())

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        first = self._shards[0][name]
        if name + LENGTHS in self._shards[0]:
            return super().rows(name, positions)
        found = np.empty((len(positions), *first.shape[1:]), first.dtype)
        bounds = np.searchsorted(positions, self._starts)
        for number in np.flatnonzero(np.diff(bounds)):
            part = slice(bounds[number], bounds[number + 1])
            # Mapped for as long as it is read: what is mapped counts as this process's memory.
            array = map_array(self._directory, self._shards[number][name])
            np.take(array, positions[part] - self._starts[number], axis=0, out=found[part], mode="clip")
        return found


class TemporaryVectors(_OnDisk):
    """Vectors in shards of a temporary directory, which is deleted with this object.

    Args:
        blocks: of vectors.
        memory_budget: see `StoredVectors`.
    """

    def __init__(self, blocks: Iterator[Block], memory_budget: int | None) -> None:
        check_temporary_directory()
        directory, manifest = Path(tempfile.mkdtemp(prefix="deel-dualview-")), Manifest({})
        # Also when the interpreter ends.
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        for block in _resize(blocks, SHARD_SIZE):
            with reporting_full_temporary_directory():
                manifest = manifest.with_shard(write_shard(directory, len(manifest.shards), block))
        super().__init__(directory, manifest, memory_budget)


def check_temporary_directory() -> None:
    """Refuse a TMPDIR that is no directory.

    Raises:
        ValueError: it is none.
    """
    named = os.environ.get("TMPDIR")
    require(
        not named or Path(named).is_dir(),
        "Vectors beyond the memory budget go to a temporary directory, but TMPDIR names none.",
        {"TMPDIR": named},
    )


@contextmanager
def reporting_full_temporary_directory() -> Iterator[None]:
    """Turn errors of writing to the temporary directory into a `StoreError` that says what to do."""
    try:
        yield
    except (OSError, StoreError) as error:
        raise StoreError(
            f"Vectors beyond the memory budget go to {tempfile.gettempdir()}, which does not take them "
            f"({error.__cause__ or error}): set TMPDIR to a directory on a larger disk, or give "
            "DiskStore(directory, memory_budget=...)."
        ) from error


def _resize(blocks: Iterator[Block], size: int) -> Iterator[Block]:
    """Yield the same rows in blocks of `size`, and a last one of what is left."""
    waiting: list[Block] = []
    num_waiting = 0
    for block in blocks:
        waiting.append(block)
        num_waiting += len(block[HASHES])
        while num_waiting >= size:
            joined = _join(waiting)
            yield {name: array[:size] for name, array in joined.items()}
            waiting, num_waiting = (
                [{name: array[size:] for name, array in joined.items()}],
                num_waiting - size,
            )
    if num_waiting:
        yield _join(waiting)


def _join(blocks: list[Block]) -> Block:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
