"""Time and memory of whole-network gradient products with random projections on the MNIST CNN.

    python benchmarks/bench_gradients.py --model mnist.keras --data-dir DIR [--num-examples 60000] [--threads
    2]

The model is the CNN of the DualView paper (1,262,565 parameters), the data come from TensorFlow Datasets.
Set-up is the pass over the training set, queries are 100 test images. Memory is the growth of the process'
peak, with the images and the model loaded and called before.
"""

import argparse
import json
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from memory import peak, reset_peak

from deel_dualview import GradCos, InfluenceModel, PerExampleGradients
from deel_dualview.linalg import projections
from deel_dualview.linalg.blocks import Blocks, inner_products

_PROJECTIONS = {
    "factored": projections.FactoredProjection,
    "gaussian": projections.GaussianProjection,
    "kronecker": lambda size: projections.KroneckerProjection(8, size // 8),
}


def main() -> None:
    """Measure and print one line of JSON."""
    options = _options()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images, labels = _load("train", options.num_examples, options.data_dir)
    queries = tf.data.Dataset.from_tensor_slices(_load("test", 100, options.data_dir)).batch(100)
    train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(options.batch_size)
    model = InfluenceModel(keras.models.load_model(options.model, compile=False))
    model.logits(images[: options.batch_size])
    list(train.take(2))
    before = reset_peak()
    start = time.perf_counter()
    calculator = GradCos(
        model,
        train,
        normalize="train",
        function=options.function,
        weights="all",
        projection=_PROJECTIONS[options.projection](options.size),
    )
    built = time.perf_counter()
    list(calculator.top_k_indices(queries, k=5))
    first = time.perf_counter()
    list(calculator.top_k_indices(queries, k=5))
    result = {
        "examples": options.num_examples,
        "parameters": calculator.gradients.size,
        "projection": calculator.gradients.projection.describe(),
        "threads": options.threads,
        "batch": options.batch_size,
        "set-up s": round(built - start, 2),
        "100 queries, first s": round(first - built, 3),
        "100 queries, warm s": round(time.perf_counter() - first, 3),
        "extra peak MB": round(peak() - before, 1),
        "stored MB": round(4e-6 * options.num_examples * options.size, 1),
        "correlation with exact": round(_agreement(model, images, labels, options), 4),
    }
    print(json.dumps(result))


def _agreement(
    model: InfluenceModel, images: tf.Tensor, labels: tf.Tensor, options: argparse.Namespace
) -> float:
    """Correlate projected cosines with exact ones over pairs of 64 examples."""
    gradients = PerExampleGradients(model, "all", function=options.function)
    exact = _cosines(gradients(images[:64], labels[:64]))
    projection = _PROJECTIONS[options.projection](options.size)
    found = _cosines(
        PerExampleGradients(model, "all", function=options.function, projection=projection)(
            images[:64], labels[:64]
        )
    )
    return float(np.corrcoef(exact, found)[0, 1])


def _cosines(vectors: Blocks) -> np.ndarray:
    products = inner_products(vectors, vectors).numpy()
    norms = np.sqrt(np.diag(products))
    return (products / norms / norms[:, None])[np.triu_indices(len(norms), 1)]


def _load(split: str, num_examples: int, data_dir: str | None) -> tuple[tf.Tensor, tf.Tensor]:
    dataset = tfds.load("mnist", split=f"{split}[:{num_examples}]", data_dir=data_dir, as_supervised=True)
    images, labels = next(iter(dataset.batch(num_examples)))
    return images, labels


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a .keras file that takes raw uint8 images")
    parser.add_argument("--data-dir", default=None, help="of TensorFlow Datasets")
    parser.add_argument("--num-examples", type=int, default=60_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="number of projections")
    parser.add_argument("--projection", choices=_PROJECTIONS, default="factored")
    parser.add_argument("--function", choices=("loss", "logit"), default="logit")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
