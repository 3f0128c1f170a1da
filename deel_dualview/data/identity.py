"""Hashes of the first pass over a dataset, with which every later pass is compared."""

import threading
import weakref

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe

_KEEP_ORDER = (
    "An example is its position in the dataset, so every pass must yield the same examples in the same "
    "order. Usual causes: `shuffle()` (remove it, or give it `reshuffle_each_iteration=False`), random augmentation, "
    "file shuffling, `deterministic=False`, and a generator that can be read only once (each call of the function that "
    "`from_generator` is given must return a new one)."
)


def changed_message(name: str, found: str, remedy: str = _KEEP_ORDER) -> str:
    """Return the message for a second pass over a dataset that yields something else.

    Args:
        name: the argument it came by.
        found: what the second pass yielded.
        remedy: what to do.
    """
    return f"`{name}` changes between two passes: the second one yielded {found}. {remedy}"


class ChangedError(ValueError):
    """A pass over a dataset yielded other examples than an earlier one."""


class _Record:
    """Hashes of the first examples of a dataset, or of all of them.

    Attributes:
        hashes: shape (number seen,), uint64.
        num_seen: how many.
        num_passes: how many passes have come to their end.
    """

    def __init__(self) -> None:
        self.hashes = np.empty(0, np.uint64)
        self.num_seen = 0
        self.num_passes = 0

    def extend(self, hashes: np.ndarray) -> None:
        stop = self.num_seen + len(hashes)
        if stop > len(self.hashes):
            self.hashes = np.resize(self.hashes, max(stop, 2 * len(self.hashes)))
        self.hashes[self.num_seen : stop] = hashes
        self.num_seen = stop


# Weak: a record lasts as long as its dataset, which is the same only if it is the same object.
_RECORDS: weakref.WeakKeyDictionary[tf.data.Dataset, _Record] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def compare(dataset: tf.data.Dataset, start: int, hashes: np.ndarray, name: str = "dataset") -> None:
    """Compare examples of a pass with those of earlier passes over this dataset, and remember those that are new.

    Args:
        dataset: the very object that is read.
        start: position of the first example.
        hashes: of the examples, shape (b,), uint64.
        name: the argument that the dataset came by, for the message.

    Raises:
        ChangedError: an earlier pass yielded other examples, or fewer of them.
    """
    with _LOCK:
        record = _RECORDS.setdefault(dataset, _Record())
        num_known = len(hashes) if record.num_passes else max(0, record.num_seen - start)
        known = record.hashes[: record.num_seen]
        if num_known < len(hashes) and start + num_known == record.num_seen:
            record.extend(hashes[num_known:])
    check(known, start, hashes[:num_known], name)


def finish(dataset: tf.data.Dataset, num_examples: int, name: str = "dataset") -> None:
    """Say that a pass came to its end after so many examples.

    Raises:
        ChangedError: an earlier pass yielded more.
    """
    with _LOCK:
        record = _RECORDS.setdefault(dataset, _Record())
        num_known = record.num_seen
        record.num_passes += num_examples == num_known
    check_end(num_known, num_examples, name)


def is_read_twice(dataset: tf.data.Dataset) -> bool:
    """Whether two passes over this dataset have come to their end, with the same examples."""
    with _LOCK:
        record = _RECORDS.get(dataset)
        return record is not None and record.num_passes > 1


def check(known: np.ndarray, start: int, hashes: np.ndarray, name: str) -> None:
    """Refuse examples that are not those at their places in an earlier pass.

    Args:
        known: hashes of all examples of the earlier pass, shape (n,).
        start: position of the first example.
        hashes: of the examples, shape (b,).
        name: the argument that the dataset came by, for the message.

    Raises:
        ChangedError: an example differs, or there are more than there were.
    """
    before = known[start : start + len(hashes)]
    if np.array_equal(hashes, before):
        return
    differing = np.flatnonzero(hashes[: len(before)] != before)
    if not len(differing):
        received = {"num_examples before": len(known)}
        raise ChangedError(describe(changed_message(name, "more examples"), received))
    is_shuffled = np.isin(hashes, known).all()
    found = "the same examples in another order" if is_shuffled else "other contents"
    raise ChangedError(describe(changed_message(name, found), {"index": start + int(differing[0])}))


def check_end(num_before: int, num_now: int, name: str) -> None:
    """Refuse a pass that came to its end earlier than one before.

    Raises:
        ChangedError: it did.
    """
    if num_now < num_before:
        received = {"num_examples before": num_before, "num_examples now": num_now}
        raise ChangedError(describe(changed_message(name, "fewer examples"), received))
