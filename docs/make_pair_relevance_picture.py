"""Draw the pair relevance that the documentation shows: a wrong prediction on MNIST and what made it.

    python docs/make_pair_relevance_picture.py --model models/mnist.keras [--data-dir DIRECTORY]

The model is the one of `benchmarks/train_models.py`; the images come from TensorFlow Datasets.
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_dualview import ORDER, DualRelevance, DualView, InfluenceModel, plots


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).parent / "assets" / "pair_relevance.png"
    parser.add_argument("--model", type=pathlib.Path, required=True, help="takes images of 0..255")
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    parser.add_argument("--output", type=pathlib.Path, default=default, help="where the picture goes")
    parser.add_argument("--rank", type=int, default=0, help="which of the wrong predictions")
    return parser.parse_args()


def wrong_prediction(model: keras.Model, test: tf.data.Dataset, rank: int) -> np.ndarray:
    """Return one test image that the model gets wrong, as a batch of one."""
    images, labels = next(iter(test.batch(2000)))
    wrong = np.flatnonzero(np.asarray(model(images)).argmax(axis=1) != labels)
    chosen = int(wrong[rank])
    return images.numpy()[chosen : chosen + 1]


def main() -> None:
    """Explain one wrong prediction and draw it."""
    arguments = parse_arguments()
    model = keras.models.load_model(arguments.model)
    splits = {"split": ["train", "test"], "as_supervised": True, "data_dir": arguments.data_dir}
    train, test = tfds.load("mnist", shuffle_files=False, **splits)
    image = wrong_prediction(model, test, arguments.rank)
    query = tf.data.Dataset.from_tensors(image)
    relevance = DualRelevance(DualView(InfluenceModel(model), train.batch(512), kernel="cosine"))
    proponents, opponents = (
        next(iter(relevance.explain(query, k=4, order=order)))
        for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    )
    figure = plots.pair_relevance(
        proponents, opponents=opponents, class_names=[f"digit {digit}" for digit in range(10)]
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=130)


if __name__ == "__main__":
    main()
