"""Handwritten digits that come with the package, and label errors made on purpose."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np

__all__ = ["SwappedLabels", "load_digits", "swap_labels"]

_MAX_PIXEL = 16
_SPLIT_SEED = 0


def __dir__() -> list[str]:
    return sorted(__all__)


class SwappedLabels(NamedTuple):
    """Labels of which some were changed to another class.

    Attributes:
        labels: the labels after the swap, (n,), of the type that was given.
        indices: positions of the changed labels, ascending, (num_swapped,) int64.
    """

    labels: np.ndarray
    indices: np.ndarray


def load_digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load 1,797 handwritten digits of 8 x 8 pixels from the package: no network, no cache folder.

    The split is always the same: from every class a fifth of the images is kept for testing.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`, in the form of `keras.datasets`. Images
        (n, 8, 8, 1) float32 between 0 and 1, labels (n,) int64; n is 1,438 for training and 359 for testing.

    Source: E. Alpaydin and C. Kaynak (1998), doi:10.24432/C50P49, CC BY 4.0.
    """
    path = resources.files("deel_dualview").joinpath("data_files", "digits.npz")
    with path.open("rb") as file, np.load(file) as archive:
        images = archive["images"][..., np.newaxis].astype(np.float32) / _MAX_PIXEL
        labels = archive["labels"].astype(np.int64)
    is_test = _is_test(labels)
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def swap_labels(labels: np.ndarray, num_swapped: int, *, num_classes: int, seed: int) -> SwappedLabels:
    """Give `num_swapped` examples, drawn at random, a wrong label drawn at random.

    Args:
        labels: integer labels, (n,); left as they are.
        num_swapped: how many labels change, at most n.
        num_classes: the wrong label is drawn from the other `num_classes - 1` classes.
        seed: the same seed swaps the same labels.

    Raises:
        ValueError: more swaps than labels, or fewer than two classes.
    """
    if not 0 <= num_swapped <= len(labels):
        raise ValueError(
            f"The number of swapped labels must be between 0 and the {len(labels)} labels that there are. "
            f"Received: num_swapped={num_swapped}."
        )
    if num_classes < 2:
        raise ValueError(f"A wrong label needs at least two classes. Received: num_classes={num_classes}.")
    generator = np.random.default_rng(seed)
    indices = np.sort(generator.choice(len(labels), size=num_swapped, replace=False))
    shifts = generator.integers(1, num_classes, size=num_swapped)
    swapped = labels.copy()
    swapped[indices] = (labels[indices] + shifts) % num_classes
    return SwappedLabels(swapped, indices)


def _is_test(labels: np.ndarray) -> np.ndarray:
    """Mark a fifth of every class, drawn once for all."""
    generator = np.random.default_rng(_SPLIT_SEED)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[generator.permutation(members)[: round(len(members) / 5)]] = True
    return is_test
