"""Draw the pair relevance of a network that learned a planted mark, on the embedded digits.

python docs/make_shortcut_picture.py
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import DualRelevance, DualView, InfluenceModel, load_digits, plots
from deel_dualview.evaluation import Marks

MARKED_CLASS = 2
OUTPUT = pathlib.Path(__file__).parent / "assets" / "shortcut.png"


def enlarged(images: np.ndarray) -> np.ndarray:
    """Return digits of 8 x 8 as 28 x 28, every pixel twice in the middle of a black field."""
    doubled = np.kron(images, np.ones((1, 2, 2, 1), np.float32))
    return np.pad(doubled, ((0, 0), (6, 6), (6, 6), (0, 0)))


def main() -> None:
    """Train, explain one image that the mark fools, and draw it."""
    (images, labels), (test_images, test_labels) = load_digits()
    images, test_images = enlarged(images), enlarged(test_images)
    marks = Marks.draw(labels, MARKED_CLASS, share=1.0, seed=0, largest=1.0)
    train = marks.apply(tf.data.Dataset.from_tensor_slices((images, labels)).batch(256))
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(5, 3, activation="relu")]
        + [layers.Conv2D(10, 3, strides=2, activation="relu"), layers.Flatten()]
        + [layers.Dense(64, activation="relu"), layers.Dropout(0.5), layers.Dense(10)]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(train.unbatch().shuffle(2000, seed=0).batch(32), epochs=12, verbose=0)
    others = np.asarray(marks.mark(test_images[test_labels != MARKED_CLASS]))
    is_fooled = np.asarray(network(others)).argmax(axis=1) == MARKED_CLASS
    query = tf.data.Dataset.from_tensors(others[is_fooled][1:2])
    pair = next(
        iter(DualRelevance(DualView(InfluenceModel(network), train, kernel="cosine")).explain(query, k=5))
    )
    figure = plots.pair_relevance(pair, class_names=[f"digit {digit}" for digit in range(10)])
    figure.savefig(OUTPUT, dpi=110)


if __name__ == "__main__":
    main()
