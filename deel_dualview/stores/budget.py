"""How a memory budget is shared by what an audit, or a search for label issues, holds at one time."""

from __future__ import annotations

import copy
from typing import NamedTuple

from deel_dualview._checks import check_bytes
from deel_dualview.stores.base import Store
from deel_dualview.stores.memory import MemoryStore


class MemoryShares(NamedTuple):
    """Bytes for parts of a long work; None for no limit.

    Attributes:
        store: of vectors, and of what a calculator makes of them.
        inputs: rows of the inputs.
        block: one array with a row for each training example, of which there may be a few.
    """

    store: int | None = None
    inputs: int | None = None
    block: int | None = None

    @classmethod
    def of(cls, memory_budget: int | None) -> MemoryShares:
        """Return the shares of a budget: half for the store, an eighth for anything else that lives with it.

        Raises:
            TypeError: the budget is no number.
            ValueError: it is no whole number of bytes, or not positive.
        """
        if memory_budget is None:
            return cls()
        total = check_bytes("memory_budget", memory_budget)
        return cls(max(total // 2, 1), max(total // 8, 1), max(total // 8, 1))

    def limited(self, store: Store | None, *, progress: bool) -> Store:
        """Return a store with its share: one in memory by default, the given one if that has a budget of its own."""
        if store is None:
            return MemoryStore(progress=progress, memory_budget=self.store)
        if store.memory_budget is not None or self.store is None:
            return store
        store = copy.copy(store)
        store.memory_budget = self.store
        return store
