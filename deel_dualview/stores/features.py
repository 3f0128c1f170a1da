"""Penultimate features of a dataset's examples: computed by one pass of the model, shared by all that need them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.stores.base import Store, StoredVectors
from deel_dualview.typing import Inputs


def stored_features(
    store: Store,
    model: InfluenceModel,
    dataset: tf.data.Dataset,
    features_of: Callable[[Inputs], tf.Tensor] | None = None,
) -> StoredVectors:
    """Return features (n, d), and labels and ids where there are any, of a dataset's examples.

    Everything that opens them in one store shares the pass: calculators, the curvature of the last layer, the
    inverse Hessians that are made from it.

    Args:
        store: where they are kept.
        model: whose features they are.
        dataset: batched.
        features_of: computes the features of a batch of inputs, perhaps with more that the caller keeps; by default
            `model.features`.

    Raises:
        ValueError: features that are not finite (the message says of which examples), a label that does not fit the
        objective.
        StoreError: see `Store.open`.
    """
    features_of = features_of or model.features

    def compute(element: Any) -> dict[str, np.ndarray]:
        batch = data.unpack(element)
        computed = {"features": features_of(batch.inputs).numpy()}
        if batch.labels is not None:
            computed["labels"] = model.to_targets(batch.labels)
        return computed if batch.ids is None else computed | {"ids": np.asarray(batch.ids)}

    side = "input" if model.split.takes_input else "output"
    key = {
        "contents": "penultimate features",
        "model": model.fingerprint,
        "feature_layer": f"{side} of {tracing.place_of(model.model, model.split.layer)}",
        "examples": data.describe_elements(dataset),
    }
    return store.open(key, dataset, compute)
