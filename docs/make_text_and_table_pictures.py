"""Draw the relevance of texts and tables that the documentation shows: news articles, and applicants for credit.

    python docs/make_text_and_table_pictures.py [--data-dir DIRECTORY] [--output docs/assets]

Trains two small networks on AG News and German Credit, of TensorFlow Datasets, in a minute.
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_dualview import ORDER, DualRelevance, DualView, InfluenceModel, plots

layers = keras.layers
NUM_NEWS, LENGTH, NUM_CUSTOMERS = 4000, 48, 800


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).parent / "assets"
    parser.add_argument("--data-dir", help="of TensorFlow Datasets")
    parser.add_argument("--output", type=pathlib.Path, default=default, help="where the pictures go")
    return parser.parse_args()


def explain(stack: list[keras.Layer], inputs: np.ndarray, labels: np.ndarray, query: np.ndarray, epochs: int):
    """Train a network and return the two strongest proponents and opponents of one prediction."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=inputs.dtype), *stack])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, labels, epochs=epochs, verbose=0)
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(256)
    relevance = DualRelevance(DualView(InfluenceModel(model), train))
    one = tf.data.Dataset.from_tensors((query, np.zeros(1, np.int64)))
    return [
        next(iter(relevance.explain(one, k=2, order=order))) for order in (ORDER.DESCENDING, ORDER.ASCENDING)
    ]


def draw_news(data_dir: str | None, path: pathlib.Path) -> None:
    """Explain the first article of the test set."""
    builder = tfds.builder("ag_news_subset", data_dir=data_dir)
    splits = builder.as_dataset(split=[f"train[:{NUM_NEWS}]", "test[:1]"], as_supervised=True)
    (texts, labels), (query, _) = (next(iter(split.batch(NUM_NEWS))) for split in splits)
    vectorize = layers.TextVectorization(5000, output_sequence_length=LENGTH)
    vectorize.adapt(texts)
    stack = [
        layers.Embedding(5000, 32), layers.Conv1D(32, 3, activation="relu"), layers.GlobalMaxPooling1D(),
        layers.Dense(32, activation="relu"), layers.Dense(4),
    ]  # fmt: skip
    pair, opponents = explain(
        stack, vectorize(texts).numpy(), labels.numpy(), vectorize(query).numpy(), epochs=8
    )
    names = builder.info.features["label"].names
    figure = plots.token_relevance(
        pair, opponents=opponents, vocabulary=vectorize.get_vocabulary(), class_names=names
    )
    figure.savefig(path, dpi=110)


def draw_credit(data_dir: str | None, path: pathlib.Path) -> None:
    """Explain the first applicant that the network has not seen."""
    whole = tfds.load("german_credit_numeric", split="train", as_supervised=True, data_dir=data_dir)
    rows, labels = (part.numpy() for part in next(iter(whole.batch(1000))))
    mean, deviation = rows[:NUM_CUSTOMERS].mean(axis=0), rows[:NUM_CUSTOMERS].std(axis=0)
    rows = ((rows - mean) / deviation).astype(np.float32)
    stack = [layers.Dense(24, activation="relu"), layers.Dense(12, activation="relu"), layers.Dense(2)]
    given = rows[:NUM_CUSTOMERS], labels[:NUM_CUSTOMERS], rows[NUM_CUSTOMERS : NUM_CUSTOMERS + 1]
    pair, opponents = explain(stack, *given, epochs=30)
    figure = plots.column_relevance(pair, opponents=opponents, num_columns=6, class_names=["good", "bad"])
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw both."""
    arguments = parse_arguments()
    draw_news(arguments.data_dir, arguments.output / "token_relevance.png")
    draw_credit(arguments.data_dir, arguments.output / "column_relevance.png")


if __name__ == "__main__":
    main()
