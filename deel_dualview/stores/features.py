"""Penultimate features of a dataset's examples: computed by one pass of the model, shared by all that need them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.stores.base import Block, Compute, Store, StoredVectors
from deel_dualview.stores.memory import MemoryStore
from deel_dualview.stores.positions import PositionRows, position_vectors
from deel_dualview.stores.shared import shared_store
from deel_dualview.typing import Inputs

_FEATURES = "penultimate features"
LEAVES = "leaves"
"""The place of the ones in each row of features, shape (n, T), in the place of the features themselves."""
_NUMBERS_AT_ONCE = 2**24
_MOST_BYTES = 2**30


def stored_features(
    store: Store,
    model: InfluenceModel,
    dataset: tf.data.Dataset,
    arrays_of: Callable[[Inputs], Mapping[str, Any]] | None = None,
) -> StoredVectors:
    """Return features (n, d), and labels, ids and sample weights where there are any, of a dataset's examples.

    Of a model with an output at each position there is a row for every example and position that counts.

    Everything that opens them in one store shares the pass: calculators, the curvature of the last layer, the
    inverse Hessians that are made from it. Of features that are indicators of the leaves of T trees T numbers an
    example are kept, and blocks of dense features are made from them, of 64 MiB at most.

    Args:
        store: where they are kept.
        model: whose features they are.
        dataset: batched.
        arrays_of: computes the `"features"` of a batch of inputs and more arrays by name, which are stored with them
            unless the features are in the store already; `model.features` alone by default.

    Raises:
        ValueError: features that are not finite (the message says of which examples), a label that does not fit the
        objective.
        StoreError: see `Store.open`.
    """
    is_half = store.half_precision and not model.num_axes and model.num_leaves_of_example is None

    def compute(element: Any) -> dict[str, np.ndarray]:
        batch = data.unpack(element)
        if model.num_axes:
            computed = position_vectors(model, batch)
            return computed if batch.ids is None else computed | {"ids": np.asarray(batch.ids)}
        more = {} if arrays_of is None else dict(arrays_of(batch.inputs))
        features = np.asarray(more.pop("features") if more else model.features(batch.inputs))
        if is_half:
            features = _halved(features)
        if model.num_leaves_of_example is None:
            computed = {"features": features}
        else:
            places = np.nonzero(features)[1].astype(np.int32)
            computed = {LEAVES: places.reshape(len(features), model.num_leaves_of_example)}
        computed |= more
        if batch.labels is not None:
            computed["labels"] = model.to_targets(batch.labels)
        if (weights := data.sample_weights(batch)) is not None:
            computed["sample_weight"] = weights
        return computed if batch.ids is None else computed | {"ids": np.asarray(batch.ids)}

    side = "input" if model.split.takes_input else "output"
    key = {
        "contents": _FEATURES,
        "model": model.fingerprint,
        "feature_layer": f"{side} of {tracing.place_of(model.model, model.split.layer)}",
        "examples": data.describe_elements(dataset),
    }
    if is_half:
        key["precision"] = "float16"
    stored = shared_store(store, model.workers).open(key, dataset, compute)
    if is_half:
        return _Widened(stored)
    if model.num_axes:
        return PositionRows(stored)
    return stored if model.num_leaves_of_example is None else _Unpacked(stored, model.num_features)


def _halved(features: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halved = features.astype(np.float16)
    require(
        bool((np.isfinite(halved) | ~np.isfinite(features)).all()),
        "Features above 65,504 do not fit into half precision: leave `half_precision` out.",
        {"largest": float(np.abs(features).max())},
    )
    return halved


class _Widened(StoredVectors):
    """Vectors with features that are kept as float16, and given as float32."""

    def __init__(self, stored: StoredVectors) -> None:
        self._stored, self.memory_budget = stored, stored.memory_budget

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def names(self) -> tuple[str, ...]:
        return self._stored.names

    def __iter__(self) -> Iterator[Block]:
        for block in self._stored:
            yield {name: _wide(name, array) for name, array in block.items()}

    @property
    def num_bytes(self) -> int:
        return self._stored.num_bytes

    def array(self, name: str) -> np.ndarray:
        return super().array(name) if name == "features" else self._stored.array(name)

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        return _wide(name, self._stored.rows(name, positions))


def _wide(name: str, array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if name == "features" else array


class FeatureStore(Store):
    """Penultimate features in one store, whatever else a method keeps in memory: a store on disk holds one thing.

    Args:
        store: of the features.
    """

    def __init__(self, store: Store) -> None:
        settings: dict[str, Any] = {
            "progress": store.progress,
            "memory_budget": store.memory_budget,
            "half_precision": store.half_precision,
        }
        super().__init__(**settings)
        self._features, self._others = store, MemoryStore(**settings)

    @property
    def fits(self) -> Path | None:
        return self._features.fits

    def open(self, key: Mapping[str, str], dataset: tf.data.Dataset, compute: Compute) -> StoredVectors:
        store = self._features if key.get("contents") == _FEATURES else self._others
        return store.open(key, dataset, compute)


class _Unpacked(StoredVectors):
    """Vectors with dense features (n, d), made block by block from the places of their ones."""

    def __init__(self, stored: StoredVectors, num_features: int) -> None:
        self._stored, self._num_features = stored, num_features

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._stored.names, "features")

    def __iter__(self) -> Iterator[Block]:
        size = max(1, _NUMBERS_AT_ONCE // self._num_features)
        for block in self._stored:
            for start in range(0, len(block[LEAVES]), size):
                part = {name: array[start : start + size] for name, array in block.items()}
                yield part | {"features": self._dense(part[LEAVES])}

    @property
    def num_bytes(self) -> int:
        return self._stored.num_bytes

    def array(self, name: str) -> np.ndarray:
        if name != "features":
            return self._stored.array(name)
        num_bytes = 4 * len(self) * self._num_features
        require(
            num_bytes <= _MOST_BYTES,
            "Indicators of all leaves would take more than 1 GiB, which this method holds at once: take what each tree "
            "adds to the output for features, TreeEnsembleModel(booster, features='trees'); or GradDot, "
            "FeatureSimilarity, or FirstOrderInfluenceCalculator with a ConjugateGradientDescentIHVP.",
            {"examples": len(self), "leaves": self._num_features},
        )
        return self._dense(self._stored.array(LEAVES))

    def rows(self, name: str, positions: np.ndarray) -> np.ndarray:
        stored = self._stored.rows(LEAVES if name == "features" else name, positions)
        return self._dense(stored) if name == "features" else stored

    def _dense(self, places: np.ndarray) -> np.ndarray:
        features = np.zeros((len(places), self._num_features), np.float32)
        np.put_along_axis(features, places.astype(np.int64), np.float32(1), axis=1)
        return features
