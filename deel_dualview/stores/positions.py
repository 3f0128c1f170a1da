"""Features at positions: pairs of an example and a position as rows."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from deel_dualview import data
from deel_dualview.models import InfluenceModel
from deel_dualview.stores.base import CHECKED, Block, StoredVectors

_KEPT = "is_kept"


def position_vectors(model: InfluenceModel, batch: data.Batch) -> dict[str, np.ndarray]:
    """Return features (b, P, d), targets, and which of the P positions count, of a batch of examples.

    Positions of padding, by the model's mask, and those without a label do not count.

    Raises:
        ValueError: labels that do not fit the objective or the outputs.
    """
    features, _, mask = model.forward(batch.inputs)
    is_kept = mask.numpy().reshape(len(mask), -1) > 0
    computed: dict[str, np.ndarray] = {"features": features.numpy().reshape(*is_kept.shape, -1)}
    if batch.labels is not None:
        labels = model.position_labels(batch.labels, tuple(mask.shape[1:]))
        computed["labels"], is_kept = labels.targets, is_kept & labels.is_kept
    return computed | {_KEPT: is_kept, "axes": np.tile(np.array(mask.shape[1:], np.int64), (len(mask), 1))}


class PositionRows(StoredVectors):
    """Rows of the pairs (example, position) that count, in the order of examples, then positions.

    Args:
        examples: stored vectors of `position_vectors`.
    """

    def __init__(self, examples: StoredVectors) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self._examples.names if name not in (_KEPT, "axes", *CHECKED))

    def __iter__(self) -> Iterator[Block]:
        for block in self._examples:
            is_kept = block[_KEPT]
            if is_kept.any():
                yield {name: self._rows(name, block[name], is_kept) for name in self.names}

    @property
    def examples(self) -> StoredVectors:
        return self._examples

    @property
    def num_bytes(self) -> int:
        return self._examples.num_bytes

    @cached_property
    def pairs(self) -> np.ndarray:
        """Example and position of every row, shape (r, 1 + axes), int64."""
        rows, positions = np.nonzero(self._examples.array(_KEPT))
        axes = tuple(self._examples.array("axes")[0])
        return np.stack([rows, *np.unravel_index(positions, axes)], axis=1).astype(np.int64)

    @staticmethod
    def _rows(name: str, values: Any, is_kept: np.ndarray) -> np.ndarray:
        if name == "ids":
            return np.repeat(values, is_kept.sum(axis=1))
        return values.reshape(-1, *values.shape[2:]) if is_kept.all() else values[is_kept]
