"""Is relevance conserved, pair by pair and layer by layer, and does canonizing change a network?

    python benchmarks/check_conservation.py [--networks ResNet-20 MobileNetV2] [--resnet-50-size 64]

Networks have random weights, influence is the dot product of the features of a test and of a training image. "pair" is
|influence - sum of relevance| / |influence|, the mean over pairs and both sides; "layer" the largest share of a test
image's relevance that one layer loses or adds, and that layer's name. Both once with random biases and statistics of
batch normalisation, which take their share, and once with all biases and shifts at zero, where only the rule is left:
with epsilon -> 0 "pair" should then be at most 1e-3. "canonized" is the largest difference between the outputs of the
model (with biases) and those of its canonized copy, relative to the largest output: at most 1e-4.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import LRP, DualRelevance, FeatureSimilarity, InfluenceModel, canonize, lrp, metrics
from deel_dualview.relevance.layerwise import feature_graph

layers = keras.layers
RULES = {
    "epsilon -> 0": lrp.EPSILON.with_rules(
        dict.fromkeys((*lrp.linear.DENSE, *lrp.linear.CONVOLUTIONS), lrp.Epsilon(1e-8))
    ),
    "epsilon-gamma": lrp.EPSILON_GAMMA,
    "epsilon-plus-flat": lrp.EPSILON_PLUS_FLAT,
}


def normalised(x: tf.Tensor, *, is_relu: bool = True) -> tf.Tensor:
    """Return a batch normalisation, and a ReLU."""
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if is_relu else x


def cnn_without_biases(size: int = 32) -> keras.Model:
    """Return convolutions, maxima and dense layers without any bias."""
    x = inputs = keras.Input((size, size, 3))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, activation="relu", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu", use_bias=False)(x))
    x = layers.Dense(64, activation="relu", use_bias=False)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, use_bias=False)(x))


def vgg_like(size: int = 32, width: int = 16) -> keras.Model:
    """Return three blocks of two convolutions with biases, batch normalisation and a maximum."""
    x = inputs = keras.Input((size, size, 3))
    for filters in (width, 2 * width, 4 * width):
        for _ in range(2):
            x = normalised(layers.Conv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.5)(layers.Dense(4 * width, activation="relu")(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet_20(size: int = 32, width: int = 16, blocks: int = 3) -> keras.Model:
    """Return the residual network of He et al. (2016) for CIFAR-10."""
    inputs = keras.Input((size, size, 3))
    x = normalised(layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs))
    for stage in range(3):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            y = normalised(layers.Conv2D(width << stage, 3, strides, padding="same", use_bias=False)(x))
            y = layers.Conv2D(width << stage, 3, padding="same", use_bias=False)(y)
            if strides == 2:
                x = normalised(layers.Conv2D(width << stage, 1, 2, use_bias=False)(x), is_relu=False)
            x = layers.ReLU()(layers.Add()([normalised(y, is_relu=False), x]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def mobilenet_v2_like(size: int = 96, alpha: float = 0.35) -> keras.Model:
    """Return Keras' MobileNetV2: depthwise convolutions, linear bottlenecks, ReLU6."""
    return keras.applications.MobileNetV2(
        (size, size, 3), alpha=alpha, weights=None, classes=10, classifier_activation=None
    )


def resnet_50(size: int = 224) -> keras.Model:
    """Return Keras' ResNet50 with random weights."""
    return keras.applications.ResNet50(
        input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None
    )


NETWORKS = {
    "CNN without biases": cnn_without_biases,
    "VGG-like": vgg_like,
    "ResNet-20": resnet_20,
    "MobileNetV2": mobilenet_v2_like,
    "ResNet50": resnet_50,
}


def with_statistics(model: keras.Model, *, has_shifts: bool) -> keras.Model:
    """Give batch normalisations statistics and scales; shifts and all biases too, or zero."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            width = layer.gamma.shape[0]
            scale, variance = rng.uniform(0.8, 1.2, width), rng.uniform(0.5, 1.0, width)
            shifts = [rng.normal(0, 0.1 * has_shifts, width) for _ in range(2)]
            layer.set_weights([scale, shifts[0], shifts[1], variance])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.1 * has_shifts, layer.bias.shape))
    return model


def measure(model: keras.Model, images: np.ndarray, rule: lrp.Composite) -> tuple[float, float, str]:
    """Return the relative error of pairs, the largest leak of a layer, and the layer."""
    influence_model = InfluenceModel(model)
    train = tf.data.Dataset.from_tensor_slices((images[2:], np.arange(len(images) - 2) % 10)).batch(2)
    calculator = FeatureSimilarity(influence_model, train, similarity="dot")
    metric = metrics.ConservationError(num_resamples=0)
    for pair in DualRelevance(calculator, rule, batch_size=4).explain(
        tf.data.Dataset.from_tensors(images[:2]), k=2
    ):
        metric.update_state(pair)
    features = influence_model.features(images[:2])
    start = features * influence_model.features(images[2:3])
    steps = LRP.of_graph(feature_graph(influence_model), rule).by_step(images[:2], start)
    total = np.abs(np.sum(start, axis=1))
    leaks = [float(np.max(np.abs(np.subtract(step.received, step.passed)) / total)) for step in steps]
    worst = int(np.argmax(leaks))
    return metric.result().value, leaks[worst], steps[worst].name


def main() -> None:
    """Measure every network under every rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--resnet-50-size", type=int, default=224, help="height and width of its images")
    arguments = parser.parse_args()
    for name in arguments.networks:
        keras.utils.set_random_seed(0)
        size = {"size": arguments.resnet_50_size} if name == "ResNet50" else {}
        model = with_statistics(NETWORKS[name](**size), has_shifts=True)
        images = np.random.default_rng(0).uniform(-1, 1, (4, *model.input_shape[1:])).astype(np.float32)
        outputs = np.asarray(model(images))
        difference = np.abs(np.asarray(canonize(model)(images)) - outputs).max() / np.abs(outputs).max()
        print(f"{name}: canonized {difference:.1e}")
        for has_shifts in (True, False):
            with_statistics(model, has_shifts=has_shifts)
            for rule, composite in RULES.items():
                pair, leak, layer = measure(model, images, composite)
                print(
                    f"  {'with' if has_shifts else 'without'} biases, {rule:18s} pair {pair:.1e}   "
                    f"layer {leak:.1e} in {layer}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
