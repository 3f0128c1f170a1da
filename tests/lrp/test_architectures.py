"""Networks of `benchmarks/check_conservation.py`, small: finite, conserved layer by layer, canonized exactly."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

from deel_dualview import canonize

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "check_conservation.py"
spec = importlib.util.spec_from_file_location("check_conservation", SCRIPT)
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

SMALL = {
    "CNN without biases": lambda: check.cnn_without_biases(16),
    "VGG-like": lambda: check.vgg_like(8, 4),
    "ResNet-20": lambda: check.resnet_20(8, 4, 1),
}


@pytest.fixture(scope="module", params=SMALL.values(), ids=SMALL)
def network(request):
    keras.utils.set_random_seed(0)
    model = request.param()
    images = np.random.default_rng(0).uniform(-1, 1, (4, *model.input_shape[1:])).astype(np.float32)
    return model, images


@pytest.mark.parametrize("rule", ["epsilon -> 0", "epsilon-gamma"])
def test_without_biases_a_network_conserves_pair_by_pair_and_layer_by_layer(network, rule):
    model, images = network
    check.with_statistics(model, has_shifts=False)
    pair, leak, layer = check.measure(model, images, check.RULES[rule])
    assert pair < 1e-3
    assert leak < 1e-3, layer


def test_a_canonized_network_computes_the_same(network):
    model, images = network
    check.with_statistics(model, has_shifts=True)
    outputs = np.asarray(model(images))
    np.testing.assert_allclose(canonize(model)(images), outputs, atol=1e-4 * np.abs(outputs).max())
