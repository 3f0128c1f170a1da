"""The cost contract of a whole audit: how many examples pass through the network."""

import pytest
import tensorflow as tf
from cost_cases import BATCH, INPUTS, NUM_TEST, NUM_TRAIN, TRAIN, counting_model

from deel_dualview import audit, compare

TEST = tf.data.Dataset.from_tensor_slices((INPUTS[:NUM_TEST], INPUTS[:NUM_TEST, :3].argmax(axis=1))).batch(
    BATCH
)


@pytest.mark.parametrize(
    "method", ["dualview", "first-order", "leverage-corrected", "relatif", "graddot", "arnoldi"]
)
def test_an_audit_runs_the_network_once_over_each_set(method):
    model, counter = counting_model()
    audit(model, TRAIN, TEST, method=method, relevance=None, progress=False)
    # Verifying the model, and its fingerprint, take a few batches.
    assert NUM_TRAIN + NUM_TEST <= counter.num_examples <= NUM_TRAIN + NUM_TEST + 12 * BATCH


def test_a_comparison_runs_the_network_once_over_each_set_for_all_methods():
    model, counter = counting_model()
    methods = ["dualview", "graddot", "first-order", "rps-l2"]
    compare(model, TRAIN, TEST, methods=methods, num_queries=NUM_TEST, progress=False)
    # Verifying the model takes a few batches, and its fingerprint eight examples for each method.
    assert NUM_TRAIN + NUM_TEST <= counter.num_examples <= NUM_TRAIN + NUM_TEST + 30 * BATCH
