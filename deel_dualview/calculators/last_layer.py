"""The last layer of a model, fitted again to its optimum on features that stay as they are."""

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
import tensorflow as tf

from deel_dualview.calculators.targets import has_one_logit
from deel_dualview.curvature.outputs import output_products
from deel_dualview.models import InfluenceModel
from deel_dualview.models.objectives import Objective, SoftmaxCrossEntropy
from deel_dualview.svm.penalised_layer import PenalisedLayer, fit_penalised_layer, fit_softmax_regression


@dataclass(frozen=True)
class _OutputLoss:
    """An objective as the loss of a penalised layer."""

    objective: Objective

    def terms(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        objective = self.objective
        return (
            objective.loss(outputs, targets),
            objective.loss_gradient(outputs, targets),
            objective.hessian_factor(outputs, targets),
        )

    def product(self, factor: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        return output_products(factor, vectors[:, tf.newaxis], self.objective.hessian_kind)[:, 0]

    def mean_diagonal(self, factor: tf.Tensor) -> tf.Tensor:
        diagonal = tf.linalg.diag_part(factor) if self.objective.hessian_kind == "full" else factor
        return tf.reduce_mean(tf.maximum(diagonal, 0.0), axis=1, keepdims=True)


# Kept: traces are found by the loss itself.
output_loss = functools.cache(_OutputLoss)


def fit_last_layer(
    model: InfluenceModel,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    penalty: float,
    sample_weight: np.ndarray | None = None,
    initial_weights: np.ndarray | None = None,
) -> PenalisedLayer:
    """Fit a last layer to the objective of a model, without offset; see `fit_penalised_layer`.

    Args:
        model: whose objective it is; of a binary one with one output one column is fitted.
        features: phi, shape (n, d), float32.
        labels: in the form of the objective; of a classifier classes (n,), or probabilities (n, c).
        penalty: lambda of lambda ||W||^2 beside the mean loss.
        sample_weight: shape (n,), not negative; 1 by default.
        initial_weights: where the iteration starts, shape (d, c).
    """
    if not model.is_classifier:
        return fit_penalised_layer(
            features,
            labels,
            output_loss(model.objective),
            penalty=penalty,
            num_outputs=model.num_outputs,
            sample_weight=sample_weight,
            initial_weights=initial_weights,
        )
    if labels.ndim == 1:
        labels = cast(SoftmaxCrossEntropy, model.objective).soft_labels(labels, model.num_classes)
    targets = labels[:, 1:] if has_one_logit(model) else labels
    return fit_softmax_regression(
        features, targets, penalty=penalty, sample_weight=sample_weight, initial_weights=initial_weights
    )


def weights_of_outputs(model: InfluenceModel, weights: np.ndarray) -> np.ndarray:
    """Return the weights (d, c) of the outputs to explain: of one logit z of two classes those of (-z / 2, z / 2)."""
    return np.hstack([-weights, weights]) / 2 if has_one_logit(model) else weights


class LastLayer:
    """Fits a last layer again on training examples with other weights, each time to its optimum.

    The objective is `1/n sum_i w_i loss_i + lambda ||W||^2`, with a constant feature, which is penalised too, where the
    model's own layer has a bias. It is convex for every objective of Keras, so that the result depends on the examples
    and weights alone.

    Args:
        model: whose objective it is.
        features: of the training set, shape (n, d), float32.
        labels: in the form of the objective, (n,) or (n, t).

    Source: Koh and Liang (2017), section 4.1.
    """

    def __init__(self, model: InfluenceModel, features: np.ndarray, labels: np.ndarray) -> None:
        self.model, self.labels = model, labels
        self._features = self._extended(features)

    @property
    def mean_squared_norm(self) -> float:
        """Mean squared norm of the features with the constant one: the unit of penalties."""
        return float(np.mean(np.sum(self._features.astype(np.float64) ** 2, axis=1)))

    def fit(
        self, sample_weight: np.ndarray | None, penalty: float, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the optimal weights, shape (d or d + 1, c), float64; one column of a binary model with one output.

        Args:
            sample_weight: w, shape (n,); 1 where it is None.
            penalty: lambda.
            start: weights that the iteration starts from.
        """
        found = fit_last_layer(
            self.model,
            self._features,
            self.labels,
            penalty=penalty,
            sample_weight=sample_weight,
            initial_weights=start,
        )
        return found.weights

    def outputs(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the outputs to explain, such as class logits, of other features (m, d) by some weights, (m, c)."""
        rows = self._extended(features).astype(np.float64)
        return np.asarray(rows @ weights_of_outputs(self.model, weights))

    def mean_loss(self, weights: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Return the mean loss of the training set by some weights."""
        return self._mean_loss(self._features @ weights_of_outputs(self.model, weights), sample_weight)

    def mean_loss_of_model(self, sample_weight: np.ndarray | None) -> float:
        """Return the mean loss of the training set by the model's own last layer."""
        features = tf.constant(self._features[:, : self.model.num_features])
        return self._mean_loss(self.model.logits_of_features(features).numpy(), sample_weight)

    def _mean_loss(self, outputs: np.ndarray, sample_weight: np.ndarray | None) -> float:
        targets = tf.constant(self.labels)
        losses = self.model.objective.loss(tf.constant(outputs, tf.float32), targets).numpy()
        return float(np.average(losses.astype(np.float64), weights=sample_weight))

    def _extended(self, features: np.ndarray) -> np.ndarray:
        head = self.model.head
        if head is None or not head.has_bias:
            return features
        return np.hstack([features, np.ones((len(features), 1), features.dtype)])
