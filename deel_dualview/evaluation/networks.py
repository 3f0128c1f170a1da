"""The networks of the benchmarks and how each is trained: data, that a saved model is compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import keras

_MNIST_MEAN, _MNIST_DEVIATION = 0.1307, 0.3081
_CIFAR_MEAN, _CIFAR_DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Recipe(NamedTuple):
    """How the model of a dataset is trained, on shuffled batches, by Adam or by gradient descent with momentum.

    Attributes:
        network: one of `NETWORKS`.
        epochs: passes over the training set.
        batch_size: of a step.
        learning_rate: at the start; it falls to 0 along a cosine where `is_decaying`.
        is_decaying: whether the learning rate falls.
        poisoned_share: probability that a label is wrong, in the model of that kind.
        momentum: of gradient descent; None for Adam.
    """

    network: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    is_decaying: bool = False
    poisoned_share: float = 0.3
    momentum: float | None = None


def paper_cnn(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return the DualView paper's network for MNIST, 1,262,565 parameters at 28 x 28; inputs of 0 to 255.

    Source: Yolcu et al. (2024), DualView, section 5.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / (255 * _MNIST_DEVIATION), -_MNIST_MEAN / _MNIST_DEVIATION),
            layers.Conv2D(5, 3, activation="relu", name="convolution_1"),
            layers.Conv2D(10, 3, activation="relu", name="convolution_2"),
            layers.Conv2D(5, 3, activation="relu", name="convolution_3"),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="hidden"),
            layers.Dense(100, activation="relu", name="features"),
            layers.Dense(num_classes, use_bias=False, name="logits"),
        ]
    )


def smooth_cnn(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return the DualView paper's network with GELU in the place of ReLU, whose slope has no jumps."""
    model = paper_cnn(shape, num_classes)
    for layer in model.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = keras.activations.gelu
    return model


def mlp(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a network of one hidden layer of 32 units, 2,410 parameters at 8 x 8."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="features"),
            layers.Dense(num_classes, name="logits"),
        ]
    )


def digits_cnn(shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a network for 8 x 8 images of 0 to 1 that trains in seconds."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="convolution_1"),
            layers.Conv2D(32, 3, activation="relu", name="convolution_2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="features"),
            layers.Dense(num_classes, use_bias=False, name="logits"),
        ]
    )


def resnet(num_blocks: int, shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a residual network for CIFAR-10 with 64 features; inputs of 0 to 255.

    Args:
        num_blocks: residual blocks of each of the three sizes: 3 is the published network of 20 layers, 1 one of 8.
        shape: of an image.
        num_classes: number of logits.

    Source: He et al. (2016), Deep residual learning for image recognition, section 4.2.
    """
    layers = keras.layers
    inputs = keras.Input(shape)
    hidden = layers.Rescaling(
        [1 / (255 * deviation) for deviation in _CIFAR_DEVIATION],
        [-mean / deviation for mean, deviation in zip(_CIFAR_MEAN, _CIFAR_DEVIATION, strict=True)],
    )(inputs)
    hidden = layers.ReLU()(_normalised_convolution(hidden, 16, 3, 1, "convolution"))
    for filters in (16, 32, 64):
        for block in range(num_blocks):
            strides = 2 if filters > 16 and block == 0 else 1
            hidden = _residual(hidden, filters, strides, f"block_{filters}_{block + 1}")
    features = layers.GlobalAveragePooling2D(name="features")(hidden)
    return keras.Model(inputs, layers.Dense(num_classes, use_bias=False, name="logits")(features))


NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], keras.Model]] = MappingProxyType(
    {
        "paper-cnn": paper_cnn,
        "smooth-cnn": smooth_cnn,
        "mlp": mlp,
        "digits-cnn": digits_cnn,
        "resnet8": functools.partial(resnet, 1),
        "resnet20": functools.partial(resnet, 3),
    }
)
"""Networks by name: functions of the shape of an image and the number of classes. Layers with weights have names of
their own, so that settings such as weights=("convolution_1",) mean the same in every model of a benchmark."""

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits": Recipe("digits-cnn", epochs=15, batch_size=32),
        "mnist": Recipe("paper-cnn", epochs=5),
        "fashion_mnist": Recipe("paper-cnn", epochs=5),
        "cifar10": Recipe("resnet8", epochs=6, learning_rate=3e-3, is_decaying=True, poisoned_share=0.03),
    }
)
"""How the models of each dataset are trained."""


def _normalised_convolution(
    inputs: keras.KerasTensor, filters: int, size: int, strides: int, name: str
) -> keras.KerasTensor:
    layers = keras.layers
    hidden = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)(inputs)
    return layers.BatchNormalization(name=f"{name}_normalisation")(hidden)


def _residual(inputs: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
    layers = keras.layers
    hidden = layers.ReLU()(_normalised_convolution(inputs, filters, 3, strides, f"{name}_1"))
    hidden = _normalised_convolution(hidden, filters, 3, 1, f"{name}_2")
    if strides > 1:
        inputs = _normalised_convolution(inputs, filters, 1, strides, f"{name}_shortcut")
    return layers.ReLU()(layers.Add()([hidden, inputs]))
