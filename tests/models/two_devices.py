"""Compare models on two logical devices with the same on one, in a process of its own; print the results as JSON."""

import json
import sys

import tensorflow as tf

PROCESSOR = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(PROCESSOR, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402
import numpy as np  # noqa: E402
from cost_cases import Counting  # noqa: E402
from keras import layers  # noqa: E402

from deel_dualview import DualSVMSolver, InfluenceModel, MemoryStore, PerExampleGradients  # noqa: E402
from deel_dualview.linalg import blocks  # noqa: E402
from deel_dualview.models.hidden import HiddenLayers  # noqa: E402
from deel_dualview.stores import stored_features  # noqa: E402
from deel_dualview.svm import proximal  # noqa: E402
from deel_dualview.svm.working_set import WorkingSet  # noqa: E402

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 6, 6, 1)).astype("float32")
LABELS = RNG.integers(0, 3, 24)
TRAIN = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(5)
STEPS = {"steps": RNG.normal(size=(5, 4, 2)).astype("float32")}
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def network():
    keras.utils.set_random_seed(0)
    counter, inputs = Counting(), keras.Input((6, 6, 1))
    hidden = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(counter(inputs)))
    hidden = layers.Dense(4, activation="tanh", name="hidden")(layers.Dropout(0.5)(layers.Flatten()(hidden)))
    return keras.Model(inputs, layers.Dense(3)(hidden)), counter


def tagger():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 2), name="steps")
    hidden = layers.Dense(3, activation="relu")(layers.Masking()(inputs))
    return keras.Model({"steps": inputs}, layers.Dense(3)(hidden))


def difference(one, other):
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max(initial=0.0)) for a, b in pairs)


def passes(model, counter):
    """Return the features of the training set, and how many examples went through the network for them."""
    model.features(IMAGES[:5])
    counter.num_examples = 0
    return stored_features(MemoryStore(), model, TRAIN).array("features"), counter.num_examples


def solver_devices():
    """Return where the solver's iterates and the certified weights are, in a scope of the second device."""
    devices = set()

    class Recorded(WorkingSet):
        def step(self):
            super().step()
            devices.update(tensor.device[-5:] for tensor in self._state)

        def certify(self):
            found = super().certify()
            devices.add(found[0].device[-5:])
            return found

    rows = np.maximum(RNG.normal(size=(40, 6)), 0)
    proximal.WorkingSet = Recorded
    with tf.device("CPU:1"):
        solution = DualSVMSolver().solve(rows, RNG.integers(0, 3, 40), 3, 0.5)
    return sorted(devices) if solution.converged else "not converged"


def main():
    (plain, counter), outside = network(), tagger()
    with STRATEGY.scope():
        mirrored, second_counter = network()
        inside = InfluenceModel(outside)
    one, two = InfluenceModel(plain), InfluenceModel(mirrored)
    results = {}
    for size in (1, 2, 5, 8):
        found = [model.features_and_logits(IMAGES[:size]) for model in (one, two)]
        results[f"features of {size}"] = difference(*found)
    function = two._forward._function.for_batch(IMAGES)
    graph = function.get_concrete_function(tf.TensorSpec((None, 6, 6, 1))).graph
    devices = {operation.device[-5:] for operation in graph.get_operations() if operation.type == "Conv2D"}
    found = [passes(one, counter), passes(two, second_counter)]
    results["features in order"] = difference(found[0][0], found[1][0])
    results["hidden layers"] = difference(*[HiddenLayers(model)(IMAGES[:5]) for model in (one, two)])
    gradients = [PerExampleGradients(model, ["hidden"]) for model in (one, two)]
    for size in (5, 1, 0):
        parts = [blocks.to_dense(part(IMAGES[:size], LABELS[:size])) for part in gradients]
        results[f"gradients of {size}"] = difference(*parts)
    results["a model of steps"] = difference(InfluenceModel(outside).forward(STEPS), inside.forward(STEPS))
    facts = {
        "devices": sorted(devices),
        "devices of the solver": solver_devices(),
        "examples through the network": [count for _, count in found],
        "fingerprints are equal": one.fingerprint == two.fingerprint,
        "scope counts": inside.strategy is STRATEGY,
    }
    sys.stdout.write(json.dumps({"differences": results, "facts": facts}))


if __name__ == "__main__":
    main()
