"""How fast does the influence of a pair fall when its most relevant test pixels are covered first?

    python benchmarks/check_pixel_flipping.py --model models/mnist.keras [--data-dir DIR] [--num-test 100] [--k 2]

Pairs are test images of MNIST with their strongest proponents under DualView; the model is that of `train_models.py`. A
figure is the area under the curve of the influence, relative to that of the whole image, while 0 to 40 % of the pixels
are covered (`metrics.PixelFlipping`), with its 95 % interval over test images. Small is good. Pixels are covered with
black, and by their negative (black becomes white), which changes a black pixel too. `--figure` draws the curves.
"""

from __future__ import annotations

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_dualview import DualRelevance, DualView, InfluenceModel, lrp, metrics
from deel_dualview.relevance.scores import Score, ScoreBackEnd

LARGEST_SHARE = 0.4


class Gradients(ScoreBackEnd):
    """The plain gradient of the influence."""

    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        """Return the gradient."""
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            influence = score(inputs, rows)
        return tape.gradient(influence, inputs)


RULES = {
    "epsilon-gamma": "epsilon-gamma",
    "epsilon-plus": "epsilon-plus",
    "epsilon-plus-flat": "epsilon-plus-flat",
    "epsilon-alpha2-beta1": "epsilon-alpha2-beta1",
    "epsilon": "epsilon",
    "epsilon-gamma-box": lrp.epsilon_gamma_box(0.0, 1.0),
    "gradients-inputs": "gradients-inputs",
    "integrated-gradients": "integrated-gradients",
    "smoothgrad": "smoothgrad",
    "grad-cam": "grad-cam",
    "occlusion": "occlusion",
    "plain gradient": Gradients(),
}
COVERS = {"black": 0.0, "negative": lambda images: 255 - images}
SHOWN = {
    "epsilon-gamma": "#b3282d",
    "epsilon-plus": "#e8853a",
    "epsilon-plus-flat": "#e3c04b",
    "integrated-gradients": "#2b75b4",
    "plain gradient": "#7d8893",
    "random": "#1b1f24",
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    parser.add_argument("--num-test", type=int, default=100)
    parser.add_argument("--k", type=int, default=2)
    parser.add_argument("--num-train", type=int, default=60_000)
    parser.add_argument("--figure", type=pathlib.Path, help="where the curves are drawn")
    return parser.parse_args()


def measure(calculator: DualView, top: object) -> dict[str, dict[str, metrics.PixelFlipping]]:
    """Return the metric of every rule under every cover."""
    relevances, pair = {}, None
    for name, rule in RULES.items():
        pair = DualRelevance(calculator, rule).of_pairs(top)
        relevances[name] = pair.test_relevance
    shape = np.shape(pair.test_relevance)
    relevances["magnitude of gradient"] = np.abs(relevances["plain gradient"])
    relevances["bright pixels"] = (
        np.broadcast_to(np.asarray(top.samples, np.float32)[:, np.newaxis], shape)
        * np.sign(np.asarray(top.influence_values))[..., None, None, None]
    )
    relevances["random"] = np.random.default_rng(0).normal(size=shape)
    found: dict[str, dict[str, metrics.PixelFlipping]] = {}
    for name, relevance in relevances.items():
        for cover, value in COVERS.items():
            metric = metrics.PixelFlipping(calculator, cover=value, largest_share=LARGEST_SHARE)
            metric.update_state(pair, relevance)
            found.setdefault(name, {})[cover] = metric
    return found


def draw(found: dict[str, dict[str, metrics.PixelFlipping]], path: pathlib.Path) -> None:
    """Draw the mean curves under both covers."""
    figure, both = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    for axes, cover in zip(both, COVERS, strict=True):
        for name, colour in SHOWN.items():
            metric = found[name][cover]
            style = "--" if name == "random" else "-"
            axes.plot(100 * metric.shares, metric.curve, style, color=colour, label=name, linewidth=1.8)
        axes.set(title=f"covered with {'black' if cover == 'black' else 'their negative'}", xlim=(0, 40))
        axes.set_xlabel("test pixels covered, most relevant first, %")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("influence of the pair, relative")
    both[0].set_ylim(0, 1.02)
    both[1].legend(frameon=False, fontsize=8.5)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure every rule, and print a row for each."""
    arguments = parse_arguments()
    model = keras.models.load_model(arguments.model)
    splits = [f"train[:{arguments.num_train}]", f"test[:{arguments.num_test}]"]
    train, test = tfds.load(
        "mnist", split=splits, as_supervised=True, data_dir=arguments.data_dir, shuffle_files=False
    )
    calculator = DualView(InfluenceModel(model), train.batch(512), kernel="cosine")
    images = next(iter(test.batch(arguments.num_test)))[0]
    queries = tf.data.Dataset.from_tensors(tf.cast(images, tf.float32))
    top = next(iter(calculator.top_k(queries, k=arguments.k)))
    found = measure(calculator, top)
    print(f"{arguments.num_test} test images with {arguments.k} proponents each, area and 95 % interval")
    for name, by_cover in found.items():
        results = {cover: metric.result() for cover, metric in by_cover.items()}
        cells = [
            f"{cover} {result.value:.3f} [{result.interval[0]:.3f}, {result.interval[1]:.3f}]"
            for cover, result in results.items()
        ]
        print(f"  {name:22s} {'   '.join(cells)}", flush=True)
    if arguments.figure is not None:
        draw(found, arguments.figure)


if __name__ == "__main__":
    main()
