"""Slow twins of the published formulas, in NumPy, float64, on a layer written out as a matrix."""

import numpy as np


def matrix_of(layer, input_shape):
    """Return the weights between every input and every output (inputs, outputs), and the biases (outputs,)."""
    size = int(np.prod(input_shape))
    zero = np.asarray(layer(np.zeros((1, *input_shape), np.float32)), np.float64).reshape(-1)
    weights = layer.get_weights()
    layer.set_weights([weight if weight.ndim > 1 else np.zeros_like(weight) for weight in weights])
    basis = np.eye(size, dtype=np.float32).reshape(size, *input_shape)
    outputs = np.asarray(layer(basis), np.float64).reshape(size, -1)
    layer.set_weights(weights)
    return outputs, zero


def share(contributions, bias_shares, relevance, epsilon=0.0):
    """Return sum_j c_ij / (sum_i c_ij + d_j) R_j over neurons whose denominator is not zero."""
    shared = np.zeros(len(contributions))
    totals = [contributions[:, j].sum() + bias_shares[j] for j in range(len(relevance))]
    scale = np.sqrt(np.mean(np.square(totals)))
    for j, total in enumerate(totals):
        denominator = total + epsilon * scale * (1 if total >= 0 else -1)
        if denominator != 0:
            shared += contributions[:, j] / denominator * relevance[j]
    return shared


def epsilon(inputs, weights, bias, relevance, *, epsilon=1e-6):
    return share(inputs[:, None] * weights, bias, relevance, epsilon)


def z_plus(inputs, weights, bias, relevance):
    return share(np.maximum(inputs[:, None] * weights, 0), np.maximum(bias, 0), relevance)


def alpha_beta(inputs, weights, bias, relevance, *, alpha=2.0, beta=1.0):
    z = inputs[:, None] * weights
    positive = share(np.maximum(z, 0), np.maximum(bias, 0), relevance)
    return alpha * positive - beta * share(np.minimum(z, 0), np.minimum(bias, 0), relevance)


def gamma(inputs, weights, bias, relevance, *, gamma=0.25, epsilon=0.0):
    z = inputs[:, None] * weights
    is_positive = z.sum(axis=0) + bias >= 0
    up, down = (
        share(z + gamma * part(z, 0), bias + gamma * part(bias, 0), np.where(is_own, relevance, 0), epsilon)
        for part, is_own in ((np.maximum, is_positive), (np.minimum, ~is_positive))
    )
    return up + down


def flat(inputs, weights, bias, relevance):
    return share((weights != 0).astype(float), np.zeros_like(bias), relevance)


def w_square(inputs, weights, bias, relevance):
    return share(weights**2, np.zeros_like(bias), relevance)


def z_box(inputs, weights, bias, relevance, *, low=-3.0, high=4.0):
    contributions = inputs[:, None] * weights - low * np.maximum(weights, 0) - high * np.minimum(weights, 0)
    return share(contributions, np.zeros_like(bias), relevance)


def winner_takes_all(inputs, relevance, window):
    """Return the relevance of the inputs (h, w, c) of a maximum over windows that do not overlap."""
    shared = np.zeros_like(inputs, np.float64)
    for row, column, channel in np.ndindex(*relevance.shape):
        rows, columns = (
            slice(place * size, (place + 1) * size) for place, size in ((row, window[0]), (column, window[1]))
        )
        best = np.unravel_index(np.argmax(inputs[rows, columns, channel]), window)
        shared[row * window[0] + best[0], column * window[1] + best[1], channel] += relevance[
            row, column, channel
        ]
    return shared
