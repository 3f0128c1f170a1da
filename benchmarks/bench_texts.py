"""What does an audit of reviews cost beside one pass of the network over them?

    python benchmarks/bench_texts.py --data-dir TFDS_DIRECTORY [--num-train 25000] [--output FILE]

A Bi-LSTM on texts as they are (TextVectorization is its first layer, 25,000 words, the first 80 of a review), trained
for an epoch on the first reviews; the model counts as given. Then, in the same process, `model.predict` of both sets
and the whole audit with its page, without heatmaps and with them. Seconds of the clock on two cores, and the peak of
memory from before the audit.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from memory import peak, reset_peak

from deel_dualview import audit

VOCABULARY, VECTOR, UNITS, LENGTH, NUM_FITTED = 25_000, 64, 32, 80, 5000


def train(texts: tf.data.Dataset) -> keras.Model:
    """Return the network after an epoch on the first reviews."""
    layers = keras.layers
    words = layers.TextVectorization(VOCABULARY, output_sequence_length=LENGTH)
    words.adapt(texts.map(lambda text, _: text))
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            words,
            layers.Embedding(VOCABULARY, VECTOR, mask_zero=True),
            layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(UNITS)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    model.fit(texts.unbatch().take(NUM_FITTED).batch(64), verbose=0)
    return model


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS keeps its datasets")
    parser.add_argument("--num-train", type=int, default=25_000)
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    splits = [f"train[:{options.num_train}]", f"test[:{options.num_test}]"]
    train_set, test_set = (
        one.batch(256)
        for one in tfds.load(
            "imdb_reviews/plain_text",
            split=splits,
            as_supervised=True,
            data_dir=options.data_dir,
            download=False,
        )
    )
    model = train(train_set)
    seconds = {}
    start = time.perf_counter()
    for dataset in (train_set, test_set):
        model.predict(dataset, verbose=0)
    seconds["model.predict of both sets"] = time.perf_counter() - start
    before = reset_peak()
    for name, rule in (("audit", None), ("audit with heatmaps", "epsilon-gamma")):
        start = time.perf_counter()
        report = audit(model, train_set, test_set, relevance=rule, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            report.to_html(pathlib.Path(folder) / "audit")
        seconds[name] = time.perf_counter() - start
    found = {
        "reviews": [options.num_train, options.num_test],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "audit / predict": round(seconds["audit"] / seconds["model.predict of both sets"], 2),
        "steps of the last audit": {step.name: round(step.seconds, 1) for step in report.overview.steps},
        "peak above before, MB": round(peak() - before),
        "findings": [finding.title for finding in report.findings],
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
