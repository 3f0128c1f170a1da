"""Pairs of examples for tests of what draws them."""

import numpy as np
import tensorflow as tf

from deel_dualview import ORDER, DualRelevance, DualView, InfluenceModel


def both_orders(model, inputs):
    """Return proponents and opponents of the first batch of inputs, whose labels take turns in three classes."""
    train = tf.data.Dataset.from_tensor_slices((inputs, np.arange(len(inputs)) % 3)).batch(10)
    relevance = DualRelevance(DualView(InfluenceModel(model), train, K=0.1, target="label"))
    return [
        next(iter(relevance.explain(train.take(1), k=2, order=order)))
        for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    ]
