"""A store on disk that the workers of a cluster fill together, each with the shards that fall to it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe
from deel_dualview.data import ChangedError
from deel_dualview.models.workers import WorkerError, Workers
from deel_dualview.stores.base import (
    CHECKED,
    HASHES,
    Block,
    Column,
    Compute,
    Store,
    StoredVectors,
    StoreError,
)
from deel_dualview.stores.disk import DiskStore
from deel_dualview.stores.passes import check_length, check_same, compute_runs, read_again
from deel_dualview.stores.shards import (
    Manifest,
    Shard,
    StoredShard,
    part_name,
    read_manifest,
    read_parts,
    write_manifest,
    write_shard,
)


def shared_store(store: Store, workers: Workers | None) -> Store:
    """Return the store itself, or one on disk as the workers of a cluster share it."""
    return store if workers is None or type(store) is not DiskStore else SharedDiskStore(store, workers)


class SharedDiskStore(DiskStore):
    """A `DiskStore` that several processes fill together.

    Every worker reads the whole dataset and computes every N-th of the missing shards, which it lists in a manifest of
    its own. When all have done their part, the chief lists them in the manifest of the store, as a single process
    would. After a failure the next run, of any number of workers, goes on from all shards that were written.

    Args:
        store: whose directory all workers see.
        workers: who must all open the same vectors in the same order.
    """

    def __init__(self, store: DiskStore, workers: Workers) -> None:
        vars(self).update(vars(store))
        self._workers = workers

    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        """Return the vectors of every example of `dataset`; see `Store.open`.

        Raises:
            WorkerError: another worker failed or is lost; the store keeps what was done.
        """
        manifest = self._read(key)
        if manifest is not None and manifest.complete:
            return super().open(key, dataset, compute)
        workers = self._workers
        with ExitStack() as locked, self._keeping_what_was_done():
            with workers.together():
                if workers.is_chief:
                    locked.enter_context(self._locked())
                    if self._read(key) is None:
                        self._start(key)
            # All have read the same state before one of them writes.
            with workers.together():
                part = _Part(self._started(key), self.shard_size, workers)
                part.shards = read_parts(self.directory, part.key)
            with workers.together() as check:
                hashes = self._compute(part, dataset, compute, check)
            with workers.together():
                if workers.is_chief:
                    self._join(part, hashes)
        manifest = self._started(key)
        if not workers.is_chief:
            self._check_same_data(hashes, manifest)
        return self._vectors(manifest)

    def _started(self, key: Mapping[str, str]) -> Manifest:
        manifest = self._read(key)
        if manifest is None:
            message = (
                "All workers must see the same directory, but the chief's store is not in this worker's."
            )
            raise StoreError(describe(message, {"directory": str(self.directory)}))
        return manifest

    def _compute(
        self, part: "_Part", dataset: tf.data.Dataset, compute: Compute, check: Callable[[], None]
    ) -> Block:
        """Compute and write the shards of this worker; return the hashes of all examples."""
        name = part_name(self._workers.index)
        listed = read_manifest(self.directory, name)
        own = listed if listed is not None and listed.key == part.key else Manifest(part.key)
        columns: dict[str, Column] = {}
        waiting: list[Block] = []
        current = part.num_before

        def write() -> None:
            nonlocal own
            if waiting:
                joined = {name: np.concatenate([block[name] for block in waiting]) for name in waiting[0]}
                own = own.with_shard(write_shard(self.directory, current, joined))
                write_manifest(self.directory, own, name)
                waiting.clear()

        for position, block in compute_runs(
            dataset, compute, part.run_of, self.bar(dataset, "Computing vectors")
        ):
            check()
            if part.shard_at(position) != current:
                write()
                current = part.shard_at(position)
            hashes = {name: block[name] for name in CHECKED if name in block}
            columns = columns or {name: Column(0) for name in hashes}
            for column, rows in zip(columns.values(), hashes.values(), strict=True):
                column.append(rows)
            if block.keys() != hashes.keys():
                waiting.append(block)
        write()
        found = {name: column.array() for name, column in columns.items()}
        read_again(dataset, len(found[HASHES]))
        return found

    def _join(self, part: "_Part", hashes: Block) -> None:
        """List the shards of all workers, in order, in the manifest of the store."""
        written = read_parts(self.directory, part.key)
        shards = (*part.before.shards, *(written[number] for number in sorted(written)))
        manifest = Manifest(part.before.key, shards, complete=True)
        self._check_same_data(hashes, manifest)
        write_manifest(self.directory, manifest)
        self._clean(manifest)

    def _check_same_data(self, hashes: Block, manifest: Manifest) -> None:
        """Refuse shards that are not those of the examples that this worker has read."""
        start = 0
        try:
            for shard in manifest.shards:
                stored = StoredShard(self.directory, shard)
                known = {name: stored[name] for name in CHECKED if name in stored}
                stop = start + len(known[HASHES])
                check_same({name: rows[start:stop] for name, rows in hashes.items()}, known, start)
                start = stop
            check_length(len(hashes[HASHES]), start)
        except ChangedError as error:
            raise StoreError(
                "The workers read different training sets, of which a store holds one: give all of them the same files "
                f"and options, and a store of another directory. {error}"
            ) from error

    @contextmanager
    def _keeping_what_was_done(self) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            message = "The store keeps what was written: start all workers again, and they go on from there."
            raise WorkerError(describe(f"{error} {message}", {"directory": str(self.directory)})) from error


class _Part:
    """Which shards one worker computes: every N-th of those that nobody has written.

    Args:
        before: manifest of the shards that a single process has written.
        shard_size: examples of each of the others.
        workers: of the cluster.
    """

    def __init__(self, before: Manifest, shard_size: int, workers: Workers) -> None:
        self.before, self._size, self._workers = before, shard_size, workers
        self.num_before = len(before.shards)
        self._first = sum(shard[HASHES].shape[0] for shard in before.shards)
        # Shards of another size, or after others, are other shards.
        self.key = {**before.key, "shard_size": str(shard_size), "first_example": str(self._first)}
        self.shards: Mapping[int, Shard] = {}
        self._missing: dict[int, int] = {}

    def shard_at(self, position: int) -> int:
        """Return the number of the shard of an example; one too small for those before."""
        return self.num_before + (position - self._first) // self._size

    def run_of(self, position: int) -> tuple[float, bool]:
        """Return where the shard of an example ends, and whether this worker computes it."""
        if position < self._first:
            return self._first, False
        number = self.shard_at(position)
        end = self._first + (number - self.num_before + 1) * self._size
        if number in self.shards:
            return end, False
        rank = self._missing.setdefault(number, len(self._missing))
        return end, rank % self._workers.number == self._workers.index
