"""What an audit reads of the training set, kept in a store between two audits."""

import numpy as np
import pytest
from cost_cases import NUM_TRAIN, TRAIN, counting_model

from deel_dualview import DiskStore, InfluenceModel, MemoryStore
from deel_dualview.auditing.layers import read_training_layers
from deel_dualview.stores import stored_features


@pytest.fixture(scope="module")
def model():
    network, counter = counting_model()
    influence = InfluenceModel(network)
    influence.prepare(next(iter(TRAIN))[0])
    return influence, counter


@pytest.fixture(scope="module")
def expected(model):
    return read_training_layers(model[0], TRAIN, MemoryStore())


def read(model, store):
    """Return the layers, and how many examples went through the network but for fingerprints of it."""
    influence, counter = model
    counter.num_examples = 0
    influence.fingerprint  # noqa: B018
    num_probed, counter.num_examples = counter.num_examples, 0
    layers = read_training_layers(influence, TRAIN, store)
    return layers, counter.num_examples - num_probed


def assert_same(found, expected):
    for name in ("features", "before", "predictions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_second_audit_reads_the_layers_of_the_first_without_the_network(model, expected, tmp_path):
    _, first = read(model, DiskStore(tmp_path / "store"))
    found, second = read(model, DiskStore(tmp_path / "store"))
    assert (first, second) == (NUM_TRAIN, 0)
    assert_same(found, expected)


def test_a_store_of_features_alone_takes_one_more_pass(model, expected, tmp_path):
    stored_features(DiskStore(tmp_path / "store"), model[0], TRAIN)
    found, num_examples = read(model, DiskStore(tmp_path / "store"))
    assert num_examples == NUM_TRAIN
    assert_same(found, expected)
