"""Where computed vectors live: nowhere, in memory, or on disk."""

from deel_dualview.stores.base import Store, StoredVectors, StoreError
from deel_dualview.stores.disk import DiskStore
from deel_dualview.stores.features import stored_features
from deel_dualview.stores.memory import MemoryStore, NoStore

__all__ = ["DiskStore", "MemoryStore", "NoStore", "Store", "StoreError", "StoredVectors", "stored_features"]


def __dir__() -> list[str]:
    return sorted(__all__)
