"""Influence against true leave-one-out retraining of an L2-regularised softmax head on features.

    python benchmarks/train_models.py --data-dir DIR --output MODELS
    python benchmarks/check_leave_one_out.py --features MODELS/mnist_features.npz

The objective is (1 / n) sum of cross-entropies + lambda / 2 ||W||^2. An example is removed by leaving out its
term; the others keep their weight 1 / n. Every optimum is found by Newton's method in float64 to a gradient
norm of 1e-10. The slope and the correlation are those of the actual on the predicted changes of the queries'
losses, over all pairs of 50 removed examples and 200 queries. The few random examples of high leverage,
which first order does not see, dominate that slope; so the median of the slopes of single removals is told
too, and the slope over the random examples of leverage below 0.1.

lambda means nothing without the scale of the features: `--scale mean-square` divides them all by one number, so
that E||phi||^2 = 1 over the training set; `--scale unit` divides each by its own norm; `--scale none` takes them
as the network gives them.

On few cores set OMP_NUM_THREADS=1.
"""

import argparse
import json
import os
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview import (
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
)

GRADIENT_NORM = 1e-10
NUM_REMOVED = 50
LOW_LEVERAGE = 0.1


class Head:
    """The regularised softmax regression of one training set, in float64."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, regularisation: float) -> None:
        self.features, self.labels = features.astype(np.float64), labels
        self.regularisation = regularisation
        self.one_hot = np.eye(labels.max() + 1)[labels]
        self.weights, self.factor = self._fit()

    def without(self, index: int) -> np.ndarray:
        """Return the optimal weights (c, d) when one example is left out, from the full optimum on."""
        present = np.ones(len(self.labels))
        present[index] = 0
        weights = self.weights
        for _ in range(100):
            probabilities, gradient = self._gradient(weights, present)
            if np.linalg.norm(gradient) <= GRADIENT_NORM:
                return weights
            weights = weights - self._newton_step(probabilities, gradient, present)
        raise RuntimeError(f"example {index}: gradient norm {np.linalg.norm(gradient)}")

    def _fit(self) -> tuple[np.ndarray, tuple[np.ndarray, bool]]:
        weights, present = (
            np.zeros((self.one_hot.shape[1], self.features.shape[1])),
            np.ones(len(self.labels)),
        )
        for _ in range(200):
            probabilities, gradient = self._gradient(weights, present)
            factor = scipy.linalg.cho_factor(self._hessian(probabilities))
            if np.linalg.norm(gradient) <= GRADIENT_NORM:
                return weights, factor
            step = scipy.linalg.cho_solve(factor, gradient.ravel()).reshape(weights.shape)
            weights = self._line_search(weights, step, np.sum(step * gradient))
        raise RuntimeError(f"gradient norm {np.linalg.norm(gradient)}")

    def _line_search(self, weights: np.ndarray, step: np.ndarray, decrease: float) -> np.ndarray:
        before, length = self._objective(weights), 1.0
        while (
            length > 1e-6
            and self._objective(weights - length * step) > before - 1e-4 * length * decrease + 1e-13
        ):
            length /= 2
        return weights - length * step

    def _objective(self, weights: np.ndarray) -> float:
        return losses(weights, self.features, self.labels).mean() + self.regularisation / 2 * np.sum(
            weights**2
        )

    def _gradient(self, weights: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities = softmax(self.features @ weights.T)
        errors = present[:, np.newaxis] * (probabilities - self.one_hot)
        return probabilities, errors.T @ self.features / len(self.labels) + self.regularisation * weights

    def _hessian(self, probabilities: np.ndarray) -> np.ndarray:
        num_outputs, num_inputs = probabilities.shape[1], self.features.shape[1]
        hessian = np.empty((num_outputs, num_inputs, num_outputs, num_inputs))
        for a in range(num_outputs):
            for b in range(a, num_outputs):
                weights = probabilities[:, a] * ((a == b) - probabilities[:, b])
                block = self.features.T @ (weights[:, np.newaxis] * self.features) / len(self.labels)
                hessian[a, :, b], hessian[b, :, a] = block, block.T
        size = num_outputs * num_inputs
        return hessian.reshape(size, size) + self.regularisation * np.eye(size)

    def _newton_step(
        self, probabilities: np.ndarray, gradient: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """Solve by conjugate gradients, preconditioned by the Hessian of the full training set."""

        def product(direction: np.ndarray) -> np.ndarray:
            logits = self.features @ direction.T
            logits = probabilities * (logits - np.sum(probabilities * logits, axis=1, keepdims=True))
            return (present[:, np.newaxis] * logits).T @ self.features / len(present) + (
                self.regularisation * direction
            )

        def precondition(residual: np.ndarray) -> np.ndarray:
            return scipy.linalg.cho_solve(self.factor, residual.ravel()).reshape(residual.shape)

        step, residual = np.zeros_like(gradient), gradient
        direction = conditioned = precondition(residual)
        target = max(1e-4 * np.linalg.norm(gradient), GRADIENT_NORM / 10)
        while np.linalg.norm(residual) > target:
            image = product(direction)
            inner = np.sum(residual * conditioned)
            length = inner / np.sum(direction * image)
            step, residual = step + length * direction, residual - length * image
            conditioned = precondition(residual)
            direction = conditioned + np.sum(residual * conditioned) / inner * direction
        return step


class Agreement(NamedTuple):
    """How far predicted changes agree with actual ones."""

    slope: float
    pearson: float
    median_slope: float


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, row by row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def losses(weights: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return cross-entropies, shape (m,)."""
    logits = features @ weights.T
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]


def agreement(actual: np.ndarray, predicted: np.ndarray) -> Agreement:
    """Regress actual on predicted changes, over all pairs."""
    predicted = predicted.astype(np.float64)
    covariance = np.cov(predicted.ravel(), actual.ravel())
    products, squares = np.sum(predicted * actual, axis=0), np.sum(predicted**2, axis=0)
    return Agreement(
        round(float(covariance[0, 1] / covariance[0, 0]), 4),
        round(float(np.corrcoef(predicted.ravel(), actual.ravel())[0, 1]), 4),
        round(float(np.median(products[squares > 0] / squares[squares > 0])), 4),
    )


def check(
    train: tuple[np.ndarray, np.ndarray], queries: tuple[np.ndarray, np.ndarray], regularisation: float
) -> dict[str, object]:
    """Train, predict every removal, remove 50 random examples and the 50 of highest leverage, and compare."""
    start = time.perf_counter()
    head = Head(*train, regularisation)
    layer = keras.layers.Dense(head.weights.shape[0], use_bias=False)
    model = keras.Sequential([keras.Input((head.weights.shape[1],)), layer])
    layer.set_weights([head.weights.T])
    train_set = tf.data.Dataset.from_tensor_slices(train).batch(1000)
    test_set = tf.data.Dataset.from_tensor_slices(queries).batch(200)
    influence_model = InfluenceModel(model)
    ihvp = ExactIHVP(influence_model, train_set, regularisation=regularisation)
    calculators = {
        "first order": FirstOrderInfluenceCalculator(influence_model, train_set, ihvp, target="label"),
        "leverage corrected": LeverageCorrectedInfluenceCalculator(
            influence_model, train_set, ihvp, target="label"
        ),
    }
    predicted = {
        name: np.concatenate(list(calculator.estimate_influence_values_in_batches(test_set)))
        for name, calculator in calculators.items()
    }
    corrected = calculators["leverage corrected"]
    leverages = np.concatenate([corrected.leverages(element) for element in train_set])
    random = np.random.default_rng(0).choice(len(leverages), NUM_REMOVED, replace=False)
    removed = {
        "random": random,
        "random, of low leverage": random[leverages[random] < LOW_LEVERAGE],
        "highest leverage": np.argsort(-leverages)[:NUM_REMOVED],
    }
    before = losses(head.weights, queries[0], queries[1])
    figures: dict[str, object] = {"n": len(leverages), "lambda": regularisation}
    figures["mean squared norm of the features"] = round(float(np.mean(np.sum(train[0] ** 2, axis=1))), 4)
    for choice, indices in removed.items():
        actual = np.stack([losses(head.without(index), *queries) - before for index in indices], axis=1)
        figures[f"{choice}: number"] = len(indices)
        figures[f"{choice}: mean leverage"] = round(float(leverages[indices].mean()), 4)
        for name, values in predicted.items():
            figures[f"{choice}: {name}"] = agreement(actual, values[:, indices])._asdict()
    figures["seconds"] = round(time.perf_counter() - start, 1)
    return figures


def scaled(
    train: tuple[np.ndarray, np.ndarray], queries: tuple[np.ndarray, np.ndarray], scale: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training set and the queries with their features scaled."""
    root = np.sqrt(np.mean(np.sum(train[0].astype(np.float64) ** 2, axis=1)))
    found = []
    for features, labels in (train, queries):
        if scale == "unit":
            divisor = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        else:
            divisor = root if scale == "mean-square" else 1.0
        found.append(((features / divisor).astype(np.float32), labels))
    return found


def main() -> None:
    """Check every training set and regularisation asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", required=True, help="mnist_features.npz, written by train_models.py")
    parser.add_argument("--num-train", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--regularisation", type=float, nargs="+", default=[1e-2, 1e-3, 1e-4])
    parser.add_argument("--num-queries", type=int, default=200)
    parser.add_argument("--scale", choices=("mean-square", "unit", "none"), nargs="+", default=["none"])
    options = parser.parse_args()
    stored = np.load(options.features)
    queries = tuple(stored[f"test_{part}"][: options.num_queries] for part in ("features", "labels"))
    for num_train in options.num_train:
        train = tuple(stored[f"train_{part}"][:num_train] for part in ("features", "labels"))
        for scale in options.scale:
            problem = scaled(train, queries, scale)
            for regularisation in options.regularisation:
                figures = {"scale": scale, **check(*problem, regularisation)}
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
