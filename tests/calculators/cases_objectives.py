"""Small models with other heads than a softmax, at their optimum, and what retraining without one example does."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import CustomLoss, Huber, IndependentSigmoids, InfluenceModel, Objective, SquaredError
from deel_dualview.calculators.last_layer import output_loss
from deel_dualview.svm.penalised_layer import fit_penalised_layer

NUM_TRAIN, NUM_TEST, NUM_FEATURES, PENALTY = 60, 8, 4, 0.02


def log_cosh(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.log(tf.cosh(outputs - labels)), axis=1)


class Head(NamedTuple):
    """A linear model of c outputs at the optimum of `mean loss + PENALTY ||W||^2`, and its data."""

    objective: Objective
    model: InfluenceModel
    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray

    @property
    def num_outputs(self) -> int:
        return self.model.num_outputs

    def train_set(self, batch_size: int = 25) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((self.inputs, self.labels)).batch(batch_size)

    def test_set(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((self.test_inputs,)).batch(3)

    def test_outputs_without(self, left_out: int | None) -> np.ndarray:
        """Return the outputs for the test examples of a layer that is trained without one example."""
        kept = np.delete(np.arange(NUM_TRAIN), [] if left_out is None else [left_out])
        # The others keep their weight 1 / n.
        penalty = PENALTY * NUM_TRAIN / len(kept)
        weights = fit(self.objective, self.inputs[kept], self.labels[kept], penalty)
        return self.test_inputs @ weights


def fit(objective: Objective, inputs: np.ndarray, labels: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """Return the weights (d, c) at the optimum."""
    found = fit_penalised_layer(
        inputs, labels, output_loss(objective), penalty=penalty, tolerance=1e-10, num_outputs=labels.shape[1]
    )
    return found.weights


def make_head(objective: Objective, num_outputs: int) -> Head:
    generator = np.random.default_rng(num_outputs)
    inputs = generator.normal(size=(NUM_TRAIN + NUM_TEST, NUM_FEATURES)).astype(np.float32)
    labels = inputs @ generator.normal(size=(NUM_FEATURES, num_outputs)) + generator.normal(
        size=(len(inputs), 1)
    )
    labels = (labels > 0) if isinstance(objective, IndependentSigmoids) else labels
    labels = labels.astype(np.float32)[:NUM_TRAIN]
    train, test = inputs[:NUM_TRAIN], inputs[NUM_TRAIN:]
    keras_model = keras.Sequential(
        [keras.Input((NUM_FEATURES,)), keras.layers.Dense(num_outputs, use_bias=False)]
    )
    keras_model.layers[0].set_weights([fit(objective, train, labels)])
    return Head(objective, InfluenceModel(keras_model, loss_function=objective), train, labels, test)


HEADS = {
    "squared-1": (SquaredError(), 1),
    "squared-3": (SquaredError(), 3),
    "sigmoids-3": (IndependentSigmoids(), 3),
    "huber-2": (Huber(1.0), 2),
    "custom-2": (CustomLoss(log_cosh, "logits"), 2),
}
