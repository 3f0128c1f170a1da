"""Does the relevance of pairs lie in a planted mark, where the network relies on it?

    python benchmarks/check_shortcut.py [--data-dir DIR] [--seeds 3] [--num-train 10000] [--marked-shares 1.0 0.3]

Training images of digit 2 of MNIST get the mark of the DualView paper: a frame of two pixels and a square of 6 x 6,
31 % of the area. Explained are marked test images of other digits that the network takes for a 2, by DualView, and of
their ten strongest proponents those that are marked and positive. A figure is the share of positive relevance inside
the mark, the mean over test images: in the training images / in the test images, least and largest over seeds. "bright"
is the mark's share of the brightness of these images, which a map of the bright pixels would score.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_dualview import DualRelevance, DualView, InfluenceModel, lrp, metrics
from deel_dualview.evaluation import Marks

layers = keras.layers
MARKED_CLASS = 2
NUM_QUERIES, K = 60, 10
RULES = {
    "epsilon-plus-flat": "epsilon-plus-flat",
    "epsilon-gamma-box": lrp.epsilon_gamma_box(0.0, 1.0),
    "epsilon-plus": "epsilon-plus",
    "epsilon-alpha2-beta1": "epsilon-alpha2-beta1",
    "epsilon": "epsilon",
    "epsilon-gamma": "epsilon-gamma",
    "grad-cam": "grad-cam",
}


def convolution(filters: int, size: int, strides: int = 1) -> keras.Layer:
    """Return a convolution with ReLU."""
    return layers.Conv2D(filters, size, strides, activation="relu")


def dense(*units: int, dropout: float = 0.0) -> list[keras.Layer]:
    """Return hidden layers with dropout, and the last layer."""
    hidden = [[layers.Dense(size, activation="relu"), layers.Dropout(dropout)] for size in units]
    return [layer for pair in hidden for layer in pair] + [layers.Dense(10, use_bias=False)]


NETWORKS = {
    "CNN": lambda: [*(convolution(f, 3) for f in (5, 10, 5)), layers.Flatten(), *dense(500, 100)],
    "CNN, dropout": lambda: [
        *(convolution(f, 3) for f in (5, 10, 5)),
        layers.Flatten(),
        *dense(500, 100, dropout=0.5),
    ],
    "LeNet, dropout": lambda: [
        *[convolution(16, 5), layers.MaxPooling2D(), convolution(32, 3), layers.MaxPooling2D()],
        *[layers.Flatten(), *dense(64, dropout=0.5)],
    ],
    "LeNet": lambda: [
        *[convolution(16, 5), layers.MaxPooling2D(), convolution(32, 3), layers.MaxPooling2D()],
        *[layers.Flatten(), *dense(64)],
    ],
    "patches of 4 x 4": lambda: [convolution(16, 4, 4), layers.Flatten(), *dense(64)],
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-train", type=int, default=10_000)
    parser.add_argument("--marked-shares", type=float, nargs="+", default=[1.0, 0.3])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    return parser.parse_args()


class Data:
    """Images with the mark on a share of one class, and test images of other classes with it."""

    def __init__(self, arguments: argparse.Namespace, marked_share: float, seed: int) -> None:
        splits = {"split": ["train", "test"], "as_supervised": True, "batch_size": -1}
        train, test = tfds.load("mnist", data_dir=arguments.data_dir, shuffle_files=False, **splits)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(train[1]))[: arguments.num_train])
        self.images = train[0].numpy()[chosen].astype(np.float32)
        self.labels = train[1].numpy()[chosen]
        marks = Marks.draw(self.labels, MARKED_CLASS, marked_share, seed=seed)
        self.is_marked = marks.is_marked(len(self.labels))
        self.images[self.is_marked] = marks.mark(self.images[self.is_marked])
        others = test[0].numpy()[test[1].numpy() != MARKED_CLASS].astype(np.float32)
        self.test_images = np.asarray(marks.mark(others))
        self.mask = marks.mask(28, 28)


def trained(name: str, data: Data, seed: int) -> keras.Model:
    """Train a network."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), *NETWORKS[name]()])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.images, data.labels, batch_size=64, epochs=8, verbose=0)
    return model


def shares(model: keras.Model, data: Data) -> tuple[float, int, float, dict[str, tuple[float, float]]]:
    """Return the share of images that are fooled, how many pairs count, "bright", and every rule's two shares."""
    is_fooled = model.predict(data.test_images, batch_size=512, verbose=0).argmax(axis=1) == MARKED_CLASS
    queries = data.test_images[is_fooled][:NUM_QUERIES]
    train = tf.data.Dataset.from_tensor_slices((data.images, data.labels)).batch(512)
    calculator = DualView(InfluenceModel(model), train, kernel="cosine")
    top = next(iter(calculator.top_k(tf.data.Dataset.from_tensors(queries), k=K)))
    counts = data.is_marked[np.asarray(top.training_indices)] & (np.asarray(top.influence_values) > 0)
    bright = queries[:, data.mask].sum() / queries.sum()
    found = {}
    for name, rule in RULES.items():
        pair = DualRelevance(calculator, rule).of_pairs(top)
        both = []
        for side in ("train", "test"):
            metric = metrics.ShareInMask(data.mask, side, num_resamples=0)
            metric.update_state(pair, counts)
            both.append(metric.result().value if counts.any() else float("nan"))
        found[name] = (both[0], both[1])
    return float(is_fooled.mean()), int(counts.sum()), float(bright), found


def main() -> None:
    """Train every network with every share of marked images, and print a row for each."""
    arguments = parse_arguments()
    for marked_share in arguments.marked_shares:
        for network in arguments.networks:
            start, rows = time.time(), []
            for seed in range(arguments.seeds):
                data = Data(arguments, marked_share, seed)
                rows.append(shares(trained(network, data, seed), data))
            fooled, pairs, bright = (np.array([row[part] for row in rows]) for part in range(3))
            print(
                f"{network}, {marked_share:.0%} of the class marked: fooled {fooled.min():.2f} to {fooled.max():.2f}, "
                f"{pairs.tolist()} pairs, bright {bright.mean():.2f} ({time.time() - start:.0f} s)"
            )
            for name in RULES:
                both = np.array([row[3][name] for row in rows])
                low, high = both.min(axis=0), both.max(axis=0)
                print(
                    f"  {name:22s} {low[0]:.2f} to {high[0]:.2f} / {low[1]:.2f} to {high[1]:.2f}", flush=True
                )


if __name__ == "__main__":
    main()
