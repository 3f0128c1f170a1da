"""What DualView's defaults find on MNIST: certificate, sparsity, fidelity, identical class, swapped labels.

python benchmarks/train_models.py --data-dir DIR --output MODELS
python benchmarks/bench_quality.py --data-dir DIR --models MODELS
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.metrics import roc_auc_score

from deel_dualview import DualView, InfluenceModel

INSPECTED = (0.03, 0.05, 0.10)


def load(split: str, data_dir: str | None) -> tf.data.Dataset:
    """Return MNIST's images and labels in batches."""
    return tfds.load("mnist", split=split, as_supervised=True, data_dir=data_dir, download=False).batch(256)


def attribution_figures(
    model: keras.Model, train: tf.data.Dataset, test: tf.data.Dataset
) -> dict[str, object]:
    """Fit DualView on the clean model and measure it on the test images."""
    start = time.perf_counter()
    calculator = DualView(InfluenceModel(model), train, kernel="cosine")
    seconds = time.perf_counter() - start
    surrogate = calculator.surrogate
    logits = np.concatenate([batch.model_logits for batch in calculator.evaluate(test)])
    labels = np.concatenate([labels for _, labels in test])
    tops = np.concatenate([indices for _, indices in calculator.top_k_indices(test, k=1)])[:, 0]
    fidelity = calculator.surrogate_fidelity(test)
    coefficients = surrogate.coefficients.tocsc()
    return {
        "test_accuracy": float((logits.argmax(1) == labels).mean()),
        "num_queries": len(labels),
        "fit_seconds": round(seconds, 2),
        "K": calculator.K,
        "kernel": calculator.kernel,
        "relative_gap": surrogate.relative_gap,
        "num_support_vectors": surrogate.num_support_vectors,
        "support_vectors_per_class": np.bincount(
            calculator.train_labels[surrogate.support_vectors], minlength=10
        ).tolist(),
        "influential_examples_per_class": np.diff(coefficients.indptr).tolist(),
        "fidelity": vars(fidelity),
        "identical_class_prediction": float((calculator.train_labels[tops] == logits.argmax(1)).mean()),
        "identical_class_label": float((calculator.train_labels[tops] == labels).mean()),
        "distinct_top_1": len(np.unique(tops)),
        "largest_logit_error_bound": float(calculator.logit_error_bound(test).max()),
    }


def swapped_label_figures(folder: pathlib.Path, train: tf.data.Dataset) -> dict[str, object]:
    """Fit DualView on the model trained with swapped labels, and count those found by inspecting a share."""
    stored = np.load(folder / "mnist_swapped.npz")
    given, swapped = stored["train_labels"], stored["swapped_indices"]
    images = train.unbatch().map(lambda image, label: image).batch(256)
    labels = tf.data.Dataset.from_tensor_slices(given).batch(256)
    model = keras.models.load_model(folder / "mnist_swapped.keras", compile=False)
    calculator = DualView(InfluenceModel(model), tf.data.Dataset.zip(images, labels), kernel="cosine")
    wrong = np.zeros(len(given), bool)
    wrong[swapped] = True
    self_influence = np.concatenate(list(calculator.compute_influence_values()))
    figures: dict[str, object] = {"num_swapped": len(swapped)}
    for name, values in (("slack", calculator.surrogate.slack), ("self_influence", self_influence)):
        found = np.cumsum(wrong[np.argsort(-values, kind="stable")]) / len(swapped)
        figures[name] = {
            "roc_auc": float(roc_auc_score(wrong, values)),
            **{f"found_at_{share:.0%}": float(found[int(share * len(given)) - 1]) for share in INSPECTED},
        }
    suggested = calculator.suggested_labels[swapped]
    figures["suggested_is_true"] = float((suggested == stored["true_train_labels"][swapped]).mean())
    return figures


def main() -> None:
    """Measure both models and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=pathlib.Path, required=True, help="folder written by train_models.py"
    )
    parser.add_argument("--data-dir", help="where TFDS keeps MNIST (default: its own place)")
    parser.add_argument("--num-queries", type=int, default=2000)
    options = parser.parse_args()
    train, test = load("train", options.data_dir), load(f"test[:{options.num_queries}]", options.data_dir)
    model = keras.models.load_model(options.models / "mnist.keras", compile=False)
    figures = {
        "attributions": attribution_figures(model, train, test),
        "swapped_labels": swapped_label_figures(options.models, train),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
