"""How near are DualView's surrogates of regressions and independent labels to the model, and how sparse?

    python benchmarks/bench_other_heads.py [--output benchmarks/results/other-heads.json]

Small networks on data that scikit-learn bundles or makes up; the settings of regressions were chosen on the first four
sets and are judged on the others; those of independent labels are a classifier's cosine kernel, as they are. The time
of the fit is next to that of liblinear on the same features at the same penalty, one thread each, traces made before
the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf
from sklearn.svm import LinearSVC, LinearSVR

from deel_dualview import DualView

CHOSEN_ON = ("friedman1", "digit value", "mean radius", "two targets")
MULTI_LABEL = ("digit properties", "made-up labels", "yes and no of wines")


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, w) and labels (n, t) of a data set."""
    if name.startswith("friedman"):
        make = getattr(sklearn.datasets, f"make_{name}")
        return make(2000, noise={"friedman1": 1.0, "friedman2": 60.0, "friedman3": 0.1}[name], random_state=0)
    if name == "two targets":
        return sklearn.datasets.make_regression(
            1500, 20, n_informative=8, n_targets=2, noise=10.0, random_state=0
        )
    if name == "digit value":
        return sklearn.datasets.load_digits(return_X_y=True)
    if name == "diabetes":
        return sklearn.datasets.load_diabetes(return_X_y=True)
    if name == "mean radius":
        columns = sklearn.datasets.load_breast_cancer().data
        return columns[:, 4:10], columns[:, 0]
    if name == "colour of wines":
        columns = sklearn.datasets.load_wine().data
        return np.delete(columns, 9, axis=1), columns[:, 9]
    if name == "digit properties":
        inputs, digits = sklearn.datasets.load_digits(return_X_y=True)
        return inputs, np.stack([digits % 2 == 0, digits > 4, np.isin(digits, [0, 6, 8, 9])], axis=1).astype(
            int
        )
    if name == "made-up labels":
        return sklearn.datasets.make_multilabel_classification(2000, 30, n_classes=6, random_state=0)
    inputs, wines = sklearn.datasets.load_wine(return_X_y=True)
    return inputs, np.stack([wines == 0, wines == 1, inputs[:, 0] > 13], axis=1).astype(int)


def train(inputs: np.ndarray, labels: np.ndarray, is_multi_label: bool) -> keras.Model:
    """A network of two hidden layers of 32."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, "relu") for _ in range(2)]
    last = keras.layers.Dense(labels.shape[1], "sigmoid" if is_multi_label else None)
    model = keras.Sequential([keras.Input((inputs.shape[1],)), *hidden, last])
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy" if is_multi_label else "mse")
    model.fit(inputs, labels, epochs=60, batch_size=32, verbose=0)
    return model


def seconds_of_peer(
    dualview: DualView, features: np.ndarray, labels: np.ndarray, is_multi_label: bool
) -> float:
    """CPU seconds that liblinear takes for all outputs, at its default tolerance."""
    phi = np.asarray(dualview.feature_map(features))
    penalty = dualview.K / float((phi**2).sum(axis=1).mean())
    start = time.process_time()
    for output in range(labels.shape[1]):
        if is_multi_label:
            LinearSVC(C=penalty, loss="hinge", fit_intercept=False, max_iter=10_000).fit(
                phi, labels[:, output]
            )
        else:
            own = (labels[:, output] - labels[:, output].mean()) / labels[:, output].std()
            LinearSVR(epsilon=0.3, C=penalty, fit_intercept=False, max_iter=10_000).fit(phi, own)
    return time.process_time() - start


def measure(name: str) -> dict[str, object]:
    """Fidelity, sparsity and time of the default surrogate on one data set."""
    is_multi_label = name in MULTI_LABEL
    inputs, labels = load(name)
    labels = np.reshape(labels, (len(inputs), -1)).astype(np.float32)
    if not is_multi_label:
        labels = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    inputs = ((inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-9)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(inputs))
    rows, others = np.split(order, [len(order) * 3 // 4])
    model = train(inputs[rows], labels[rows], is_multi_label)
    train_set = tf.data.Dataset.from_tensor_slices((inputs[rows], labels[rows])).batch(256)
    test_set = tf.data.Dataset.from_tensor_slices((inputs[others],)).batch(256)
    for _ in range(2):
        dualview = DualView(model, train_set, target=0)
    phi = np.asarray(dualview.feature_map(dualview.model.features(inputs[rows])))
    absolute = dualview.K / float((phi**2).sum(axis=1).mean())
    targets = dualview.model.to_targets(labels[rows])
    start = time.process_time()
    if is_multi_label:
        dualview.solver.solve_binary(phi, 2.0 * targets - 1.0, absolute)
    else:
        own = (targets - targets.mean(axis=0)) / targets.std(axis=0)
        dualview.solver.solve_regression(phi, own, absolute, epsilon=0.3)
    seconds = time.process_time() - start
    found = dualview.surrogate_fidelity(test_set)
    outputs, decisions = (
        dualview.surrogate_logits(test_set),
        np.asarray(dualview.model.logits(inputs[others])),
    )
    return {
        "data": name,
        "role": "chosen on" if name in CHOSEN_ON else "judged",
        "kind": "labels" if is_multi_label else "numbers",
        "n": len(rows),
        "outputs": labels.shape[1],
        "r_squared": round(found.r_squared, 3),
        "rank_correlation": round(found.rank_correlation, 3),
        "agreement": round(float(((outputs > 0) == (decisions > 0)).mean()), 3) if is_multi_label else None,
        "share_of_support_vectors": round(dualview.surrogate.coefficients.nnz / targets.size, 3),
        "largest_relative_gap": float(f"{dualview.surrogate.relative_gap.max():.1e}"),
        "cpu_seconds": round(seconds, 2),
        "liblinear_over_ours": round(
            seconds_of_peer(dualview, dualview.model.features(inputs[rows]), labels[rows], is_multi_label)
            / seconds,
            2,
        ),
    }


def main() -> None:
    """Measure all data sets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, help="where the figures are written as JSON")
    arguments = parser.parse_args()
    numbers = ("friedman1", "digit value", "mean radius", "two targets", "friedman2", "friedman3", "diabetes")
    results = []
    for name in (*numbers, "colour of wines", *MULTI_LABEL):
        results.append(measure(name))
        print(results[-1], flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
