"""A linear model at its optimum, whose trainings again a twin in NumPy repeats, and models of other kinds."""

import functools

import keras
import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf

from deel_dualview import ExactIHVP, FirstOrderInfluenceCalculator, InfluenceModel

NUM_TRAIN, NUM_TEST, CLASSES, PENALTY = 80, 12, 3, 0.02


@functools.cache
def examples(seed=0):
    """Return inputs and labels of overlapping classes, training examples first."""
    generator = np.random.default_rng(seed)
    labels = np.arange(NUM_TRAIN + NUM_TEST) % CLASSES
    inputs = generator.normal(size=(len(labels), 4)) + 1.5 * np.eye(CLASSES, 4)[labels]
    return inputs.astype(np.float32), labels


def optimum(inputs, labels, kept=None, sample_weight=None, penalty=PENALTY):
    """Return the weights (5, 3) that minimise the mean loss of the kept examples, of weight 1 / n each, + penalty."""
    x = np.hstack([inputs.astype(np.float64), np.ones((len(inputs), 1))])
    weights = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if kept is not None:
        weights = weights * np.isin(np.arange(len(x)), kept)
    one_hot = np.eye(CLASSES)[labels]

    def objective(flat):
        w = flat.reshape(x.shape[1], CLASSES)
        log_p = scipy.special.log_softmax(x @ w, axis=1)
        errors = (np.exp(log_p) - one_hot) * weights[:, np.newaxis]
        value = -(weights * log_p[np.arange(len(x)), labels]).sum() / len(x) + penalty * (w**2).sum()
        return value, (x.T @ errors / len(x) + 2 * penalty * w).ravel()

    start = np.zeros(x.shape[1] * CLASSES)
    found = scipy.optimize.minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x.reshape(x.shape[1], CLASSES)


def outputs(inputs, weights):
    return inputs.astype(np.float64) @ weights[:-1] + weights[-1]


def batched(*parts, size=32):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def train_set(size=32):
    inputs, labels = examples()
    return batched(inputs[:NUM_TRAIN], labels[:NUM_TRAIN], size=size)


def queries(number=NUM_TEST, size=5):
    return batched(examples()[0][NUM_TRAIN : NUM_TRAIN + number], size=size)


def query(position):
    return batched(examples()[0][NUM_TRAIN + position : NUM_TRAIN + position + 1])


def linear_model(weights):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES)])
    model.layers[0].set_weights([weights[:-1].astype(np.float32), weights[-1].astype(np.float32)])
    return model


@functools.cache
def optimal_model():
    """Return the model whose last layer is the optimum of the penalised loss."""
    inputs, labels = examples()
    return InfluenceModel(linear_model(optimum(inputs[:NUM_TRAIN], labels[:NUM_TRAIN])))


@functools.cache
def first_order():
    """Return influence functions of that model, whose predictions are right to first order."""
    model, train = optimal_model(), train_set()
    return FirstOrderInfluenceCalculator(
        model, train, ExactIHVP(model, train, regularisation=2 * PENALTY, damping=0.0)
    )
