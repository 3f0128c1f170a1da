"""The kernel features of all training examples: an array, or rows that are read from the store beyond its budget."""

import numpy as np

from deel_dualview._checks import require
from deel_dualview.calculators.feature_maps import FeatureMap
from deel_dualview.linalg.rows import LazyRows
from deel_dualview.stores import StoredVectors
from deel_dualview.stores.rows import StoredRows, all_rows

_LARGEST_SQUARED_NORM = 1e30
_ROWS = 8192  # of a block


def all_features(stored: StoredVectors, num_features: int) -> np.ndarray | LazyRows:
    """Return the stored features, shape (n, d)."""
    return all_rows(stored, "features", num_features)


def kernel_features(
    stored: StoredVectors, num_features: int, feature_map: FeatureMap
) -> np.ndarray | LazyRows:
    """Return phi, shape (n, d or d + 1); the stored array itself where nothing is changed."""
    if feature_map.is_identity:
        return all_features(stored, num_features)
    width = num_features + feature_map.has_bias
    if not stored.allows(4 * len(stored) * width, 0.25):
        return StoredRows(stored, "features", width, feature_map.of_array)
    phi, stop = np.empty((len(stored), width), np.float32), 0
    for block in stored:
        features = block["features"]
        start, stop = stop, stop + len(features)
        phi[start:stop] = feature_map(features)
    return phi


def mean_squared_norm(phi: np.ndarray | LazyRows, weights: np.ndarray | None, feature_layer: str) -> float:
    """Return the mean of ||phi||^2, weighted by `weights` (n,).

    Raises:
        ValueError: it is 0, or too large for float32.
    """
    blocks = (phi[start : start + _ROWS] for start in range(0, len(phi), _ROWS))
    squares = np.concatenate([np.einsum("nd,nd->n", rows, rows, dtype=np.float64) for rows in blocks])
    mean = float(np.average(squares, weights=weights))
    require(
        mean < _LARGEST_SQUARED_NORM,
        "The penultimate features are too large for float32 arithmetic; use kernel='cosine' or 'standardized'.",
        {"mean of ||phi||^2": mean},
    )
    require(
        mean > 0,
        "The penultimate features are zero for every training example, so nothing can be attributed to them; "
        "check the model, or name another layer: InfluenceModel(model, feature_layer=NAME).",
        {"feature_layer": feature_layer},
    )
    return mean
